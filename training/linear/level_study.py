"""What levels do to training, computed without training: the points at which it ends.

SGD on codes ends, up to its own noise, where the normal equations of the codes do. They are solved
here, so that the figures have no step size and no noise of the optimiser in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

import torchext
from torchext.data import QuantizedDataset
from torchext.data.noise import double_guard
from training.linear import data

#: Ridge, as a share of the mean diagonal of the Gram matrix; part of F and of F*.
RIDGE = 1e-3
#: Encodings with fresh draws that "double, refreshed" averages: ZipML draws anew in every epoch.
REFRESHED = 8
LEVELS = ("uniform", "optimal", "shared")
#: method: (sampling, copies, bits of a code beyond those that count its levels, most such bits)
METHODS = {
    "nearest": ("nearest", 1, 0, 8),
    "stochastic": ("stochastic", 1, 0, 8),
    "corrected": ("corrected", 1, 0, 8),
    "double": ("double", 1, 2, 6),
    "double, refreshed": ("double", REFRESHED, 2, 6),
}
SYNTHETIC = ("lognormal", "uniform")
KINDS = ("uniform", "normal", "exponential", "lognormal", "bimodal")


def load(name: str, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """X, y of a shipped data set, or of one with 90 independent columns: lognormal or uniform."""
    if name in SYNTHETIC:
        rng = np.random.default_rng(0)
        x = (
            rng.normal(size=(rows or 10_000, 90))
            if name == "lognormal"
            else rng.uniform(-1, 1, (rows or 10_000, 90))
        )
        x = np.exp(x) if name == "lognormal" else x
        signal = (x - x.mean(0)) / x.std(0) @ rng.normal(size=90)
        return x, signal / signal.std() + 0.3 * rng.normal(size=len(x))
    x, y = data.load(name)
    return (x, y) if rows is None else (x[:rows], y[:rows])


@dataclass(frozen=True)
class Point:
    """One fixed point. ``ratio`` is F/F* on the full-precision rows; None: the matrix is indefinite."""

    data: str
    method: str
    levels: str
    bits: int  # the levels are 2^bits (double sampling: 2^bits + 1)
    stored_bits: int
    seed: int
    ratio: float | None


class Problem:
    """Full-precision rows with ridge, and their optimum."""

    def __init__(self, name: str, rows: int | None = None) -> None:
        self.name = name
        self.x, self.y = load(name, rows)
        centred = self.x - self.x.mean(0)
        self.a = centred / np.abs(centred).max(0)
        self.target = self.y - self.y.mean()
        self.gram = self.a.T @ self.a / len(self.a)
        self.right = self.a.T @ self.target / len(self.a)
        self.alpha = RIDGE * float(np.trace(self.gram)) / len(self.gram)
        self.best = self.loss(self.solve(self.gram, self.right))

    def solve(self, gram: np.ndarray, right: np.ndarray) -> np.ndarray:
        """x of (gram + ridge) x = right."""
        return np.linalg.solve(gram + self.alpha * np.eye(len(gram)), right)

    def loss(self, x: np.ndarray) -> float:
        """F: mean squared error plus ridge, on the full-precision rows."""
        return float(np.mean((self.a @ x - self.target) ** 2) + self.alpha * x @ x)

    def ratio(self, store: QuantizedDataset) -> float | None:
        """F/F* where training on a store without an anchor ends; None if its matrix is indefinite."""
        gram, right = equations(store)
        if np.linalg.eigvalsh(gram + self.alpha * np.eye(len(gram)))[0] <= 0:
            return None
        return self.loss(self.solve(gram, right)) / self.best


def equations(store: QuantizedDataset) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrix and linear term of a store's estimator, copies averaged, safeguards as in ``fit``."""
    assert store.y is not None
    y = store.y.double().numpy()[:, 0] - float(store.y_mean)
    gram, right = np.zeros((store.cols, store.cols)), np.zeros(store.cols)
    for copy in range(store.copies):
        q = store.decode(copy=copy).double().numpy()
        p = store.decode(draw=1, copy=copy).double().numpy() if store.sampling == "double" else q
        gram += (q.T @ p + p.T @ q) / (2 * len(y) * store.copies)
        right += (q + p).T @ y / (2 * len(y) * store.copies)
    if store.sampling == "corrected":
        gram -= np.diag((store.theta() * store.noise[0]).numpy())
    if store.sampling == "double" and store.copies == 1:
        gram += np.diag(double_guard(store.noise, store.rows, store.cols).numpy())
    return gram, right


def points(
    names: list[str],
    methods: list[str],
    levels: list[str],
    bits: list[int],
    seeds: int,
    rows: int | None = None,
) -> Iterator[Point]:
    """All fixed points. Double sampling stores 2 bits more and has at most 6 for its levels."""
    for name in names:
        problem = Problem(name, rows)
        for method in methods:
            sampling, copies, draws, most = METHODS[method]
            for kind in levels:
                for b in (b for b in bits if b <= most):
                    for seed in range(seeds):
                        store = QuantizedDataset.from_arrays(
                            problem.x, problem.y, bits=b + draws, sampling=sampling, levels=kind,
                            copies=copies, anchor="none", random_state=seed,
                        )  # fmt: skip
                        yield Point(name, method, kind, b, b + draws, seed, problem.ratio(store))


def excess(found: list[Point], data: str, method: str, levels: str, bits: int) -> float | None:
    """Median over the seeds of F/F* - 1; None if nothing was computed or some matrix is indefinite."""
    ratios = [
        p.ratio
        for p in found
        if (p.data, p.method, p.levels, p.bits) == (data, method, levels, bits)
    ]
    return None if not ratios or None in ratios else float(np.median(np.array(ratios))) - 1


def equal_bits(found: list[Point], data: str, method: str, levels: str, bits: int) -> float | None:
    """Bits at which uniform levels have the same excess as ``levels`` at ``bits``.

    Linear in the logarithm of the excess between whole bits; None outside what was computed.
    """
    mine = excess(found, data, method, levels, bits)
    if mine is None or mine <= 0:
        return None
    known = sorted({p.bits for p in found if p.levels == "uniform" and p.method == method})
    for low, high in pairwise(known):
        a, b = (excess(found, data, method, "uniform", k) for k in (low, high))
        if a is not None and b is not None and 0 < b <= mine <= a:
            return low + (high - low) * float(np.log(a / mine) / np.log(a / b) if a > b else 0.0)
    return None


def sample(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Numbers of one of ``KINDS``, scaled to [0, 1]."""
    x = {
        "uniform": lambda: rng.uniform(size=size),
        "normal": lambda: rng.normal(size=size),
        "exponential": lambda: rng.exponential(size=size),
        "lognormal": lambda: np.exp(rng.normal(size=size)),
        "bimodal": lambda: rng.choice([-3.0, 3.0], size) + 0.5 * rng.normal(size=size),
    }[kind]()
    return (x - x.min()) / (x.max() - x.min())


def variance_ratio(kind: str, bits: int, draws: int = 20, size: int = 2000) -> float:
    """Variance of unbiased rounding to 2^bits uniform levels over that to the optimal ones, mean of draws."""
    rng = np.random.default_rng([KINDS.index(kind), bits])
    x = torch.from_numpy(np.stack([sample(kind, rng, size) for _ in range(draws)], axis=1))
    step = 1 / (2**bits - 1)
    inside = x / step - torch.floor(x / step)
    uniform = (step**2 * inside * (1 - inside)).sum(0)
    return float((uniform / torchext.optimal_levels(x, 2**bits, dim=1).cost).mean())
