"""Least squares by single-example steps, as in the paper's Figures 1 and 5: problems and their process.

f_i(w) = (x_i^T w - y_i)^2 / 2, in float64, from w = 0; the figure is the norm of the full gradient.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from training.common.methods import Method, Settings, build
from training.common.runs import Row


@dataclass(frozen=True)
class Problem:
    """Inputs (N, d) and targets (N,)."""

    x: np.ndarray
    y: np.ndarray

    @property
    def smoothness(self) -> float:
        """The largest L of an f_i: :math:`\\max_i \\|x_i\\|^2`."""
        return float((self.x**2).sum(1).max())

    def gradient_norm(self, w: np.ndarray) -> float:
        """Norm of the full gradient at w."""
        return float(np.linalg.norm(self.x.T @ (self.x @ w - self.y)) / len(self.y))


def rounded_inputs(x: np.ndarray, y: np.ndarray) -> Problem:
    """Inputs to the nearest of 8-bit codes -127 .. 127; the targets stay."""
    step = float(np.abs(x).max()) / 127
    return Problem(step * np.rint(x / step), y)


def paper_problem(seed: int) -> Problem:
    """``sklearn.datasets.make_regression``: 1,000 x 100, 10 informative weights up to 100, no noise."""
    from sklearn.datasets import make_regression

    return rounded_inputs(*make_regression(n_samples=1000, n_features=100, random_state=seed))


def noisy_problem(seed: int) -> Problem:
    """The same kind with label noise of deviation 10, so that plain SGD has a floor."""
    r = np.random.default_rng(seed)
    x, w = r.standard_normal((1000, 100)), np.zeros(100)
    w[:10] = r.uniform(0.0, 100.0, 10)
    return rounded_inputs(x, x @ w + 10 * r.standard_normal(1000))


def conditioned_problem(kappa: float, seed: int = 0) -> Problem:
    """400 x 20 with singular values from 20 down to 20 / sqrt(kappa), in even ratios."""
    r = np.random.default_rng(seed)
    a = r.standard_normal((400, 20))
    u, v = np.linalg.qr(a)[0], np.linalg.qr(r.standard_normal((20, 20)))[0]
    x = 20 * (u * np.geomspace(1, kappa**-0.5, 20)) @ v.T
    return Problem(x, x @ r.standard_normal(20) + 0.5 * r.standard_normal(400))


class LeastSquares:
    """One method on one problem; a :class:`training.common.runs.Process`.

    An epoch is ``steps`` steps of one example each, drawn with replacement. A row per epoch has the
    norm of the full gradient; after a norm that is not finite, or 1e12 times the first one, the run
    stands still at infinity.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        settings: Settings,
        epochs: int,
        steps: int,
        seed: int,
    ) -> None:
        self.problem, self.steps_per_epoch, self.seed = problem, steps, seed
        self.x, self.y = torch.from_numpy(problem.x), torch.from_numpy(problem.y)
        self.w = nn.Parameter(torch.zeros(self.x.shape[1], dtype=torch.float64))
        self.view = self.w.detach()
        self.optimizer: Any = build(method, [self.w], settings, steps, seed)
        self.steps, self.total_steps, self.seconds = 0, epochs * steps, 0.0
        self.first, self.diverged = problem.gradient_norm(self.view.numpy()), False
        self.rows: list[int] = []

    def _full(self) -> float:
        self.w.grad = self.x.T @ (self.x @ self.view - self.y) / len(self.y)
        return 0.0

    def _closure(self, i: int) -> float:
        self.w.grad = self.x[i] * (self.x[i].dot(self.view) - self.y[i])
        return 0.0

    def advance(self) -> Row | None:
        """One step; the norm after the last one of an epoch."""
        began = time.perf_counter()
        epoch, k = divmod(self.steps, self.steps_per_epoch)
        if not self.rows:
            r = np.random.default_rng((self.seed, epoch))
            self.rows = r.integers(0, len(self.y), self.steps_per_epoch).tolist()
        if not self.diverged:
            if getattr(self.optimizer, "needs_recenter", False):
                self.optimizer.recenter([self._full])
            i = self.rows[k]
            self.optimizer.step(lambda: self._closure(i))
        self.steps += 1
        self.seconds += time.perf_counter() - began
        if k + 1 < self.steps_per_epoch:
            return None
        self.rows = []
        norm = self.problem.gradient_norm(self.view.numpy())
        self.diverged |= not norm < 1e12 * self.first
        return {
            "epoch": epoch + 1,
            "gradient_norm": math.inf if self.diverged else norm,
            "relative": math.inf if self.diverged else norm / self.first,
            "seconds": round(self.seconds, 3),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        return {
            "w": self.view.clone(),
            "optimizer": self.optimizer.state_dict(),
            "counters": (self.steps, self.seconds, self.diverged),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from :meth:`state_dict`."""
        self.view.copy_(state["w"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.seconds, self.diverged = state["counters"]
        epoch, k = divmod(self.steps, self.steps_per_epoch)
        self.rows = []
        if k:
            r = np.random.default_rng((self.seed, epoch))
            self.rows = r.integers(0, len(self.y), self.steps_per_epoch).tolist()
