"""The C++ classes against the Python ones, bit for bit after every step, on the same network and keys."""

from __future__ import annotations

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
    not PROGRAM.exists(), reason="the libtorch programs are not built (make build; needs GoogleTest)"
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
        settings[RUN_FLAGS.get((key, value), key)] = 1 if (key, value) in RUN_FLAGS else value
    given = dict(tensors)
    for key, value in settings.items():
        given[key] = torch.tensor(float(SPECIAL.get(value, value)), dtype=torch.float64)
    given["seed"] = torch.tensor(SEED)
    torch.save(given, tmp_path / "run")
    done = subprocess.run(
        [PROGRAM, tmp_path / "run", tmp_path / "result"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Tensor] = torch.load(tmp_path / "result", weights_only=True)
    return result


def in_python(
    tensors: dict[str, Tensor], method: Any, group: dict[str, Any], run: dict[str, Any]
) -> dict[str, Tensor]:
    params = [nn.Parameter(tensors[f"p{k}"].clone()) for k in range(3)]
    opt = method(params, 0.05, seed=SEED, **group, **run)

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
