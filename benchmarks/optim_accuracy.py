"""``python -m benchmarks.optim_accuracy``: how far each optimizer gets on noisy least squares.

1,000 examples, 100 features, labels from 10 informative weights in [0, 100] plus noise of deviation 10,
inputs on an 8-bit grid (``training.least_squares.noisy_problem``); :math:`f_i(w) = (x_i^T w - y_i)^2/2` from
w = 0, one example a step, T = 2,000 steps from centre to centre. Printed: the norm of the full gradient
after some epochs, for three data sets (seeds 0, 1, 2) that run side by side as three tensors of one
optimizer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from torchext.optim import HALP, LPSGD, LPSVRG, SVRG, BitCentredSGD
from training.least_squares import noisy_problem

Make = Callable[[list[nn.Parameter]], Any]
T = 2000


def run(
    make: Make,
    epochs: int,
    seeds: tuple[int, ...] = (0,),
    dtype: torch.dtype = torch.float64,
    tensors: int = 1,
) -> np.ndarray:
    """Gradient norms at the start of each epoch and after the last, one row per seed.

    The weights of a data set are ``tensors`` parameters of equal size.
    """
    problems = [noisy_problem(seed) for seed in seeds]
    data = [[torch.tensor(a).to(dtype) for a in (p.x, p.y)] for p in problems]
    weights = [torch.zeros(100, dtype=dtype) for _ in seeds]
    params = [[nn.Parameter(part) for part in w.chunk(tensors)] for w in weights]
    opt = make([p for parts in params for p in parts])
    rows = np.stack([np.random.default_rng(s + 1).integers(0, 1000, epochs * T) for s in seeds], 1)

    def give(parts: list[nn.Parameter], g: torch.Tensor) -> None:
        for p, part in zip(parts, g.chunk(tensors), strict=True):
            p.grad = part

    def full() -> float:
        norms()
        return 0.0

    def norms() -> list[float]:
        found = []
        for parts, w, (x, y) in zip(params, weights, data, strict=True):
            g = x.T @ (x @ w - y) / len(y)
            give(parts, g)
            found.append(float(g.norm()))
        return found

    trace = []
    for epoch in range(epochs):
        trace.append(norms())
        if hasattr(opt, "recenter"):
            opt.recenter([full])
        for picked in rows[epoch * T : (epoch + 1) * T].tolist():

            def closure(picked: list[int] = picked) -> float:
                for parts, w, (x, y), i in zip(params, weights, data, picked, strict=True):
                    give(parts, x[i] * (x[i].dot(w) - y[i]))
                return 0.0

            opt.step(closure)
    return np.array([*trace, norms()]).T


def _halp(bits: int, mu: Any, lr: float = 1e-3, **more: Any) -> Make:
    return lambda params: HALP(params, lr, T, bits=bits, mu=mu, seed=3, **more)


#: One spacing for four tensors: data sets one after the other, since side by side they would share it.
GLOBAL = ", global scope"
ROWS: dict[str, tuple[Make, torch.dtype]] = {
    "LP-SGD 8 bit, lr 1e-4, delta 0.8": (
        lambda p: LPSGD(p, 1e-4, delta=0.8, bits=8, seed=3),
        torch.float64,
    ),
    "LP-SGD 16 bit, lr 1e-4, delta 0.003": (
        lambda p: LPSGD(p, 1e-4, delta=0.003, bits=16, seed=3),
        torch.float64,
    ),
    "LP-SVRG 8 bit, delta 0.8": (
        lambda p: LPSVRG(p, 1e-3, T, delta=0.8, bits=8, seed=3),
        torch.float64,
    ),
    "LP-SVRG 16 bit, delta 0.0035": (
        lambda p: LPSVRG(p, 1e-3, T, delta=0.0035, bits=16, seed=3),
        torch.float64,
    ),
    "SVRG": (lambda p: SVRG(p, 1e-3, T, seed=3), torch.float64),
    "SVRG, option II": (lambda p: SVRG(p, 1e-3, T, seed=3, option="II"), torch.float64),
    "HALP 8 bit, mu 0.2": (_halp(8, 0.2), torch.float64),
    "HALP 8 bit, mu 0.5": (_halp(8, 0.5), torch.float64),
    "HALP 8 bit, mu 1.5": (_halp(8, 1.5), torch.float64),
    "HALP 8 bit, mu 1.5, option II": (_halp(8, 1.5, option="II"), torch.float64),
    f"HALP 8 bit, mu 1.5{GLOBAL}": (_halp(8, 1.5, scope="global"), torch.float64),
    f"HALP 8 bit, automatic mu{GLOBAL}": (_halp(8, "auto", scope="global"), torch.float64),
    f"HALP 16 bit, mu 1.5{GLOBAL}": (_halp(16, 1.5, scope="global"), torch.float64),
    "HALP 8 bit, mu 6": (_halp(8, 6.0), torch.float64),
    "HALP 8 bit, automatic mu": (_halp(8, "auto"), torch.float64),
    "HALP 8 bit, automatic mu from 0.5": (_halp(8, "auto", mu0=0.5), torch.float64),
    "HALP 8 bit, automatic mu from 50": (_halp(8, "auto", mu0=50.0), torch.float64),
    "HALP 16 bit, automatic mu from 0.5": (_halp(16, "auto", mu0=0.5), torch.float64),
    "HALP 16 bit, automatic mu from 50": (_halp(16, "auto", mu0=50.0), torch.float64),
    "HALP 16 bit, mu 1.5": (_halp(16, 1.5), torch.float64),
    "HALP 16 bit, automatic mu": (_halp(16, "auto"), torch.float64),
    "HALP 6 bit, mu 3": (_halp(6, 3.0), torch.float64),
    "HALP 4 bit, mu 6": (_halp(4, 6.0), torch.float64),
    "HALP 8 bit, mu 3, nearest": (_halp(8, 3.0, rounding="nearest"), torch.float64),
    "bit-centred SGD 8 bit, mu 3, lr 1e-4": (
        lambda p: BitCentredSGD(p, 1e-4, T, mu=3.0, bits=8, seed=3),
        torch.float64,
    ),
    "SVRG, float32": (lambda p: SVRG(p, 1e-3, T, seed=3), torch.float32),
    "HALP 8 bit, mu 1.5, float32": (_halp(8, 1.5), torch.float32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rows", nargs="*", help="names of rows, or parts of them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts = {}
    for name, (make, dtype) in ROWS.items():
        if options.rows and not any(part in name for part in options.rows):
            continue
        if name.endswith(GLOBAL):
            trace = np.concatenate([run(make, options.epochs, (s,), dtype, 4) for s in range(3)])
        else:
            trace = run(make, options.epochs, (0, 1, 2), dtype)
        target = 1e-6 * trace[:, :1]
        reached = [int(np.argmax(t <= goal)) if (t <= goal).any() else None
                   for t, goal in zip(trace, target, strict=True)]  # fmt: skip
        facts[name] = {"norms": trace[:, -1].tolist(), "epochs to 1e-6": reached}
        ends = " ".join(f"{v:8.1e}" for v in trace[:, -1])
        print(f"{name:40} {ends}   epochs to 1e-6 of the start: {reached}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
