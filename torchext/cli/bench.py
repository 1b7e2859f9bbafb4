"""``torchext bench``: what low bits cost and gain on your own table, in one run."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from torchext.cli._common import (
    DataError,
    UsageError,
    bits_type,
    kind_of,
    must_be_writable,
    must_exist,
    non_negative_float,
    note,
    positive_int,
    say,
    write_json,
)
from torchext.cli._table import read_table

EPILOG = """\
examples:
  torchext bench houses.csv --target price
  torchext bench houses.csv --target price --bits 2 4 32 --sampling nearest double corrected
  torchext bench houses.csv --target price --baseline sgd-fp32 sklearn --json result.json

Losses are mean squared errors on the full-precision rows, over the least-squares optimum F* (1 is
perfect). Every sampling is listed beside nearest at the same bits and beside float32,
all with the same anchor. Seconds are the median epoch; on data that fits the processor's cache low bits
save little time.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "bench",
        help="compare bits, samplings and float32 on a table",
        epilog=EPILOG,
        description="Loss and seconds per epoch at several bit widths, against baselines.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "data", metavar="TABLE", help="the full-precision rows: CSV or Parquet, regression"
    )
    p.add_argument("--target", metavar="NAME", required=True, help="column to predict")
    p.add_argument(
        "--bits",
        type=bits_type,
        nargs="+",
        default=[2, 3, 4, 8],
        metavar="B",
        help="default 2 3 4 8",
    )
    p.add_argument(
        "--sampling",
        nargs="+",
        choices=("auto", "nearest", "corrected", "double"),
        default=["auto"],
        help="samplings beside nearest, which is always run (default auto)",
    )
    p.add_argument("--anchor", choices=("pilot", "none"), default="pilot", help="default pilot")
    p.add_argument(
        "--baseline",
        nargs="*",
        choices=("sgd-fp32", "sklearn"),
        default=["sgd-fp32"],
        help="sgd-fp32: the same code on float32 rows (default); sklearn: its SGDRegressor",
    )
    p.add_argument(
        "--alpha",
        type=non_negative_float,
        default=1e-6,
        metavar="A",
        help="ridge on scaled coefficients (default 1e-6)",
    )
    p.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="most epochs (default: the estimators' own)",
    )
    p.add_argument(
        "--batch", type=positive_int, default=256, metavar="N", help="rows per step (default 256)"
    )
    p.add_argument("--threads", type=positive_int, default=1, metavar="N", help="default 1")
    p.add_argument("--key", type=int, default=0, metavar="N", help="seed (default 0)")
    p.add_argument(
        "--json", metavar="FILE", help="write the results as JSON; - for standard output"
    )
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run every row, print the table."""
    path = must_exist(arguments.data)
    if kind_of(path) != "table":
        raise UsageError(
            f"{arguments.data}: give the table; a store no longer has the full-precision rows to compare with"
        )
    must_be_writable(arguments.json)
    table = read_table(path, arguments.target)
    assert table.y is not None
    if table.y.dtype.kind not in "fiu":
        raise DataError(
            f"{arguments.data}: column {table.target} holds text; bench compares regressions"
        )
    X, y = table.X.astype(np.float32), table.y.astype(np.float64)
    optimum, spread = least_squares(X, y), float(y.var())
    if not spread > 0:
        raise DataError(f"{arguments.data}: column {table.target} is constant, nothing to compare")
    determined = optimum <= 1e-12 * spread
    unit = spread if determined else optimum
    rows: list[dict[str, Any]] = []
    if "sgd-fp32" in arguments.baseline or 32 in arguments.bits:
        rows.append(measure(X, y, unit, arguments, 32, "nearest"))
    for bits in dict.fromkeys(b for b in arguments.bits if b != 32):
        rows += at_bits(X, y, unit, arguments, bits)
    if "sklearn" in arguments.baseline:
        rows.append(measure_sklearn(X, y, unit, arguments))
    say(
        f"{path.name}: {len(X):,} rows x {X.shape[1]} columns, target {table.target}, F* = "
        f"{optimum:.6g} (mean squared error)"
    )
    say(
        f"batch {arguments.batch}, {arguments.threads} thread(s), alpha {arguments.alpha:g}, anchor "
        f"{arguments.anchor}, "
        f"model copy and residual 8 bits, fixed draws, key {arguments.key}; bits count all draws (2^b levels)"
    )
    if determined:
        say("the columns determine the target, F* is 0: losses are over the variance of the target")
    for line in table_lines(rows, "var" if determined else "F*"):
        say(line)
    write_json(
        arguments.json,
        {
            "data": path.name,
            "optimum": optimum,
            "unit": unit,
            "settings": _settings(arguments),
            "rows": rows,
        },
    )


def at_bits(
    X: np.ndarray, y: np.ndarray, unit: float, arguments: argparse.Namespace, bits: int
) -> list[dict[str, Any]]:
    """Nearest and the samplings asked for; where auto takes one of them, its row says so."""
    rows: dict[str, dict[str, Any]] = {}
    for sampling in sorted(
        dict.fromkeys(["nearest", *arguments.sampling]), key=lambda s: s == "auto"
    ):
        if sampling == "double" and not 2 <= bits <= 8:
            note(f"--sampling double is left out at --bits {bits}: it needs 2 to 8")
            continue
        row = measure(X, y, unit, arguments, bits, sampling)
        taken = row["sampling"]
        if sampling == "auto" and taken in rows:
            rows[taken]["name"] += " (= auto)"
        else:
            rows[sampling] = row
    return list(rows.values())


def measure(
    X: np.ndarray,
    y: np.ndarray,
    unit: float,
    arguments: argparse.Namespace,
    bits: int,
    sampling: str,
) -> dict[str, Any]:
    """One fit of the SGD estimator."""
    from torchext.linear import SGDRegressor

    model = SGDRegressor(
        bits=bits,
        sampling=sampling,
        anchor=arguments.anchor,
        alpha=arguments.alpha,
        batch_size=arguments.batch,
        max_iter=arguments.epochs,
        n_jobs=arguments.threads,
        random_state=arguments.key,
    )
    began = time.perf_counter()
    model.fit(X, y)
    report = model.report_
    return {
        "name": "float32"
        if bits == 32
        else sampling
        if sampling != "auto"
        else f"auto = {model.sampling_}",
        "sampling": model.sampling_,
        "bits": bits,
        "levels": report["levels"],
        "layout": report["layout"],
        "bytes_per_epoch": report["bytes_per_epoch"],
        "epochs": report["epochs"],
        "seconds_per_epoch": report["seconds_per_epoch"],
        "seconds": time.perf_counter() - began,
        "loss_ratio": mean_squared(X, y, model) / unit,
        "anchor_ratio": None
        if report["loss_at_anchor"] is None
        else 2 * report["loss_at_anchor"] / unit,
        "guards": list(report["guards"]),
    }


def measure_sklearn(
    X: np.ndarray, y: np.ndarray, unit: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """scikit-learn's SGDRegressor on standardised columns, epochs timed one by one."""
    from sklearn.linear_model import SGDRegressor

    mean, std = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
    A = ((X - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    model = SGDRegressor(alpha=arguments.alpha, random_state=arguments.key)
    seconds = []
    for _ in range(arguments.epochs or 30):
        began = time.perf_counter()
        model.partial_fit(A, y)
        seconds.append(time.perf_counter() - began)
    error = float(np.mean((model.predict(A) - y) ** 2))
    return {
        "name": "sklearn SGDRegressor",
        "sampling": "nearest",
        "bits": 32,
        "levels": "no",
        "layout": "rows",
        "bytes_per_epoch": A.nbytes,
        "epochs": len(seconds),
        "seconds_per_epoch": statistics.median(seconds),
        "seconds": sum(seconds),
        "loss_ratio": error / unit,
        "anchor_ratio": None,
        "guards": [],
    }


def least_squares(X: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error of the exact solution with intercept, float64."""
    A = X.astype(np.float64)
    A -= A.mean(0)
    scale = np.abs(A).max(0)
    A /= np.where(scale > 0, scale, 1)
    centred = y - y.mean()
    x, *_ = np.linalg.lstsq(A, centred, rcond=None)
    return float(np.mean((A @ x - centred) ** 2))


def mean_squared(X: np.ndarray, y: np.ndarray, model: Any) -> float:
    """Mean squared error on the full-precision rows."""
    return float(
        np.mean(
            (
                X.astype(np.float64) @ np.ravel(model.coef_)
                + float(np.ravel(model.intercept_)[0])
                - y
            )
            ** 2
        )
    )


def table_lines(rows: list[dict[str, Any]], unit: str) -> list[str]:
    """The rows as text columns, losses over ``unit``; guards below."""
    head = f"{'sampling':22}{'bits':>5}{'bytes/epoch':>14}{'s/epoch':>11}{'epochs':>8}{'F/' + unit:>10}"
    out = [f"{head}{'F(x0)/' + unit:>11}  levels, layout"]
    for r in rows:
        anchor = "-" if r["anchor_ratio"] is None else _ratio(r["anchor_ratio"])
        out.append(
            f"{r['name']:22}{r['bits']:>5}{r['bytes_per_epoch']:>14,}{r['seconds_per_epoch']:>11.2e}{r['epochs']:>8}"
            f"{_ratio(r['loss_ratio']):>10}{anchor:>11}  {r['levels']}, {r['layout']}"
        )
    out += [f"guard ({r['name']}, {r['bits']} bits): {text}" for r in rows for text in r["guards"]]
    return out


def _ratio(value: float) -> str:
    """Four decimals where they say something."""
    return f"{value:.4f}" if 0.01 <= value < 1e5 else f"{value:.2e}"


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        k: v
        for k, v in vars(arguments).items()
        if k not in ("run", "command", "json", "version") and not isinstance(v, Path)
    }
