"""bits=32: scaled float32 rows in memory, the full-precision baseline with the same code around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchext.data._encode import scale_rows
from torchext.data.solvers import one_thread

if TYPE_CHECKING:
    from torchext.data.builder import Sums
    from torchext.data.plan import Plan
    from torchext.data.progress import Progress
    from torchext.data.sources import Source
    from torchext.data.targets import Targets

PITCH = 16  # row lengths are multiples of this many floats


def encode(
    source: Source, targets: Targets | None, plan: Plan, order: Tensor | None, progress: Progress
) -> tuple[Tensor, Sums]:
    """Scaled rows [K, pitch], padded with zeros, and the sums of a store without rounding error."""
    from torchext.data.builder import Sums

    rows, cols, outputs = source.rows, source.cols, 0 if targets is None else targets.outputs
    pitch = PITCH * -(-cols // PITCH)
    codes = torch.zeros(rows * pitch + PITCH, dtype=torch.float32)[:-PITCH].view(rows, pitch)
    square, first_moment = (
        torch.zeros(cols, dtype=torch.float64),
        torch.zeros(cols, dtype=torch.float64),
    )
    linear, gradient = (torch.zeros(cols, outputs, dtype=torch.float64) for _ in range(2))
    slope, loss = (
        torch.zeros(outputs, dtype=torch.float64),
        torch.zeros(outputs, dtype=torch.float64),
    )
    mass = 0.0
    position = None if order is None else torch.empty_like(order)
    if position is not None and order is not None:
        position[order] = torch.arange(rows)
    step = 1024 if cols <= 2048 else 256
    progress.start("encode", rows)
    with one_thread():
        for at in range(0, rows, step):
            part = slice(at, min(rows, at + step))
            a = scale_rows(
                source.block(part.start, part.stop), plan.columns.mean, plan.columns.scale
            )
            codes[part if position is None else position[part], :cols] = a
            progress.add(len(a))
            exact = a.double()
            weight = None if targets is None else targets.weights(part)
            w = torch.ones(len(a), dtype=torch.float64) if weight is None else weight.double()
            mass += float(w.sum())
            weighted = exact * w[:, None]
            square += (weighted * exact).sum(0)
            first_moment += weighted.sum(0)
            if targets is None:
                continue
            y = targets.seen(part).double()
            linear += weighted.T @ y
            if plan.x0 is not None:
                z = exact @ plan.x0 + (0.0 if plan.intercept is None else plan.intercept)
                losses, e = loss_and_slope(z, y, targets.loss)
                gradient += weighted.T @ e
                slope += w @ e
                loss += w @ losses
    total = mass or 1.0
    zero = torch.zeros(3, cols, dtype=torch.float64)
    moments = torch.stack([square, square, first_moment]) / total
    return codes, Sums(
        noise=zero, moments=moments, linear=torch.stack([linear / total, torch.zeros_like(linear)]),
        gradient=torch.stack([gradient, gradient]) / total,
        intercept_gradient=torch.stack([slope, slope]) / total,
        loss=loss / total, clipped=torch.zeros(cols, dtype=torch.int64),
    )  # fmt: skip


def loss_and_slope(z: Tensor, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Loss and its derivative in z, elementwise; y is +-1 for ``"log_loss"``."""
    if loss == "squared_error":
        return (z - y).square() / 2, z - y
    return torch.nn.functional.softplus(-y * z), -y * torch.sigmoid(-y * z)
