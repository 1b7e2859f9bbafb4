"""Shape rules of the ops: what torch.compile and meta tensors need instead of a kernel."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("torchext::fold_in")
def _(key: Tensor, data: int) -> Tensor:
    return key.new_empty((2,), dtype=torch.int64)


@torch.library.register_fake("torchext::fold_in.Tensor")
def _(key: Tensor, data: Tensor) -> Tensor:
    return key.new_empty((2,), dtype=torch.int64)


@torch.library.register_fake("torchext::split")
def _(key: Tensor, n: int) -> Tensor:
    return key.new_empty((n, 2), dtype=torch.int64)


@torch.library.register_fake("torchext::_philox")
def _(key: Tensor, blocks: int, stream: int, draw: int) -> Tensor:
    return key.new_empty((4 * blocks,), dtype=torch.int64)
