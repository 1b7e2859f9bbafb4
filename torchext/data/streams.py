"""Iterators of blocks, kept in an unnamed temporary file until the second pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from torchext.data.errors import DataError
from torchext.data.options import Options
from torchext.data.progress import Progress
from torchext.data.sources import Array, Source, as_array, working_type
from torchext.data.spill import Spill

Block = tuple[Array, Array | None, Array | None]


def from_iter(
    blocks: Iterable[Any] | Callable[[], Iterable[Any]], names: list[str] | None, options: Options
) -> Source:
    """See :meth:`QuantizedDataset.from_iter`."""
    return collect(_checked(blocks() if callable(blocks) else blocks), names, "blocks", options)


def collect(
    blocks: Iterable[Block],
    names: list[str] | None,
    label: str,
    options: Options,
    place: Callable[[int], str] | None = None,
) -> Source:
    """Spill blocks of one dtype and width to disk; labels and weights stay in memory."""
    progress = Progress(options.progress)
    progress.start("read")
    spill: Spill | None = None
    ys: list[Array] = []
    weights: list[Array] = []
    try:
        for x, y, weight in blocks:
            if spill is None:
                spill = Spill(x.shape[1], x.dtype, options.spill_folder())
            spill.add(x)
            if y is not None:
                ys.append(np.array(y))
            if weight is not None:
                weights.append(np.array(weight))
            progress.add(len(x))
    finally:
        progress.close()
    if spill is None or spill.rows == 0:
        raise DataError(f"{label}: the table has 0 rows, at least 1 is needed")
    return Source(
        spill.array(),
        np.concatenate(ys) if ys else None,
        np.concatenate(weights) if weights else None,
        names=names,
        label=label,
        place=place,
    )


def _checked(blocks: Iterable[Any]) -> Iterator[Block]:
    """Blocks as arrays of one working type; messages name the block."""
    kind: Any = None
    shape: tuple[int, bool, bool] | None = None
    for number, item in enumerate(blocks):
        parts = item if isinstance(item, (tuple, list)) else (item,)
        if not 1 <= len(parts) <= 3:
            raise DataError(
                f"block {number}: expected X, (X, y) or (X, y, weight), got {len(parts)} parts"
            )
        x, y, weight = (None if p is None else as_array(p) for p in (*parts, None, None)[:3])
        if x is None or x.ndim != 2:
            raise DataError(f"block {number}: X must be a table of rows and columns")
        dtype = working_type(x.dtype, f"block {number}")
        kind = kind or dtype
        if dtype != kind and dtype == np.float64:
            raise DataError(
                f"block {number}: X is {x.dtype}, the first block was float32; give one type"
            )
        found = (x.shape[1], y is not None, weight is not None)
        shape = shape or found
        if found != shape:
            raise DataError(
                f"block {number}: {found[0]} columns, labels {found[1]}, weights {found[2]}; the first "
                f"block had {shape[0]}, {shape[1]}, {shape[2]}"
            )
        for what, values in (("labels", y), ("weights", weight)):
            if values is not None and len(values) != len(x):
                raise DataError(f"block {number}: {len(values)} {what} for {len(x)} rows")
        try:
            yield x.astype(kind), y, weight
        except (TypeError, ValueError) as error:
            raise DataError(
                f"block {number}: X holds something that is not a number ({error})"
            ) from None
