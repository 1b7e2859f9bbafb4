"""The small real data sets of the demo; their origin is in ``SOURCES.md`` beside this file."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

NAMES = ("cadata", "cpusmall")


def path(name: str) -> Path:
    """The gzipped CSV of a shipped data set."""
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    return Path(__file__).with_name(f"{name}.csv.gz")


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (float64) and target of a shipped data set."""
    with gzip.open(path(name), "rt") as f:
        table = np.loadtxt(f, delimiter=",", skiprows=1)
    return np.ascontiguousarray(table[:, 1:]), table[:, 0].copy()


def split(
    X: np.ndarray, y: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test rows, 80 to 20: X_train, y_train, X_test, y_test."""
    order = np.random.default_rng(seed).permutation(len(X))
    cut = len(X) * 4 // 5
    train, test = order[:cut], order[cut:]
    return X[train], y[train], X[test], y[test]
