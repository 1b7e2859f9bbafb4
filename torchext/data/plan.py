"""Between the passes: statistics become levels, the pilot decides sampling and anchor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data import auto, pilot
from torchext.data._column_levels import (
    PILOT_ROWS,
    ColumnLevels,
    column_levels,
    counted_levels,
    optimal_column_levels,
    shared_levels,
    strip_columns,
)
from torchext.data._encode import finish_stats, new_stats, scaled_bounds, update_stats
from torchext.data._levels import Codebook, chosen_codebook, level_count, level_kind
from torchext.data.errors import DataError
from torchext.data.options import Options
from torchext.data.order import Sample
from torchext.data.progress import Progress
from torchext.data.sources import Source
from torchext.data.spill import scratch
from torchext.data.targets import Targets


@dataclass(frozen=True)
class Columns:
    """First pass: float64 mean and scale [n], float32 [n, 2] least and greatest scaled value."""

    mean: Tensor
    scale: Tensor
    bounds: Tensor


@dataclass
class Plan:
    """Everything the second pass needs to know."""

    columns: Columns
    book: Codebook
    levels: str
    sampling: str
    pilot: dict[str, Any] = field(default_factory=dict)
    x0: Tensor | None = None  # float64 [n, m]
    intercept: Tensor | None = None  # float64 [m]


GPU_VALUES = 1 << 26  # of a block on a GPU: launches are few beside the work, scratch is small


def block_rows(source: Source, outputs: int = 0) -> int:
    """Rows read at a time, a multiple of 1,024: many where they are views, few where they are copies.

    A GPU keeps some numbers for every row and output while it encodes.
    """
    if source.device.type != "cpu":
        return 1024 * max(1, GPU_VALUES // (1024 * (source.cols + 8 * outputs)))
    if source.whole() is not None:
        return 16 * 1024
    return 1024 * max(1, (8 << 20) // (1024 * source.cols * source.dtype.itemsize))


def measure(source: Source, targets: Targets | None, scale: str, progress: Progress) -> Columns:
    """First pass. With sample weights the mean is weighted, so that centring removes the intercept."""
    state = new_stats(source.cols, source.device)
    weight = None if targets is None else targets.weight
    mass = 0.0
    size = block_rows(source)
    progress.start("statistics", source.rows)
    for first in range(0, source.rows, size):
        x = source.block(first, min(source.rows, first + size))
        here = None if weight is None else weight[first : first + len(x)]
        bad = update_stats(x, state, None if here is None else here.double().to(source.device))
        if bad >= 0:
            raise source.not_finite(first, x, bad)
        for at in range(0, 0 if here is None else len(here), 1024):
            assert here is not None
            mass += float(here[at : at + 1024].numpy().astype(np.float64).sum())
        progress.add(len(x))
    state = state.cpu()
    mean, width, bounds = finish_stats(state, "none" if scale == "none" else "max")
    if weight is not None and scale != "none":
        low, high = state[2], state[3]
        mean = torch.minimum(torch.maximum(state[4] / mass, low), high)
        width = torch.maximum(high - mean, mean - low)
        width = torch.where(width > 0, width, torch.ones_like(width))
        bounds = scaled_bounds(low, high, mean, width)
    wide = ~torch.isfinite(width) | ~torch.isfinite(mean) | ~torch.isfinite(bounds).all(dim=1)
    if bool(wide.any()):
        col = int(torch.nonzero(wide)[0])
        raise DataError(
            f"{source.label}: {source.column(col)} spans more than float64 (or float32 once scaled) can hold"
        )
    return Columns(mean, width, bounds)


SHARED_VALUES = 1 << 20  # of all columns together, from which a shared table is made


def shared_level_rows(cols: int) -> int:
    """Rows that give so many values, 64 at least."""
    return max(64, SHARED_VALUES // cols)


COUNTED_BYTES = 16 << 20  # of a block of rows, if it is a copy


def count_all(
    source: Source, columns: Columns, kind: str, count: int, progress: Progress
) -> list[ColumnLevels]:
    """Levels from the histograms of all rows: one more pass, several where the columns are very many."""
    rows, cols = source.rows, source.cols
    size = block_rows(source)
    if source.whole() is None:
        size = max(size, COUNTED_BYTES // (source.dtype.itemsize * cols) // 64 * 64)
    few = min(PILOT_ROWS, rows)
    pilot = source.take(np.arange(few) * rows // few)
    progress.start("levels of all rows", rows * -(-cols // strip_columns(count)))

    def blocks(part: slice) -> Iterator[Tensor]:
        for first in range(0, rows, size):
            last = min(rows, first + size)
            yield source.block(first, last)[:, part]
            progress.add(last - first)

    c = columns
    return counted_levels(blocks, pilot, c.mean, c.scale, c.bounds, count, kind, source.device)


class Books:
    """Codebooks by sampling, each made once."""

    def __init__(
        self,
        source: Source,
        columns: Columns,
        options: Options,
        key: Tensor,
        progress: Progress | None = None,
    ) -> None:
        self.source, self.columns, self.options, self.key = source, columns, options, key
        self.progress = progress or Progress(False)
        self._found: dict[tuple[str, int], ColumnLevels] = {}
        self._sample: tuple[Tensor, Tensor | None] | None = None

    def kind(self, sampling: str) -> str:
        """The option ``levels`` with ``"auto"`` resolved."""
        return level_kind(self.options.levels, self.options.bits, sampling)

    @property
    def rows(self) -> int:
        """Rows from which levels are computed."""
        rows = self.options.levels_from
        if self.options.levels == "shared":
            rows = min(rows, shared_level_rows(self.source.cols))
        return min(rows, self.source.rows)

    def get(self, sampling: str) -> Codebook:
        """The codebook that this sampling uses."""
        o = self.options
        return chosen_codebook(o.levels, o.bits, sampling, self.columns.bounds, self._levels)

    def facts(self, sampling: str) -> dict[str, Any]:
        """Rows behind the levels, and their mean squared rounding error with its bound."""
        kind, nearest = self.kind(sampling), sampling == "nearest"
        if kind in ("uniform", "symmetric", "custom") or (kind == "lloyd" and not nearest):
            return {}  # Lloyd's levels were not judged by the variance of draws
        objective = "lloyd" if kind == "lloyd" else "nearest" if nearest else "stochastic"
        count = level_count(self.options.bits, sampling)
        found = self._found[objective, count]
        return {
            "level_rows": self.rows,
            "level_cost": float(found.cost.mean()),
            "level_bound": float(found.bound.mean()),
        }

    def _levels(self, kind: str, count: int, shared: bool) -> Tensor:
        if (kind, count) not in self._found:
            c, compared = self.columns, self.options.sampling == "auto" and kind != "lloyd"
            both = compared and not shared  # the other kind will be asked for next
            kinds = ("nearest", "stochastic") if both else (kind,)
            found: Sequence[ColumnLevels]
            if self.options.level_rows == "all" and not shared:
                found = count_all(self.source, c, "both" if both else kind, count, self.progress)
            else:
                x, rows = self._few_rows() if shared else self._rows()
                where = (x, c.mean, c.scale, c.bounds, count)
                if both:
                    found = optimal_column_levels(*where, rows=rows)
                else:
                    find = shared_levels if shared else column_levels
                    found = [find(*where, kind=kind, rows=rows)]
            self._found.update(zip(((k, count) for k in kinds), found, strict=True))
        return self._found[kind, count].levels

    def _few_rows(self) -> tuple[Tensor, Tensor | None]:
        """As :meth:`_rows`, in CPU memory: a shared table is made of few values."""
        if self.source.device.type == "cpu":
            return self._rows()
        return self.source.take(
            Sample(self.key, self.source.rows, self.rows).indices().numpy()
        ), None

    def _rows(self) -> tuple[Tensor, Tensor | None]:
        """A table and which of its rows are the sample (None: all), read from a stream once."""
        if self._sample is None:
            sample = Sample(self.key, self.source.rows, self.rows)
            x, rows = self.source.whole(), None if sample.everything else sample.indices()
            if x is None:
                dtype = torch.float32 if self.source.dtype == np.float32 else torch.float64
                x = scratch((sample.count, self.source.cols), dtype, self.options.spill_folder())
                at = 0
                for index in sample.blocks(1024):
                    x[at : at + len(index)] = self.source.take(index)
                    at += len(index)
                rows = None
            self._sample = x, rows
        return self._sample

    def limits(self, sampling: str, book: Codebook) -> Tensor:
        """float32 [n, 2]: values outside count as clipped."""
        if self.kind(sampling) == "custom":
            return torch.stack([book.base[:, 0], book.base[:, -1]], dim=1).contiguous()
        return self.columns.bounds


def decide(
    source: Source,
    targets: Targets | None,
    columns: Columns,
    books: Books | None,
    options: Options,
    key: Tensor,
) -> Plan:
    """The pilot's decisions. ``books`` is None for bits=32."""
    squares = targets is not None and targets.loss == "squared_error"
    rows, cols, folder = source.rows, source.cols, options.spill_folder()
    facts: dict[str, Any] = {}
    sampling = options.sampling
    whole: pilot.Pilot | None = None
    if targets is not None:
        whole = pilot.Pilot(
            source, targets, columns.mean, columns.scale, Sample(key, rows, rows), folder
        )
    if sampling == "auto":
        sampling = "nearest"
        if books is not None and whole is not None and squares and options.bits > 1:
            sample = Sample(key, rows, pilot.pilot_size(rows, cols))
            found = auto.compare(
                replace(whole, sample=sample),
                books.get("nearest"),
                books.get("corrected"),
                key,
                options.alpha,
            )
            facts.update(S=found.rows, F_nearest=found.nearest, F_corrected=found.corrected)
            sampling = found.choice
    book = _no_book(cols) if books is None else books.get(sampling)
    if books is not None:
        facts.update(books.facts(sampling))
    plan = Plan(columns, book, "none" if books is None else books.kind(sampling), sampling, facts)
    if whole is not None and options.anchored:
        part = replace(whole, sample=Sample(key, rows, pilot.anchor_size(rows, cols)))
        facts["S0"] = part.sample.count
        if squares:
            plan.x0 = pilot.fit_squares(part, options.alpha)
        else:
            plan.x0, plan.intercept = pilot.fit_logistic(part, options.alpha)
        constant = columns.bounds[:, 1:] <= columns.bounds[:, :1]
        plan.x0 = plan.x0.masked_fill(constant, 0.0).float().double()
        if plan.intercept is not None:
            plan.intercept = plan.intercept.float().double()
    return plan


def _no_book(cols: int) -> Codebook:
    empty = torch.empty(0, dtype=torch.uint8)
    grid = torch.zeros(cols, 2, dtype=torch.float32)
    return Codebook(grid, torch.empty(0, dtype=torch.float32), empty, None, "affine", 32, "nearest")
