"""Small numbers between the host and the devices: many of them in one transfer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def read(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The values of small tensors, flat; the host waits once for each device."""
    places: dict[torch.device, list[int]] = {}
    for k, t in enumerate(tensors):
        places.setdefault(t.device, []).append(k)
    out: list[list[float]] = [[] for _ in tensors]
    for found in places.values():
        flat = torch.cat([tensors[k].detach().reshape(-1).double() for k in found]).tolist()
        for k in found:
            n = tensors[k].numel()
            out[k], flat = flat[:n], flat[n:]
    return out


def write(tensors: Sequence[Tensor], values: Sequence[float]) -> None:
    """One number into each tensor, rounded to its dtype; one copy for each dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for k, t in enumerate(tensors):
        kinds.setdefault((t.dtype, t.device), []).append(k)
    for (dtype, device), places in kinds.items():
        numbers = torch.tensor([values[k] for k in places], dtype=dtype)
        copy([tensors[k] for k in places], numbers.to(device, non_blocking=True).unbind())


def copy(to: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    """``a.copy_(b)`` for all pairs, in few launches."""
    targets = list(to)
    if targets:
        torch._foreach_copy_(targets, list(source))


def put(state: dict[str, Any], key: str, value: Tensor) -> None:
    """Sets ``state[key]`` in the memory it has, if it fits: a captured graph goes on using that."""
    old = state.get(key)
    if isinstance(old, Tensor) and (old.shape, old.dtype, old.device) == (
        value.shape, value.dtype, value.device,
    ):  # fmt: skip
        old.copy_(value)
    else:
        state[key] = value
