"""Codebooks: what the option ``levels`` means, uniform grids, and the form of levels in integer kernels.

Every level a store uses can be written ``fl32(lo + fl32(step * T))`` with an unsigned integer T, so that
kernels may work on T alone. Levels are rounded to that form *before* encoding: codes, noise, moments and
anchors all speak of the values the kernels use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

AUTO_OPTIMAL_BITS = 5  # up to here ``levels="auto"`` is ``"optimal"``
_SMALLEST = 2.0**-126  # a smaller step counts as a constant column


@dataclass(frozen=True)
class Codebook:
    """The levels of all columns in the form kernels read.

    Attributes:
        grid: float32 [n, 2], (lo, step) of every column.
        base: float32 [n, N] ascending levels that the encoder searches, padded with the last one where a
            column has fewer; empty for a uniform grid in which level c is ``fl(lo + fl(step*c))``.
        table: uint8 [P, ncb, n, 2^bits] of T by code, P = 1, or 2 (low bytes, high bytes) on the 16-bit
            grid; empty if T is the code itself.
        levels: float32 [ncb, n, 2^bits] decoded value by code; None if ``table`` is empty.
        kind: ``"affine"``, ``"int8"`` or ``"int16"``.
        bits: total bits of a code, draws included.
        sampling: ``"nearest"``, ``"stochastic"`` or ``"double"``.
    """

    grid: Tensor
    base: Tensor
    table: Tensor
    levels: Tensor | None
    kind: str
    bits: int
    sampling: str

    def to(self, device: torch.device) -> Codebook:
        """The same with all tensors there."""
        moved = {name: getattr(self, name).to(device) for name in ("grid", "base", "table")}
        return replace(
            self, **moved, levels=None if self.levels is None else self.levels.to(device)
        )


def level_count(bits: int, sampling: str) -> int:
    """Levels a b-bit code tells apart: 2^b, for double sampling 2^(b-2) + 1 (two bits hold the draws)."""
    return (1 << (bits - 2)) + 1 if sampling == "double" else 1 << bits


def uniform_grid(lo: Tensor, hi: Tensor, count: int) -> Tensor:
    """Grid (lo, step) whose ``count`` levels span [lo, hi] of every column.

    step is ``fl((hi - lo)/(count - 1))`` raised by ulps until the top level reaches hi, so that no value
    of the column lies outside. A constant column gets step 0.
    """
    lo32, hi32 = lo.to(torch.float32), hi.to(torch.float32)
    top = torch.tensor(float(count - 1), dtype=torch.float32)
    step = ((hi32.double() - lo32.double()) / float(count - 1)).to(torch.float32)
    constant = (hi32 <= lo32) | (step < _SMALLEST)
    step = torch.where(constant, torch.zeros_like(step), step)
    infinity = torch.tensor(float("inf"))
    for _ in range(64):
        short = (~constant) & (lo32 + step * top < hi32)
        if not bool(short.any()):
            break
        step = torch.where(short, torch.nextafter(step, infinity), step)
    return torch.stack([lo32, step], dim=1).contiguous()


def grid_values(grid: Tensor, codes: Tensor) -> Tensor:
    """``fl32(lo + fl32(step * T))`` for integers T [n, ...]; multiplication and addition round apart."""
    shape = (-1, *([1] * (codes.dim() - 1)))
    offset = grid[:, 1].reshape(shape) * codes.to(torch.float32)
    return grid[:, 0].reshape(shape) + offset


def _distinct(levels: Tensor) -> Tensor:
    return (levels[:, 1:] > levels[:, :-1]).sum(dim=1)


def _round_to_grid(levels: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Grid, T and values of ascending levels on a grid of ``size`` points per column."""
    grid = uniform_grid(levels[:, 0], levels[:, -1], size)
    step = grid[:, 1:].double()
    t = torch.where(
        step > 0, (levels.double() - grid[:, :1].double()) / step, torch.zeros_like(step)
    )
    codes = t.round().clamp_(0, size - 1).to(torch.int64)
    # The grid may overshoot the top level by less than a step; keep that end outward.
    codes[:, -1] = torch.where(grid[:, 1] > 0, size - 1, 0)
    codes = torch.where(levels >= levels[:, -1:], codes[:, -1:], codes)
    return grid, codes, grid_values(grid, codes)


def to_grid(levels: Tensor) -> tuple[Tensor, Tensor, Tensor, str]:
    """Round ascending levels [n, N] to integer grids.

    Returns:
        (grid, T, values, kind): the 8-bit grid of 256 points between a column's end levels unless two
        levels of some column merge on it, then 65,536 points for all columns. The ends stay at or outside
        the end levels, so stochastic rounding remains unbiased between them.
    """
    levels = levels.to(torch.float32)
    for size, kind in ((256, "int8"), (65536, "int16")):
        grid, codes, values = _round_to_grid(levels, size)
        if kind == "int16" or bool((_distinct(values) >= _distinct(levels)).all()):
            break
    return grid, codes, values, kind


def _kernel_table(codes: Tensor, kind: str) -> Tensor:
    """T [ncb, n, 2^b] as the byte planes of the kernels."""
    planes = [codes & 255] if kind != "int16" else [codes & 255, codes >> 8]
    return torch.stack(planes).to(torch.uint8).contiguous()


def codebook(
    bits: int,
    sampling: str,
    *,
    lo: Tensor | None = None,
    hi: Tensor | None = None,
    levels: Tensor | None = None,
) -> Codebook:
    """Codebook from column ranges (uniform levels) or from ascending levels [n, N].

    Args:
        bits: total bits per value, draws included.
        sampling: ``"nearest"``, ``"stochastic"``, ``"corrected"`` (the same codes) or ``"double"``.
        lo, hi: float32 [n] least and greatest scaled value, for uniform levels.
        levels: [n, N], N = :func:`level_count`; instead of lo and hi.
    """
    sampling = "stochastic" if sampling == "corrected" else sampling
    count = level_count(bits, sampling)
    if levels is None:
        if lo is None or hi is None:
            raise ValueError("codebook needs lo and hi, or levels")
        grid = uniform_grid(lo, hi, count)
        base = torch.empty(0, dtype=torch.float32)
        if sampling != "double":
            empty = torch.empty(0, dtype=torch.uint8)
            return Codebook(grid, base, empty, None, "affine", bits, sampling)
        codes = torch.arange(count).expand(grid.shape[0], count)
        kind = "int8"
    else:
        if levels.shape[1] != count:
            raise ValueError(
                f"{bits} bits with sampling {sampling!r} need {count} levels, got {levels.shape[1]}"
            )
        if not bool((levels[:, 1:] >= levels[:, :-1]).all()):
            raise ValueError("the levels of a column must ascend")
        grid, codes, base, kind = to_grid(levels)
    if sampling == "double":
        code = torch.arange(2**bits)
        low = code & (2 ** (bits - 2) - 1)
        # A constant column keeps T = 0: its table must not climb.
        by_code = [codes[:, low + (code >> bit & 1)] for bit in (bits - 2, bits - 1)]
        tables = torch.stack(by_code)
    else:
        tables = codes.unsqueeze(0)
    values = torch.stack([grid_values(grid, t) for t in tables])
    return Codebook(
        grid, base.contiguous(), _kernel_table(tables, kind), values, kind, bits, sampling
    )


def symmetric_grid(bounds: Tensor, bits: int) -> Tensor:
    """Grid (lo, step) whose levels are -M .. M steps, M = 2^(bits-1) - 1, the same for all columns.

    Zero is a level, M steps are the greatest magnitude of any value, and the last of the 2^bits codes is not
    used. A constant column gets step 0.
    """
    reach, most = bounds.abs().max(), float((1 << (bits - 1)) - 1)
    step = (reach.double() / most).to(torch.float32)
    one = torch.stack([-reach, step]) if float(step) >= _SMALLEST else torch.zeros(2)
    constant = bounds[:, 1:] <= bounds[:, :1]
    return torch.where(constant, torch.zeros_like(one), one).contiguous()


def level_kind(levels: Any, bits: int, sampling: str) -> str:
    """What the option ``levels`` means for this sampling, with ``"auto"`` resolved.

    ``"auto"`` is ``"optimal"`` up to 5 bits, and for double sampling, whose codes go through tables anyway.
    One draw of 6 bits and all codes of 7 and 8 are ``"uniform"``: they need no table, and tables of 128
    entries or more cost several times what reading the codes does. Nearest at 6 bits is ``"lloyd"``: its
    levels matter still, and are found several times faster than 64 optimal ones.

    Returns:
        ``"optimal"``, ``"shared"``, ``"lloyd"``, ``"uniform"``, ``"symmetric"`` or ``"custom"``.
    """
    if not isinstance(levels, str):
        return "custom"
    if levels == "symmetric":
        if bits == 1 or sampling == "double":
            raise ValueError(
                'levels="symmetric" need 2 bits or more and one draw a value, got '
                f"{bits} bits with sampling {sampling!r}"
            )
        return levels
    if bits > 8:
        return "uniform"
    if levels == "auto":
        if bits <= AUTO_OPTIMAL_BITS or sampling == "double":
            return "optimal"
        return "lloyd" if bits == 6 and sampling == "nearest" else "uniform"
    return levels


def chosen_codebook(
    levels: Any, bits: int, sampling: str, bounds: Tensor, find: Callable[[str, int, bool], Tensor]
) -> Codebook:
    """The codebook of the option ``levels``.

    ``find(kind, count, shared)`` gives levels [n, count] from the data, as ``column_levels`` or
    ``shared_levels`` of :mod:`torchext.data._column_levels` do.
    """
    kind, count = level_kind(levels, bits, sampling), level_count(bits, sampling)
    if kind == "symmetric":
        empty = torch.empty(0, dtype=torch.float32), torch.empty(0, dtype=torch.uint8)
        rule = "stochastic" if sampling == "corrected" else sampling
        return Codebook(symmetric_grid(bounds, bits), *empty, None, "affine", bits, rule)
    if kind == "uniform":
        return codebook(bits, sampling, lo=bounds[:, 0].contiguous(), hi=bounds[:, 1].contiguous())
    if kind == "custom":
        table = torch.as_tensor(np.asarray(levels), dtype=torch.float32)
        if tuple(table.shape) != (len(bounds), count):
            raise ValueError(
                f"levels must have shape ({len(bounds)}, {count}) for {bits} bits with sampling "
                f"{sampling!r}, got {tuple(table.shape)}"
            )
        return codebook(bits, sampling, levels=table)
    objective = "nearest" if sampling == "nearest" else "stochastic"
    found = find("lloyd" if kind == "lloyd" else objective, count, kind == "shared")
    if sampling != "nearest":  # the ends must hold all values between them, or draws are biased
        found = found.clone()
        found[:, 0] = torch.minimum(found[:, 0], bounds[:, 0])
        found = torch.where(found >= found[:, -1:], torch.maximum(found, bounds[:, 1:]), found)
    return codebook(bits, sampling, levels=found)
