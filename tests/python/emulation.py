"""The CUDA ops on CPU memory: ``torch.ops.torchext_emulated``, for machines without a GPU.

The library holds the sources of cuda/ops and cuda/kernels, compiled for the CPU with emulated blocks
of threads (tests/cuda_emulation). Every op that has a CUDA kernel takes the same arguments there.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

BUILD = Path(os.environ.get("TORCHEXT_BUILD", Path(__file__).parents[2] / "build"))
LIBRARY = BUILD / "tests" / "cuda_emulation" / "libtorchext_emulated.so"


def load() -> None:
    """Registers ``torch.ops.torchext_emulated``; a build with TORCHEXT_TESTS=ON has made the library."""
    if not hasattr(torch.ops.torchext_emulated, "quantize"):
        torch.ops.load_library(str(LIBRARY))
