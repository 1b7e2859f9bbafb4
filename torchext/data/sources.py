"""Full-precision tables as the builder reads them: any block of rows, any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data.errors import DataError

Array = np.ndarray[Any, Any]
MAX_COLS = (
    65_536  # 32-bit sums of the integer kernels hold up to 66,300 products of a byte and an int8
)


class _Holder:
    """Carries an array interface; keeps the array behind it alive."""

    def __init__(self, array: Array) -> None:
        self.keep = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def as_tensor(array: Array) -> Tensor:
    """View of a float32 or float64 array; read-only ones too (nothing here writes to a source)."""
    array = np.asarray(array)
    if any(s < 0 for s in array.strides) or any(s % array.itemsize for s in array.strides):
        array = np.ascontiguousarray(array)
    return torch.from_numpy(
        array if array.flags.writeable or array.size == 0 else np.asarray(_Holder(array))
    )


class Source:
    """A table of numbers with names for its rows and columns.

    Args:
        x: array (K, n) of any numeric type, possibly memory-mapped.
        y: targets as given, or None.
        weight: sample weights (K,), or None.
        names: column names, or None.
        label: what messages call it, a file name or ``"X"``.
        place: turns a row number into words, ``"line 17"`` for a text file.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weight: Any = None,
        *,
        names: Sequence[str] | None = None,
        label: str = "X",
        place: Callable[[int], str] | None = None,
    ) -> None:
        if x.ndim != 2:
            raise DataError(
                f"{label}: expected a table of rows and columns, got shape {tuple(x.shape)}"
            )
        self.x: Any = x
        self.y, self.weight, self.label = y, weight, label
        self.names = [str(n) for n in names] if names is not None else None
        self.place = place or (lambda row: f"row {row}")
        self.rows, self.cols = int(x.shape[0]), int(x.shape[1])
        self.dtype = self._working_type()
        self._check_shape()

    @property
    def device(self) -> torch.device:
        """Where :meth:`block` and :meth:`whole` have the table."""
        return torch.device("cpu")

    def _working_type(self) -> np.dtype[Any]:
        return working_type(self.x.dtype, self.label)

    def _check_shape(self) -> None:
        if self.rows == 0:
            raise DataError(f"{self.label}: the table has 0 rows, at least 1 is needed")
        if self.cols == 0:
            raise DataError(f"{self.label}: the table has 0 feature columns, at least 1 is needed")
        if self.cols > MAX_COLS:
            raise DataError(
                f"{self.label}: the table has {self.cols} feature columns, the kernels take up to {MAX_COLS}"
            )
        for what, values in (("targets", self.y), ("sample weights", self.weight)):
            if values is not None and len(values) != self.rows:
                raise DataError(f"{self.label}: {len(values)} {what} do not fit {self.rows} rows")
        if self.names is not None and len(self.names) != self.cols:
            raise DataError(
                f"{self.label}: {len(self.names)} column names do not fit {self.cols} columns"
            )

    def column(self, j: int) -> str:
        """What messages call column j."""
        return f"column {j}" if self.names is None else f"column {self.names[j]!r}"

    def where(self, row: int, col: int) -> str:
        """``"data.csv: line 17, column 'age'"``."""
        return f"{self.label}: {self.place(row)}, {self.column(col)}"

    def not_finite(self, first: int, block: Tensor, at: int) -> DataError:
        """The error that names value ``at``, row by row, of the block that begins at row ``first``."""
        row, col = divmod(at, self.cols)
        value = float(block[row, col])
        named = "NaN" if value != value else str(value)
        return DataError(
            f"{self.where(first + row, col)}: the value is {named}, not a finite number"
        )

    def table(self) -> Source:
        """The rows without targets and weights."""
        return Source(self.x, names=self.names, label=self.label, place=self.place)

    def block(self, first: int, last: int) -> Tensor:
        """float32 or float64 rows first .. last-1; a view where the type allows."""
        return self._numbers(self.x[first:last], first)

    def take(self, rows: Array) -> Tensor:
        """float32 or float64 of ascending row positions, on the CPU; a view if they are consecutive."""
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            return self.block(int(rows[0]), int(rows[-1]) + 1)
        return self._numbers(self.x[rows], 0, rows)

    def whole(self) -> Tensor | None:
        """The table as one tensor if that takes no copy."""
        native = self.x.dtype == self.dtype and self.x.dtype.isnative
        return (
            as_tensor(self.x)
            if native and self.x.strides[1] >= 0 and self.x.strides[0] >= 0
            else None
        )

    def _numbers(self, part: Array, first: int, rows: Array | None = None) -> Tensor:
        if part.dtype == self.dtype and part.dtype.isnative:
            return as_tensor(part)
        try:
            return torch.from_numpy(part.astype(self.dtype))
        except (TypeError, ValueError):
            for i, j in np.ndindex(part.shape):
                try:
                    float(part[i, j])
                except (TypeError, ValueError):
                    row = first + i if rows is None else int(rows[i])
                    raise DataError(
                        f"{self.where(row, j)}: {part[i, j]!r} is not a number"
                    ) from None
            raise


def working_type(dtype: np.dtype[Any], label: str) -> np.dtype[Any]:
    """float32 for types it holds exactly, else float64."""
    if dtype.kind == "c":
        raise DataError(f"{label}: complex numbers cannot be encoded")
    if dtype.kind not in "fiubOUS":
        raise DataError(f"{label}: columns of type {dtype} cannot be encoded")
    exact = (
        dtype.kind == "b"
        or (dtype.kind == "f" and dtype.itemsize <= 4)
        or (dtype.kind in "iu" and dtype.itemsize <= 2)
    )
    return np.dtype(np.float32 if exact else np.float64)


def as_array(values: Any) -> Array:
    """numpy view of an array, tensor, data frame or nested list."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        numbers: Array = values.numpy()
        return numbers
    if hasattr(values, "toarray") and hasattr(values, "tocsr"):
        raise TypeError("sparse X is not supported, the store is dense; pass X.toarray()")
    array: Array = np.asarray(values)
    return array


def from_arrays(
    x: Any, y: Any = None, weight: Any = None, names: Sequence[str] | None = None
) -> Source:
    """Arrays, tensors, data frames, or the path of a ``.npy`` file (mapped, never read whole)."""
    label = "X"
    if isinstance(x, (str, Path)):
        label = Path(x).name
        try:
            x = np.load(x, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{label}: not a .npy file of numbers ({error})") from None
    if isinstance(y, (str, Path)):
        y = np.load(y, mmap_mode="r", allow_pickle=False)
    if names is None and hasattr(x, "columns"):
        names = [str(c) for c in x.columns]
    y = None if y is None else as_array(y)
    weight = as_array(weight) if isinstance(weight, Tensor) else weight
    if isinstance(x, Tensor) and x.device.type == "cuda":
        from torchext.data.gpu_source import GpuSource

        return GpuSource(x, y, weight, names=names)
    return Source(as_array(x), y, weight, names=names, label=label)
