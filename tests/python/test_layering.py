"""One direction of dependencies: kernels <- ops <- torchext <- training; findings name file and line."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".h", ".cuh", ".cpp", ".cu"}

FRAMEWORK = r"^(torch|ATen|c10|caffe2|pybind11)/|^Python\.h$"
UNSTABLE = (
    r"^(ATen|c10|pybind11|caffe2)/|^torch/(?!csrc/stable/|headeronly/|csrc/inductor/aoti_torch/c/)"
)
LATERAL = r"(^|/)(tests|benchmarks|examples)/"

# folder -> what an include must not match
FORBIDDEN_INCLUDES = {
    "csrc/kernels": FRAMEWORK + r"|^cuda|^cub/|(^|/)ops/",
    "fpga": FRAMEWORK + r"|^cuda|^cub/|(^|/)ops/",
    "cuda/kernels": FRAMEWORK + r"|(^|/)ops/",
    "csrc/ops": UNSTABLE,
    "cuda/ops": UNSTABLE,
    "csrc/libtorch": r"^torch/csrc/stable/|(^|/)ops/",
}
OPTIONAL = {"torchvision", "matplotlib", "tqdm", "tensorboard", "sklearn", "pyarrow"}


def strip_comments(text: str) -> str:
    """The code with comments and string literals blanked, lines kept."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"'

    def blank(match: re.Match[str]) -> str:
        found = match.group()
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    return re.sub(pattern, blank, text, flags=re.DOTALL)


def sources(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in SUFFIXES:
            yield path


def check_source(folder: str, name: str, text: str) -> list[str]:
    """Every finding in one C++ file as "name:line: what"."""
    found = []
    for number, line in enumerate(strip_comments(text).splitlines(), 1):
        include = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if include:
            target = include.group(1)
            bad = re.search(FORBIDDEN_INCLUDES[folder], target) or re.search(LATERAL, target)
            python = target == "Python.h" and Path(name).name not in {
                "module.cpp",
                "cuda_module.cpp",
            }
            if bad or python:
                found.append(f"{name}:{number}: must not include {target}")
        if folder.endswith("/ops") and re.search(r"\b(at|c10)::", line):
            found.append(f"{name}:{number}: uses at:: or c10::")
        if folder == "cuda/ops" and "<<<" in line:
            found.append(f"{name}:{number}: launches a kernel; call its launch function")
    if folder == "cuda/ops" and name.endswith(".cu"):
        found.append(f"{name}:1: op glue is compiled by g++, never by nvcc")
    return found


@pytest.mark.parametrize("folder", sorted(FORBIDDEN_INCLUDES))
def test_includes(folder: str) -> None:
    found = []
    for path in sources(folder):
        found += check_source(folder, str(path.relative_to(ROOT)), path.read_text())
    assert not found, "\n".join(found)


def test_the_scan_finds_what_it_should() -> None:
    assert check_source("csrc/kernels", "a.h", "#include <torch/torch.h>\n") == [
        "a.h:1: must not include torch/torch.h"
    ]
    assert check_source("csrc/kernels", "a.h", "\n#include <cuda_runtime.h>") != []
    assert check_source("csrc/kernels", "a.h", "/* #include <ATen/ATen.h> */ // c10::") == []
    assert check_source("csrc/ops", "a.cpp", "#include <torch/extension.h>") != []
    assert check_source("csrc/ops", "a.cpp", "#include <torch/csrc/stable/tensor.h>") == []
    assert check_source("csrc/ops", "a.cpp", "#include <Python.h>") != []
    assert check_source("csrc/ops", "module.cpp", "#include <Python.h>") == []
    assert check_source("csrc/ops", "a.cpp", "auto x = at::empty();") != []
    assert check_source("cuda/ops", "a.cpp", "k<<<1, 2>>>();") != []
    assert check_source("cuda/kernels", "a.cu", '#include "kernels/philox.h"') == []


def imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """(line, top package, whether the import runs when the module is imported)."""
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_function or is_typing:
            guarded.update(ast.walk(node))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            yield node.lineno, name.split(".")[0], node not in guarded


def test_python_imports() -> None:
    found = []
    for path in sorted((ROOT / "torchext").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        # The estimators are scikit-learn estimators: importing torchext does not import them.
        allowed = {"sklearn"} if name.startswith("torchext/linear/") else set()
        for line, package, at_import in imports(ast.parse(path.read_text())):
            if package in {"training", "tests", "benchmarks", "examples"}:
                found.append(f"{name}:{line}: must not import {package}")
            if at_import and package in OPTIONAL - allowed:
                found.append(f"{name}:{line}: import {package} inside the function that needs it")
    assert not found, "\n".join(found)


def test_import_leaves_optional_packages_alone() -> None:
    """`import torchext` works, and stays quick, without any extra."""
    code = (
        "import sys, torch; before = set(sys.modules); import torchext; "
        f"print(sorted((set(sys.modules) - before) & {OPTIONAL!r}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_cuda_folder_is_no_package() -> None:
    """An __init__.py there would shadow NVIDIA's `cuda` namespace package in this folder."""
    assert not list((ROOT / "cuda").rglob("__init__.py"))
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    code = "import cuda.bindings"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ})


def test_only_torchext_is_installed() -> None:
    assert 'include = ["torchext*"]' in (ROOT / "pyproject.toml").read_text()
