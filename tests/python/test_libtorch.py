"""The C++ classes against the Python ones, bit for bit after every step; the C++ package and its example."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchext.optim import HALP, LPSGD, LPSVRG, SVRG, BitCentredSGD

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "build" / "tests" / "cpp" / "libtorch" / "trajectory"
pytestmark = pytest.mark.skipif(
    not PROGRAM.exists(),
    reason="the libtorch programs are not built (make build; needs GoogleTest)",
)

METHODS: list[Any] = [SVRG, HALP, BitCentredSGD, LPSVRG, LPSGD]
STEPS = 56
SEED = -3 * 2**61 - 5  # all 64 bits of a seed count

#: (method, settings of the group, settings of the optimizer, dtype)
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], torch.dtype]] = {
    "SVRG": (SVRG, {"momentum": 0.5}, {"T": 18}, torch.float32),
    "SVRG mean": (SVRG, {"svrg_coef": 0.75}, {"T": 18, "option": "mean"}, torch.float64),
    "SVRG bf16": (SVRG, {"weight_decay": 0.01}, {"T": 18}, torch.bfloat16),
    "HALP auto": (HALP, {}, {"T": 18}, torch.float32),
    "HALP drawn seed": (HALP, {"bits": 12}, {"T": 18, "seed": None}, torch.float32),
    "HALP 4 bits": (HALP, {"mu": 6.0, "bits": 4}, {"T": 18}, torch.float32),
    "HALP 16 bits": (
        HALP, {"mu": 1.0, "bits": 16, "weight_decay": 0.05, "momentum": 0.5, "nesterov": True},
        {"T": 18, "scope": "global"}, torch.float64,
    ),
    "HALP random iterate": (
        HALP, {"mu": 2.0, "momentum": 0.9, "dampening": 0.1},
        {"T": 18, "option": "II", "reset_momentum": True}, torch.float32,
    ),
    "HALP mean iterate": (
        HALP, {"mu": 2.0, "bits": 3}, {"T": 18, "option": "mean"}, torch.float32,
    ),
    "HALP loopless": (
        HALP, {"mu": 2.0, "svrg_coef": 0.5, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"T": 18, "loopless": True}, torch.float32,
    ),
    "HALP simulated": (HALP, {"mu": 2.0, "bits": 8}, {"T": 18, "storage": "simulate"}, torch.float32),
    "HALP bf16": (HALP, {"mu": 2.0}, {"T": 18, "anchor_dtype": torch.bfloat16}, torch.bfloat16),
    "bit-centred SGD": (BitCentredSGD, {"mu": 2.0, "momentum": 0.5}, {"T": 18}, torch.float32),
    "bit-centred SGD running": (
        BitCentredSGD, {"mu": 1.0}, {"T": 18, "anchor": "running"}, torch.float32,
    ),
    "LP-SVRG": (LPSVRG, {"delta": 0.002, "bits": 12}, {"T": 18}, torch.float32),
    "LP-SVRG random iterate": (
        LPSVRG, {"delta": "absmax", "bits": 8}, {"T": 18, "option": "II"}, torch.float64,
    ),
    "LP-SGD": (LPSGD, {"delta": 0.02, "bits": 8, "momentum": 0.9}, {}, torch.float32),
    "LP-SGD absmax": (LPSGD, {"delta": "absmax", "bits": 4, "weight_decay": 0.1}, {}, torch.float32),
}  # fmt: skip

SPECIAL = {"auto": -1.0, "absmax": -1.0, "I": 1, "II": 2, "mean": 3}
#: run settings under the names of trajectory.cpp
RUN_FLAGS = {
    ("scope", "global"): "global",
    ("storage", "simulate"): "simulate",
    ("anchor", "running"): "running_anchor",
    ("anchor_dtype", torch.bfloat16): "bfloat16_anchor",
}


def data(dtype: torch.dtype) -> dict[str, Tensor]:
    r = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.tensor(r.standard_normal(shape)).to(dtype)

    weights = {"p0": normal(5, 7), "p1": normal(7), "p2": normal(7, 1)}
    batches = {"x": normal(STEPS, 8, 5), "y": normal(STEPS, 8, 1)}
    return batches | weights | {"all_x": normal(45, 5), "all_y": normal(45, 1)}


def in_cpp(
    tmp_path: Path,
    tensors: dict[str, Tensor],
    method: Any,
    group: dict[str, Any],
    run: dict[str, Any],
) -> dict[str, Tensor]:
    settings = {"method": METHODS.index(method), "lr": 0.05} | group
    for key, value in run.items():
        if key == "seed":
            continue
        settings[RUN_FLAGS.get((key, value), key)] = 1 if (key, value) in RUN_FLAGS else value
    given = dict(tensors)
    for key, value in settings.items():
        given[key] = torch.tensor(float(SPECIAL.get(value, value)), dtype=torch.float64)
    if "seed" not in run:
        given["seed"] = torch.tensor(SEED)
    torch.save(given, tmp_path / "run")
    done = subprocess.run(
        [PROGRAM, tmp_path / "run", tmp_path / "result"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # libtorch tags the type of the dict, which weights_only does not know.
    result: dict[str, Tensor] = torch.load(tmp_path / "result", weights_only=False)
    return result


def in_python(
    tensors: dict[str, Tensor], method: Any, group: dict[str, Any], run: dict[str, Any]
) -> dict[str, Tensor]:
    params = [nn.Parameter(tensors[f"p{k}"].clone()) for k in range(3)]
    torch.manual_seed(0)
    opt = method(params, 0.05, **{"seed": SEED, **group, **run})

    def closure(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        def evaluate() -> Tensor:
            opt.zero_grad()
            hidden = torch.tanh(torch.matmul(x, params[0]) + params[1])
            loss = (torch.matmul(hidden, params[2]) - y).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return evaluate

    found = {}
    all_x, all_y = tensors["all_x"], tensors["all_y"]
    for k in range(STEPS):
        if getattr(opt, "needs_recenter", False):
            parts = [(closure(all_x[:22], all_y[:22]), 22), (closure(all_x[22:], all_y[22:]), 23)]
            closures = None if run.get("anchor") == "running" and k else parts
            found[f"{k}/norm"] = torch.tensor(opt.recenter(closures).grad_norm, dtype=torch.float64)
        found[f"{k}/loss"] = opt.step(closure(tensors["x"][k], tensors["y"][k])).detach()
        for i, p in enumerate(params):
            found[f"{k}/p{i}"] = p.detach().clone()
            found[f"{k}/z{i}"] = opt.state[p]["z"].clone()
            if "delta" in opt.state[p]:
                found[f"{k}/delta{i}"] = opt.state[p]["delta"].clone()
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_step_has_the_same_bits(name: str, tmp_path: Path) -> None:
    method, group, run, dtype = CASES[name]
    tensors = data(dtype)
    cpp = in_cpp(tmp_path, tensors, method, group, run)
    python = in_python(tensors, method, group, run)
    assert cpp.keys() == python.keys()
    if method is not LPSGD:
        assert sum(key.endswith("norm") for key in cpp) >= 3
    for key, value in python.items():
        assert cpp[key].dtype == value.dtype and torch.equal(cpp[key], value), key
    moved = [not torch.equal(cpp[f"{STEPS - 1}/p{i}"], tensors[f"p{i}"]) for i in range(3)]
    assert all(moved)


def shell(*command: str | Path, code: int = 0) -> str:
    """Output of a command that ends with the given code."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ package, installed."""
    folder = tmp_path_factory.mktemp("prefix")
    for component in ("kernels", "torch"):
        shell("cmake", "--install", ROOT / "build", "--component", component, "--prefix", folder)
    return folder


def write_digits(folder: Path, part: str, n: int, r: np.random.Generator) -> None:
    """idx files of n noisy pictures of ten kinds."""
    kinds = np.random.default_rng(0).integers(0, 200, (10, 28, 28))
    labels = np.arange(n) % 10
    pictures = kinds[labels] + r.integers(0, 56, (n, 28, 28))
    header = struct.pack(">4i", 0x803, n, 28, 28)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(header + pictures.astype(np.uint8).tobytes())
    header = struct.pack(">2i", 0x801, n)
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


@pytest.mark.slow
def test_the_example_builds_against_the_package_and_trains(prefix: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    paths = f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}"
    shell("cmake", "-S", ROOT / "examples" / "libtorch", "-B", out, "-G", "Ninja", paths,
          "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0")  # fmt: skip
    shell("cmake", "--build", out, "-j", "2")

    assert "usage: mnist FOLDER" in shell(out / "mnist", code=2)
    text = shell(out / "mnist", data, code=1)
    assert "train-images-idx3-ubyte is missing; download MNIST's four files" in text
    data.mkdir()
    r = np.random.default_rng(1)
    write_digits(data, "train", 300, r)
    write_digits(data, "t10k", 100, r)
    text = shell(out / "mnist", data, "3")
    assert "300 training rows, 100 test rows" in text
    lines = re.findall(
        r"^(.*) epoch (\d): training loss ([\d.]+), test accuracy ([\d.]+)$", text, re.M
    )
    found = {(name, int(epoch)): (float(loss), float(right)) for name, epoch, loss, right in lines}
    assert len(found) == 2 * 7
    for model in ("logistic regression", "conv net"):
        start = found[f"{model}, start", 0][0]
        for name in ("SGD", "HALP 8 bits"):
            assert found[f"{model}, {name}", 3][0] < start
    assert found["logistic regression, HALP 8 bits", 3][1] > 0.9

    (data / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09")
    assert "has not the length that its header says" in shell(out / "mnist", data, code=1)


def test_find_package_says_what_is_missing(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(x LANGUAGES CXX)\n"
        "find_package(torchext CONFIG REQUIRED COMPONENTS torch)\n"
    )
    configure = ("cmake", "-S", tmp_path, "-B", tmp_path / "b")
    text = shell(*configure, f"-DCMAKE_PREFIX_PATH={prefix}", code=1)
    assert "the component torch needs libtorch: add its folder to" in " ".join(text.split())
    include = tmp_path / "old" / "include" / "torch" / "headeronly"
    include.mkdir(parents=True)
    (include / "version.h").write_text(
        "#define TORCH_VERSION_MAJOR 1\n#define TORCH_VERSION_MINOR 9\n"
    )
    for library in ("torch", "torch_cpu", "c10"):
        (tmp_path / "old" / "lib").mkdir(exist_ok=True)
        (tmp_path / "old" / "lib" / f"lib{library}.so").touch()
    text = shell(*configure, f"-DCMAKE_PREFIX_PATH={prefix};{tmp_path / 'old'}", code=1)
    version = ".".join(torch.__version__.split(".")[:2])
    expected = f"the component torch was built with torch {version}, this is torch 1.9"
    assert expected in " ".join(text.split())


def test_the_package_names_no_folder_of_the_build(prefix: Path) -> None:
    files = [f for f in prefix.rglob("*") if f.is_file()]
    assert any(f.name == "libtorchext_torch.a" for f in files)
    for file in files:
        for folder in (str(ROOT), "site-packages"):
            assert folder.encode() not in file.read_bytes(), f"{file.name} names {folder}"
