"""Writes tests/vectors/optim_v1.json from the exact model of the tests (not from the library).

Run from the repository root: PYTHONPATH=tests/python python tools/make_optim_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lattice_model import Element, Rule, step, uniform

SEED = 0x0123456789ABCDEF
STREAM = 5
N = 21

RULES = {
    "halp": Rule(lr=0.05),
    "4 bits, saturating": Rule(lr=2.0, bits=4),
    "16 bits, Nesterov, coupled decay": Rule(
        lr=3.0, bits=16, momentum=0.9, dampening=0.0, nesterov=True, weight_decay=0.1
    ),
    "decoupled decay, maximize, coefficient": Rule(
        lr=0.1, weight_decay=0.3, decoupled=True, maximize=True, coef=0.75
    ),
    "first momentum step": Rule(lr=0.1, momentum=0.5, dampening=0.5, first=True),
    "nearest": Rule(lr=0.1, nearest=True),
}


def values(shift: int, dtype: type) -> list[float]:
    return [float(dtype(((i * 29 + shift) % 64 - 32) / 13)) for i in range(N)]


def case(name: str, rule: Rule, dtype: type) -> dict[str, Any]:
    delta = float(dtype(0.013))
    q = [float((i * 5) % 16 - 8) for i in range(N)]
    center, grad, grad_center, full_grad, buf = (values(k, dtype) for k in (1, 7, 15, 23, 31))
    out = []
    for i in range(N):
        e = Element(q[i], delta, grad[i], center[i], grad_center[i], full_grad[i])
        e.buf = buf[i] if rule.momentum else None
        u = uniform(SEED, STREAM, i, rule.nearest)
        out.append(step(rule, e, u, dtype))
    result: dict[str, Any] = {
        "name": name,
        "dtype": dtype.__name__,
        "scalars": [rule.lr, rule.weight_decay, rule.coef, rule.momentum, rule.dampening],
        "bits": rule.bits,
        "flags": rule.flags(),
        "delta": delta,
        "q": q,
        "center": center,
        "grad": grad,
        "grad_center": grad_center,
        "full_grad": full_grad,
        "new_q": [o[0] for o in out],
        "new_w": [o[1] for o in out],
    }
    if rule.momentum:
        result |= {"buf": buf, "new_buf": [o[2] for o in out]}
    return result


def main() -> None:
    head = {
        "about": "by the formulas of docs/optimizers.md; written by tools/make_optim_vectors.py",
        "stream_version": 1,
        "seed": f"{SEED:016x}",
        "stream": STREAM,
    }
    cases = [case(n, r, t) for n, r in RULES.items() for t in (np.float32, np.float64)]
    text = json.dumps(head | {"cases": cases})
    Path("tests/vectors/optim_v1.json").write_text(text.replace('{"name"', '\n{"name"') + "\n")


if __name__ == "__main__":
    main()
