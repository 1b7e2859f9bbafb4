"""Rows on one grid for all columns: what the solvers "halp" and "svrg" read.

Columns are centred and scaled first, unless the data is taken as it is; then every value is rounded to the
nearest multiple of one spacing dx, so that the product of two codes has the same unit in every column. Rows
come from a table, or from the codes of a store. They are made on the GPU of the solver if both fit there,
to the bits of the CPU.
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
from torchext.data.sources import from_arrays
from torchext.linear import _device
from torchext.linear._problem import column_unit
from torchext.linear._table import Table

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
        """The same rows on another device; what stands for columns is in CPU memory."""
        return replace(self, x=self.x.to(device))

    @property
    def rows(self) -> Tensor:
        """The codes without the padding."""
        return self.x[:, : self.cols]


def grid_rows(
    X: Table,
    weight: np.ndarray | None,
    device: torch.device = _device.CPU,
    *,
    bits: int,
    scale: str,
    intercept: bool,
    as_float: bool,
) -> GridRows:
    """Codes of X on ``device``.

    Args:
        X: (K, n) float32 or float64, finite, in CPU memory or on the device.
        weight: (K,) weights > 0 with mean 1, or None.
        bits: 8 or 16 for codes in [-127, 127] or [-32767, 32767]; 32 for no codes.
        scale: ``"max"``, ``"std"``, or ``"none"``: neither centred nor scaled.
        intercept: whether ``bound`` counts the intercept's column.
        as_float: keep the codes as float32.
    """
    source = from_arrays(X)
    shape = source.rows, source.cols
    source = _device.source_on(source, device, _bytes(*shape, bits, as_float))
    rows = source.block(0, source.rows)
    mean, spread, largest = _statistics(rows, weight, scale)
    out = _Out.of(*shape, bits, largest, as_float, rows.device)
    out.put(slice(None), rows, mean, spread)
    return out.finish(mean, spread, weight, intercept).to(device)


def store_rows(
    store: QuantizedDataset,
    rows: Tensor,
    weight: np.ndarray | None,
    device: torch.device = _device.CPU,
    *,
    bits: int,
    scale: str,
    intercept: bool,
    as_float: bool,
) -> GridRows:
    """Codes of the values that the codes of a store stand for, on ``device``; see :func:`grid_rows`.

    Args:
        store: one with nearest rounding.
        rows: int64 (K,), the rows to take.
    """
    there = device.type != "cpu"
    if there and store.device != device:
        needed = store.codes.nbytes + _bytes(len(rows), store.cols, bits, as_float)
        there = needed <= _device.free_bytes(device)
    store = store.to(device if there else "cpu")
    unit = column_unit(store, scale)
    out = _Out.of(len(rows), store.cols, bits, _largest(store, unit, bits), as_float, store.device)
    nothing, divisor = torch.zeros_like(unit), 1.0 / unit
    for part in _blocks(len(rows), store.cols):
        out.put(part, store.decode(rows[part]), nothing, divisor)
    mean, spread = store.mean.double(), store.scale.double() / unit
    return out.finish(mean, spread, weight, intercept).to(device)


def _largest(store: QuantizedDataset, unit: Tensor, bits: int) -> float:
    """What the largest code stands for; symmetric levels of the store are then points of the grid."""
    if store.bits == 32:
        low, high = torch.aminmax(store.codes[:, : store.cols], dim=0)
        return float((torch.maximum(-low, high).cpu() * unit).max())
    grid = store.grid.cpu()
    if store.level_kind == "symmetric":
        reach = float((grid[:, 0].abs() * unit).max())
        top, most = TOP[bits], 2 ** (store.bits - 1) - 1
        every = top // most if bool((unit == unit[0]).all()) else 0  # points from level to level
        return reach * top / (most * every) if every else reach
    ends = store.levels
    if ends is None:
        last = torch.tensor([0, 2**store.bits - 1]).expand(store.cols, 2)
        ends = grid_values(grid, last)[None]
    return float((ends.abs().amax((0, 2)).cpu() * unit).max())


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
    def of(
        rows: int, cols: int, bits: int, largest: float, as_float: bool, device: torch.device
    ) -> _Out:
        shape, kind = (rows, _pitch(cols)), _kind(bits, as_float)
        if device.type == "cpu":  # numpy asks for huge pages: the solvers read rows in random order
            x = torch.from_numpy(np.zeros(shape, dtype=kind))
        else:
            x = torch.zeros(shape, dtype=torch.from_numpy(np.empty(0, kind)).dtype, device=device)
        top = TOP[bits]
        largest = largest if largest > 0 else 1.0
        squares = torch.empty(rows, dtype=torch.float64, device=device)
        return _Out(x, squares, cols, largest / top if top else 1.0, top, largest)

    def put(self, part: slice, rows: Tensor, mean: Tensor, scale: Tensor) -> None:
        """(rows - mean) / scale into a part of x; the rows are where x is, the others in CPU memory."""
        inverse, squares = 1.0 / (scale * self.dx), self.squares[part]
        mean, inverse = mean.to(self.x.device), inverse.to(self.x.device)
        torch.ops.torchext._grid_rows(rows, mean, inverse, self.top, self.x[part], squares)
        squares.mul_(self.dx**2)

    def finish(
        self, mean: Tensor, scale: Tensor, weight: np.ndarray | None, intercept: bool
    ) -> GridRows:
        """The rows with the mean and scale to give them."""
        norms = self.squares + self.largest**2 if intercept else self.squares
        if weight is not None:
            norms = norms * torch.from_numpy(weight).to(norms.device)
        bound = float(norms.max())
        return GridRows(self.x, self.cols, self.dx, self.largest, mean, scale, bound)


def _blocks(rows: int, cols: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, cols))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


def _pitch(cols: int) -> int:
    return 64 * -(-cols // 64)


def _kind(bits: int, as_float: bool) -> np.dtype:
    return np.dtype(np.float32 if as_float else np.int8 if bits == 8 else np.int16)


def _bytes(rows: int, cols: int, bits: int, as_float: bool) -> int:
    """Memory of the codes and of the squares of rows."""
    return rows * (_pitch(cols) * _kind(bits, as_float).itemsize + 8)


def _statistics(x: Tensor, weight: np.ndarray | None, scale: str) -> tuple[Tensor, Tensor, float]:
    """Mean and scale per column, float64 in CPU memory, and the largest magnitude after both."""
    weights = None if weight is None else torch.from_numpy(weight).to(x.device)

    def sums(centre: Tensor | None) -> Tensor:
        state = new_stats(x.shape[1], x.device)
        update_stats(x, state, weights, centre)
        return state.cpu()

    _, total, low, high, weighted = sums(None)
    if scale == "none":
        largest = float(torch.maximum(low.abs(), high.abs()).max())
        return torch.zeros_like(low), torch.ones_like(low), largest
    mass = float(len(x)) if weight is None else float(weight.sum())
    constant = low == high
    mean = torch.where(constant, low, (total if weight is None else weighted) / mass)
    reach = torch.maximum(high - mean, mean - low)
    if scale == "max":
        return mean, torch.where(constant, 1.0, reach), float(not bool(constant.all()))
    std = torch.where(constant, 1.0, (sums(mean.to(x.device))[4] / mass).sqrt())
    return mean, std, float((torch.where(constant, 0.0, reach) / std).max())
