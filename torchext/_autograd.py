"""Gradient rules of the ops; rounding has none of its own, so they state the rule they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library


def _spread(values: Tensor, x: Tensor, dim: int | None, bucket_size: int | None) -> Tensor:
    """One value per channel, in a form that broadcasts against (or equals the shape of) ``x``."""
    if bucket_size is not None:
        return values.repeat_interleave(bucket_size)[: x.numel()].view(x.shape)
    if dim is None:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[dim] = -1
    return values.view(shape)


def _setup_fake_quantize(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, levels, bits, scheme, dim, bucket_size, *_ = inputs
    ctx.save_for_backward(x, scale, levels)
    ctx.format = (bits, scheme, dim, bucket_size)


def _fake_quantize_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Straight-through: 1 where the grid covers x, 0 where x was clamped (and for NaN)."""
    x, scale, levels = ctx.saved_tensors
    bits, scheme, dim, bucket_size = ctx.format
    value = x.to(torch.float32)

    def spread(channel_values: Tensor) -> Tensor:
        return _spread(channel_values, x, dim, bucket_size)

    if scheme == "symmetric":
        limit = spread(scale) * (2 ** (bits - 1) - 1)
        inside = value.abs() <= limit
    elif scheme == "minmax":
        low = spread(scale[:, 0])
        inside = (value >= low) & (value <= low + spread(scale[:, 1]) * (2**bits - 1))
    else:
        low, high = levels[..., 0], levels[..., -1]
        low, high = (low, high) if levels.dim() == 1 else (spread(low), spread(high))
        unit = 1.0 if scale is None else spread(scale)
        inside = (value >= low * unit) & (value <= high * unit)
    return (grad * inside, *([None] * 9))


library.register_autograd(
    "torchext::fake_quantize", _fake_quantize_backward, setup_context=_setup_fake_quantize
)
