"""What a training run works on: the codes of a store and the terms that make its gradient right.

With decoded rows :math:`Q_B`, every estimator uses one formula,

.. math:: g = Q_B^T(Q_B x - y_B)/B + h - \\theta D \\circ (x - x_0) + \\lambda x,

or, variance reduced, :math:`g = Q_B^T Q_B (x - x_0)/B + \\mu - \\theta D \\circ (x - x_0) + \\lambda x`,
where :math:`\\mu` is the exact gradient at the anchor :math:`x_0` and
:math:`h = \\mu - \\nabla L_Q(x_0)`; terms that a sampling does not have are zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchext.data.noise import double_guard
from torchext.linear import _exact

if TYPE_CHECKING:
    from torchext.data import QuantizedDataset
    from torchext.linear._state import State


_ROWS = 1 << 16  # rows handled at a time where only labels are touched


@dataclass(frozen=True)
class Problem:
    """Tensors of one run, all in model units: feature j is (scaled value) * unit[j]."""

    codes: Tensor
    rows: int
    cols: int
    outputs: int
    bits: int
    layout: str
    grid: Tensor
    table: Tensor
    unit: Tensor
    y: Tensor
    weight: Tensor | None
    loss: str
    fit_intercept: bool
    shrink: Tensor | None
    x0: Tensor | None
    constant: Tensor | None
    variance_reduced: bool
    z0: Tensor | None
    loss_at_zero: float
    loss_at_anchor: float | None
    guards: tuple[str, ...]

    @property
    def curvature(self) -> float:
        """Largest second derivative of the loss."""
        return 1.0 if self.loss == "squared_error" else 0.25

    def joined(self, x: Tensor, intercept: Tensor) -> Tensor:
        """float32 (m, n), or (m, n + 1) with the intercept last where one is trained."""
        whole = torch.cat([x, intercept[:, None]], dim=1) if self.fit_intercept else x
        return whole.float().contiguous()

    def split(self, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of :meth:`joined`; the intercept is 0 where none is trained."""
        if self.fit_intercept:
            return whole[:, :-1], whole[:, -1]
        return whole, torch.zeros(len(whole))

    def blocks(self) -> Iterator[Tensor]:
        """int64 indices of consecutive rows, about a million values at a time."""
        step = max(64, (1 << 20) // self.cols)
        for first in range(0, self.rows, step):
            yield torch.arange(first, min(self.rows, first + step))

    def codes_of(self, copy: int) -> Tensor:
        """One shuffled copy of the codes; float32 rows have no copies."""
        return self.codes if self.bits == 32 else self.codes[copy]

    def decode(self, index: Tensor, copy: int = 0, draw: int = 0) -> Tensor:
        """float32 (R, n), in CPU memory: rows in model units."""
        codes = self.codes_of(copy)
        grid, table, there = (t.to(codes.device) for t in (self.grid, self.table, index))
        decoded: Tensor = torch.ops.torchext._sgd_decode(
            codes, self.rows, self.cols, self.bits, self.layout, grid, table, there, draw
        )
        return decoded.cpu()


def column_unit(store: QuantizedDataset, scale: str) -> Tensor:
    """float64 (n,): 1 for ``"max"``, 1/std for ``"std"``, the column scale for ``"none"``."""
    if scale == "max":
        return torch.ones(store.cols, dtype=torch.float64)
    if scale == "none":
        return store.scale.double().clone()
    std = torch.sqrt(store.moments[0].double())
    return torch.where(std > 0, 1.0 / std.clamp_min(1e-300), torch.ones_like(std))


def targets(store: QuantizedDataset, loss: str) -> Tensor:
    """float32 (K, m): centred labels for the squared loss, +-1 for the logistic one."""
    y = store.y
    if y is None:
        raise ValueError("the data set has no labels to train on; encode it with a target")
    out = torch.empty(store.rows, max(1, store.outputs))
    for first in range(0, store.rows, _ROWS):
        part = y[first : first + _ROWS]
        if store.classes is not None and not y.is_floating_point():
            part = part.reshape(-1, 1)
            chosen = (
                part == 1 if len(store.classes) == 2 else part == torch.arange(len(store.classes))
            )
            part = 2.0 * chosen - 1.0
        part = part.double().reshape(len(part), -1)
        out[first : first + _ROWS] = (
            part - store.y_mean.double() if loss == "squared_error" else part
        )
    return out


def _mean_square(y: Tensor, weight: Tensor | None) -> float:
    """Mean of w y^2 over rows and outputs, in blocks."""
    total = 0.0
    for first in range(0, len(y), _ROWS):
        square = y[first : first + _ROWS].double().square()
        if weight is not None:
            square *= weight[first : first + _ROWS, None].double()
        total += float(square.sum())
    return total / y.numel()


def build(
    store: QuantizedDataset,
    *,
    loss: str,
    theta: float | str,
    scale: str,
    variance_reduced: bool | str,
) -> Problem:
    """Collect the tensors of a run; see the module docstring for the formula they fill in."""
    unit = column_unit(store, scale)
    y = targets(store, loss)
    guards: list[str] = []
    shrink: Tensor | None = None
    if store.sampling == "corrected":
        shrink = store.theta(theta) * store.noise[0].double() * unit**2
    elif store.sampling == "double":
        ridge = double_guard(store.noise, store.rows, store.cols)
        if theta != 0 and bool((ridge > 0).any()):
            shrink = -ridge * unit**2
            guards.append(f"double sampling: diagonal ridge, mean {float(ridge.mean()):.3g}")
    weight = store.weight
    if weight is not None:
        weight = (weight.double() / weight.double().mean()).float()
    mean_square = _mean_square(y, weight)
    # Squares on centred columns (by weighted means) need no intercept.
    fit_intercept = loss != "squared_error" or store.scale_kind == "none"
    x0 = constant = None
    loss_at_anchor: float | None = None
    reduced = False
    if store.anchor is not None:
        anchor = store.anchor.double()
        x0, mu = anchor[0].T / unit, anchor[1].T * unit
        exact_intercept = not fit_intercept or store.anchor_intercept is not None
        reduced = exact_intercept if variance_reduced == "auto" else bool(variance_reduced)
        constant = mu if reduced else anchor[2].T * unit
        if loss == "squared_error":
            # L(x0) = ((mu - c0) . x0 + mean y^2) / 2, because mu = G x0 - c0.
            c0 = store.linear[0].double().T * unit
            loss_at_anchor = float(((mu - c0) * x0).sum() / y.shape[1] + mean_square) / 2
        if fit_intercept and store.anchor_intercept is not None:
            at_intercept = store.anchor_intercept.double()
            x0 = torch.cat([x0, at_intercept[0][:, None]], dim=1)
            constant = torch.cat([constant, at_intercept[1 if reduced else 2][:, None]], dim=1)
    elif variance_reduced is True:
        raise ValueError(
            'variance_reduced=True needs an anchor; use anchor="pilot" or variance_reduced="auto"'
        )
    grid, table = store.grid.cpu(), store.table.cpu()
    codes, bits = store.codes, store.bits  # on the device of the store
    if bits == 16:
        codes, bits = _float_rows(store), 32
    if scale != "max":
        if bits == 32:
            codes = codes.clone()
            codes[:, : store.cols] *= unit.float().to(codes.device)
        else:
            grid = (grid.double() * unit[:, None]).float()
    problem = Problem(
        codes=codes, rows=store.rows, cols=store.cols, outputs=y.shape[1], bits=bits,
        layout=store.layout, grid=grid.contiguous(), table=table, unit=unit, y=y, weight=weight,
        loss=loss, fit_intercept=fit_intercept,
        shrink=None if shrink is None else shrink.float(), x0=None if x0 is None else x0.float().contiguous(),
        constant=None if constant is None else constant.float().contiguous(),
        variance_reduced=reduced, z0=None,
        loss_at_zero=mean_square / 2 if loss == "squared_error" else 0.6931471805599453,
        loss_at_anchor=loss_at_anchor, guards=tuple(guards),
    )  # fmt: skip
    return _with_predictions(problem)


def _float_rows(store: QuantizedDataset) -> Tensor:
    """16-bit codes as the float32 rows of ``bits=32``: there is no kernel that trains on them packed."""
    pitch = 16 * -(-store.cols // 16)
    out = torch.zeros(store.rows, pitch)
    for first in range(0, store.rows, 4096):
        last = min(store.rows, first + 4096)
        out[first:last, : store.cols] = store.decode(slice(first, last))
    return out


def _with_predictions(problem: Problem) -> Problem:
    """Adds z0, the predictions at the anchor, where the variance-reduced gradient needs them."""
    if not problem.variance_reduced or problem.loss == "squared_error":
        return problem
    assert problem.x0 is not None
    x, intercept = problem.split(problem.x0)
    out = torch.empty(problem.rows, problem.outputs, dtype=torch.float32)
    for index in problem.blocks():
        z = problem.decode(index).double() @ x.double().T + intercept.double()
        out[index] = z.float()
    return dataclasses.replace(problem, z0=out)


def code_gradient(problem: Problem, x: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the loss on the decoded data at x: float64 (m, n) and (m,), means over the rows."""
    gradient = torch.zeros(problem.outputs, problem.cols, dtype=torch.float64)
    slopes = torch.zeros(problem.outputs, dtype=torch.float64)
    for index in problem.blocks():
        q = problem.decode(index).double()
        y = problem.y[index].double()
        e = _exact.slope(q @ x.double().T + intercept.double(), y, problem.loss)
        if problem.weight is not None:
            e *= problem.weight[index, None].double()
        gradient += e.T @ q
        slopes += e.sum(0)
    return gradient / problem.rows, slopes / problem.rows


def reanchor(problem: Problem, source: _exact.Source, x: Tensor, intercept: Tensor) -> Problem:
    """The problem anchored at (x, intercept): one exact pass over the source, for h one over the codes."""
    loss, gradient, slopes = _exact.loss_and_gradient(
        source, x.double() * problem.unit, intercept, problem.loss
    )
    gradient = gradient * problem.unit
    if not problem.variance_reduced:
        on_codes = code_gradient(problem, x, intercept)
        gradient, slopes = gradient - on_codes[0], slopes - on_codes[1]
    return anchored(problem, problem.joined(x, intercept), problem.joined(gradient, slopes), loss)


def anchored(problem: Problem, x0: Tensor, constant: Tensor, loss: float) -> Problem:
    """The problem with another anchor; x0 and constant as :meth:`Problem.joined` makes them."""
    moved = dataclasses.replace(problem, x0=x0, constant=constant, loss_at_anchor=loss)
    return _with_predictions(moved)


def resume(problem: Problem, state: State) -> Problem:
    """The problem as it was when ``state`` was saved: with the anchor of its round."""
    if state.x0 is None or state.constant is None:
        return problem
    return anchored(problem, state.x0, state.constant, state.anchor_losses[-1])
