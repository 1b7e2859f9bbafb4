"""Tables for the tests that compare the statistics and histograms of two kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchext.data._column_levels import histogram_bins
from torchext.data._encode import finish_stats, new_stats, update_stats


def table(rows: int, cols: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Heavy tails; column 0 is constant, column 1 mostly zeros of both signs."""
    random = torch.Generator().manual_seed(rows + 64 * cols)
    x = torch.randn(rows, cols, generator=random, dtype=torch.float64).mul(2).sinh().to(dtype)
    x[:, 0] = 2.5
    if cols > 1:
        x[:, 1] *= x[:, 1] > 1
        x[::2, 1] *= -1
    return x


def stats(
    op: Any,
    x: Tensor,
    weight: Tensor | None = None,
    centre: Tensor | None = None,
    device: str = "cpu",
) -> list[Tensor]:
    """State and result of ``_column_stats`` over two blocks."""
    state = new_stats(x.shape[1], device)
    from_here = None if centre is None else centre.to(device)
    found = []
    for part in (slice(0, 1024), slice(1024, None)):
        w = None if weight is None else weight[part].to(device)
        found.append(op(x[part].to(device), w, from_here, state))
    return [state.cpu(), *(f.cpu() for f in found)]


def counts(op: Any, x: Tensor, levels: int, device: str = "cpu") -> Tensor:
    """What ``_histogram_add`` counts, added to a table that is not zero."""
    state = new_stats(x.shape[1])
    assert update_stats(x, state) == -1
    mean, scale, bounds = finish_stats(state)
    pilot = x[torch.arange(min(512, len(x))) * len(x) // min(512, len(x))]
    maps = torch.ops.torchext._histogram_new(pilot, mean, scale, bounds, levels)
    found = torch.full((2, x.shape[1], histogram_bins(levels)), 5).to(device)
    op(x.to(device), maps.to(device), found)
    return found.cpu()
