"""Rows on one grid for all columns: what the solvers "halp" and "svrg" read.

Columns are centred and scaled first, unless the data is taken as it is; then every value is rounded to the
nearest multiple of one spacing dx, so that the product of two codes has the same unit in every column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchext.data._encode import new_stats, scale_rows, update_stats
from torchext.data.sources import as_tensor

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
    count, cols = X.shape
    mean, spread, largest = _statistics(X, weight, scale)
    top = {8: 127, 16: 32767, 32: 1}[bits]
    dx = 1.0 if bits == 32 else (largest if largest > 0 else 1.0) / top
    unit = largest if largest > 0 else 1.0
    kind = np.float32 if as_float else (np.int8 if bits == 8 else np.int16)
    # numpy asks the system for huge pages: the solvers read rows in random order
    x = torch.from_numpy(np.zeros((count, 64 * -(-cols // 64)), dtype=kind))
    centre, divisor = torch.from_numpy(mean), torch.from_numpy(spread)
    bound = 0.0
    for part in _blocks(count, cols):
        a = scale_rows(as_tensor(X[part]), centre, divisor)
        if bits != 32:
            a.mul_(1.0 / dx).round_().clamp_(-top, top)
        x[part, :cols] = a
        square = a.square_().sum(1, dtype=torch.float64) * dx**2 + (unit**2 if intercept else 0.0)
        if weight is not None:
            square *= torch.from_numpy(weight[part])
        bound = max(bound, float(square.max()))
    return GridRows(x, cols, dx, unit, centre, divisor, bound)


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
