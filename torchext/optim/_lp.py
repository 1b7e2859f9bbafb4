"""LP-SGD and LP-SVRG: weights on a lattice that never moves."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Unpack

import torch

from torchext.optim import _telemetry as telemetry
from torchext.optim import _transfer as transfer
from torchext.optim import _update as update
from torchext.optim._base import Closure, LatticeOptimizer
from torchext.optim._center import CenterOptimizer
from torchext.optim._distributed import local
from torchext.optim._options import CenterOptions, Rounding, SGDOptions
from torchext.optim._update import Member

Delta = float | Literal["absmax"]


def to_lattice(members: list[Member], storage: str) -> None:
    """Rounds parameters to their lattice at first use, and again when its spacing or bits were changed."""
    new = [
        m for m in members
        if m.param.requires_grad and m.state.get("grid") != (m.group["delta"], m.group["bits"])
    ]  # fmt: skip
    if not new:
        return
    filled = [m for m in new if local(m.param).numel()]
    sizes = transfer.read([local(m.param).abs().max() for m in filled])
    found = {m.number: size for m, (size,) in zip(filled, sizes, strict=True)}
    largest = [found.get(m.number, 0.0) for m in new]
    for m, size in zip(new, largest, strict=True):
        if math.isnan(size):
            raise ValueError(f"parameter {m.name} holds NaN, which has no place on a lattice")
    for m, size in zip(new, largest, strict=True):
        delta, bits = m.group["delta"], m.group["bits"]
        if delta == "absmax":  # a tensor of zeros takes the range of the largest one
            delta = (size or max(largest)) / (2 ** (bits - 1) - 1)
            if not delta > 0:
                raise ValueError(
                    "delta='absmax' needs weights that are not all zero: give a number"
                )
        m.state["grid"], m.state["bits"] = (m.group["delta"], bits), bits
        own = update.own_dtype(m.param)
        m.state["delta"] = torch.tensor(delta, dtype=own, device=m.param.device)
        m.state["z"] = update.new_codes(m.param, bits, storage)
    update.encode(new)


class LPSGD(LatticeOptimizer):
    r"""SGD with weights on a fixed lattice.

    .. math:: w \leftarrow Q_{\delta,b}(w - \eta\,\nabla f_i(w))

    Accuracy stops at a floor: :math:`\|w - w^*\|^2` stays at about
    :math:`\eta\sigma^2/\mu + d\,\delta^2/(4\eta\mu)`.

    Args:
        params: parameters or param groups, as in torch; rounded to the lattice (nearest) at the first step.
        lr: step size :math:`\eta`.
        delta: spacing, or ``"absmax"``: :math:`\max|w| / (2^{b-1} - 1)` of each tensor at the first
            step, then fixed.
        bits: b; 2 to 16, to 24 with ``storage="simulate"``.
        storage: ``"codes"`` packs the integers, ``"simulate"`` keeps them as float32; the same weights.
        rounding: ``"stochastic"`` or ``"nearest"``.
        options: see :mod:`torchext.optim`.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.1]))
        >>> opt = LPSGD([w], lr=0.25, delta=0.5, seed=1)
        >>> w.grad = torch.tensor([2.0])
        >>> opt.step()
        >>> w.item(), opt.state[w]["z"].item()
        (0.5, 1)

    Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383.
    """

    def __init__(
        self,
        params: Any,
        lr: Any,
        *,
        delta: Delta,
        bits: int = 8,
        storage: Literal["codes", "simulate"] = "codes",
        rounding: Rounding = "stochastic",
        **options: Unpack[SGDOptions],
    ) -> None:
        own = {"lr": lr, "delta": delta, "bits": bits, "rounding": rounding}
        super().__init__(params, own, {"storage": storage}, options)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step; the closure, if given, is called once, after the weights are on the lattice.

        Returns:
            The closure's loss, or None.

        Raises:
            RuntimeError: sparse gradients, or gradients that are not finite under
                ``error_if_nonfinite``; no weight has moved.
            TypeError: a closure that returns no loss.
        """
        self._agree_on_seed()
        self._check_capture()
        members = self._members()
        to_lattice(members, self._run.storage)
        if self._counts():
            for m in members:
                m.state.setdefault("stats", telemetry.new_stats(m))
        loss = None if closure is None else self._loss_of(closure)
        self._apply(self._ready())
        return loss


class LPSVRG(CenterOptimizer):
    r"""SVRG with weights, and the centre, on a fixed lattice.

    .. math:: w \leftarrow Q_{\delta,b}\big(w - \eta\,(\nabla f_i(w) - \kappa(\nabla f_i(\tilde w)
       - \nabla f(\tilde w)))\big)

    Accuracy stops at a floor of about :math:`2 d\,\delta^2 L/(\gamma(1-\gamma))` in f (docs/optimizers.md).

    Args:
        params, lr, T: as in :class:`HALP`.
        delta, bits, storage, rounding: as in :class:`LPSGD`.
        options: see :mod:`torchext.optim`; ``option="mean"`` would leave the lattice and is refused.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.1]))
        >>> opt = LPSVRG([w], lr=0.5, T=2, delta=0.25, seed=1)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = (w**2).sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> opt.recenter([closure]).grad_norm, opt.step(closure).item(), w.item()
        (1.0, 0.5, 0.5)

    Source: De Sa et al., High-Accuracy Low-Precision Training, arXiv 1803.03383.
    """

    _corrected: ClassVar[bool] = True

    def __init__(
        self,
        params: Any,
        lr: Any,
        T: int,
        *,
        delta: Delta,
        bits: int = 16,
        storage: Literal["codes", "simulate"] = "codes",
        rounding: Rounding = "stochastic",
        **options: Unpack[CenterOptions],
    ) -> None:
        if options.get("option") == "mean":
            raise ValueError("Invalid option: 'mean', the mean of iterates is not on the lattice")
        own = {"lr": lr, "delta": delta, "bits": bits, "rounding": rounding}
        super().__init__(params, own, {"T": T, "storage": storage}, options)

    def _commit(self, members: list[Member]) -> None:
        update.materialize(members)

    def _start(self, m: Member) -> None:
        pass  # to_lattice makes the codes

    def _finish_epoch(self) -> None:
        super()._finish_epoch()
        members = self._members()
        to_lattice(members, self._run.storage)
        for m in members:
            if m.has_codes:
                m.state["z_center"] = m.state["z"].clone()

    def _to_center(self) -> None:
        members = [m for m in self._members() if "z_center" in m.state]
        update.materialize(members, codes="z_center")
