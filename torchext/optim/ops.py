r"""Optimizer steps on a lattice, as ops over lists of tensors: one call per step, dtype and device.

Tensor k of a list has weights :math:`w = c + \delta q`: a centre :math:`c` (float32; float64 for float64
weights), a spacing :math:`\delta > 0` and integers :math:`-2^{b-1} \le q < 2^{b-1}`. ``z`` stores
:math:`q` as uint8 (two codes a byte, element 2k in the low half, two's complement), int8, int16 or as
float32. :mod:`torchext.optim` has the optimizers made of these ops; docs/optimizers.md the formulas.

Everywhere an empty list stands for "none"; tensors of a list have one dtype. ``params`` may have any
strides that do not overlap, gradients any; all else is contiguous in row-major order. All tensors of a
call are on one device; on CUDA nothing is read back, so nothing is refused for its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "foreach_halp_commit_",
    "foreach_halp_encode_",
    "foreach_halp_materialize_",
    "foreach_halp_step_",
    "foreach_svrg_step_",
]

#: Bits of ``flags``.
NEAREST, MAXIMIZE, NESTEROV, DECOUPLED, FIRST_MOMENTUM = 1, 2, 4, 8, 16

_ops: Any = torch.ops.torchext


def _step(op: Any, lr: float | Tensor) -> Any:
    """The overload for the kind of rate: torch would read a tensor to get a number."""
    return op.lr_tensor if isinstance(lr, Tensor) else op.default


def foreach_halp_step_(
    params: Sequence[Tensor],
    z: Sequence[Tensor],
    center: Sequence[Tensor],
    delta: Sequence[Tensor],
    grad: Sequence[Tensor],
    grad_center: Sequence[Tensor],
    full_grad: Sequence[Tensor],
    buf: Sequence[Tensor],
    stats: Sequence[Tensor],
    lr: float | Tensor,
    weight_decay: float,
    coef: float,
    momentum: float,
    dampening: float,
    bits: int,
    flags: int,
    key: Tensor,
    streams: Sequence[int],
) -> None:
    r"""One stochastic-rounding step of HALP, bit-centred SGD, LP-SVRG or LP-SGD.

    .. math::
       v &= g - \kappa\,(g_c - \tilde g) + \lambda w, \quad b \leftarrow \mu b + (1 - \tau) v, \\
       t &= -(\mathrm{fl}(\eta/\delta)\, v), \quad r = \lfloor t\rfloor + [u < t - \lfloor t\rfloor], \quad
       q \leftarrow \mathrm{clamp}(q + r), \quad w \leftarrow c + \delta q, \quad \mathrm{E}\,r = t

    with :math:`v` after the momentum stage as in ``torch.optim.SGD``; u is the 24-bit uniform of the
    element, draw 0 of the tensor's stream. t is clamped to :math:`\pm 2^{24}`; elements whose t is not
    finite are left alone. A tensor whose spacing is 0 or subnormal is left alone.

    Args:
        params: weights, float32, float64, bfloat16 or float16, rewritten.
        z: codes, one contiguous tensor each, rewritten.
        center: c, float32 (float64 for float64 weights), or none: 0.
        delta: spacings, one element each, dtype of ``center``.
        grad: g, the gradients at w, dtype of ``params``.
        grad_center: :math:`g_c`, gradients of the same examples at c, or none.
        full_grad: :math:`\tilde g`, the full gradients at c, any float dtype, or none. Without
            ``grad_center``, ``grad`` holds :math:`g - \kappa g_c` already.
        buf: momentum b, dtype of ``center``, rewritten; or none.
        stats: float64 (6,) each, or none; added to: saturated elements, elements whose q stayed,
            :math:`\sum (r - t)^2`, :math:`\sum t^2`, (set to) :math:`\max|q|`, elements skipped.
        lr, weight_decay, coef, momentum, dampening: :math:`\eta, \lambda, \kappa, \mu, \tau`; ``lr``
            a number, or a float32 or float64 tensor of one element on the device of ``params``.
        bits: b, 2 up to what ``z`` holds (4, 8, 16; 24 for float32).
        flags: sum of 1 nearest rounding (u = 1/2), 2 maximize, 4 Nesterov, 8 decoupled weight decay
            (added after the momentum), 16 first step of the momentum (b = v).
        key: int64 (2,).
        streams: the number of each tensor in the random stream.

    Returns:
        Nothing; ``params``, ``z``, ``buf`` and ``stats`` are rewritten.

    Raises:
        RuntimeError: for lists of unequal length, wrong dtypes or sizes, bits or flags out of range.

    Determinism: class A; same key, same bits on every device and for any grouping of the tensors.

    Example:
        >>> p, z = [torch.zeros(3)], [torch.zeros(3, dtype=torch.int8)]
        >>> c, d, g = [torch.ones(3)], [torch.tensor(0.25)], [torch.tensor([1.0, -2.0, 0.0])]
        >>> key = torch.tensor([7, 0])
        >>> foreach_halp_step_(p, z, c, d, g, [], [], [], [], 0.5, 0, 1, 0, 0, 8, 0, key, [0])
        >>> p[0].tolist(), z[0].tolist()
        ([0.5, 2.0, 1.0], [-2, 4, 0])

    Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383.
    """
    _step(_ops.foreach_halp_step_, lr)(
        params, z, center, delta, grad, grad_center, full_grad, buf, stats, lr, weight_decay, coef,
        momentum, dampening, bits, flags, key, streams,
    )  # fmt: skip


def foreach_svrg_step_(
    params: Sequence[Tensor],
    z: Sequence[Tensor],
    center: Sequence[Tensor],
    grad: Sequence[Tensor],
    grad_center: Sequence[Tensor],
    full_grad: Sequence[Tensor],
    buf: Sequence[Tensor],
    stats: Sequence[Tensor],
    lr: float | Tensor,
    weight_decay: float,
    coef: float,
    momentum: float,
    dampening: float,
    flags: int,
) -> None:
    r"""One SVRG step on the displacement z from the centre, in full precision.

    .. math:: z \leftarrow \mathrm{fma}(-\eta, v, z), \quad w \leftarrow c + z

    with v as in :func:`foreach_halp_step_`. Keeping z, and not w, is what lets float32 pass the point
    where a step is below half a unit in the last place of w.

    Args:
        params, center, grad, grad_center, full_grad, buf: as in :func:`foreach_halp_step_`; ``center``
            is needed.
        z: displacements, dtype of ``center``, rewritten.
        stats: as there; only the elements that were skipped are counted.
        lr, weight_decay, coef, momentum, dampening, flags: as there, without nearest rounding.

    Returns:
        Nothing; ``params``, ``z``, ``buf`` and ``stats`` are rewritten.

    Raises:
        RuntimeError: for lists of unequal length, wrong dtypes or sizes, or flags out of range.

    Determinism: class A; no randomness.

    Example:
        >>> p, z, c = [torch.zeros(2)], [torch.zeros(2)], [torch.ones(2)]
        >>> foreach_svrg_step_(p, z, c, [torch.ones(2)], [], [], [], [], 0.5, 0, 1, 0, 0, 0)
        >>> p[0].tolist(), z[0].tolist()
        ([0.5, 0.5], [-0.5, -0.5])

    Source: Johnson and Zhang, Accelerating stochastic gradient descent using predictive variance
    reduction, NIPS 2013; the displacement form is this project's.
    """
    _step(_ops.foreach_svrg_step_, lr)(
        params, z, center, grad, grad_center, full_grad, buf, stats, lr, weight_decay, coef,
        momentum, dampening, flags,
    )  # fmt: skip


def foreach_halp_materialize_(
    params: Sequence[Tensor],
    z: Sequence[Tensor],
    center: Sequence[Tensor],
    delta: Sequence[Tensor],
) -> None:
    r"""Weights from centre and codes.

    .. math:: w \leftarrow \mathrm{fma}(\delta, q, c)

    Args:
        params: weights, rewritten.
        z: codes, or displacements (then without ``delta``).
        center: c, or none: 0.
        delta: spacings, or none: 1.

    Returns:
        Nothing; ``params`` is rewritten.

    Raises:
        RuntimeError: for lists of unequal length, wrong dtypes or sizes.

    Determinism: class A; no randomness.

    Example:
        >>> p, z = [torch.zeros(3)], [torch.tensor([-1, 0, 2], dtype=torch.int8)]
        >>> foreach_halp_materialize_(p, z, [], [torch.tensor(0.5)])
        >>> p[0].tolist()
        [-0.5, 0.0, 1.0]

    Source: as :func:`foreach_halp_step_`.
    """
    _ops.foreach_halp_materialize_(params, z, center, delta)


def foreach_halp_commit_(
    params: Sequence[Tensor],
    z: Sequence[Tensor],
    center: Sequence[Tensor],
    delta: Sequence[Tensor],
) -> None:
    r"""Moves the centre to the present weights.

    .. math:: c \leftarrow \mathrm{fma}(\delta, q, c), \quad q \leftarrow 0, \quad w \leftarrow c

    Args:
        params, z, center: rewritten; ``center`` is needed.
        delta: spacings, or none: 1.

    Returns:
        Nothing; ``params``, ``z`` and ``center`` are rewritten.

    Raises:
        RuntimeError: for lists of unequal length, wrong dtypes or sizes.

    Determinism: class A; no randomness.

    Example:
        >>> p, c = [torch.zeros(2)], [torch.ones(2)]
        >>> z = [torch.tensor([-1, 2], dtype=torch.int8)]
        >>> foreach_halp_commit_(p, z, c, [torch.tensor(0.5)])
        >>> c[0].tolist(), z[0].tolist()
        ([0.5, 2.0], [0, 0])

    Source: as :func:`foreach_halp_step_`.
    """
    _ops.foreach_halp_commit_(params, z, center, delta)


def foreach_halp_encode_(
    params: Sequence[Tensor], z: Sequence[Tensor], delta: Sequence[Tensor], bits: int
) -> None:
    r"""Rounds weights to the nearest points of a fixed lattice.

    .. math:: q = \mathrm{clamp}(\text{round half to even}(w/\delta)), \quad w \leftarrow \delta q

    Infinities saturate. On CUDA, which cannot refuse them, NaN gets code and weight 0, and a tensor whose
    spacing is not positive and finite is left alone.

    Args:
        params: weights, rewritten.
        z: where the codes go.
        delta: spacings, positive and finite.
        bits: as in :func:`foreach_halp_step_`.

    Returns:
        Nothing; ``params`` and ``z`` are rewritten.

    Raises:
        RuntimeError: for lists of unequal length, wrong dtypes or sizes, bits out of range; on the CPU
            also for weights that are NaN, which have no code, and for such spacings.

    Determinism: class A; no randomness.

    Example:
        >>> p, z = [torch.tensor([0.3, -9.0, 0.5])], [torch.zeros(2, dtype=torch.uint8)]
        >>> foreach_halp_encode_(p, z, [torch.tensor(0.25)], 4)
        >>> p[0].tolist(), [hex(byte) for byte in z[0].tolist()]
        ([0.25, -2.0, 0.5], ['0x81', '0x2'])

    Source: as :func:`foreach_halp_step_`.
    """
    _ops.foreach_halp_encode_(params, z, delta, bits)
