"""Data and contestants of the training benchmarks: our estimator, a torch loop, scikit-learn."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._bench import Turns
from torchext.data import QuantizedDataset
from torchext.linear import SGDRegressor

BATCH = 256
SEED = 0


def make_data(rows: int, cols: int, kind: str = "correlated") -> tuple[np.ndarray, np.ndarray]:
    """Gaussian columns and a noisy linear target.

    ``"correlated"``: unit variance, neighbours .44, condition number 16; ``"heavy"``: the same as
    exponentials, log-normal columns whose Lloyd levels do not fit an int8 grid; ``"scaled"``: independent
    with standard deviations from 1 to .1, as tables in mixed units are (condition number 100 of the Gram).
    """
    rng = np.random.default_rng(SEED)
    X = np.empty((rows, cols), dtype=np.float32)
    truth = rng.standard_normal(cols)
    y = np.empty(rows, dtype=np.float64)
    for first in range(0, rows, 8192):
        z = rng.standard_normal((min(8192, rows - first), cols), dtype=np.float32)
        if kind == "scaled":
            a = z * np.linspace(1, 0.1, cols, dtype=np.float32)
        else:
            a = (z + 0.6 * np.roll(z, 1, axis=1)) / np.float32(np.sqrt(1.36))
        if kind == "heavy":
            a = np.exp(2 * a)
        X[first : first + len(a)] = a
        y[first : first + len(a)] = a @ truth / np.sqrt(cols)
    return X, y / y.std() + 0.3 * rng.standard_normal(rows)


def estimator(bits: int, threads: int, **more: Any) -> SGDRegressor:
    """The estimator under test; only bits differ between low-bit and float32."""
    options: dict[str, Any] = {
        "bits": bits, "alpha": 0.0, "batch_size": BATCH, "max_iter": 10_000, "tol": None,
        "learning_rate": "constant", "average": False, "n_jobs": threads, "random_state": SEED,
    }  # fmt: skip
    return SGDRegressor(**{**options, **more})


def encode(
    X: np.ndarray, y: np.ndarray, bits: int, anchor: str = "none"
) -> tuple[QuantizedDataset, float]:
    """A store and the seconds it took."""
    began = time.perf_counter()
    store = QuantizedDataset.from_arrays(
        X, y, bits=bits, sampling="nearest", anchor=anchor, random_state=SEED
    )
    return store, time.perf_counter() - began


def fit_turns(store: QuantizedDataset, bits: int, threads: int) -> Turns:
    """A fit on a store that runs one epoch a call."""
    return Turns(lambda after: estimator(bits, threads, callbacks=[after]).fit(store))


class TorchLoop:
    """Mini-batch least squares as one writes it in torch: two matrix-vector products and an update."""

    def __init__(self, X: np.ndarray, y: np.ndarray, gamma: float) -> None:
        self.X, self.y, self.gamma = (
            torch.from_numpy(X),
            torch.from_numpy(y.astype(np.float32)),
            gamma,
        )
        self.x, self.order = torch.zeros(X.shape[1]), np.random.default_rng(SEED)

    def __call__(self) -> float:
        began = time.perf_counter()
        x, gamma = self.x, self.gamma
        for b in self.order.permutation(-(-len(self.X) // BATCH)).tolist():
            a, y = self.X[b * BATCH : (b + 1) * BATCH], self.y[b * BATCH : (b + 1) * BATCH]
            x -= (gamma / len(a)) * (a.T @ (a @ x - y))
        return time.perf_counter() - began

    def solution(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """Coefficients and intercept; the loop trains on centred targets."""
        x = self.x.numpy()
        return x, float(y.mean() - X.mean(0) @ x)


class SklearnLoop:
    """scikit-learn's SGDRegressor with its default schedule, one epoch a call."""

    def __init__(self, X: np.ndarray, y: np.ndarray, eta0: float = 0.01) -> None:
        from sklearn.linear_model import SGDRegressor as Theirs

        self.X, self.y, self.model = (
            X,
            y,
            Theirs(alpha=0.0, penalty=None, eta0=eta0, random_state=SEED),
        )

    def __call__(self) -> float:
        began = time.perf_counter()
        self.model.partial_fit(self.X, self.y)
        return time.perf_counter() - began

    def solution(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        """Coefficients and intercept."""
        return self.model.coef_, float(self.model.intercept_[0])


def exact_loss(X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float) -> float:
    """Mean squared error on the full-precision rows."""
    total = 0.0
    for first in range(0, len(X), 65536):
        part = slice(first, first + 65536)
        total += float(
            ((X[part] @ coef.astype(np.float32) + np.float32(intercept) - y[part]) ** 2).sum(
                dtype=np.float64
            )
        )
    return total / len(X)


def optimum(X: np.ndarray, y: np.ndarray) -> float:
    """Least-squares optimum with intercept, by the normal equations in float64."""
    A = torch.from_numpy(X)
    mean = A.mean(0, dtype=torch.float64)
    gram: Tensor = torch.zeros(X.shape[1], X.shape[1], dtype=torch.float64)
    linear: Tensor = torch.zeros(X.shape[1], dtype=torch.float64)
    centred = torch.from_numpy(y - y.mean())
    for first in range(0, len(X), 16384):
        a = A[first : first + 16384].double() - mean
        gram += a.T @ a
        linear += a.T @ centred[first : first + 16384]
    x = torch.linalg.solve(gram, linear)
    return float((centred @ centred - linear @ x) / len(X))
