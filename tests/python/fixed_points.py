"""Where training on codes ends: solutions of the decoded normal equations, in float64 numpy.

F(x) = mean (a.x - y)^2 + lam ||x||^2 on unquantised scaled values; acceptance rows state F/F*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from torchext.data import QuantizedDataset
from torchext.data.noise import double_guard


@dataclass(frozen=True)
class Exact:
    """The full-precision problem in a store's row order and scaled units."""

    a: np.ndarray
    y: np.ndarray
    lam: float

    @classmethod
    def of(cls, store: QuantizedDataset, x: np.ndarray, lam: float = 0.0) -> Exact:
        a = ((x - store.mean.numpy()) / store.scale.numpy()).astype(np.float32).astype(np.float64)
        return cls(a[store.row_id().numpy()], seen(store), lam)

    @cached_property
    def gram(self) -> np.ndarray:
        return self.a.T @ self.a / len(self.a)

    @cached_property
    def right(self) -> np.ndarray:
        return self.a.T @ self.y / len(self.a)

    def loss(self, x: np.ndarray) -> float:
        """From the moments; float64 keeps 12 digits of what is left of the targets' variance."""
        fit = (x * (self.gram @ x - 2 * self.right)).sum() + (self.y**2).sum() / len(self.y)
        return float((fit + self.lam * (x**2).sum()) / x.shape[1])

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self.gram @ x - self.right

    @cached_property
    def _best(self) -> float:
        matrix = self.gram + self.lam * np.eye(self.a.shape[1])
        return self.loss(np.linalg.lstsq(matrix, self.right, rcond=1e-13)[0])

    def best(self) -> float:
        """F*."""
        return self._best

    def ratio(self, x: np.ndarray) -> float:
        return self.loss(x) / self.best()


def seen(store: QuantizedDataset) -> np.ndarray:
    """Centred targets [K, m]; classes become +-1 against the rest."""
    y = store.y.numpy()
    if store.classes is not None:
        signs = np.where(y[:, None] == np.arange(len(store.classes)), 1.0, -1.0)
        y = signs[:, 1:] if len(store.classes) == 2 else signs
    return y.astype(np.float64) - store.y_mean.numpy()


def default_ridge(x: np.ndarray) -> float:
    """1e-3 of the mean diagonal of the exact Gram of centred, max-scaled columns."""
    centred = x - x.mean(0, dtype=np.float64)
    width = np.abs(centred).max(0)
    a = centred[:, width > 0] / width[width > 0]
    return 1e-3 * float((a**2).sum() / len(a) / x.shape[1])


@dataclass(frozen=True)
class Decoded:
    """The quantized problem: Gram, linear term and what is subtracted from the diagonal."""

    gram: np.ndarray
    right: np.ndarray

    @classmethod
    def of(
        cls, store: QuantizedDataset, theta: str | float = "keff", guard: bool = True
    ) -> Decoded:
        y = seen(store)
        q1 = store.decode().double().numpy()
        if store.sampling == "double":
            q2 = store.decode(draw=1).double().numpy()
            gram = (q1.T @ q2 + q2.T @ q1) / (2 * len(y))
            if guard:
                gram += np.diag(double_guard(store.noise, store.rows, store.cols).numpy())
            return cls(gram, (q1 + q2).T @ y / (2 * len(y)))
        gram = q1.T @ q1 / len(y)
        if store.sampling == "corrected":
            gram -= np.diag((store.theta(theta) * store.noise[0]).numpy())
        return cls(gram, q1.T @ y / len(y))

    def least_eigenvalue(self) -> float:
        """Smallest eigenvalue after scaling the diagonal to 1, constant columns left out."""
        live = np.diag(self.gram) != 0
        d = np.sqrt(np.abs(np.diag(self.gram)[live]))
        return float(np.linalg.eigvalsh(self.gram[np.ix_(live, live)] / np.outer(d, d)).min())

    def solve(self, lam: float = 0.0, h: np.ndarray | float = 0.0) -> np.ndarray:
        """x with ``gram x + lam x = right - h``."""
        matrix = self.gram + lam * np.eye(len(self.gram))
        return np.linalg.lstsq(matrix, self.right - h, rcond=1e-13)[0]

    def anchored(self, exact: Exact, x0: np.ndarray) -> np.ndarray:
        """Fixed point when the exact gradient at x0 is known; nearest codes."""
        return self.solve(exact.lam, exact.gradient(x0) - (self.gram @ x0 - self.right))
