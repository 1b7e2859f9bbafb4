"""Small problems for the optimizers, and HALP in plain numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import stream_v1
import torch
from torch import Tensor, nn

from torchext.optim import HALP, LPSGD, LPSVRG, SVRG, BitCentredSGD

#: One way to build each optimizer: (params, lr, T, further options).
MAKERS: dict[str, Callable[..., Any]] = {
    "SVRG": lambda p, lr=0.05, T=4, **o: SVRG(p, lr, T, **o),
    "HALP": lambda p, lr=0.05, T=4, mu=2.0, **o: HALP(p, lr, T, mu=mu, **o),
    "LPSVRG": lambda p, lr=0.05, T=4, delta=0.01, **o: LPSVRG(p, lr, T, delta=delta, **o),
    "LPSGD": lambda p, lr=0.05, T=4, delta=0.01, **o: LPSGD(p, lr, delta=delta, bits=16, **o),
    "BitCentredSGD": lambda p, lr=0.05, T=4, mu=2.0, **o: BitCentredSGD(p, lr, T, mu=mu, **o),
}
CENTERED = [name for name in MAKERS if name != "LPSGD"]
CORRECTED = ["SVRG", "HALP", "LPSVRG"]


class LeastSquares:
    """(x.w - y)^2 / 2 over a few examples, as closures on one or two parameters."""

    def __init__(
        self, n: int = 32, d: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        r = np.random.default_rng(seed)
        self.x = torch.tensor(r.standard_normal((n, d))).to(dtype)
        self.y = (self.x.double() @ torch.arange(1.0, d + 1).double()).to(dtype)
        self.y += torch.tensor(0.5 * r.standard_normal(n)).to(dtype)
        self.w = nn.Parameter(torch.zeros(d, dtype=dtype))
        self.order = r.integers(0, n, (1000, 4))

    def loss(self, rows: Any) -> Tensor:
        return ((self.x[rows] @ self.w - self.y[rows]) ** 2).mean() / 2

    def closure(self, opt: Any, rows: Any) -> Callable[[], Tensor]:
        def run() -> Tensor:
            opt.zero_grad()
            loss = self.loss(rows)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return run

    def parts(self, opt: Any, size: int = 8) -> Iterator[tuple[Callable[[], Tensor], int]]:
        """Closures over all examples, ``size`` at a time; the last one may be smaller."""
        for rows in torch.arange(len(self.y)).split(size):
            yield self.closure(opt, rows), len(rows)

    def train(self, opt: Any, steps: int, start: int = 0) -> list[float]:
        """Steps with re-centring when it is due; the losses."""
        losses = []
        for k in range(start, start + steps):
            if getattr(opt, "needs_recenter", False):
                opt.recenter(self.parts(opt))
            losses.append(opt.step(self.closure(opt, self.order[k])).item())
        return losses


def halp_in_numpy(
    x: np.ndarray,
    y: np.ndarray,
    order: np.ndarray,
    lr: float,
    mu: float,
    bits: int,
    T: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The loop of docs/optimizers.md in float64: centre, codes and spacings after all steps."""
    center, top = np.zeros(x.shape[1]), 2 ** (bits - 1) - 1
    q, delta, deltas = np.zeros_like(center), 0.0, []
    parent = stream_v1.fold_in(seed, 0, 1)
    for k, rows in enumerate(order):
        if k % T == 0:
            center, q = center + delta * q, np.zeros_like(q)
            full = x.T @ (x @ center - y) / len(y)
            delta = float(np.linalg.norm(full)) / (mu * top)
            deltas.append(delta)
        a, b, w = x[rows], y[rows], center + delta * q
        difference = (a.T @ (a @ w - b) - a.T @ (a @ center - b)) / len(rows)
        t = -(lr / delta) * (difference + full)
        child = stream_v1.fold_in(*parent, k)
        u = [stream_v1.uniform(stream_v1.word(*child, i)) for i in range(len(q))]
        q = np.clip(q + np.floor(t) + (np.array(u) < t - np.floor(t)), -top - 1, top)
    return center, q, deltas
