"""Data sets of the acceptance tests: four synthetic kinds and the public ones."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np

SHIPPED = Path(__file__).resolve().parents[2] / "training" / "linear" / "data"
SYNTHETIC = ("uniform", "gauss", "lognormal", "corr")
REAL = ("cadata", "cpusmall", "usps")
Table = tuple[np.ndarray, np.ndarray]


def synthetic(kind: str, seed: int = 0, rows: int = 20_000, cols: int = 90) -> Table:
    """A ~ U[-1, 1], N(0, 1), exp N(0, 1) or 12 factors + .3 noise; y = standardised A x* + .3 noise."""
    rng = np.random.default_rng([seed, SYNTHETIC.index(kind)])
    if kind == "uniform":
        a = rng.uniform(-1, 1, size=(rows, cols))
    elif kind == "corr":
        a = rng.normal(size=(rows, 12)) @ rng.normal(size=(12, cols)) + 0.3 * rng.normal(
            size=(rows, cols)
        )
    else:
        a = rng.normal(size=(rows, cols))
        a = np.exp(a) if kind == "lognormal" else a
    signal = a @ rng.normal(size=cols)
    y = (signal - signal.mean()) / signal.std() + 0.3 * rng.normal(size=rows)
    return a.astype(np.float32), y.astype(np.float32)


def logistic(seed: int = 0, rows: int = 10_000, cols: int = 20) -> Table:
    """Set LG: a ~ N(0, I), P(y = 1) = sigmoid(a.x*), ||x*|| = 4.2; y is -1 or +1."""
    rng = np.random.default_rng([seed, 99])
    a = rng.normal(size=(rows, cols))
    x = rng.normal(size=cols)
    z = a @ (4.2 * x / np.linalg.norm(x))
    return a, np.where(rng.random(rows) < 1 / (1 + np.exp(-z)), 1.0, -1.0)


@cache
def real(name: str) -> Table | None:
    """A public data set from ``$TORCHEXT_DATA`` or the copies that are shipped; None if there is neither."""
    for folder in (os.environ.get("TORCHEXT_DATA"), SHIPPED):
        if folder and (Path(folder) / f"{name}.csv.gz").exists():
            table = np.loadtxt(Path(folder) / f"{name}.csv.gz", delimiter=",", skiprows=1)
            return np.ascontiguousarray(table[:, 1:]), np.ascontiguousarray(table[:, 0])
    return None
