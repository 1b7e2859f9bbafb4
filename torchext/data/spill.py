"""Tables on disk that vanish with the process: where streams wait for the second pass."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 8 << 20  # bytes below which memory serves


def scratch(
    shape: tuple[int, ...], dtype: torch.dtype, folder: str | None = None, small: int = SMALL
) -> Tensor:
    """Uninitialised tensor; from ``small`` bytes on it lies in an unnamed temporary file.

    The file has no name once this returns, so nothing is left behind however the process ends; pages
    of it count as file cache, not as memory of the process.
    """
    item = torch.empty(0, dtype=dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if count * item.element_size() < small:
        # numpy asks the system for huge pages, whose first writes cost a third
        return torch.from_numpy(np.empty(shape, dtype=item.numpy().dtype))
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(count * item.element_size())
        mapped = np.memmap(file, dtype=item.numpy().dtype, mode="r+", shape=shape)
    return torch.from_numpy(np.asarray(mapped))


class Spill:
    """Rows appended to an unnamed temporary file, then read as one mapped array.

    Args:
        cols: columns of every block.
        dtype: float32 or float64.
        folder: where the file is made; default: the system's folder for temporary files.
    """

    def __init__(self, cols: int, dtype: Any, folder: str | None = None) -> None:
        self.cols, self.dtype = cols, np.dtype(dtype)
        self.rows = 0
        self._file = tempfile.TemporaryFile(dir=folder)

    def add(self, block: np.ndarray[Any, Any]) -> None:
        """Append a block (R, cols)."""
        np.ascontiguousarray(block, dtype=self.dtype).tofile(self._file)
        self.rows += len(block)

    def array(self) -> np.ndarray[Any, Any]:
        """All rows, mapped; the file is closed."""
        self._file.flush()
        if self.rows * self.cols == 0:
            self._file.close()
            return np.empty((self.rows, self.cols), dtype=self.dtype)
        mapped = np.memmap(self._file, dtype=self.dtype, mode="r+", shape=(self.rows, self.cols))
        self._file.close()
        return np.asarray(mapped)


def free_space(folder: str | None = None) -> int:
    """Bytes free where temporary files go."""
    stat = os.statvfs(folder or tempfile.gettempdir())
    return stat.f_bavail * stat.f_frsize
