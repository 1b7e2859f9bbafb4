"""What the tests of a second implementation share: all tensors of a result, and equality of bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def tensors(found: Any) -> list[Tensor]:
    """The tensors in nested lists and tuples, in order."""
    if isinstance(found, Tensor):
        return [found]
    return [t for part in found for t in tensors(part)] if isinstance(found, tuple | list) else []


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bits; the second may be on another device."""
    alike = a.dtype == b.dtype and a.shape == b.shape
    if a.numel() == 0 or not alike:
        return alike
    b = b.to(a.device)
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))


def same_but_nan(got: Tensor, want: Tensor) -> bool:
    """Equal bits, but any NaN of half precision will do: torch's casts on the CPU have several."""
    if want.dtype in (torch.bfloat16, torch.float16):
        if not torch.equal(got.isnan(), want.isnan()):
            return False
        got, want = got.nan_to_num(0.0), want.nan_to_num(0.0)
    return same_bits(got, want)
