"""Whole tables of full-precision rows, to predict, to score and to compare.

Files are read by the readers that encode them (:mod:`torchext.data`), so every command takes the same
files and says the same about what is wrong with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchext.cli._common import DataError
from torchext.data import tables, text
from torchext.data.options import Options


@dataclass(frozen=True)
class Table:
    """Feature rows and, if a target was asked for, its column (numbers, or text labels)."""

    X: np.ndarray
    y: np.ndarray | None
    names: list[str]
    target: str | None


def is_parquet(path: Path) -> bool:
    """Parquet, by the first bytes of the file and not by its name."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def columns_of(path: Path) -> list[str]:
    """Names of all columns; f0, f1, ... for a text file without a header line."""
    return tables.names_of(path) if is_parquet(path) else text.Csv(path, None).all_names


def target_of(path: Path, wanted: str) -> int:
    """Position of a column given by its name, or by its number from 0 where no name is that number."""
    names = columns_of(path)
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise DataError(f"{path.name}: there is no column {wanted!r}; the columns are {shown}")


def read_table(path: Path, target: str | None = None, features: list[str] | None = None) -> Table:
    """Read a table: CSV text (plain or gzip; commas, semicolons or tabs) or Parquet.

    Args:
        path: the file.
        target: name or number of the column to predict; None reads none.
        features: names of the feature columns in the order wanted. A file without header must have as
            many columns instead. None takes all but the target.
    """
    names = columns_of(path)
    at = None if target is None else target_of(path, target)
    chosen = [j for j in range(len(names)) if j != at]
    if features is not None:
        if set(features) <= set(names):
            chosen = [names.index(name) for name in features]
        elif len(chosen) != len(features):
            missing = [name for name in features if name not in names]
            raise DataError(
                f"{path.name}: the model needs {len(features)} feature columns, the file has "
                f"{len(chosen)}; missing: {', '.join(missing[:5])}"
                + (", ..." if len(missing) > 5 else "")
            )
    options = Options()
    if is_parquet(path):
        source = tables.from_parquet(path, at, options, chosen)
    else:
        source = text.from_csv(path, at, None, None, options, chosen)
    return Table(
        source.block(0, source.rows).numpy(),
        source.y,
        [names[j] for j in chosen],
        None if at is None else names[at],
    )
