"""Parquet files and Arrow tables, read batch by batch with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torchext.data.errors import DataError
from torchext.data.options import Options
from torchext.data.sources import MAX_COLS, Array, Source
from torchext.data.streams import collect

_ROWS = 8192


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "reading Parquet needs pyarrow: pip install 'torchext-zipml[data]'"
        ) from None
    return pyarrow


def _open(path: str | Path) -> Any:
    pa = _arrow()
    try:
        return pa.parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{Path(path).name}: not a Parquet file ({reason})") from None


def names_of(path: str | Path) -> list[str]:
    """Column names of a Parquet file."""
    return [str(name) for name in _open(path).schema_arrow.names]


def from_parquet(
    table: Any, target: str | int | None, options: Options, chosen: list[int] | None = None
) -> Source:
    """See :meth:`QuantizedDataset.from_parquet`; ``chosen``: the feature columns in the order wanted."""
    pa = _arrow()
    label = "table"
    if isinstance(table, (str, Path)):
        label, file = Path(table).name, _open(table)
        schema, batches = file.schema_arrow, file.iter_batches(_ROWS)
    elif isinstance(table, pa.Table):
        schema, batches = table.schema, iter(table.to_batches(_ROWS))
    else:
        schema, batches = table.schema, iter(table)
    names = [str(name) for name in schema.names]
    at = _find(label, names, target)
    columns = [j for j in range(len(names)) if j != at] if chosen is None else chosen
    if len(columns) > MAX_COLS:
        raise DataError(
            f"{label}: {len(columns)} feature columns, the kernels take up to {MAX_COLS}"
        )
    for j in columns:
        kind = schema.types[j]
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        ):
            raise DataError(f"{label}: column {names[j]!r} has type {kind}, numbers are needed")
    single = all(
        pa.types.is_float32(schema.types[j]) or pa.types.is_float16(schema.types[j])
        for j in columns
    )
    dtype = np.float32 if single else np.float64
    return collect(
        _blocks(label, names, batches, columns, at, dtype),
        [names[j] for j in columns],
        label,
        options,
    )


def _blocks(
    label: str, names: list[str], batches: Any, columns: list[int], target: int | None, dtype: Any
) -> Iterator[tuple[Array, Array | None, None]]:
    row = 0
    for batch in batches:
        x = np.empty((batch.num_rows, len(columns)), dtype=dtype)
        for at, j in enumerate([*columns, *([] if target is None else [target])]):
            column = batch.column(j)
            if column.null_count:
                missing = row + int(
                    np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]
                )
                raise DataError(f"{label}: row {missing}, column {names[j]!r} is empty")
            if at < len(columns):
                x[:, at] = column.to_numpy(zero_copy_only=False)
        y = None if target is None else batch.column(target).to_numpy(zero_copy_only=False)
        row += batch.num_rows
        yield x, y, None


def _find(label: str, names: list[str], target: str | int | None) -> int | None:
    if target is None:
        return None
    if target in names:
        return names.index(str(target))
    if isinstance(target, int) and -len(names) <= target < len(names):
        return target % len(names)
    raise DataError(
        f"{label}: there is no target column {target!r}; the columns are {', '.join(names[:8])}"
    )
