"""``python -m torchext``: versions, instruction set and library state, for bug reports.

With arguments it is the command line: ``python -m torchext train ...`` is ``torchext train ...``.
"""

from __future__ import annotations

import platform
import sys

import torch

import torchext
from torchext import _build, _load


def diagnosis() -> str:
    """What a maintainer needs to know about this installation, one fact a line."""
    cuda_library = "loaded" if _load.cuda_error is None and torch.version.cuda else "not loaded"
    facts = {
        "torchext": f"{torchext.__version__} (built with torch {_build.BUILT_TORCH}, "
        f"ABI target {_build.TORCH_TARGET})",
        "compiler": _build.COMPILER + (", for this processor only" if _build.NATIVE else ""),
        "torch": f"{torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cpu isa": torchext.cpu_isa(),
        "threads": str(torch.get_num_threads()),
        "cuda library": cuda_library,
        "cuda devices": str(torch.cuda.device_count()),
    }
    return "\n".join(f"{name:14}{value}" for name, value in facts.items())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from torchext.cli import main

        sys.exit(main())
    print(diagnosis())
