"""torchext: training at low precision with guarantees."""

from __future__ import annotations

import torch

from torchext import _load

_load.load_all()

from torchext import _autograd as _autograd  # noqa: E402
from torchext import _fakes as _fakes  # noqa: E402
from torchext import ops as ops  # noqa: E402
from torchext import optim as optim  # noqa: E402
from torchext import random as random  # noqa: E402
from torchext._build import VERSION as __version__  # noqa: E402
from torchext.data import QuantizedDataset as QuantizedDataset  # noqa: E402
from torchext.levels import OptimalLevels as OptimalLevels  # noqa: E402
from torchext.levels import RoundingError as RoundingError  # noqa: E402
from torchext.levels import optimal_levels as optimal_levels  # noqa: E402
from torchext.levels import rounding_error as rounding_error  # noqa: E402
from torchext.quantization import (  # noqa: E402
    QuantizedDraws,
    QuantizedTensor,
    fake_quantize,
    quantization_variance,
    quantize,
    quantize_draws,
    uniform_levels,
)

__all__ = [
    "OptimalLevels",
    "QuantizedDataset",
    "QuantizedDraws",
    "QuantizedTensor",
    "RoundingError",
    "__version__",
    "cpu_isa",
    "fake_quantize",
    "ops",
    "optim",
    "optimal_levels",
    "quantization_variance",
    "quantize",
    "quantize_draws",
    "random",
    "rounding_error",
    "uniform_levels",
]


def cpu_isa() -> str:
    """Instruction set of the CPU kernels in use: ``"ref"``, ``"avx2"`` or ``"avx512"``.

    It is the best one this processor offers; the environment variable ``TORCHEXT_ISA`` can lower it.
    """
    return str(torch.ops.torchext._cpu_isa())
