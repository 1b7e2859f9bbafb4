"""``torchext predict``: a model file and a CSV in, one prediction a line out."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import Any

import numpy as np

from torchext.cli._common import DataError, UsageError, kind_of, must_be_writable, must_exist, note
from torchext.cli._table import read_table

EPILOG = """\
examples:
  torchext predict price.safetensors new_houses.csv > prices.csv
  torchext predict price.safetensors houses.csv --target price      # prints the score as well
  torchext predict digits.safetensors scans.csv --proba --out p.csv

Columns are found by the names that the model was trained with; a file without these names must have
exactly the model's number of columns, in the same order. A checkpoint is a model too.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "predict",
        help="apply a trained model to a table",
        epilog=EPILOG,
        description="Apply a trained model to the rows of a table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("model", metavar="MODEL", help="model or checkpoint written by 'torchext train'")
    p.add_argument("data", metavar="DATA", help="rows to predict: CSV, plain or gzip, or Parquet")
    p.add_argument(
        "--out", metavar="FILE", help="write predictions here instead of standard output"
    )
    p.add_argument(
        "--target",
        metavar="NAME",
        help="column with the truth: its score is printed to standard error",
    )
    p.add_argument(
        "--proba", action="store_true", help="probabilities of all classes (logistic models)"
    )
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Predict and write."""
    from torchext.linear._model_io import load_model

    path = must_exist(arguments.model)
    if kind_of(path) != "model":
        raise DataError(f"{arguments.model}: not a model written by 'torchext train'")
    must_be_writable(arguments.out)
    model = load_model(path)
    names = getattr(model, "feature_names_in_", None)
    table = read_table(
        must_exist(arguments.data),
        arguments.target,
        None if names is None else [str(n) for n in names],
    )
    if table.X.shape[1] != model.n_features_in_:
        raise DataError(
            f"{arguments.data}: {table.X.shape[1]} feature columns, the model needs {model.n_features_in_}; "
            "name the column of the truth with --target if there is one"
        )
    coef = np.atleast_2d(model.coef_)
    scores = table.X @ coef.T + model.intercept_
    header, columns = _output(model, scores, arguments.proba)
    out = open(arguments.out, "w", newline="") if arguments.out else sys.stdout
    try:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))
    finally:
        if arguments.out:
            out.close()
    if table.y is not None:
        note(
            f"{_score(model, columns[0] if not arguments.proba else _labels(model, scores), table.y)} "
            f"on {len(table.X):,} rows"
        )


def _labels(model: Any, scores: np.ndarray) -> np.ndarray:
    index = (scores[:, 0] > 0).astype(np.intp) if scores.shape[1] == 1 else scores.argmax(axis=1)
    found: np.ndarray = np.asarray(model.classes_)[index]
    return found


def _output(model: Any, scores: np.ndarray, proba: bool) -> tuple[list[str], list[np.ndarray]]:
    """Header and columns of the result."""
    if not hasattr(model, "classes_"):
        if proba:
            raise UsageError("--proba needs a classifier; this model predicts a number")
        if scores.shape[1] == 1:
            return ["prediction"], [scores[:, 0]]
        return [f"prediction{j}" for j in range(scores.shape[1])], list(scores.T)
    if not proba:
        return ["prediction"], [_labels(model, scores)]
    softmax = type(model).__name__ == "LogisticRegression"
    if not softmax and getattr(model, "loss", "") != "log_loss":
        raise UsageError(
            "--proba needs a logistic model; train with --model logistic or --loss logistic"
        )
    if scores.shape[1] == 1:
        p = 0.5 * (1 + np.tanh(0.5 * scores[:, 0]))  # the logistic function, without overflow
        table = np.stack([1 - p, p], axis=1)
    elif softmax:
        table = np.exp(scores - scores.max(axis=1, keepdims=True))
        table /= table.sum(axis=1, keepdims=True)
    else:
        table = 0.5 * (1 + np.tanh(0.5 * scores))
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-300)
    return [f"p_{c}" for c in np.asarray(model.classes_).tolist()], list(table.T)


def _score(model: Any, predicted: np.ndarray, truth: np.ndarray) -> str:
    """Accuracy or R2 (and the mean squared error) in one phrase."""
    if hasattr(model, "classes_"):
        same = predicted.astype(str) == truth.astype(str)
        if predicted.dtype.kind in "fiu" and truth.dtype.kind in "fiu":
            same = predicted.astype(np.float64) == truth.astype(np.float64)
        return f"accuracy {same.mean():.4f}"
    if truth.dtype.kind not in "fiu":
        raise DataError("the target column holds text, the model predicts a number")
    error = float(np.mean((predicted - truth) ** 2))
    spread = float(np.var(truth))
    return (
        f"R2 {1 - error / spread:.4f}, mean squared error {error:.6g}"
        if spread > 0
        else f"mean squared error {error:.6g}"
    )
