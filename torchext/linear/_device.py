"""Where the kernels of an estimator run: the ``device`` parameter, read once for all of them.

``"cpu"``, or ``"cuda"`` / ``"cuda:1"`` for a GPU. Estimators take and return arrays in CPU memory
whatever the device is; what a solver reads again and again is moved once per fit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchext import _load

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
    if not has_kernels():
        why = _load.cuda_error or "this build has no CUDA kernels, see docs/building.md"
        raise ValueError(f"device={device!r} needs the CUDA kernels of torchext: {why}")
    count = torch.cuda.device_count()
    number = found.index
    if number is None:
        number = torch.cuda.current_device() if count else 0
    if not 0 <= number < count:  # torch wraps numbers above 127
        raise ValueError(f"device={device!r} needs GPU {number}, this machine shows {count} GPUs")
    return torch.device("cuda", number)


def has_kernels() -> bool:
    """Whether the CUDA kernels of this build are loaded."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("torchext::_sgd_epoch", "CUDA"))


def free_bytes(device: torch.device) -> int:
    """Memory of the GPU that a solver may fill: what is free, or cached by torch and unused, less a tenth."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) * 9 // 10


def moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """The tensor on ``device``, contiguous; None stays None."""
    return None if tensor is None else tensor.to(device).contiguous()
