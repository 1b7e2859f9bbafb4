"""Where the kernels of an estimator run: the ``device`` parameter, read once for all of them.

``"cpu"``, or ``"cuda"`` / ``"cuda:1"`` for a GPU. What a solver reads again and again is moved there once
per fit. Estimators return arrays in CPU memory whatever the device is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchext import _load
from torchext.data import Options
from torchext.data.gpu_source import GpuSource, encodes_on_gpu
from torchext.data.sources import Source

CPU = torch.device("cpu")


def resolve(device: Any) -> torch.device:
    """The device that the parameter names, with a number if it is a GPU.

    Raises:
        ValueError: it names neither the CPU nor a GPU of this machine that this build has kernels for.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:<number>", got {device!r}')
    if found.type == "cpu":
        return CPU
    if not _load.has_cuda_kernels():
        why = _load.why_no_cuda_kernels()
        raise ValueError(f"device={device!r} needs the CUDA kernels of torchext: {why}")
    count = torch.cuda.device_count()
    number = found.index
    if number is None:
        number = torch.cuda.current_device() if count else 0
    if not 0 <= number < count:  # torch wraps numbers above 127
        raise ValueError(f"device={device!r} needs GPU {number}, this machine shows {count} GPUs")
    return torch.device("cuda", number)


def free_bytes(device: torch.device) -> int:
    """Memory of the GPU that a solver may fill: what is free, or cached by torch and unused, less a tenth."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) * 9 // 10


def source_on(source: Source, device: torch.device, more: int = 0) -> Source:
    """The rows on ``device``, if they and ``more`` bytes fit into its free memory; else where they are."""
    if source.device == device:
        return source
    needed = source.rows * source.cols * source.dtype.itemsize + more
    return GpuSource.of(source, device) if needed <= free_bytes(device) else source


def source_to_encode(source: Source, options: Options, device: torch.device) -> Source:
    """The rows where they are to be encoded: on a GPU, if it can and holds them and their codes.

    Other layouts than tile4 are made on the CPU: a checkpoint knows its data by the bytes of the codes.
    """
    if options.final_layout != "tile4" or not encodes_on_gpu(options):
        return source.on_cpu() if isinstance(source, GpuSource) else source
    codes = options.copies * source.rows * source.cols * options.bits // 8
    return source_on(source, device, 2 * codes)


def moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """The tensor on ``device``, contiguous; None stays None."""
    return None if tensor is None else tensor.to(device).contiguous()
