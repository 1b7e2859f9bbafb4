"""Row orders from a key: the shuffle of a store and its random pilot rows.

Both sort rows by (word, row), word = draw 0 of element ``row`` under the SAMPLER key; stream 0 is the
shuffle, stream 1 the pilot.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from torchext.random import Purpose, advance, fold_in

_CHUNK = 1 << 18
SHUFFLE_STREAM, PILOT_STREAM = 0, 1


def sampler_words(
    key: Tensor, first: int, rows: int, stream: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Words of rows first .. first+rows-1; ``first`` is a multiple of 4."""
    sampler = advance(fold_in(key, Purpose.SAMPLER), first // 4)
    words = torch.ops.torchext._philox(sampler, -(-rows // 4), stream, 0).numpy()[:rows]
    return np.asarray(words, dtype=np.uint64) & np.uint64(0xFFFFFFFF)


def permutation(key: Tensor, rows: int) -> Tensor:
    """int64 (rows,): position in the source of every row of a shuffled store."""
    if rows >= 1 << 32:
        raise ValueError(
            f"a shuffled store holds fewer than 2**32 rows, got {rows}; use shuffle=False"
        )
    joined = np.empty(rows, dtype=np.uint64)
    for first in range(0, rows, _CHUNK):
        part = joined[first : first + _CHUNK]
        part[:] = sampler_words(key, first, len(part), SHUFFLE_STREAM) << np.uint64(32)
        part |= np.arange(first, first + len(part), dtype=np.uint64)
    joined.sort()  # numpy's sort of 64-bit integers uses vectors; a stable argsort of the words does not
    joined &= np.uint64(0xFFFFFFFF)
    return torch.from_numpy(joined.view(np.int64))


class Sample:
    """The ``count`` rows with the smallest (word, row), without holding a list of them.

    Samples of the same key are nested: a smaller count is the head of a larger one.
    """

    def __init__(self, key: Tensor, rows: int, count: int) -> None:
        self.key, self.rows, self.count = key, rows, min(count, rows)
        self._limit = (1 << 32, 0)  # rows below (word, row) belong to the sample
        if self.count < rows:
            self._limit = self._find_limit()

    @property
    def everything(self) -> bool:
        """Whether all rows belong."""
        return self.count == self.rows

    def _chunks(self) -> Iterator[tuple[int, np.ndarray[tuple[int], np.dtype[np.uint64]]]]:
        for first in range(0, self.rows, _CHUNK):
            yield (
                first,
                sampler_words(self.key, first, min(_CHUNK, self.rows - first), PILOT_STREAM),
            )

    def _find_limit(self) -> tuple[int, int]:
        """The first (word, row) that does not belong: a histogram of the high halves, then one sort."""
        histogram = np.zeros(1 << 16, dtype=np.int64)
        for _, words in self._chunks():
            histogram += np.bincount((words >> np.uint64(16)).astype(np.int64), minlength=1 << 16)
        below = np.cumsum(histogram)
        bucket = int(np.searchsorted(below, self.count, side="right"))
        before = int(below[bucket - 1]) if bucket else 0
        found: list[tuple[int, int]] = []
        for first, words in self._chunks():
            for at in np.flatnonzero(words >> np.uint64(16) == bucket):
                found.append((int(words[at]), first + int(at)))
        return sorted(found)[self.count - before]

    def members(self, first: int, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Ascending positions of the members among rows first .. first+rows-1 (first a multiple of 4)."""
        if self.everything:
            return np.arange(first, first + rows)
        words = sampler_words(self.key, first, rows, PILOT_STREAM)
        word, row = self._limit
        at = np.flatnonzero(words <= np.uint64(word))
        inside = (words[at] < np.uint64(word)) | (first + at < row)
        return first + at[inside]

    def blocks(self, size: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """All members, ascending, in blocks of ``size`` (the last one shorter)."""
        if self.everything:
            for first in range(0, self.rows, size):
                yield np.arange(first, min(self.rows, first + size))
            return
        held = np.empty(0, dtype=np.int64)
        for first in range(0, self.rows, _CHUNK):
            held = np.concatenate([held, self.members(first, min(_CHUNK, self.rows - first))])
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if len(held):
            yield held

    def indices(self) -> Tensor:
        """int64 (count,): all members, ascending."""
        return torch.from_numpy(np.concatenate([np.empty(0, np.int64), *self.blocks(_CHUNK)]))
