"""Settings of the optimizers: defaults, and errors in torch's words for what cannot be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from torchext import _load

Rounding = Literal["stochastic", "nearest"]


class SGDOptions(TypedDict, total=False):
    """Keyword arguments that every optimizer of this package takes; see :mod:`torchext.optim`."""

    weight_decay: float
    decoupled_weight_decay: bool
    momentum: float
    dampening: float
    nesterov: bool
    maximize: bool
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool
    seed: int | None
    telemetry: bool
    error_if_nonfinite: bool


class CenterOptions(SGDOptions, total=False):
    """Keyword arguments of the optimizers that have a centre."""

    svrg_coef: float
    option: Literal["I", "II", "mean"]
    loopless: bool
    reset_momentum: bool
    anchor_dtype: torch.dtype | None
    preserve_rng: bool
    process_group: Any
    sync: bool | Literal["auto"]


SGD_DEFAULTS: dict[str, Any] = {
    "weight_decay": 0.0,
    "decoupled_weight_decay": False,
    "momentum": 0.0,
    "dampening": 0.0,
    "nesterov": False,
    "maximize": False,
    "foreach": None,
    "fused": None,
    "capturable": False,
    "differentiable": False,
    "seed": None,
    "telemetry": False,
    "error_if_nonfinite": False,
}
CENTER_DEFAULTS: dict[str, Any] = {
    "svrg_coef": 1.0,
    "option": "I",
    "loopless": False,
    "reset_momentum": False,
    "anchor_dtype": None,
    "preserve_rng": True,
    "process_group": None,
    "sync": "auto",
}
#: What a param group holds; the rest belongs to the whole optimizer.
GROUP_KEYS = (
    "weight_decay", "decoupled_weight_decay", "momentum", "dampening", "nesterov", "maximize",
    "foreach", "fused", "capturable", "differentiable",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What holds for all param groups."""

    T: int = 1
    option: str = "I"
    loopless: bool = False
    scope: str = "tensor"
    storage: str = "codes"
    delta_floor: float = 1e-3
    mu0: float | None = None
    anchor: str = "full"
    anchor_dtype: torch.dtype | None = None
    reset_momentum: bool = False
    preserve_rng: bool = True
    sync: bool | str = "auto"
    telemetry: bool = False
    error_if_nonfinite: bool = False
    capturable: bool = False


def fill(name: str, given: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Defaults with the given keyword arguments; an unknown one is a TypeError as usual."""
    for key in given:
        if key not in defaults:
            raise TypeError(f"{name}() got an unexpected keyword argument '{key}'")
    return defaults | dict(given)


def one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Invalid {what}: {value!r}, expected one of {allowed}")


def check_run(name: str, run: Run, settings: Mapping[str, Any]) -> None:
    """Refuses what this version, or the method, does not do."""
    if not isinstance(run.T, int) or run.T < 1:
        raise ValueError(f"Invalid T: {run.T}, expected a number of steps, 1 or more")
    one_of("option", run.option, ("I", "II", "mean"))
    if run.loopless and run.option != "I":
        raise ValueError(f"Invalid option: {run.option!r}, loopless=True needs option='I'")
    one_of("scope", run.scope, ("tensor", "global"))
    one_of("storage", run.storage, ("codes", "simulate"))
    one_of("anchor", run.anchor, ("full", "running"))
    one_of("anchor_dtype", run.anchor_dtype, (None, torch.bfloat16, torch.float16, torch.float32))
    one_of("capturable", run.capturable, (False, True))
    one_of("sync", run.sync, ("auto", True, False))
    if not 0.0 <= run.delta_floor < math.inf:
        raise ValueError(f"Invalid delta_floor: {run.delta_floor}")
    if run.mu0 is not None and not 0.0 < run.mu0 < math.inf:
        raise ValueError(f"Invalid mu0: {run.mu0}")
    if settings["differentiable"]:
        raise ValueError(f"{name} does not support differentiable=True: rounding has no derivative")
    if run.capturable:
        _check_capturable(run, settings)
    if settings["foreach"] is False and settings["fused"]:
        raise ValueError(f"{name} cannot do fused=True with foreach=False")


def _check_capturable(run: Run, settings: Mapping[str, Any]) -> None:
    """A captured step is replayed without Python: what it decides there cannot change from step to step."""
    for what, on in {
        f"option={run.option!r}": run.option != "I",
        "loopless=True": run.loopless,
        "anchor='running'": run.anchor == "running",
        "reset_momentum=True": run.reset_momentum,
        "error_if_nonfinite=True": run.error_if_nonfinite,
        "foreach=False": settings["foreach"] is False,
    }.items():
        if on:
            raise ValueError(
                f"capturable=True does not go with {what}, which is decided on the host in every step"
            )


def check_group(name: str, group: dict[str, Any], run: Run) -> None:
    """The numbers of one param group, whichever way they came in."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not 0.0 < float(lr) < math.inf:
        raise ValueError(f"Invalid learning rate: {lr}")
    for key in ("weight_decay", "momentum"):
        if not 0.0 <= group[key] < math.inf:
            raise ValueError(f"Invalid {key} value: {group[key]}")
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if group["capturable"] != run.capturable:
        raise ValueError(
            f"capturable must be {run.capturable} in every group, as for the whole optimizer, got "
            f"{group['capturable']!r}"
        )
    if run.capturable and group["foreach"] is False:
        raise ValueError("capturable=True does not go with foreach=False")
    if "svrg_coef" in group and not 0.0 <= group["svrg_coef"] <= 1.0:
        raise ValueError(f"Invalid svrg_coef value: {group['svrg_coef']}, expected 0 to 1")
    if "bits" in group:
        _check_lattice(group, run)
    for p in group["params"]:
        p = p[1] if isinstance(p, tuple) else p
        if torch.is_complex(p):
            raise ValueError(f"{name} does not support complex parameters")
        if p.device.type == "cuda":
            _load.require_cuda()
        elif p.device.type != "cpu":
            raise ValueError(f"{name} runs on the CPU and on CUDA, got a parameter on {p.device}")


def _check_lattice(group: dict[str, Any], run: Run) -> None:
    bits, most = group["bits"], 16 if run.storage == "codes" else 24
    if not isinstance(bits, int) or not 2 <= bits <= most:
        raise ValueError(f"Invalid bits: {bits}, expected 2 to {most} for storage={run.storage!r}")
    one_of("rounding", group["rounding"], ("stochastic", "nearest"))
    if group["rounding"] == "nearest":
        warnings.warn(
            "rounding='nearest' stalls as soon as every step is below half a spacing; "
            "use it for comparison only",
            stacklevel=5,
        )
    mu, delta = group.get("mu", 1.0), group.get("delta", 1.0)
    if mu == "auto":
        if bits < 8:
            raise ValueError(
                f"mu='auto' needs 8 bits or more, got {bits}: give a number and tune it"
            )
    elif isinstance(mu, str) or not 0.0 < mu < math.inf:
        raise ValueError(f"Invalid mu: {mu}")
    if delta != "absmax" and (isinstance(delta, str) or not 0.0 < delta < math.inf):
        raise ValueError(f"Invalid delta: {delta}, expected a positive number or 'absmax'")
