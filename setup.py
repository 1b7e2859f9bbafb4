"""Builds the binaries with CMake; all metadata is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent

try:
    import torch
except ImportError:
    sys.exit(
        "torchext builds against the torch you already have: pip install . --no-build-isolation"
    )
if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 11):
    sys.exit(f"torchext needs torch >= 2.11, found {torch.__version__}")
for tool in ("cmake", "ninja"):
    if not shutil.which(tool):
        sys.exit(f"torchext needs {tool}: pip install {tool}")


if "TORCHEXT_NATIVE=ON" in os.environ.get("CMAKE_ARGS", ""):
    sys.exit(
        "TORCHEXT_NATIVE=ON is for builds in place, a wheel must run on every processor: "
        "make build CMAKE_FLAGS=-DTORCHEXT_NATIVE=ON"
    )


def jobs() -> str:
    """MAX_JOBS, or as many compilers as fit into the free memory at 4 GiB each."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**32
    return os.environ.get("MAX_JOBS") or str(max(1, min(os.cpu_count() or 1, memory)))


class CMakeBuild(build_ext):
    """One CMake run makes every binary of the package."""

    def run(self) -> None:
        build = Path(self.build_temp).absolute()
        target = ROOT / "torchext" if self.inplace else Path(self.build_lib).absolute() / "torchext"
        options = [
            f"-DPython_EXECUTABLE={sys.executable}",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        if "TORCHEXT_CUDA" in os.environ:
            options.append(f"-DTORCHEXT_CUDA={os.environ['TORCHEXT_CUDA']}")
        # The build tree may have been configured by `make build` with other options.
        options.append("-DTORCHEXT_NATIVE=OFF")
        subprocess.check_call(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options])
        subprocess.check_call(["cmake", "--build", build, "-j", jobs()])
        subprocess.check_call(
            ["cmake", "--install", build, "--component", "python", "--prefix", target]
        )


setup(
    ext_modules=[Extension("torchext._C", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": CMakeBuild},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
