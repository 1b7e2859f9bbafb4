"""Decoded values of scattered rows, with the random bits of their places in the source.

The encoding kernels work on runs of consecutive rows; a pilot takes rows from everywhere. These few
lines follow the same rule on tensors and give the same values bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchext.data._levels import Codebook, grid_values
from torchext.random import Purpose, advance, fold_in

RowIndex = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Cells:
    """Neighbouring levels lo <= a <= hi of every value, and where a lies between them."""

    a: Tensor
    lo: Tensor
    hi: Tensor

    def nearest(self) -> Tensor:
        """The closer level; a tie goes to the lower one."""
        return torch.where(self.a > (self.lo + self.hi) / 2, self.hi, self.lo)

    def stochastic(self, u: Tensor) -> Tensor:
        """hi with probability (a - lo)/(hi - lo); u uniform in [0, 1)."""
        width = self.hi - self.lo
        share = torch.where(width > 0, (self.a - self.lo) / width, torch.zeros_like(width))
        return torch.where(u < share, self.hi, self.lo)

    def variance(self) -> Tensor:
        """float64 variance (hi - a)(a - lo) of a draw; 0 outside the levels."""
        a = self.a.double()
        return ((self.hi.double() - a) * (a - self.lo.double())).clamp_min_(0.0)


def scaled(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """float32 (x - mean)/scale, computed in float64; always row-major, for sums that never vary."""
    return (x.double() - mean).div_(scale).to(torch.float32).contiguous()


def cells(a: Tensor, book: Codebook) -> Cells:
    """Search of the levels; a is float32 [R, n]."""
    if book.base.numel():
        levels = book.base
        count = torch.searchsorted(levels, a.T.contiguous(), right=True)
        last = (levels < levels[:, -1:]).sum(dim=1, keepdim=True)
        low = torch.minimum(count - 1, last - 1).clamp_min_(0)
        high = torch.minimum(low + 1, last)
        return Cells(a, levels.gather(1, low).T, levels.gather(1, high).T)
    lo, step = book.grid[:, 0], book.grid[:, 1]
    last_cell = float(2**book.bits - 2)
    index = (
        torch.where(step > 0, (a - lo) / step, torch.zeros_like(a)).floor_().clamp_(0, last_cell)
    )
    index = torch.where(_affine(book.grid, index) > a, index - 1, index).clamp_(0, last_cell)
    above = torch.where(step > 0, index + 1, index)
    index = torch.where((_affine(book.grid, above) <= a) & (step > 0), index + 1, index).clamp_(
        0, last_cell
    )
    above = torch.where(step > 0, index + 1, index)
    return Cells(a, _affine(book.grid, index), _affine(book.grid, above))


def _affine(grid: Tensor, index: Tensor) -> Tensor:
    return grid_values(grid, index.T).T


def uniforms(key: Tensor, rows: RowIndex, cols: int, copy: int = 0) -> Tensor:
    """float32 [R, n]: the uniforms that rows of the source use for draw 0."""
    drawn = fold_in(fold_in(key, Purpose.DATA), copy)
    blocks = 16 * -(-cols // 64)  # Philox blocks of a row, pitch/4
    out = torch.empty(len(rows), cols, dtype=torch.float32)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(rows)]
    for start, end in zip(starts, ends, strict=True):
        words = torch.ops.torchext._philox(
            advance(drawn, int(rows[start]) * blocks), (end - start) * blocks, 0, 0
        )
        part = (words.reshape(end - start, -1)[:, :cols] & 0xFFFFFFFF) >> 8
        out[start:end] = part.to(torch.float32) * 2.0**-24
    return out
