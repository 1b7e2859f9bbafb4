r"""SVRG and HALP for linear models: epochs around a float64 centre.

An epoch takes the exact gradient g on the codes at the centre w, moves a displacement z from 0 by

.. math:: z \leftarrow z - \alpha\,[\,v_i\,(l'(\phi_i + x_i^T z) - l'(\phi_i))\,x_i + g + \lambda z\,],

:math:`\phi_i = x_i^T w` cached, for random rows i, and adds z to w; with mini-batches the change is the mean
over the rows of one. HALP keeps z on the integers times
:math:`\delta_z = \|g\| / (\mu M)`, M the largest code of z: as the solution comes closer, the grid becomes
finer, so that few bits do not limit the accuracy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchext.linear import _device
from torchext.linear._grid_rows import GridRows
from torchext.linear._products import torch_threads
from torchext.linear._trainer import ConvergenceError
from torchext.random import Purpose, fold_in

#: Steps between two roundings of alpha * g.
REFRESH = 64
#: Rows an epoch takes steps over at least.
MIN_ROWS = 2000
#: Second derivative bound of each loss.
CURVATURE = {"squared": 1.0, "logistic": 0.25, "softmax": 0.5}
MAX_RESTORES = 20


@dataclass(frozen=True)
class VrState:
    """Everything that changes: the centre w float64 (m, n + 1), the intercept's coefficient last."""

    w: Tensor
    mu: float
    mu_floor: float = 0.0  # twice the largest mu at which an epoch made it worse
    epoch: int = 0
    norm0: float = 0.0  # gradient norm at x = 0
    loss0: float = 0.0  # objective there
    restores: int = 0
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    clip_rates: tuple[float, ...] = ()
    stop: str = ""
    seconds: tuple[float, ...] = ()  # of the epochs since the start or the checkpoint; not saved

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values for a checkpoint."""
        curves = torch.tensor([self.losses, self.norms[1:], self.clip_rates], dtype=torch.float64)
        numbers = torch.tensor(
            [self.mu, self.mu_floor, self.norm0, self.loss0, *self.norms[:1]], dtype=torch.float64
        )
        tensors = {"state.w": self.w, "state.curves": curves, "state.numbers": numbers}
        names = ("epoch", "restores", "stop")
        return tensors, {name: getattr(self, name) for name in names}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], plain: dict[str, Any]) -> VrState:
        """Inverse of :meth:`to_tensors`."""
        mu, mu_floor, norm0, loss0, *first = tensors["state.numbers"].tolist()
        losses, norms, rates = (tuple(row.tolist()) for row in tensors["state.curves"])
        return VrState(
            w=tensors["state.w"], mu=mu, mu_floor=mu_floor, norm0=norm0, loss0=loss0, losses=losses,
            norms=(*first, *norms), clip_rates=rates, **plain,
        )  # fmt: skip


@dataclass(frozen=True)
class VrOptions:
    """What a run needs to know beside the data."""

    loss: str
    l2: float
    intercept: bool
    step: float
    steps: int
    z_bits: int  # 32 is SVRG
    auto_mu: bool
    max_iter: int
    tol: float
    threads: int
    batch: int = 1  # rows a step


class VarianceReduced:
    """Runs epochs from ``state``, which is replaced in one assignment once an epoch is whole.

    So whatever interrupts a run, at any moment, leaves the state of the last whole epoch behind. Rows and
    scores are where ``data`` is; centre and gradients are on the CPU and go there and back once an epoch.
    """

    state: VrState

    def __init__(
        self, data: GridRows, y: Tensor, weight: Tensor | None, options: VrOptions, key: Tensor
    ) -> None:
        self.data, self.options, self.device = data, options, data.x.device
        self.y, self.weight = y.to(self.device), _device.moved(weight, self.device)
        self.light = None if self.weight is None else self.weight.float()
        self.key = fold_in(key, Purpose.WEIGHT)

    def start(self, w: Tensor, mu: float | None) -> None:
        """Sets the state at the centre w; ``mu`` None is the automatic start."""
        loss0, g, _ = self.gradient(torch.zeros_like(w))
        self.state = VrState(
            w.clone(), self.first_mu if mu is None else mu, norm0=_norm(g), loss0=loss0
        )

    @property
    def first_mu(self) -> float:
        """Start of the automatic rule, rather too large than too small.

        The displacement gets no further than the steps of an epoch, nor, if columns vary alike, than
        |z_j| = |g_j| n / L, whose largest is about 4 / sqrt(n) of its norm.
        """
        o, cols = self.options, self.data.cols
        smooth = CURVATURE[o.loss] * self.data.bound + o.l2
        return max(10.0 / (o.step * o.steps), smooth / (4.0 * math.sqrt(cols)))

    def gradient(self, w: Tensor) -> tuple[float, Tensor, Tensor]:
        """Objective, its gradient float64 (m, n + 1) and the scores float32 (m, K) at w: one pass."""
        data, o = self.data, self.options
        count, outputs = len(data.x), len(w)
        scores = torch.empty(outputs, count, device=self.device)
        factors = (w[:, :-1] * data.dx).contiguous().to(self.device)
        offset = (w[:, -1] * data.unit).to(self.device)
        raw, total = factors.new_zeros(outputs, data.cols + 1), factors.new_zeros(1)
        with torch_threads(o.threads):
            torch.ops.torchext._exact_pass(
                data.rows, factors, offset, self.y, self.weight, o.loss, scores, raw, total
            )
        raw = raw.cpu()
        g = torch.empty_like(raw)
        g[:, :-1] = raw[:, :-1] * data.dx / count + o.l2 * w[:, :-1]
        g[:, -1] = raw[:, -1] * data.unit / count if o.intercept else 0.0
        penalty = 0.5 * o.l2 * math.fsum(w[:, :-1].square().reshape(-1).tolist())
        means = outputs if o.loss == "squared" else 1
        return (float(total) / count + penalty) / means, g, scores

    def run(self, on_epoch: Callable[[VrState], bool]) -> None:
        """Epochs until ``max_iter``, the tolerance, or ``on_epoch`` returning True."""
        o, state = self.options, self.state
        loss, g, scores = self.gradient(state.w)
        norm = _norm(g)
        state = replace(state, norms=state.norms or (norm,), stop=self._stop(norm, state))
        self.state = state
        while not state.stop and state.epoch < o.max_iter:
            began = time.perf_counter()
            moved, clip_rate, peak = self._inner(g, norm, scores, state)
            old = state.w, loss, g, scores, norm
            w = state.w + moved
            loss, g, scores = self.gradient(w)
            norm = _norm(g)
            self._check(norm, state)
            adapted, back = self._adapted(state, norm / old[4], old[4], clip_rate, peak)
            if back:
                w, loss, g, scores, norm = old
            state = self.state = replace(
                adapted, w=w, epoch=state.epoch + 1, losses=(*state.losses, loss),
                norms=(*state.norms, norm), clip_rates=(*state.clip_rates, clip_rate),
                stop=self._stop(norm, state), seconds=(*state.seconds, time.perf_counter() - began),
            )  # fmt: skip
            if on_epoch(state) and not state.stop:
                state = self.state = replace(state, stop="callback")

    def _adapted(
        self, state: VrState, ratio: float, norm: float, clip_rate: float, peak: float
    ) -> tuple[VrState, bool]:
        """The state with mu for the epoch after one from ``norm`` to ratio * norm.

        And whether to go back to the centre before it: rounding noise won.
        """
        if not self.options.auto_mu:
            return state, False
        floor = max(state.mu_floor, 2.0 * state.mu) if ratio > 1.0 else state.mu_floor
        if ratio > 2.0:
            tries = state.restores + 1
            return replace(state, mu=4.0 * state.mu, mu_floor=floor, restores=tries), True
        mu = max(_next_mu(state.mu, norm, clip_rate, peak, self.options.z_bits), floor)
        return replace(state, mu=mu, mu_floor=floor), False

    def _stop(self, norm: float, state: VrState) -> str:
        if not norm > 1e-300:
            return "zero"
        return "tol" if self.options.tol > 0 and norm <= self.options.tol * state.norm0 else ""

    def _check(self, norm: float, state: VrState) -> None:
        if math.isfinite(norm) and norm <= 1e6 * max(state.norms) and state.restores < MAX_RESTORES:
            return
        fix = "eta0" if self.options.z_bits == 32 else "eta0 or a larger mu"
        raise ConvergenceError(
            f"the gradient norm went from {state.norms[0]:.3g} to {norm:.3g} in epoch {state.epoch + 1} "
            f"(step {self.options.step:.3g}); use a smaller {fix}"
        )

    def _inner(
        self, g: Tensor, norm: float, scores: Tensor, state: VrState
    ) -> tuple[Tensor, float, float]:
        """Displacement (m, n + 1) after an epoch, share of clamped updates, largest |z|."""
        data, o, outputs = self.data, self.options, len(g)
        kind = {8: torch.int8, 16: torch.int16, 32: torch.float32}[o.z_bits]
        z = torch.empty(outputs, data.x.shape[1], dtype=kind, device=self.device)
        end = None
        if o.intercept:
            whole = torch.float32 if o.z_bits == 32 else torch.int32
            end = torch.empty(outputs, dtype=whole, device=self.device)
        key = fold_in(self.key, state.epoch).to(self.device)
        drift = (o.step * g).to(self.device)
        shared = (data.x, scores, self.light, o.loss, drift, o.step, o.l2, data.dx)
        dz, clips = 1.0, torch.zeros(3, dtype=torch.int64, device=self.device)
        if o.z_bits == 32:
            torch.ops.torchext._svrg_epoch(*shared, data.unit, o.steps, o.batch, z, end, key)
        else:
            dz = norm / (state.mu * (2 ** (o.z_bits - 1) - 1))
            torch.ops.torchext._halp_epoch(
                *shared, dz, o.steps, o.batch, REFRESH, "step", z, end, clips, None, key
            )
        moved = torch.zeros_like(g)
        moved[:, :-1] = dz * z[:, : data.cols].cpu().double()
        if end is not None:
            moved[:, -1] = dz * end.cpu().double()
        updates = o.steps * outputs * (data.cols + int(o.intercept))
        return moved, int(clips[0]) / updates, max(float(moved.abs().max()), dz)


def _norm(g: Tensor) -> float:
    """Euclidean norm, exactly rounded sum: no bit depends on threads or the instruction set."""
    return math.sqrt(math.fsum(g.square().reshape(-1).tolist()))


def _next_mu(mu: float, norm: float, clip_rate: float, peak: float, z_bits: int) -> float:
    """The automatic rule: lower where updates were clamped, else so that |z| fills 1/c of the range."""
    if clip_rate > 1e-3:
        return mu / 4.0
    if clip_rate > 1e-5:
        return mu / 1.5
    if clip_rate > 0:
        return mu
    share = 2.0 if z_bits < 12 else 8.0
    return min(max(norm / (share * peak), mu / 4.0), 2.0 * mu)
