"""Load errors say what failed, what was built, what runs and what to do; `python -m torchext` works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchext
from torchext import _build, _load

ROOT = Path(__file__).parents[2]
PACKAGE = Path(torchext.__file__).parent

SHAPE = re.compile(
    r"torchext: cannot load (?P<library>\S+) \((?P<reason>.+)\)\n"
    r"  built with torch \S+, ABI target \d+\.\d+(, CUDA \S+, archs \S+)?; running torch \S+, Python \S+\n"
    r"  fix: (?P<fix>.+)",
    re.DOTALL,
)


def broken_copy(folder: Path) -> Path:
    """The Python files of the package without its binaries."""
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(PACKAGE, folder / "torchext", ignore=ignore)
    return folder


def import_error(folder: Path) -> str:
    code = "try:\n import torchext\nexcept ImportError as e: print(e)\nelse: print('imported')"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_missing_library(tmp_path: Path) -> None:
    match = SHAPE.fullmatch(import_error(broken_copy(tmp_path)))
    assert match and match["library"] == "_C.abi3.so"
    assert match["reason"] == "the file does not exist"
    assert "make build" in match["fix"]


def test_damaged_library(tmp_path: Path) -> None:
    broken_copy(tmp_path)
    (tmp_path / "torchext" / "_C.abi3.so").write_bytes(b"not a library")
    match = SHAPE.fullmatch(import_error(tmp_path))
    assert match and "pip install . --no-build-isolation" in match["fix"]
    assert str(_build.TORCH_TARGET) in match["fix"]


def test_unbuilt_tree(tmp_path: Path) -> None:
    broken_copy(tmp_path)
    (tmp_path / "torchext" / "_build.py").unlink()
    assert "this tree has not been built" in import_error(tmp_path)


def test_cuda_error_is_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its CUDA library the package imports; the error waits for a CUDA tensor."""
    stored = _load.explain("_C_cuda.abi3.so", "libtorch_cuda.so: cannot open shared object file")
    assert SHAPE.fullmatch(str(stored))
    monkeypatch.setattr(_load, "cuda_error", stored)
    with pytest.raises(ImportError, match="cannot load _C_cuda"):
        _load.require_cuda()
    monkeypatch.setattr(_load, "cuda_error", None)
    _load.require_cuda()


def test_version_is_written_once() -> None:
    version = (ROOT / "version.txt").read_text().strip()
    assert torchext.__version__ == _build.VERSION == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_torch_is_new_enough() -> None:
    running = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    assert running >= tuple(int(part) for part in _build.TORCH_TARGET.split("."))


def test_diagnosis() -> None:
    environment = {**os.environ, "TORCHEXT_ISA": "ref"}
    run = subprocess.run(
        [sys.executable, "-m", "torchext"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert torchext.__version__ in run.stdout and torch.__version__ in run.stdout


@pytest.mark.parametrize(
    ("wanted", "expected"), [("ref", "ref"), ("avx2", None), ("nonsense", None), ("", None)]
)
def test_isa_variable_only_lowers(wanted: str, expected: str | None) -> None:
    def isa(value: str | None) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "TORCHEXT_ISA"}
        if value is not None:
            environment["TORCHEXT_ISA"] = value
        code = "import torchext; print(torchext.cpu_isa())"
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.strip()

    order = ["ref", "avx2", "avx512"]
    best = isa(None)
    assert isa(wanted) == (
        expected or (best if wanted not in order else min(best, wanted, key=order.index))
    )
