"""Time to a given training loss: part of ``benchmarks.linear``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._contestants import (
    SklearnLoop,
    TorchLoop,
    encode,
    estimator,
    exact_loss,
    make_data,
    optimum,
)
from torchext.linear import load_model


def to_precision(rows: int, cols: int, excess: float = 0.01, most: int = 30) -> dict[str, Any]:
    """Seconds until the loss on the full-precision rows is within ``excess`` of the optimum, one thread.

    The baselines run at several step sizes; the fastest one that gets there counts.
    """
    X, y = make_data(rows, cols)
    best = optimum(X, y)
    torch.set_num_threads(1)
    out: dict[str, Any] = {
        "rows": rows,
        "cols": cols,
        "optimum": best,
        "excess": excess,
        "runs": {},
    }
    gamma = 1e-2
    for bits in (4, 2, 32):
        store, encoding = encode(X, y, bits, "none" if bits == 32 else "pilot")
        curve: list[float] = []
        seconds: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "m.safetensors"

            def after(
                info: Any,
                file: Path = file,
                curve: list[float] = curve,
                seconds: list[float] = seconds,
            ) -> bool:
                model = load_model(file)
                curve.append(
                    exact_loss(X, y, np.ravel(model.coef_), float(np.ravel(model.intercept_)[0]))
                    / best
                )
                seconds.append(info.seconds)
                return curve[-1] <= 1 + excess or len(curve) >= most

            began = time.perf_counter()
            model = estimator(
                bits, 1, checkpoint=file, callbacks=[after], average=True, max_iter=most
            ).fit(store)
            total = time.perf_counter() - began
        report = model.report_
        gamma = float(report["step_size"]) if bits == 32 else gamma
        start = report["loss_at_anchor"]
        out["runs"][f"{bits} bits"] = {
            "seconds": sum(seconds),
            "seconds_encoding": encoding,
            "seconds_with_set_up": total,
            "epochs": len(curve),
            "reached": curve[-1] <= 1 + excess,
            "curve": curve,
            "at_anchor": None if start is None else 2 * start / best,
        }
    raw = gamma / float(np.mean(np.abs(X).max(0) ** 2))  # the same step in the units of X
    rivals: dict[str, list[Any]] = {
        "torch loop": [
            lambda f=f: TorchLoop(X, y - y.mean(), raw * f) for f in (1 / 4, 1 / 16, 1 / 32)
        ],
        "scikit-learn": [lambda e=e: SklearnLoop(X, y, e) for e in (1e-2, 1e-3)],
    }
    for name, makes in rivals.items():
        tried = [_rival(make(), X, y, best, excess, most) for make in makes]
        out["runs"][name] = min(tried, key=lambda r: (not r["reached"], r["seconds"]))
    four = out["runs"]["4 bits"]["seconds"]
    out["4 bits against torch"] = out["runs"]["torch loop"]["seconds"] / four
    out["4 bits against scikit-learn"] = out["runs"]["scikit-learn"]["seconds"] / four
    return out


def _rival(
    loop: Any, X: np.ndarray, y: np.ndarray, best: float, excess: float, most: int
) -> dict[str, Any]:
    """One baseline at one step size: seconds and epochs until it is there."""
    spent, curve = 0.0, []
    while len(curve) < most and not (curve and curve[-1] <= 1 + excess):
        spent += loop()
        coef, intercept = loop.solution(X, y)
        curve.append(exact_loss(X, y, coef, intercept) / best)
    return {
        "seconds": spent,
        "epochs": len(curve),
        "reached": curve[-1] <= 1 + excess,
        "curve": curve,
    }
