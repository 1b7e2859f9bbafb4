"""Loads the compiled libraries and explains what to do when that fails."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from pathlib import Path

import torch

_FIX = "install torch >= {target}, or rebuild with: pip install . --no-build-isolation"


def _facts() -> str:
    running = f"running torch {torch.__version__}, Python {platform.python_version()}"
    try:
        from torchext import _build
    except ImportError:
        return f"this tree has not been built; {running}"
    cuda = f", CUDA {_build.CUDA}, archs {_build.CUDA_ARCHS}" if _build.CUDA else ""
    return (
        f"built with torch {_build.BUILT_TORCH}, ABI target {_build.TORCH_TARGET}{cuda}; {running}"
    )


def _target() -> str:
    try:
        from torchext import _build
    except ImportError:
        return "2.11"
    return str(_build.TORCH_TARGET)


def explain(library: str, reason: object, fix: str | None = None) -> ImportError:
    """The one form of every load error: what failed, what was built, what runs, what to do."""
    fix = fix or _FIX.format(target=_target())
    return ImportError(f"torchext: cannot load {library} ({reason})\n  {_facts()}\n  fix: {fix}")


def load_extension(name: str) -> None:
    """Import ``torchext.<name>``; its static initialisers register the ops with torch."""
    library = f"{name}.abi3.so"
    if not (Path(__file__).parent / library).exists():
        raise explain(
            library, "the file does not exist", "build it with: make build, or pip install ."
        )
    try:
        importlib.import_module(f"torchext.{name}")
    except ImportError as error:
        raise explain(library, error) from error


def has_cuda_kernels() -> bool:
    """Whether the CUDA kernels of this build are loaded."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key("torchext::_sgd_epoch", "CUDA"))


def why_no_cuda_kernels() -> object:
    """The reason, if they are not."""
    return cuda_error or "this build has no CUDA kernels, see docs/building.md"


# A missing CUDA library must not stop CPU users: the error is kept until a CUDA tensor needs it.
cuda_error: ImportError | None = None


def load_all() -> None:
    """Load the CPU library, and try the CUDA one where torch is a CUDA build."""
    global cuda_error
    load_extension("_C")
    if torch.version.cuda is None:
        return
    try:
        load_extension("_C_cuda")
    except ImportError as error:
        cuda_error = error


def require_cuda() -> None:
    """Raise the stored load error when a wrapper meets a CUDA tensor without the CUDA library."""
    if cuda_error is not None:
        raise cuda_error
