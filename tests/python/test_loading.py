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
from torchext import _build, _load, _testing

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


@pytest.mark.parametrize(("wanted", "lowered"), [("ref", True), ("nonsense", False)])
def test_diagnosis_and_the_isa_variable(wanted: str, lowered: bool) -> None:
    """`python -m torchext`; TORCHEXT_ISA may lower the instruction set, and is ignored if unknown.

    The other values are cases of tests/cpp/dispatch_test.cpp, which needs no start of torch.
    """
    environment = {**os.environ, "TORCHEXT_ISA": wanted}
    run = subprocess.run(
        [sys.executable, "-m", "torchext"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    facts = dict(re.findall(r"^(\S.*?) {2,}(.+)$", run.stdout, re.MULTILINE))
    assert facts["torchext"].startswith(torchext.__version__)
    assert facts["torch"].startswith(torch.__version__)
    assert {"compiler", "python", "threads", "cuda library", "cuda devices"} <= set(facts)
    best = [name for name in _testing.ISAS if supported(name)][-1]
    assert facts["cpu isa"] == ("ref" if lowered else best)


def supported(isa: str) -> bool:
    with _testing.isa(isa) as present:
        return present
