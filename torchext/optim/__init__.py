r"""Optimizers whose iterates are low-precision integers around a full-precision centre.

=========================  ==========================================================================
:class:`HALP`              SVRG on integers of a few bits; no floor of accuracy
:class:`BitCentredSGD`     the same without the correction: one gradient a step
:class:`LPSVRG`            SVRG on a fixed lattice
:class:`LPSGD`             SGD on a fixed lattice
:class:`SVRG`              variance reduction in full precision
=========================  ==========================================================================

All are ``torch.optim.Optimizer``: param groups, schedulers, closures and ``state_dict`` work as usual.
docs/optimizers.md has the formulas, what is unbiased, and when to use which.

**Options of all optimizers** (groups may set those marked \*):

* ``weight_decay`` \* (0), on the true weights; ``decoupled_weight_decay`` \* (False): added after the
  momentum;
* ``momentum``, ``dampening``, ``nesterov``, ``maximize`` \*: as in ``torch.optim.SGD``;
* ``foreach=False`` \*: plain torch operations, slow, the same weights to the bit;
* ``seed`` (None: drawn from torch's generator);
* ``telemetry`` (False): count saturation and rounding noise;
* ``error_if_nonfinite`` (False): raise before a weight moves, instead of skipping such elements; waits for
  the gradients;
* ``capturable`` (False): the step can be captured in a CUDA graph (docs/cuda.md): steps are counted on the
  device, and a tensor ``lr`` is read there. Goes with ``option="I"`` without ``loopless``,
  ``reset_momentum``, ``anchor="running"``, ``error_if_nonfinite`` or ``foreach=False``.

Parameters may be on the CPU or on CUDA, and groups may mix devices; the state is on the device of its
parameter. The same gradients give the same bits on both. Steps never wait for a device, except as said above
and under ``foreach=False``.

**Options of those with a centre**:

* ``svrg_coef`` \* (1.0): the factor of the correction, 0 to 1;
* ``option``: the next centre is the last iterate (``"I"``), a random one of the epoch (``"II"``, as in the
  theorems) or their ``"mean"``;
* ``loopless`` (False): re-centre by a coin of 1/T before each step;
* ``reset_momentum`` (False): forget the momentum at each centre;
* ``anchor_dtype`` (None): ``torch.bfloat16`` halves the memory of the full gradient;
* ``preserve_rng`` (True): the pass at the centre uses the random numbers of the pass at the weights;
* ``process_group`` (None: the default one) and ``sync`` ("auto"): average the full gradient over the
  ranks, and agree on the seed, where torch.distributed is initialised.
"""

from __future__ import annotations

from torchext.optim import ops as ops
from torchext.optim._full_gradient import RecenterInfo, full_gradient_closures
from torchext.optim._halp import HALP, BitCentredSGD
from torchext.optim._lp import LPSGD, LPSVRG
from torchext.optim._svrg import SVRG

__all__ = [
    "HALP",
    "LPSGD",
    "LPSVRG",
    "SVRG",
    "BitCentredSGD",
    "RecenterInfo",
    "full_gradient_closures",
    "ops",
]
