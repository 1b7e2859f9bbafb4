"""The methods that are compared, by name: ``sgd``, ``momentum``, ``svrg``, ``lp-sgd-8``, ``halp-4``, ..."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from torchext.optim import HALP, LPSGD, LPSVRG, SVRG, BitCentredSGD

WITH_BITS = ("lp-sgd", "lp-svrg", "halp", "bit-centred")
#: Methods that need a full gradient now and then; of them ``CORRECTED`` evaluate two gradients a step.
CENTERED = ("svrg", "lp-svrg", "halp", "bit-centred")
CORRECTED = ("svrg", "lp-svrg", "halp")
EXPLAINED = (
    "sgd, momentum (SGD with momentum), svrg in float; lp-sgd-B and lp-svrg-B on a fixed lattice of B bits; "
    "halp-B; bit-centred-B (HALP without the correction)"
)


@dataclass(frozen=True)
class Method:
    """A kind of optimizer and the bits of its iterates; 32 is full precision."""

    kind: str
    bits: int = 32

    @classmethod
    def parse(cls, name: str) -> Method:
        """From a name as on the command line.

        Raises:
            ValueError: no such method.
        """
        if name in ("sgd", "momentum", "svrg"):
            return cls(name)
        found = re.fullmatch(rf"({'|'.join(WITH_BITS)})-(\d+)", name)
        if not found or not 2 <= int(found[2]) <= 16:
            raise ValueError(f"unknown method {name!r}, expected one of: {EXPLAINED}; B is 2 to 16")
        return cls(found[1], int(found[2]))

    @property
    def name(self) -> str:
        """Inverse of :meth:`parse`."""
        return self.kind if self.bits == 32 else f"{self.kind}-{self.bits}"

    @property
    def centered(self) -> bool:
        return self.kind in CENTERED

    @property
    def gradients_per_step(self) -> int:
        """Gradients of each example of a batch."""
        return 2 if self.kind in CORRECTED else 1


@dataclass(frozen=True)
class Settings:
    """Numbers of one method; those that its kind does not have are ignored."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    mu: float | Literal["auto"] = "auto"
    #: fixed lattices: the largest weight of each tensor at the start times this is the largest number
    headroom: float = 1.0
    #: fixed lattices: one spacing for all tensors in place of ``headroom``
    delta: float | None = None
    svrg_coef: float = 1.0
    option: Literal["I", "II", "mean"] = "I"
    scope: Literal["tensor", "global"] = "tensor"


def build(
    method: Method, params: Iterable[nn.Parameter], s: Settings, steps: int, seed: int
) -> torch.optim.Optimizer:
    """The optimizer; ``steps`` from centre to centre, ``seed`` of its rounding."""
    weights, decay = list(params), s.weight_decay
    if method.kind in ("sgd", "momentum"):
        momentum = s.momentum if method.kind == "momentum" else 0.0
        return torch.optim.SGD(weights, s.lr, momentum=momentum, weight_decay=decay)
    shared: dict[str, Any] = {"weight_decay": decay, "seed": seed}
    if method.kind == "bit-centred":
        if s.mu == "auto":
            raise ValueError("bit-centred SGD needs a number for mu")
        return BitCentredSGD(
            weights,
            s.lr,
            steps,
            mu=s.mu,
            bits=method.bits,
            option=s.option,
            scope=s.scope,
            **shared,
        )
    if method.kind == "lp-sgd":
        groups = _lattices(weights, method.bits, s)
        return LPSGD(groups, s.lr, delta="absmax", bits=method.bits, **shared)
    shared |= {"svrg_coef": s.svrg_coef, "option": s.option}
    if method.kind == "svrg":
        return SVRG(weights, s.lr, steps, **shared)
    if method.kind == "lp-svrg":
        groups = _lattices(weights, method.bits, s)
        return LPSVRG(groups, s.lr, steps, delta="absmax", bits=method.bits, **shared)
    return HALP(weights, s.lr, steps, mu=s.mu, bits=method.bits, scope=s.scope, **shared)


def _lattices(weights: list[nn.Parameter], bits: int, s: Settings) -> list[dict[str, Any]]:
    """Groups with a spacing each; a tensor of zeros gets the range of the largest one."""
    if s.delta is not None:
        return [{"params": weights, "delta": s.delta}]
    sizes = [float(w.detach().abs().max()) for w in weights]
    top, largest = 2 ** (bits - 1) - 1, max(sizes)
    return [
        {"params": [w], "delta": s.headroom * (size or largest) / top}
        for w, size in zip(weights, sizes, strict=True)
    ]
