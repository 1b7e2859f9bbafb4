"""Levels from data: of every column by itself, or one table for all columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchext.data._encode import scale_rows
from torchext.data._levels import to_grid


class ColumnLevels(NamedTuple):
    """Levels of the columns of a sample and what rounding it to them costs.

    Attributes:
        levels: float32 [n, count], ascending, padded with the last level where a column has fewer values.
        cost: float64 [n]: mean over the sample of the squared error (stochastic: of the variance), with the
            values of a bin spread evenly over it.
        bound: float64 [n]: the true mean differs from ``cost`` by no more than this.
    """

    levels: Tensor
    cost: Tensor
    bound: Tensor


def column_levels(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    count: int,
    *,
    kind: str = "lloyd",
    rows: Tensor | None = None,
    iterations: int = 60,
) -> ColumnLevels:
    r"""Levels of the scaled columns of a sample, computed on a histogram with exact bin means.

    ``"lloyd"`` and ``"nearest"``: nearest rounding to them has the least squared error,

    .. math:: \min_{L_1 \le .. \le L_N} \sum_k \min_i (a_k - L_i)^2;

    every level is the mean of its cell. ``"lloyd"``: the better of two runs of Lloyd's iterations, from
    quantiles and from the density that is optimal for many levels; they may end in a local optimum.
    ``"nearest"``: iterations from the exact optimum over some 128 runs of bins. ``"stochastic"``: unbiased
    rounding to them varies least,

    .. math:: \min_{L_1 \le .. \le L_N} \sum_k (b_k - a_k)(a_k - l_k),

    with the levels :math:`l_k \le a_k \le b_k` around a value: from such an exact optimum each level moves to
    its best bin between its neighbours until none moves. The first and the last level are the least
    and the greatest value.

    The histogram has 2,048 bins a column (4,096 for more than 16 levels), equally wide about the median and
    growing in proportion to the distance from it. Counts and sums are integers, so histograms of parts of a
    table add up to that of the whole, in any order.

    Args:
        x: float32 or float64 [K, n], the source or a sample of it, on the CPU or a GPU.
        mean, scale: float64 [n].
        bounds: float32 [n, 2], least and greatest scaled value of all rows (:func:`scaled_bounds`).
        count: levels, 2..256.
        rows: int64 indices of the sample's rows in ``x`` (ascending reads fastest); default all rows,
            at most 2^23.
        iterations: upper limit of the iterations.

    Determinism: class A, independent of the instruction set and the number of threads.
    """
    return _find(x, rows, mean, scale, bounds, count, kind, iterations)[0]


def optimal_column_levels(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    count: int,
    *,
    rows: Tensor | None = None,
    iterations: int = 60,
) -> tuple[ColumnLevels, ColumnLevels]:
    """:func:`column_levels` of the kinds ``"nearest"`` and ``"stochastic"`` from one histogram."""
    nearest, stochastic = _find(x, rows, mean, scale, bounds, count, "both", iterations)
    return nearest, stochastic


def _find(
    x: Tensor,
    rows: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    count: int,
    kind: str,
    iterations: int,
) -> list[ColumnLevels]:
    """Levels by kind. A GPU counts its rows, the rest is done on the CPU, where the results are."""
    if x.device.type == "cpu":
        return _split(
            torch.ops.torchext._column_levels(x, rows, mean, scale, bounds, count, kind, iterations)
        )
    total = len(x) if rows is None else len(rows)
    few = min(PILOT_ROWS, total)
    at = torch.arange(few) * total // few
    pilot = x[(at if rows is None else rows[at]).to(x.device)].cpu()
    there = None if rows is None else rows.to(x.device)

    def blocks(part: slice) -> Iterator[Tensor]:
        yield x[:, part] if there is None else x[:, part][there]

    where = (pilot, mean, scale, bounds, count)
    return counted_levels(blocks, *where, kind, x.device, iterations)


def histogram_bins(count: int) -> int:
    """Bins a column for ``count`` levels, of 16 bytes each."""
    return 2048 if count <= 16 else 4096


PILOT_ROWS = 512  # rows that place the bins
HISTOGRAM_BYTES = 32 << 20  # of the columns that are counted together


def counted_levels(
    blocks: Callable[[slice], Iterable[Tensor]],
    pilot: Tensor,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    count: int,
    kind: str,
    device: torch.device | str = "cpu",
    iterations: int = 60,
) -> list[ColumnLevels]:
    """Levels by kind from the histograms of all rows, a strip of columns after another.

    Args:
        blocks: all rows of some columns, block by block, on ``device``.
        pilot, mean, scale, bounds, count, device: as for :class:`ColumnHistograms`, of all columns.
        kind, iterations: as for :meth:`ColumnHistograms.levels`.
    """
    cols, width = len(bounds), strip_columns(count)
    parts: list[list[ColumnLevels]] = []
    for col in range(0, cols, width):
        part = slice(col, min(cols, col + width))
        histograms = ColumnHistograms(
            pilot[:, part], mean[part], scale[part], bounds[part], count, device
        )
        for block in blocks(part):
            histograms.add(block)
        parts.append(histograms.levels(kind, iterations))
    return [
        ColumnLevels(*(torch.cat(tensors) for tensors in zip(*of_kind, strict=True)))
        for of_kind in zip(*parts, strict=True)
    ]


def strip_columns(count: int) -> int:
    """Columns that are counted together."""
    return max(64, HISTOGRAM_BYTES // (16 * histogram_bins(count)) // 64 * 64)


class ColumnHistograms:
    """The histograms of :func:`column_levels` of a table that comes in blocks of rows.

    Counts and sums are integers: any split of the rows into blocks, in any order, gives the bits that
    :func:`column_levels` gives of all of them at once. 32 KiB a column, 64 above 16 levels.

    Args:
        pilot: float32 or float64 [512, n], rows ``i * K // 512`` of the table (all, if it has fewer); they
            place the bins.
        mean, scale, bounds, count: as for :func:`column_levels`.
        device: where the rows are counted. Bins are placed and levels sought on the CPU.
    """

    def __init__(
        self,
        pilot: Tensor,
        mean: Tensor,
        scale: Tensor,
        bounds: Tensor,
        count: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.bounds, self.count = bounds.contiguous(), count
        self.state = torch.ops.torchext._histogram_new(
            pilot, mean.contiguous(), scale.contiguous(), self.bounds, count
        ).to(device)
        shape = (2, len(bounds), histogram_bins(count))
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)

    def add(self, x: Tensor) -> None:
        """Count the rows of a block, [rows, n]."""
        torch.ops.torchext._histogram_add(x, self.state, self.counts)

    def merge(self, other: ColumnHistograms) -> None:
        """Add what another has counted, whose pilot was the same: for rows counted in several processes."""
        if not torch.equal(self.state, other.state):
            raise ValueError("histograms merge only if their bins are the same: use one pilot")
        self.counts += other.counts

    def levels(self, kind: str, iterations: int = 60) -> list[ColumnLevels]:
        """Levels of one kind, or of ``"nearest"`` and ``"stochastic"`` for ``"both"``.

        The mean squared error (variance) over all rows that were added differs from ``cost`` by at most
        ``bound``: a bin of n values and width w hides n w k / 4 where the error's slope turns by k in it.
        """
        found = torch.ops.torchext._histogram_levels(
            self.state.cpu(), self.counts.cpu(), self.bounds, self.count, kind, iterations
        )
        return _split(found)


def _split(found: tuple[Tensor, Tensor]) -> list[ColumnLevels]:
    """[kinds, n, count] levels and [kinds, n, 2] costs, by kind."""
    return [
        ColumnLevels(levels, c[:, 0].contiguous(), c[:, 1].contiguous())
        for levels, c in zip(*found, strict=True)
    ]


def shared_levels(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    count: int,
    *,
    kind: str = "nearest",
    rows: Tensor | None = None,
) -> ColumnLevels:
    """One table for all columns: the levels of all values together, every column's range being [0, 1].

    The table lies on 256 points between its ends (65,536 if levels would merge), so that in the integer
    form of :func:`to_grid` all columns have the same T; a column's own are its (lo, step).

    Args:
        x, mean, scale, bounds, count, kind, rows: as for :func:`column_levels` (``rows`` where x is);
            constant columns do not count.

    Returns:
        the table stretched to the range of every column; ``cost`` and ``bound`` are those of all values
        together, times the square of a column's range.

    Determinism: class A, independent of the instruction set and the number of threads.
    """
    low, span = bounds[:, 0].double(), (bounds[:, 1] - bounds[:, 0]).double()
    live = span > 0
    unit = torch.where(live, span, torch.ones_like(span))
    sample = x if rows is None else x[rows]
    base, width = (mean + low * scale).to(x.device), (unit * scale).to(x.device)
    values = scale_rows(sample, base, width)[:, live.to(x.device)].reshape(-1, 1)
    one = torch.ones(1, dtype=torch.float64)
    if not len(values):
        values = torch.zeros(1, 1)
    found = column_levels(values, 0 * one, one, torch.tensor([[0.0, 1.0]]), count, kind=kind)
    table = to_grid(found.levels)[2].double()
    levels = torch.where(live[:, None], low[:, None] + span[:, None] * table, low[:, None])
    square = torch.where(live, span.square(), torch.zeros_like(span))
    return ColumnLevels(levels.float().contiguous(), found.cost * square, found.bound * square)
