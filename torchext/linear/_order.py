"""The order in which mini-batches are visited: a pure function of the key and the epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from torchext.random import Purpose, fold_in


def permutation(key: Tensor, n: int, stream: int = 0) -> Tensor:
    """int64 (n,): 0 .. n-1 sorted by (word, index), word = draw 0 of element index under ``key``."""
    words = torch.ops.torchext._philox(key, (n + 3) // 4, stream, 0).reshape(-1)[:n]
    return torch.argsort(words.to(torch.int64) & 0xFFFFFFFF, stable=True)


def epoch_order(key: Tensor, epoch: int, batches: int) -> Tensor:
    """int64 (batches,): the batch numbers of one epoch; key folded with SAMPLER, then the epoch."""
    return permutation(fold_in(fold_in(key, Purpose.SAMPLER), epoch), batches)
