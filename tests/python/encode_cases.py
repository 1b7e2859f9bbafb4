"""Blocks of rows with everything that ``_encode`` takes, for the tests that compare two of its kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchext.data._encode import MOMENTS, OUTPUT_SUMS, layout_bytes
from torchext.random import key_from_seed

MODES = ("nearest", "stochastic", "double")
RESULTS = ("codes", "sums", "totals", "clipped")
COPY = 3


class Case:
    """Arguments of ``_encode``; columns 0 and 1 are constant and of repeated levels."""

    def __init__(
        self,
        rows: int,
        cols: int,
        bits: int,
        mode: str,
        *,
        tables: bool = False,
        dtype: torch.dtype = torch.float32,
        outputs: int = 1,
        weighted: bool = False,
        scattered: bool = False,
    ) -> None:
        random = torch.Generator().manual_seed(rows + 64 * cols + 1024 * bits)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        self.x = (2 * normal(rows, cols)).to(dtype)
        self.mean, self.scale = 0.1 * normal(cols), 1.0 + normal(cols).abs()
        count = 2 ** (bits - 2) + 1 if mode == "double" else 2**bits
        low, high = torch.full((cols,), -1.5), torch.full((cols,), 1.5)
        self.grid = torch.stack([low, (high - low) / max(count - 1, 1)], 1).contiguous()
        self.grid[0, 1] = 0.0
        self.levels = torch.empty(0)
        if tables:
            self.levels = (normal(cols, count).float()).sort(1).values.contiguous()
            self.levels[0] = 0.25
            if cols > 1:
                self.levels[1] = (self.levels[1] * 2).round() / 2
            ties = self.levels[-1, torch.arange(rows) % count].double()  # values equal to a level
            self.mean[-1], self.scale[-1] = 0.0, 1.0
            self.x[:, -1] = ties.to(dtype)
        self.bounds = torch.stack([low / 2, high / 2], 1).contiguous()
        self.y = normal(rows, outputs).float() if outputs else None
        self.weight = normal(rows).abs().float() if weighted else None
        self.position = torch.randperm(rows, generator=random) if scattered else None
        self.bits, self.mode, self.outputs = bits, mode, outputs

    def run(
        self, op: Any, device: str = "cpu", row0: int = 128, **changes: Any
    ) -> dict[str, Tensor]:
        """What the op writes, started from sums other than zero."""
        rows, cols = self.x.shape
        results = {
            "codes": torch.full((layout_bytes(rows, cols, self.bits),), 0xA5, dtype=torch.uint8),
            "sums": torch.full((MOMENTS + OUTPUT_SUMS * self.outputs, cols), 0.5).double(),
            "totals": torch.full((4, self.outputs + 1), 0.25).double(),
            "clipped": torch.full((cols,), 7),
        }
        arguments = {
            "x": self.x,
            "mean": self.mean,
            "scale": self.scale,
            "grid": self.grid,
            "levels": self.levels,
            "mode": self.mode,
            "bits": self.bits,
            "key": key_from_seed(11),
            "row0": row0,
            "rows": self.position,
            "copy": COPY,
            "y": self.y,
            "weight": self.weight,
            "x0": None,
            "intercept": None,
            "loss": "squared_error",
            "bounds": self.bounds,
            **results,
            **changes,
        }
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }
        op(**moved)
        return {name: moved[name].cpu() for name in RESULTS}


def assert_same(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    for name in RESULTS:
        differ = (expected[name] != got[name]).nonzero()
        assert len(differ) == 0, (
            f"{name} differ in {len(differ)} places, first {differ[0].tolist()}"
        )
