"""A table in the memory of a GPU, which is encoded there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext import _load
from torchext.data._encode import new_stats, update_stats
from torchext.data.options import Options
from torchext.data.sources import Array, Source, as_array, working_type

_COPIED = 1 << 22  # values copied to a GPU at a time, where the source has to convert them


class GpuSource(Source):
    """Blocks of rows stay on the GPU; single rows, for the pilot, come to CPU memory.

    A tensor of another type than float32 and float64 is converted once, as a whole.

    Args:
        x: (K, n) tensor on a GPU.
        y, weight, names, label, place: as for :class:`Source`, in CPU memory.
    """

    x: Tensor

    def __init__(
        self,
        x: Tensor,
        y: Any = None,
        weight: Any = None,
        *,
        names: Sequence[str] | None = None,
        label: str = "X",
        place: Callable[[int], str] | None = None,
    ) -> None:
        if not _load.has_cuda_kernels():
            why = _load.why_no_cuda_kernels()
            raise ValueError(
                f"X is on {x.device}, and encoding there needs the CUDA kernels of torchext "
                f"(or pass X.cpu()): {why}"
            )
        super().__init__(x.detach(), y, weight, names=names, label=label, place=place)
        self.x = self.x.to(torch.float32 if self.dtype == np.float32 else torch.float64)

    @classmethod
    def of(cls, source: Source, device: torch.device) -> GpuSource:
        """The rows of a source in CPU memory, copied to a GPU."""
        x = source.whole()
        if x is None:
            kind = torch.float32 if source.dtype == np.float32 else torch.float64
            there = torch.empty(source.rows, source.cols, dtype=kind, device=device)
            step = max(1, _COPIED // source.cols)
            for first in range(0, source.rows, step):
                last = min(source.rows, first + step)
                there[first:last] = source.block(first, last).to(device)
        else:
            there = x.to(device)
        return cls(
            there, source.y, source.weight,
            names=source.names, label=source.label, place=source.place,
        )  # fmt: skip

    def _working_type(self) -> np.dtype[Any]:
        return working_type(as_array(self.x[:0]).dtype, self.label)

    @property
    def device(self) -> torch.device:
        """The GPU."""
        return self.x.device

    def check_finite(self) -> None:
        """DataError that names the first value that is NaN or infinite; waits for the GPU."""
        bad = update_stats(self.x, new_stats(self.cols, self.device))
        if bad >= 0:
            raise self.not_finite(0, self.x, bad)

    def table(self) -> GpuSource:
        """See :meth:`Source.table`."""
        return GpuSource(self.x, names=self.names, label=self.label, place=self.place)

    def block(self, first: int, last: int) -> Tensor:
        """Rows first .. last-1, on the GPU."""
        return self.x[first:last]

    def take(self, rows: Array) -> Tensor:
        """Rows in CPU memory."""
        return self.x[torch.from_numpy(rows).to(self.device)].cpu()

    def whole(self) -> Tensor:
        """The table, on the GPU."""
        return self.x

    def on_cpu(self) -> Source:
        """A copy in CPU memory."""
        return Source(
            self.x.cpu().numpy(), self.y, self.weight,
            names=self.names, label=self.label, place=self.place,
        )  # fmt: skip


def encodes_on_gpu(options: Options) -> bool:
    """Whether every step of the build has a CUDA kernel.

    Not: float32 rows (``bits=32``), and a file in another layout than tile4. These are made on the CPU.
    """
    other_file = options.path is not None and options.final_layout != "tile4"
    return options.bits != 32 and not other_file
