"""CSV and LIBSVM text, plain or gzip, read once in pieces."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from torchext.data.errors import DataError
from torchext.data.options import Options
from torchext.data.sources import MAX_COLS, Array, Source
from torchext.data.streams import collect

_LINES = 4096  # lines parsed at a time
Numbered = list[tuple[int, str]]  # (line number, text)


def open_text(path: Path) -> IO[str]:
    """The file as text, uncompressed if it starts with gzip's magic bytes."""
    file = open(path, "rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return io.TextIOWrapper(gzip.open(file) if packed else file, encoding="utf-8-sig", newline="")


def pieces(path: Path) -> Iterator[Numbered]:
    """Non-empty lines with their numbers, in pieces; unreadable files raise :class:`DataError`."""
    try:
        with open_text(path) as file:
            numbered = ((i, line.rstrip("\r\n")) for i, line in enumerate(file, 1))
            lines = ((i, line) for i, line in numbered if line.strip())
            while piece := list(itertools.islice(lines, _LINES)):
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name}: the gzip data are damaged or truncated ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: not text in UTF-8 ({error.reason} at byte {error.start})"
        ) from None


class Csv:
    """Splits lines of a CSV file into features (all other columns, or the chosen ones) and target."""

    def __init__(
        self,
        path: Path,
        target: str | int | None,
        header: bool | None = None,
        delimiter: str | None = None,
        chosen: list[int] | None = None,
    ) -> None:
        self.path, self.pieces = path, pieces(path)
        first = next(self.pieces, None)
        if first is None:
            raise DataError(f"{path.name}: the file is empty")
        self.delimiter = delimiter or max(",;\t", key=lambda d: first[0][1].count(d))
        top = self.cells(first[0][1])
        self.width = len(top)
        second = self.cells(first[1][1]) if len(first) > 1 else None
        self.named = _is_header(top, second) if header is None else header
        names = (
            [name.strip() for name in top] if self.named else [f"f{j}" for j in range(self.width)]
        )
        self.first = first[1:] if self.named else first
        self.target = self._find(target, names)
        others = [j for j in range(self.width) if j != self.target]
        self.columns = others if chosen is None else chosen
        self.names = [names[j] for j in self.columns] if self.named else None
        self.all_names = names
        self.lines: list[Array] = []
        if len(self.columns) > MAX_COLS:
            raise DataError(
                f"{path.name}: {len(self.columns)} feature columns, the kernels take up to {MAX_COLS}"
            )

    def cells(self, line: str) -> list[str]:
        """Fields of one line."""
        return next(csv.reader([line], delimiter=self.delimiter), [])

    def _find(self, target: str | int | None, names: list[str]) -> int | None:
        if target is None:
            return None
        if isinstance(target, str) and target in names:
            return names.index(target)
        try:
            at = int(target)
        except ValueError:
            at = self.width
        if isinstance(target, str) and self.named:
            at = self.width  # a name that is a number must be a name
        if -self.width <= at < self.width:
            return at % self.width
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise DataError(
            f"{self.path.name}: there is no target column {target!r}; the columns are {shown}"
        )

    def blocks(self) -> Iterator[tuple[Array, Array | None, None]]:
        """(features float64 [R, n], target or None, no weight) of every piece."""
        for piece in itertools.chain([self.first] if self.first else [], self.pieces):
            x, y = self._parse(piece)
            self.lines.append(np.array([number for number, _ in piece]))
            yield x, y, None

    def _parse(self, piece: Numbered) -> tuple[Array, Array | None]:
        lines = [line for _, line in piece]
        try:
            table = np.loadtxt(
                lines, delimiter=self.delimiter, ndmin=2, comments=None, quotechar='"'
            )
        except ValueError:
            return self._parse_slowly(piece)
        if table.shape[1] != self.width or len(table) != len(lines) or not np.isfinite(table).all():
            return self._parse_slowly(piece)
        return np.ascontiguousarray(table[:, self.columns]), None if self.target is None else table[
            :, self.target
        ]

    def _parse_slowly(self, piece: Numbered) -> tuple[Array, Array | None]:
        """Cell by cell, for text labels and for messages."""
        x, labels = np.empty((len(piece), len(self.columns))), []
        for i, (number, line) in enumerate(piece):
            cells = self.cells(line)
            if len(cells) != self.width:
                raise DataError(
                    f"{self.path.name}: line {number} has {len(cells)} columns, {self.width} are expected"
                )
            for at, j in enumerate(self.columns):
                x[i, at] = self._number(cells[j], number, j)
            if self.target is not None:
                labels.append(cells[self.target].strip())
                if not labels[-1]:
                    raise DataError(f"{self.path.name}: line {number}, target column is empty")
        if self.target is None:
            return x, None
        try:
            return x, np.array([float(label) for label in labels])
        except ValueError:
            return x, np.array(labels)

    def _number(self, cell: str, line: int, j: int) -> float:
        where = f"{self.path.name}: line {line}, column {self.all_names[j]!r}"
        try:
            value = float(cell)
        except ValueError:
            what = (
                "is empty"
                if not cell.strip()
                else f"holds {cell.strip()[:40]!r}, which is not a number"
            )
            raise DataError(f"{where} {what}") from None
        if not np.isfinite(value):
            raise DataError(f"{where} holds {cell.strip()}, a finite number is needed")
        return value


def _is_header(top: list[str], second: list[str] | None) -> bool:
    """Text in the first line above a number, or nothing but text."""
    text = [not _numeric(cell) for cell in top]
    if all(text):
        return True
    if second is None or len(second) != len(top):
        return False
    return any(t and _numeric(cell) for t, cell in zip(text, second, strict=True))


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def from_csv(
    path: str | Path,
    target: str | int | None,
    header: bool | None,
    delimiter: str | None,
    options: Options,
    chosen: list[int] | None = None,
) -> Source:
    """See :meth:`QuantizedDataset.from_csv`; ``chosen``: the feature columns in the order wanted."""
    reader = Csv(Path(path), target, header, delimiter, chosen)
    source = collect(reader.blocks(), reader.names, reader.path.name, options)
    numbers = np.concatenate(reader.lines)
    source.place = lambda row: f"line {int(numbers[row])}"
    return source


def from_libsvm(path: str | Path, cols: int | None, options: Options) -> Source:
    """See :meth:`QuantizedDataset.from_libsvm`."""
    file = Path(path)
    largest = 0
    if cols is None:
        for piece in pieces(file):
            for number, line in piece:
                largest = max([largest, *(index for index, _ in _pairs(file, number, line)[1])])
        if largest > MAX_COLS:
            raise DataError(
                f"{file.name}: {largest} feature columns, the kernels take up to {MAX_COLS}"
            )
    return collect(_dense(file, cols or largest), None, file.name, options)


def _dense(path: Path, cols: int) -> Iterator[tuple[Array, Array, None]]:
    step = max(1, (4 << 20) // (8 * max(1, cols)))
    for piece in pieces(path):
        for at in range(0, len(piece), step):
            part = piece[at : at + step]
            x, y = np.zeros((len(part), cols)), np.zeros(len(part))
            for i, (number, line) in enumerate(part):
                y[i], pairs = _pairs(path, number, line)
                for index, value in pairs:
                    if index > cols:
                        raise DataError(
                            f"{path.name}: line {number} has index {index}, cols is {cols}"
                        )
                    x[i, index - 1] = value
            yield x, y, None


def _pairs(path: Path, number: int, line: str) -> tuple[float, list[tuple[int, float]]]:
    """Label and (index, value) pairs of a line."""
    words = line.split("#", 1)[0].split()
    pairs: list[tuple[int, float]] = []
    word: Any = words[0] if words else ""
    try:
        label = float(word)
        for word in words[1:]:
            index, _, value = word.partition(":")
            if index == "qid":
                continue
            pairs.append((int(index), float(value)))
            if pairs[-1][0] < 1 or not np.isfinite(pairs[-1][1]):
                raise ValueError
    except ValueError:
        raise DataError(
            f"{path.name}: line {number} holds {word!r}, expected label index:value with index >= 1"
        ) from None
    return label, pairs
