"""Whether a saved state fits an optimizer."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from torchext import random


def check(name: str, state_dict: dict[str, Any], sizes: list[int]) -> None:
    """Raises ValueError unless it was saved by ``name``, for parameters of these sizes."""
    groups = state_dict["param_groups"]
    for group in groups:
        if group.get("method") != name:
            by = group.get("method", "another optimizer")
            raise ValueError(f"{name}.load_state_dict: the state was saved by {by}")
        stream = group.get("stream_version")
        if stream != random.STREAM_VERSION:
            raise ValueError(
                f"{name}.load_state_dict: the state was saved with random stream {stream}, "
                f"this version has {random.STREAM_VERSION}"
            )
    saved_ids = list(chain.from_iterable(g["params"] for g in groups))
    if len(saved_ids) != len(sizes):
        return  # torch says what is wrong
    for k, (saved_id, n) in enumerate(zip(saved_ids, sizes, strict=True)):
        for key, value in state_dict["state"].get(saved_id, {}).items():
            if key in ("delta", "stats") or not isinstance(value, Tensor):
                continue
            want = (n + 1) // 2 if value.dtype == torch.uint8 else n
            if value.numel() != want:
                raise ValueError(
                    f"{name}.load_state_dict: {key} of parameter {k} has {value.numel()} "
                    f"elements, expected {want}"
                )
