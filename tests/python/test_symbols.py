"""What the binaries may contain: no code of a wider instruction set, no open symbol, no path."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

import torchext
from torchext import _build

ROOT = Path(__file__).parents[2]
PACKAGE = Path(torchext.__file__).parent
LIBRARIES = sorted(PACKAGE.glob("*.so"))
OBJECTS = sorted((ROOT / "build" / "CMakeFiles" / "torchext_kernels.dir").rglob("*.o"))

needs_objects = pytest.mark.skipif(
    not OBJECTS or platform.machine() != "x86_64" or _build.NATIVE,
    reason="no build tree of the kernels here (make build), not x86-64, or built for this processor only",
)


def output(*command: str | Path) -> str:
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=True
    ).stdout


def is_wide(path: Path) -> bool:
    return re.search(r"_avx(2|512|512vnni)\.cpp\.o$", path.name) is not None


@needs_objects
def test_no_weak_symbols_in_wide_objects() -> None:
    """The linker keeps one copy of a weak function: an AVX-512 one would run on every processor."""
    wide = [path for path in OBJECTS if is_wide(path)]
    assert wide, "no object of a wide instruction set was built"
    found = []
    for path in wide:
        for line in output("nm", "-C", path).splitlines():
            match = re.match(r"[0-9a-f]* +([WVu]) (.*)", line)
            # An undefined weak reference has no address and brings no code.
            if match and line[:1] != " ":
                found.append(f"{path.name}: {match.group(2)}")
    assert not found, "\n".join(found)


@needs_objects
def test_no_wide_registers_in_baseline_objects() -> None:
    found = []
    for path in OBJECTS:
        if not is_wide(path):
            wide = re.findall(r"%[yz]mm\d+", output("objdump", "-d", "--no-show-raw-insn", path))
            if wide:
                found.append(f"{path.name}: {len(wide)} uses of {wide[0]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_exported_symbols(library: Path) -> None:
    """Only the module's entry point (and what the C++ library marks unique) leaves a binary."""
    names = [
        line.split()[-1] for line in output("nm", "-D", "--defined-only", library).splitlines()
    ]
    assert any(name.startswith("PyInit_") for name in names)
    ours = [
        name
        for name in names
        if not name.startswith("PyInit_") and re.search(r"torchext(?!.*stable)", name) is not None
    ]
    assert not ours, "\n".join(ours)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_stable_abi_only(library: Path) -> None:
    """No symbol of torch's C++ API is needed: only its C shim, so that a newer torch loads the file."""
    undefined = output("nm", "-D", "-C", "--undefined-only", library)
    found = [
        line for line in undefined.splitlines() if re.search(r"\b(at|c10|torch|caffe2)::", line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_no_paths(library: Path) -> None:
    """No folder of the machine that built it: users see these texts in errors."""
    text = output("strings", "-n", "4", library)
    folders = [
        str(ROOT),
        str(Path(torch.__file__).parent),
        sysconfig.get_paths()["purelib"],
        "site-packages",
    ]
    found = [line for line in text.splitlines() if any(folder in line for folder in folders)]
    assert not found, "\n".join(found[:20])
    dynamic = output("readelf", "-d", library)
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
