"""How things are compiled and packaged, from the files that say so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from torchext import _build

ROOT = Path(__file__).parents[2]
COMMANDS = ROOT / "build" / "compile_commands.json"


@pytest.mark.skipif(not COMMANDS.exists(), reason="no build tree here (make build)")
def test_no_file_may_fuse_or_reorder() -> None:
    """Kernels and ops alike: a multiply-add that a compiler fused would change bits between machines."""
    ours = [c for c in json.loads(COMMANDS.read_text()) if "/csrc/" in c["file"]]
    assert any("/ops/" in c["file"] for c in ours) and any("/kernels/" in c["file"] for c in ours)
    for command in ours:
        assert "-ffp-contract=off" in command["command"], command["file"]
        assert "-ffast-math" not in command["command"], command["file"]
        if re.search(r"_(ref|avx2|avx512|avx512vnni)\.cpp$", command["file"]) or not _build.NATIVE:
            assert "-march=native" not in command["command"], command["file"]


def test_a_wheel_for_this_processor_only_is_refused() -> None:
    environment = {**os.environ, "CMAKE_ARGS": "-DTORCHEXT_NATIVE=ON"}
    run = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "make build CMAKE_FLAGS=-DTORCHEXT_NATIVE=ON" in run.stderr


def test_every_option_is_documented() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text()
    options = re.findall(r"^(?:option|set)\((TORCHEXT_\w+) .*(?:OFF\)|ON\)|CACHE)", cmake, re.M)
    assert {"TORCHEXT_CUDA", "TORCHEXT_NATIVE", "TORCHEXT_OPS_LIB"} <= set(options)
    page = (ROOT / "docs" / "building.md").read_text()
    missing = [o for o in options if f"`{o}`" not in page and o != "TORCHEXT_TORCH_TARGET"]
    assert not missing, missing


def test_release_wheels_are_built_with_the_oldest_torch() -> None:
    """Their settings agree with what the extension targets and with the Python it needs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["cibuildwheel"]
    assert any(f"torch=={_build.TORCH_TARGET}." in step for step in wheel["before-build"])
    assert wheel["build"].startswith("cp311-")
    assert settings["project"]["requires-python"] == ">=3.11"
    assert wheel["environment"] == {"TORCHEXT_CUDA": "OFF"}
    for library in ("libtorch*", "libc10*", "libcu*"):
        assert f"--exclude '{library}'" in wheel["repair-wheel-command"][0]
