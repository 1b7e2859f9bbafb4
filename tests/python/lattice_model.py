"""One lattice step in exact rational arithmetic, written from the formulas in docs/optimizers.md."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import stream_v1


def rounded(x: Fraction, dtype: type) -> float:
    """The nearest number of a dtype, ties to even."""
    near = float(x)  # Python rounds correctly to float64
    if dtype is np.float64:
        return near
    middle = np.float32(near)
    candidates = [
        float(np.nextafter(middle, np.float32(-math.inf))),
        float(middle),
        float(np.nextafter(middle, np.float32(math.inf))),
    ]

    def distance(c: float) -> tuple[Fraction, int]:
        return abs(Fraction(c) - x), int(np.float32(c).view(np.int32)) & 1

    return min(candidates, key=distance)


@dataclass(frozen=True)
class Rule:
    """The scalars of a step; ``real`` is SVRG's step, without rounding."""

    lr: float = 0.1
    weight_decay: float = 0.0
    coef: float = 1.0
    momentum: float = 0.0
    dampening: float = 0.0
    bits: int = 8
    nearest: bool = False
    maximize: bool = False
    nesterov: bool = False
    decoupled: bool = False
    first: bool = False
    real: bool = False

    def flags(self) -> int:
        return sum(
            1 << k
            for k, on in enumerate(
                (self.nearest, self.maximize, self.nesterov, self.decoupled, self.first)
            )
            if on
        )

    def but(self, **changes: object) -> Rule:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass
class Element:
    """One weight: what goes in, and after :func:`step` what comes out."""

    q: float
    delta: float
    grad: float
    center: float = 0.0
    grad_center: float | None = None
    full_grad: float | None = None
    buf: float | None = None


def step(rule: Rule, e: Element, u: float, dtype: type) -> tuple[float, float, float | None, float]:
    """(q, weight, momentum, t) after one step; every line is one operation rounded once."""

    def fma(a: float, b: float, c: float) -> float:
        return rounded(Fraction(a) * Fraction(b) + Fraction(c), dtype)

    def own(x: float) -> float:
        return float(dtype(x))

    lr, decay, coef, mom = map(own, (rule.lr, rule.weight_decay, rule.coef, rule.momentum))
    weight = fma(e.delta, e.q, e.center)
    v = e.grad
    if e.grad_center is not None and e.full_grad is not None:
        v = fma(-coef, own(e.grad_center - e.full_grad), v)
    elif e.full_grad is not None:
        v = fma(coef, e.full_grad, v)
    if rule.maximize:
        v = -v
    if decay and not rule.decoupled:
        v = fma(decay, weight, v)
    buf = e.buf
    if buf is not None:
        buf = v if rule.first else fma(mom, buf, own(own(1.0 - rule.dampening) * v))
        v = fma(mom, buf, v) if rule.nesterov else buf
    if decay and rule.decoupled:
        v = fma(decay, weight, v)
    if rule.real:
        q, t = fma(-lr, v, e.q), 0.0
    else:
        t = -own(own(lr / e.delta) * v)
        low = math.floor(t)
        q = e.q + low + (u < own(t - low))
        q = max(-(2 ** (rule.bits - 1)), min(2 ** (rule.bits - 1) - 1, q))
    return q, fma(e.delta, q, e.center), buf, t


def uniform(seed: int, stream: int, i: int, nearest: bool) -> float:
    return 0.5 if nearest else stream_v1.uniform(stream_v1.word(seed, 0, i, stream))
