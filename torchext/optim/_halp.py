"""HALP and bit-centred SGD: integers around a centre, on a lattice that shrinks with the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Unpack

import torch

from torchext.optim import _update as update
from torchext.optim._center import CenterOptimizer
from torchext.optim._full_gradient import Sums, WeightedClosure
from torchext.optim._options import CenterOptions, Rounding
from torchext.optim._spacing import set_spacings
from torchext.optim._update import Member


class BitCentered(CenterOptimizer):
    """What HALP and bit-centred SGD share: the spacing is ||g|| / (mu (2^(bits-1) - 1))."""

    def _counts(self) -> bool:
        return super()._counts() or any(g["mu"] == "auto" for g in self.param_groups)

    def _start(self, m: Member) -> None:
        super()._start(m)
        self._new_codes(m)
        m.state["delta"] = m.state["center"].new_zeros(())  # until the gradient is known

    def _new_codes(self, m: Member) -> None:
        m.state["bits"] = m.group["bits"]
        m.state["z"] = update.new_codes(m.param, m.group["bits"], self._run.storage)

    def _commit(self, members: list[Member]) -> None:
        update.commit(members)
        for m in members:
            if m.state["bits"] != m.group["bits"]:
                self._new_codes(m)

    def _new_center(self, members: list[Member], squares: list[float]) -> None:
        set_spacings(members, squares, self._run)


class HALP(BitCentered):
    r"""High-accuracy low-precision training: SVRG whose iterates are integers of a few bits.

    .. math:: \delta = \frac{\|\nabla f(\tilde w)\|}{\mu\,(2^{b-1} - 1)}, \qquad
       z \leftarrow Q_{\delta,b}\big(z - \eta\,(\nabla f_i(\tilde w + z) - \kappa(\nabla f_i(\tilde w)
       - \nabla f(\tilde w)))\big)

    Q rounds to multiples of :math:`\delta` without bias and saturates. Each centre shrinks the lattice
    with the gradient: no floor of accuracy is left.

    Args:
        params: parameters or param groups, as in torch; groups may set lr, mu, bits, rounding and svrg_coef.
        lr: step size :math:`\eta`.
        T: steps from one centre to the next.
        mu: the box around the centre has the half-width :math:`\|\nabla f(\tilde w)\|/\mu`. ``"auto"``
            (8 bits or more) adapts it to clipping and noise after each epoch; below 8 bits give a number.
        mu0: start of the automatic choice; None: 10 / (lr T).
        bits: b; 2 to 16, to 24 with ``storage="simulate"``.
        scope: one spacing per ``"tensor"``, or one for the whole model, ``"global"``, as in the paper.
        storage: ``"codes"`` packs the integers, ``"simulate"`` keeps them as float32; the same weights.
        rounding: ``"nearest"`` is for comparison: it stalls.
        delta_floor: a tensor's gradient norm counts as at least this times its share of the whole.
        options: see :mod:`torchext.optim`.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([4.0, -2.0]))
        >>> opt = HALP([w], lr=0.5, T=2, mu=0.5, seed=1)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = (w**2).sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(20):
        ...     if opt.needs_recenter:
        ...         info = opt.recenter([closure])
        ...     loss = opt.step(closure)
        >>> opt.state[w]["z"].dtype, info.grad_norm < 1e-3
        (torch.int8, True)

    Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383; the automatic choice of
    :math:`\mu` is this project's.
    """

    _corrected: ClassVar[bool] = True

    def __init__(
        self,
        params: Any,
        lr: Any,
        T: int,
        *,
        mu: float | Literal["auto"] = "auto",
        mu0: float | None = None,
        bits: int = 8,
        scope: Literal["tensor", "global"] = "tensor",
        storage: Literal["codes", "simulate"] = "codes",
        rounding: Rounding = "stochastic",
        delta_floor: float = 1e-3,
        **options: Unpack[CenterOptions],
    ) -> None:
        own = {"lr": lr, "mu": mu, "bits": bits, "rounding": rounding}
        run = {"T": T, "mu0": mu0, "scope": scope, "storage": storage, "delta_floor": delta_floor}
        super().__init__(params, own, run, options)


class BitCentredSGD(BitCentered):
    r"""SGD whose iterates are integers around a centre: HALP without the correction.

    .. math:: z \leftarrow Q_{\delta,b}(z - \eta\,\nabla f_i(\tilde w + z)), \qquad
       \delta = \frac{\|\nabla f(\tilde w)\|}{\mu\,(2^{b-1} - 1)}

    One gradient a step, so that a plain ``step()`` after ``backward()`` works.

    Args:
        params, lr, T, mu, bits, scope, storage, rounding, delta_floor: as in :class:`HALP`; ``mu`` is a
        number.
        anchor: ``"full"`` takes the full gradient at every centre; ``"running"`` only at the first one,
            and then the mean of the mini-batch gradients since: ``recenter()`` needs no closures.
        options: see :mod:`torchext.optim`; ``svrg_coef`` does not apply.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([4.0]))
        >>> opt = BitCentredSGD([w], lr=0.5, T=2, mu=0.5, seed=1)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = (w**2).sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> opt.recenter([closure]).samples
        1
        >>> opt.step(closure).item()
        8.0

    Source: the bit centring of De Sa et al., arXiv 1803.03383, on SGD; not in the paper.
    """

    _keeps_full_grad: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: Any,
        T: int,
        *,
        mu: float,
        bits: int = 8,
        scope: Literal["tensor", "global"] = "tensor",
        storage: Literal["codes", "simulate"] = "codes",
        rounding: Rounding = "stochastic",
        delta_floor: float = 1e-3,
        anchor: Literal["full", "running"] = "full",
        **options: Unpack[CenterOptions],
    ) -> None:
        own = {"lr": lr, "mu": mu, "bits": bits, "rounding": rounding}
        run = {
            "T": T, "scope": scope, "storage": storage, "delta_floor": delta_floor, "anchor": anchor,
        }  # fmt: skip
        super().__init__(params, own, run, options)

    def _gather(self, members: list[Member], closures: Iterable[WeightedClosure] | None) -> Sums:
        running = self._run.anchor == "running" and self._get("epoch") > 0
        if closures is not None or not running:
            return super()._gather(members, closures)
        grads = [m.state.get("grad_mean", torch.zeros_like(m.state["center"])) for m in members]
        return Sums(grads, members[0].state.get("loss", 0.0), 1.0)

    def _keep(self, members: list[Member]) -> None:
        super()._keep(members)
        if self._run.anchor == "running":
            for m in members:
                mean = m.state.setdefault("grad_mean", torch.zeros_like(m.state["center"]))
                grad = update.local_grad(m).to(mean.dtype)
                grad = torch.where(grad.isfinite(), grad, mean)  # the step skips those too
                mean.add_(grad - mean, alpha=1.0 / (self._get("t") + 1))
