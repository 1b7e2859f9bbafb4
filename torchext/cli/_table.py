"""Numbers out of CSV text (plain or gzip), with errors that name file, line and column.

Used where the rows themselves are needed at full precision: to predict, to score and to compare.
Stores are encoded by the streaming reader of :mod:`torchext.data` instead.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from torchext.cli._common import DataError


@dataclass(frozen=True)
class Table:
    """Feature rows and, if a target was asked for, its column (numbers, or text labels)."""

    X: np.ndarray
    y: np.ndarray | None
    names: list[str]
    target: str | None


def open_text(path: Path) -> TextIO:
    """The file as text; gzip is recognised by its first bytes, not by its name."""
    raw = open(path, "rb")
    zipped = raw.peek(2)[:2] == b"\x1f\x8b"
    return io.TextIOWrapper(
        gzip.GzipFile(fileobj=raw) if zipped else raw, encoding="utf-8-sig", newline=""
    )


def header_of(path: Path) -> tuple[list[str], bool]:
    """Column names, and whether the file has a header line (names are f0, f1, ... without one)."""
    try:
        with open_text(path) as f:
            first = next(csv.reader(f), [])
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV text file ({error})") from None
    if not first:
        raise DataError(f"{path}: the file is empty")
    first = [name.strip() for name in first]
    if all(_number(field) is not None for field in first):
        return [f"f{i}" for i in range(len(first))], False
    return first, True


def column_index(path: Path, names: list[str], wanted: str) -> int:
    """Position of a column given by name or by number from 0."""
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise DataError(f"{path}:1: there is no column {wanted!r}; the columns are {shown}")


def read_table(path: Path, target: str | None = None, features: list[str] | None = None) -> Table:
    """Read a CSV file into memory.

    Args:
        path: the file.
        target: name or number of the column to predict; None reads none.
        features: names of the feature columns in the order wanted; None takes all but the target.
    """
    names, header = header_of(path)
    t = None if target is None else column_index(path, names, target)
    if header and features is not None and set(features) <= set(names):
        columns = [names.index(name) for name in features]
    else:
        columns = [j for j in range(len(names)) if j != t]
        if features is not None and len(columns) != len(features):
            missing = [name for name in features if name not in names]
            raise DataError(
                f"{path}:1: the model needs {len(features)} feature columns, the file has {len(columns)}"
                + (f"; missing: {', '.join(missing[:5])}" if header and missing else "")
            )
    try:
        with open_text(path) as f:
            if sum(1 for _ in zip(f, range(1 + header), strict=False)) <= int(header):
                raise DataError(f"{path}: a header line, but no rows of data")
        with open_text(path) as f:
            X = np.loadtxt(
                f,
                delimiter=",",
                skiprows=int(header),
                usecols=columns,
                ndmin=2,
                comments=None,
                quotechar='"',
            )
        labels = None
        if t is not None:
            with open_text(path) as f:
                labels = np.loadtxt(
                    f,
                    delimiter=",",
                    skiprows=int(header),
                    usecols=[t],
                    ndmin=1,
                    comments=None,
                    quotechar='"',
                    dtype=str,
                )
    except (
        ValueError,
        IndexError,
        UnicodeDecodeError,
        gzip.BadGzipFile,
        EOFError,
        OSError,
    ) as error:
        _find_fault(path, names, header, set(columns))
        raise DataError(f"{path}: {error}") from None
    if len(X) == 0:
        raise DataError(f"{path}: no rows of data")
    if not np.isfinite(X).all():
        _find_fault(path, names, header, set(columns))
    return Table(
        X,
        None if labels is None else _target(labels),
        [names[j] for j in columns],
        None if t is None else names[t],
    )


def _target(labels: np.ndarray) -> np.ndarray:
    """Numbers if every label is one, else the text itself."""
    try:
        return labels.astype(np.float64)
    except ValueError:
        return labels


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _find_fault(path: Path, names: list[str], header: bool, columns: set[int]) -> None:
    """Second, slow look at a file that the fast reader refused: raise an error that names the place."""
    try:
        with open_text(path) as f:
            reader = csv.reader(f)
            if header:
                next(reader)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise DataError(
                        f"{path}:{reader.line_num}: {len(row)} fields, the first line has {len(names)}"
                    )
                for j in sorted(columns):
                    value = _number(row[j])
                    if value is None:
                        what = (
                            "an empty field"
                            if not row[j].strip()
                            else f"{row[j][:40]!r}, not a number"
                        )
                        raise DataError(
                            f"{path}:{reader.line_num}: column {j + 1} ({names[j]}) holds {what}"
                        )
                    if not math.isfinite(value):
                        raise DataError(
                            f"{path}:{reader.line_num}: column {j + 1} ({names[j]}) holds "
                            f"{row[j].strip()}, not a finite number"
                        )
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
        raise DataError(f"{path}: damaged or not a CSV text file ({error})") from None
