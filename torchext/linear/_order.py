"""The order in which mini-batches are visited: a pure function of the key and the epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from torchext.random import Purpose, fold_in


def permutation(key: Tensor, n: int, stream: int = 0) -> Tensor:
    """int64 (n,): 0 .. n-1 sorted by (word, index), word = draw 0 of element index under ``key``."""
    return torch.argsort(torch.ops.torchext._philox(key, (n + 3) // 4, stream, 0)[:n], stable=True)


def sampler_key(key: Tensor) -> Tensor:
    """The key of all epochs' orders."""
    return fold_in(key, Purpose.SAMPLER)


def epoch_order(sampler: Tensor, epoch: int, batches: int) -> Tensor:
    """int64 (batches,): the batch numbers of one epoch, by :func:`sampler_key` folded with the epoch."""
    return permutation(fold_in(sampler, epoch), batches)
