"""The order in which mini-batches are visited: a pure function of the key and the epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchext.data.order import sorted_rows
from torchext.random import Purpose, fold_in


def permutation(key: Tensor, n: int, stream: int = 0) -> Tensor:
    """int64 (n,): 0 .. n-1 sorted by (word, index), word = draw 0 of element index under ``key``."""
    words = torch.ops.torchext._philox(key, (n + 3) // 4, stream, 0).numpy().reshape(-1)[:n]
    return sorted_rows(words.astype(np.uint64) << np.uint64(32) | np.arange(n, dtype=np.uint64))


def sampler_key(key: Tensor) -> Tensor:
    """The key of all epochs' orders."""
    return fold_in(key, Purpose.SAMPLER)


def epoch_order(sampler: Tensor, epoch: int, batches: int) -> Tensor:
    """int64 (batches,): the batch numbers of one epoch, by :func:`sampler_key` folded with the epoch."""
    return permutation(fold_in(sampler, epoch), batches)
