"""Data sets of the acceptance tests: real ones from files, synthetic ones from fixed seeds."""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

SHIPPED = Path(__file__).resolve().parents[2] / "training" / "linear" / "data"


@cache
def real(name: str) -> tuple[np.ndarray, np.ndarray]:
    """X, y of cadata, cpusmall or usps: from $TORCHEXT_DATA, else the copies in the repository."""
    folders = [Path(os.environ["TORCHEXT_DATA"])] if "TORCHEXT_DATA" in os.environ else []
    for folder in (*folders, SHIPPED):
        path = folder / f"{name}.csv.gz"
        if path.is_file():
            with gzip.open(path) as lines:
                table = np.loadtxt(lines, delimiter=",", skiprows=1)
            return table[:, 1:], table[:, 0]
    pytest.skip(f"{name}.csv.gz is neither in $TORCHEXT_DATA nor in training/linear/data")


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """usps as ten +-1 targets."""
    X, y = real("usps")
    return X, np.where(y[:, None] == np.arange(10), 1.0, -1.0)


@cache
def uniform(n: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Set U(n): a ~ U[-1, 1]^n, y = a.x*/rms + noise, K = 10,000."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(10_000, n))
    z = X @ rng.normal(size=n)
    return X, z / np.sqrt((z**2).mean()) + noise * rng.normal(size=len(X))


@cache
def lognormal(rows: int = 10_000, n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns exp(N(0, 1)), standardised; y = a.x* + .3 noise."""
    rng = np.random.default_rng(seed)
    X = np.exp(rng.normal(size=(rows, n)))
    X = (X - X.mean(0)) / X.std(0)
    z = X @ rng.normal(size=n)
    return X, z / np.sqrt((z**2).mean()) + 0.3 * rng.normal(size=rows)


@cache
def logistic(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Set LG: a ~ N(0, I), n = 20, K = 10,000, P(y = 1) = sigmoid(a.x*), ||x*|| = 4.2."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(10_000, 20))
    x = rng.normal(size=20)
    chance = 1 / (1 + np.exp(-X @ (x * 4.2 / np.linalg.norm(x))))
    return X, (rng.uniform(size=len(X)) < chance).astype(int)


def scaled(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred columns in [-1, 1], and what they were divided by."""
    centred = X - X.mean(0)
    scale = np.abs(centred).max(0)
    scale[scale == 0] = 1
    return centred / scale, scale


def ridge_of(X: np.ndarray) -> float:
    """1e-3 of the mean diagonal of the scaled Gram matrix."""
    return 1e-3 * float((scaled(X)[0] ** 2).mean())


def over_optimum(X: np.ndarray, y: np.ndarray, coef: np.ndarray, ridge: float = 0.0) -> float:
    """F/F* of coefficients in the units of X: F = mean (a.x - y)^2 + ridge ||x||^2, summed over outputs."""
    A, scale = scaled(X)
    target = (y - y.mean(0)).reshape(len(y), -1)
    best = np.linalg.lstsq(
        A.T @ A / len(A) + ridge * np.eye(A.shape[1]), A.T @ target / len(A), rcond=None
    )[0]

    def objective(x):
        return float(((A @ x - target) ** 2).mean(0).sum() + ridge * (x**2).sum())

    return objective((np.atleast_2d(coef) * scale).T) / objective(best)
