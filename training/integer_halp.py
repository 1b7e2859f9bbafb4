"""The integer solver for linear models (and its float32 SVRG), one epoch at a time.

It is what ``SGDRegressor(solver="halp")`` and ``SGDClassifier(loss="log_loss", solver="halp")`` run, here
without intercept and scaling of the columns, so that it solves the very problem of the other methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchext.linear._grid_rows import grid_rows
from torchext.linear._variance_reduced import CURVATURE, VarianceReduced, VrOptions, VrState
from torchext.random import key_from_seed
from training.common.methods import Settings
from training.common.runs import Row


@dataclass(frozen=True)
class LinearMethod:
    """``lm-halp-8``, ``lm-halp-16`` (bits of the offset; the data has 8) and ``lm-svrg``."""

    bits: int = 32

    @classmethod
    def parse(cls, name: str) -> LinearMethod | None:
        """None for the name of another method."""
        return {"lm-halp-8": cls(8), "lm-halp-16": cls(16), "lm-svrg": cls(32)}.get(name)

    @property
    def name(self) -> str:
        """Inverse of :meth:`parse`."""
        return "lm-svrg" if self.bits == 32 else f"lm-halp-{self.bits}"


class IntegerHalp:
    """A run of the solver on 8-bit codes of x; a :class:`training.common.runs.Process` of epochs.

    Args:
        x: (N, d); its values lie on 127 steps up to the largest magnitude, or are rounded there.
        y: (N,) targets, or class numbers 0 .. K-1.
        loss: least squares, or cross entropy.
        method: bits of the offset.
        settings: ``lr``, ``mu`` and ``weight_decay``.
        epochs: how many, of 2 N steps each, 2,000 or more.
        seed: of rows and rounding.
        evaluate: further figures from the weights, float64 (outputs, d).
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        loss: Literal["squared", "softmax"],
        method: LinearMethod,
        settings: Settings,
        epochs: int,
        seed: int,
        evaluate: Callable[[Tensor], Row] = lambda _: {},
    ) -> None:
        self.evaluate = evaluate
        data = grid_rows(x, None, bits=8, scale="none", intercept=False, as_float=method.bits == 32)
        auto = method.bits < 32 and settings.mu == "auto"
        options = VrOptions(
            loss=loss, l2=settings.weight_decay, intercept=False, step=settings.lr,
            steps=max(2 * len(x), 2000), z_bits=method.bits, auto_mu=auto, max_iter=epochs,
            tol=0.0, threads=torch.get_num_threads(),
        )  # fmt: skip
        targets = torch.from_numpy(np.asarray(y, dtype=np.float64)).reshape(-1, 1)
        outputs = int(y.max()) + 1 if loss == "softmax" else 1
        self.solver = VarianceReduced(data, targets, None, options, key_from_seed(seed))
        start = torch.zeros(outputs, x.shape[1] + 1, dtype=torch.float64)
        mu = None if settings.mu == "auto" else float(settings.mu)
        self.solver.start(start, mu)
        self.steps, self.total_steps = 0, epochs

    @staticmethod
    def smoothness(x: np.ndarray, loss: Literal["squared", "softmax"], l2: float) -> float:
        """The largest L of an example."""
        return CURVATURE[loss] * float((x.astype(np.float64) ** 2).sum(1).max()) + l2

    def advance(self) -> Row | None:
        """One epoch."""
        if self.solver.state.stop != "zero":
            self.solver.run(lambda _: True)
        self.steps += 1
        state = self.solver.state
        norm = state.norms[-1]
        return {
            "epoch": self.steps,
            "gradient_norm": norm,
            "relative": norm / state.norm0,
            "gradient_epochs": (1 + self.solver.options.steps / len(self.solver.data.x))
            * self.steps,
            **self.evaluate(state.w[:, :-1] / self.solver.data.scale),
            "seconds": round(sum(state.seconds), 3),
        }

    def state_dict(self) -> dict[str, Any]:
        """Centre, mu and curves."""
        tensors, plain = self.solver.state.to_tensors()
        return {"tensors": tensors, "plain": plain, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from :meth:`state_dict`."""
        self.solver.state = VrState.from_tensors(state["tensors"], state["plain"])
        self.steps = state["steps"]
