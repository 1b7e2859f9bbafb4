"""``python -m benchmarks.glm``: Ridge and LogisticRegression against scikit-learn, to the same objective.

Time until scikit-learn's own objective is within 1e-6 (relative) of its optimum: ours (encode once,
L-BFGS over the codes, a handful of exact gradients) against the fastest of scikit-learn's solvers, each at
the loosest of several tolerances that reaches this. ``fit`` on arrays, encoding counted; with the store
already built for these targets, pilot anchor included ("store"); and with codes made for other targets
("codes"). The optimum is the best value any contestant reaches at tight tolerance, so that nobody is
measured against himself. Unset OPENBLAS_CORETYPE, if it is set, for scikit-learn's sake.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._bench import machine, spread, write
from benchmarks._contestants import SEED, make_data
from torchext.data import QuantizedDataset

#: Relative excess that counts as solved.
GOAL = 1e-6
#: Relative gradient norms at which our estimators stop; 1e-6 is their default.
OWN_TOLERANCES = (1e-3, 3e-4, 1e-6)


def ridge_objective(model: Any, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """scikit-learn's: sum of squares + alpha ||coef||^2, float64."""
    coef, total = np.ravel(model.coef_).astype(np.float64), 0.0
    for first in range(0, len(X), 16384):
        part = slice(first, first + 16384)
        total += float(
            (
                (X[part].astype(np.float64) @ coef + float(np.ravel(model.intercept_)[0]) - y[part])
                ** 2
            ).sum()
        )
    return total + alpha * float(coef @ coef)


def logistic_objective(model: Any, X: np.ndarray, sign: np.ndarray, C: float) -> float:
    """scikit-learn's: C sum log(1 + exp(-y z)) + ||coef||^2 / 2, float64."""
    coef, total = np.ravel(model.coef_).astype(np.float64), 0.0
    for first in range(0, len(X), 16384):
        part = slice(first, first + 16384)
        z = X[part].astype(np.float64) @ coef + float(np.ravel(model.intercept_)[0])
        total += float(np.logaddexp(0, -sign[part] * z).sum())
    return C * total + 0.5 * float(coef @ coef)


def fit(kind: Any, X: np.ndarray, y: np.ndarray, **options: Any) -> Any:
    """A fitted model."""
    return kind(**options).fit(X, y)


def own(
    kind: Any, X: np.ndarray, y: np.ndarray, loss: str, bits: list[int], **options: Any
) -> dict[str, Callable[[], Any]]:
    """Our contestants: at several tolerances, on arrays and with stores given."""
    runs: dict[str, Callable[[], Any]] = {}
    for b in bits:
        how = {"bits": b, "sampling": "nearest", "random_state": SEED}
        stores = {
            "": None,
            ", codes": QuantizedDataset.from_arrays(X, anchor="none", **how),
            ", store": QuantizedDataset.from_arrays(X, y, loss=loss, **how),
        }
        for tol in OWN_TOLERANCES:
            for name, store in stores.items():
                runs[f"ours, {b} bits {tol:g}{name}"] = partial(
                    fit_on, partial(kind, bits=b, tol=tol, **options), X, y, store
                )
    return runs


def fit_on(model: Callable[[], Any], X: np.ndarray, y: np.ndarray, store: Any) -> Any:
    """Our model, with or without a store."""
    return model().fit(X, y, store=store)


def ridge(X: np.ndarray, y: np.ndarray, a: argparse.Namespace) -> dict[str, Any]:
    """Contestants for the squared loss."""
    from sklearn import linear_model as theirs

    from torchext import linear as ours

    runs = own(ours.Ridge, X, y, "squared_error", a.bits, alpha=1.0)
    runs["scikit-learn cholesky"] = partial(fit, theirs.Ridge, X, y, alpha=1.0, solver="cholesky")
    for tol in (3e-4, 1e-4, 3e-5):
        runs[f"scikit-learn lsqr {tol:g}"] = partial(
            fit, theirs.Ridge, X, y, alpha=1.0, solver="lsqr", tol=tol
        )
    exact = partial(fit, theirs.Ridge, X.astype(np.float64), y, alpha=1.0, solver="cholesky")
    return compare(runs, lambda m: ridge_objective(m, X, y, 1.0), exact, a.rounds)


def logistic(X: np.ndarray, y: np.ndarray, a: argparse.Namespace) -> dict[str, Any]:
    """Contestants for two classes: the sign of the target."""
    from sklearn import linear_model as theirs

    from torchext import linear as ours

    label = (y > 0).astype(np.int64)
    sign = np.where(label == 1, 1.0, -1.0)
    runs = own(ours.LogisticRegression, X, label, "log_loss", a.bits, C=1.0)
    for tol in (1e-4, 3e-5, 1e-5, 3e-6):
        runs[f"scikit-learn lbfgs {tol:g}"] = partial(
            fit, theirs.LogisticRegression, X, label, C=1.0, tol=tol, max_iter=1000
        )
    exact = partial(fit, theirs.LogisticRegression, X, label, C=1.0, tol=1e-7, max_iter=3000)
    return compare(runs, lambda m: logistic_objective(m, X, sign, 1.0), exact, a.rounds)


def compare(
    contestants: dict[str, Callable[[], Any]],
    objective: Callable[[Any], float],
    reference: Callable[[], Any],
    rounds: int,
) -> dict[str, Any]:
    """Interleaved fits; seconds and relative excess of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    reached: dict[str, float] = {}
    facts: dict[str, Any] = {}
    best = objective(reference())
    for _ in range(rounds):
        for name, make in contestants.items():
            began = time.perf_counter()
            model = make()
            seconds[name].append(time.perf_counter() - began)
            reached[name] = objective(model)
            facts[name] = {
                k: getattr(model, k) for k in ("n_anchors_", "n_code_passes_") if hasattr(model, k)
            }
    best = min(best, *reached.values())
    return {
        name: {"seconds": s, "excess": reached[name] / best - 1, **facts[name]}
        for name, s in seconds.items()
    }


def main() -> None:
    """Run, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--cols", type=int, default=1_024)
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved fits of every contestant (default 3)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--quick", action="store_true", help="16,384 x 256, one round")
    parser.add_argument(
        "--data", nargs="+", choices=("correlated", "scaled"), default=["correlated", "scaled"],
        help="columns of the table (default: both kinds)",
    )  # fmt: skip
    parser.add_argument("--only", choices=("ridge", "logistic"))
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    if a.quick:
        a.rows, a.cols, a.rounds = 16_384, 256, 1
    torch.set_num_threads(a.threads)
    warnings.simplefilter("ignore")
    facts: dict[str, Any] = {
        "machine": machine(),
        "rows": a.rows,
        "cols": a.cols,
        "seed": SEED,
        "threads": a.threads,
    }
    print(
        f"{facts['machine']['processor']}, kernels {facts['machine']['isa']}, {a.threads} "
        f"thread(s); {a.rows:,} x {a.cols:,} float32"
    )
    for data in a.data:
        X, y = make_data(a.rows, a.cols, data)
        for name, title, contest in (
            ("ridge", "Ridge(alpha=1)", ridge),
            ("logistic", "LogisticRegression(C=1)", logistic),
        ):
            if a.only in (None, name):
                facts[f"{name} {data}"] = found = contest(X, y, a)
                show(f"{title}, {data} columns", found)
    write(a.json, facts)


def show(title: str, runs: dict[str, Any]) -> None:
    """One block of the report; ratios to the fastest scikit-learn solver that is exact enough, by rounds."""
    print(title)
    good = [
        r["seconds"]
        for name, r in runs.items()
        if name.startswith("scikit") and r["excess"] <= GOAL
    ]
    rival = min(good, key=statistics.median, default=None)
    for name, r in runs.items():
        times = ""
        if rival is not None and name.startswith("ours"):
            r["times_scikit_learn"] = statistics.median(
                theirs / ours for theirs, ours in zip(rival, r["seconds"], strict=True)
            )
            times = f", {r['times_scikit_learn']:.2f} times the fastest scikit-learn"
        counts = (
            f", {r['n_anchors_']} exact and {r['n_code_passes_']} code passes"
            if "n_anchors_" in r
            else ""
        )
        short = "" if r["excess"] <= GOAL else " (not there)"
        print(
            f"  {name:28}{spread(r['seconds'])} s, relative excess {r['excess']:.1e}{short}{counts}{times}"
        )


if __name__ == "__main__":
    main()
