"""Arguments of the ops on the exact side of the linear models, for tests that compare their kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchext.random import key_from_seed


def rows_of(kind: torch.dtype, rows: int, cols: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows + cols)
    x = torch.randn(rows, cols, generator=generator, dtype=torch.float64)
    return x.to(kind) if kind.is_floating_point else (30 * x).round().clamp(-100, 100).to(kind)


def targets(loss: str, rows: int, outputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    if loss == "softmax":
        return torch.randint(0, outputs, (rows, 1), generator=generator).double()
    y = torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
    return y if loss == "squared" else y.sign()


def exact_args(
    kind: torch.dtype, loss: str, rows: int, cols: int, outputs: int, weighted: bool
) -> tuple[Any, ...]:
    w = torch.randn(outputs, cols, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    weight = torch.linspace(0.5, 1.5, rows, dtype=torch.float64) if weighted else None
    offset = torch.linspace(-1, 1, outputs, dtype=torch.float64)
    gradient = torch.full((outputs, cols + 1), 0.1, dtype=torch.float64)
    return (
        rows_of(kind, rows, cols), w, offset, targets(loss, rows, outputs), weight, loss,
        torch.zeros(outputs, rows), gradient, torch.ones(1, dtype=torch.float64),
    )  # fmt: skip


# Types of rows and displacement, largest drift, random bits below the last place.
FORMATS = {
    "z8": (torch.int8, torch.int8, 32767, 8),
    "z16": (torch.int8, torch.int16, 1 << 23, 8),
    "x16": (torch.int16, torch.int16, 1 << 29, 16),
}


def halp_args(
    form: str, loss: str, outputs: int, cols: int, steps: int, hot: float, intercept: bool = True,
    refresh: int = 32, noise: str = "step", weighted: bool = True, batch: int = 1,
) -> tuple[Any, ...]:  # fmt: skip
    """``hot`` scales the steps: above 1, everything saturates. Larger batches take larger steps."""
    data, moved, drift, shift = FORMATS[form]
    top = 32767 if data == torch.int16 else 127
    generator = torch.Generator().manual_seed(cols + outputs)
    pitch, rows = (cols + 63) // 64 * 64, 50
    x = torch.zeros(rows, pitch, dtype=data)
    x[:, :cols] = torch.randint(-top, top + 1, (rows, cols), generator=generator)
    phi = torch.randn(outputs, rows, generator=generator)
    dz, dx = 0.01, 1.0 / top
    g = torch.randn(outputs, cols + 1, generator=generator, dtype=torch.float64)
    g *= hot * drift * (dz / 2**shift)
    return (
        x, phi, torch.linspace(0.5, 1.5, rows) if weighted else None, loss, g,
        0.05 * hot * batch, 0.1 / batch, dx, dz, steps, batch, refresh, noise,
        torch.full((outputs, pitch), 5, dtype=moved),
        torch.full((outputs,), 5, dtype=torch.int32) if intercept else None,
        torch.tensor([7, 8, 9]), torch.zeros(steps * batch, outputs, dtype=torch.int32),
        key_from_seed(cols), 3,
    )  # fmt: skip


def svrg_args(
    loss: str,
    outputs: int,
    cols: int,
    steps: int,
    intercept: bool = True,
    weighted: bool = True,
    batch: int = 1,
) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(cols + outputs)
    pitch, rows = (cols + 63) // 64 * 64, 50
    x = torch.zeros(rows, pitch)
    x[:, :cols] = torch.randn(rows, cols, generator=generator)
    phi = torch.randn(outputs, rows, generator=generator)
    g = 1e-3 * torch.randn(outputs, cols + 1, generator=generator, dtype=torch.float64)
    return (
        x, phi, torch.linspace(0.5, 1.5, rows) if weighted else None, loss, g, 1e-3, 0.1, 0.5, 0.7,
        steps, batch, torch.full((outputs, pitch), 5.0), torch.full((outputs,), 5.0) if intercept else None,
        key_from_seed(cols), 3,
    )  # fmt: skip
