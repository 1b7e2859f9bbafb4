"""Rows on one grid for all columns: what the solvers "halp" and "svrg" read.

Columns are centred and scaled first, unless the data is taken as it is; then every value is rounded to the
nearest multiple of one spacing dx, so that the product of two codes has the same unit in every column. Rows
come from an array, or from the codes of a store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchext.data import QuantizedDataset
from torchext.data._encode import new_stats, update_stats
from torchext.data._levels import grid_values
from torchext.data.sources import as_tensor
from torchext.linear._problem import column_unit

#: The largest code by the bits of a grid; 0: no codes.
TOP = {8: 127, 16: 32767, 32: 0}
_BLOCK = 1 << 20  # values handled at a time


@dataclass(frozen=True)
class GridRows:
    """Row k, column j stands for dx * x[k, j] = (X[k, j] - mean[j]) / scale[j], rounded.

    Attributes:
        x: int8, int16 or float32 (K, pitch), pitch a multiple of 64; zeros beyond ``cols``.
        unit: the value that every row has in the intercept's column: that of the largest code.
        bound: largest squared norm of a row times its weight, the intercept's column included.
    """

    x: Tensor
    cols: int
    dx: float
    unit: float
    mean: Tensor
    scale: Tensor
    bound: float

    def to(self, device: torch.device) -> GridRows:
        """The same rows on another device; what stands for columns stays on the CPU."""
        return replace(self, x=self.x.to(device))

    @property
    def rows(self) -> Tensor:
        """The codes without the padding."""
        return self.x[:, : self.cols]


def grid_rows(
    X: np.ndarray,
    weight: np.ndarray | None,
    *,
    bits: int,
    scale: str,
    intercept: bool,
    as_float: bool,
) -> GridRows:
    """Codes of X.

    Args:
        X: (K, n) float32 or float64, finite.
        weight: (K,) weights > 0 with mean 1, or None.
        bits: 8 or 16 for codes in [-127, 127] or [-32767, 32767]; 32 for no codes.
        scale: ``"max"``, ``"std"``, or ``"none"``: neither centred nor scaled.
        intercept: whether ``bound`` counts the intercept's column.
        as_float: keep the codes as float32.
    """
    mean, spread, largest = _statistics(X, weight, scale)
    out = _Out.of(len(X), X.shape[1], bits, largest, as_float)
    centre, divisor = torch.from_numpy(mean), torch.from_numpy(spread)
    out.put(slice(None), as_tensor(X), centre, divisor)
    return out.finish(centre, divisor, weight, intercept)


def store_rows(
    store: QuantizedDataset,
    rows: Tensor,
    weight: np.ndarray | None,
    *,
    bits: int,
    scale: str,
    intercept: bool,
    as_float: bool,
) -> GridRows:
    """Codes of the values that the codes of a store stand for; the other arguments as in :func:`grid_rows`.

    Args:
        store: one with nearest rounding.
        rows: int64 (K,), the rows to take.
    """
    store = store.to("cpu")  # where the grid's codes are made
    unit = column_unit(store, scale)
    out = _Out.of(len(rows), store.cols, bits, _largest(store, unit, bits), as_float)
    nothing, divisor = torch.zeros_like(unit), 1.0 / unit
    for part in _blocks(len(rows), store.cols):
        out.put(part, store.decode(rows[part]), nothing, divisor)
    return out.finish(store.mean.double(), store.scale.double() / unit, weight, intercept)


def _largest(store: QuantizedDataset, unit: Tensor, bits: int) -> float:
    """What the largest code stands for; symmetric levels of the store are then points of the grid."""
    if store.bits == 32:
        return float((store.codes[:, : store.cols].abs().amax(0) * unit).max())
    if store.level_kind == "symmetric":
        reach = float((store.grid[:, 0].abs() * unit).max())
        top, most = TOP[bits], 2 ** (store.bits - 1) - 1
        every = top // most if bool((unit == unit[0]).all()) else 0  # points from level to level
        return reach * top / (most * every) if every else reach
    ends = store.levels
    if ends is None:
        last = torch.tensor([0, 2**store.bits - 1]).expand(store.cols, 2)
        ends = grid_values(store.grid, last)[None]
    return float((ends.abs().amax((0, 2)) * unit).max())


@dataclass(frozen=True)
class _Out:
    """Where the rows go: x, and the squared norms of the rows."""

    x: Tensor
    squares: Tensor
    cols: int
    dx: float
    top: int
    largest: float

    @staticmethod
    def of(rows: int, cols: int, bits: int, largest: float, as_float: bool) -> _Out:
        kind = np.float32 if as_float else (np.int8 if bits == 8 else np.int16)
        # numpy asks the system for huge pages: the solvers read rows in random order
        x = torch.from_numpy(np.zeros((rows, 64 * -(-cols // 64)), dtype=kind))
        top = TOP[bits]
        largest = largest if largest > 0 else 1.0
        squares = torch.empty(rows, dtype=torch.float64)
        return _Out(x, squares, cols, largest / top if top else 1.0, top, largest)

    def put(self, part: slice, rows: Tensor, mean: Tensor, scale: Tensor) -> None:
        """(rows - mean) / scale into a part of x."""
        inverse, squares = 1.0 / (scale * self.dx), self.squares[part]
        torch.ops.torchext._grid_rows(rows, mean, inverse, self.top, self.x[part], squares)
        squares.mul_(self.dx**2)

    def finish(
        self, mean: Tensor, scale: Tensor, weight: np.ndarray | None, intercept: bool
    ) -> GridRows:
        """The rows with the mean and scale to give them."""
        norms = self.squares + self.largest**2 if intercept else self.squares
        if weight is not None:
            norms = norms * torch.from_numpy(weight)
        bound = float(norms.max())
        return GridRows(self.x, self.cols, self.dx, self.largest, mean, scale, bound)


def _blocks(rows: int, cols: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, cols))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


def _statistics(
    X: np.ndarray, weight: np.ndarray | None, scale: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and scale per column, float64, and the largest magnitude after both."""
    cols = X.shape[1]
    state = new_stats(cols)
    update_stats(as_tensor(X), state)
    total, low, high = state[1].numpy(), state[2].numpy(), state[3].numpy()
    if scale == "none":
        largest = float(np.maximum(np.abs(low), np.abs(high)).max())
        return np.zeros(cols), np.ones(cols), largest
    mass = float(len(X)) if weight is None else float(weight.sum())
    if weight is not None:
        total = np.zeros(cols)
        for part in _blocks(*X.shape):
            total += (weight[part, None] * X[part].astype(np.float64)).sum(axis=0)
    constant = low == high
    mean = np.where(constant, low, total / mass)
    reach = np.maximum(high - mean, mean - low)
    if scale == "max":
        return mean, np.where(constant, 1.0, reach), float(not constant.all())
    square = np.zeros(cols)
    for part in _blocks(*X.shape):
        a = (X[part].astype(np.float64) - mean) ** 2
        square += a.sum(axis=0) if weight is None else (weight[part, None] * a).sum(axis=0)
    std = np.where(constant, 1.0, np.sqrt(square / mass))
    return mean, std, float((np.where(constant, 0.0, reach) / std).max())
