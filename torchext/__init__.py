"""torchext: training at low precision with guarantees."""

from __future__ import annotations

import torch

from torchext import _load

_load.load_all()

from torchext import _fakes as _fakes  # noqa: E402
from torchext import random as random  # noqa: E402
from torchext._build import VERSION as __version__  # noqa: E402
from torchext.data import QuantizedDataset as QuantizedDataset  # noqa: E402

__all__ = ["QuantizedDataset", "__version__", "cpu_isa", "random"]


def cpu_isa() -> str:
    """Instruction set of the CPU kernels in use: ``"ref"``, ``"avx2"`` or ``"avx512"``.

    It is the best one this processor offers; the environment variable ``TORCHEXT_ISA`` can lower it.
    """
    return str(torch.ops.torchext._cpu_isa())
