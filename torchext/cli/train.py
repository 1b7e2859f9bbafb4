"""``torchext train``: a store or a table in, a model file out; survives Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from torchext.cli import quantize
from torchext.cli._common import (
    ENCODING,
    DataError,
    UsageError,
    add_encoding,
    encoding_of,
    kind_of,
    must_be_writable,
    must_exist,
    non_negative_float,
    note,
    positive_int,
    refuse_given,
    rounded_bits,
    say,
    write_json,
)
from torchext.cli._table import read_table

EPILOG = """\
examples:
  torchext train houses.tq --out price.safetensors                    # SGD on the codes of a store
  torchext train houses.csv --target price --bits 2 --out m.safetensors --plot m.png
  torchext train houses.csv --target price --model ridge --out m.safetensors
  torchext train digits.csv --target digit --model logistic --out digits.safetensors
  torchext train houses.csv --target price --solver halp --out m.safetensors       # or houses.tq
  torchext train houses.tq --out price.safetensors --resume           # go on after Ctrl-C

models:
  sgd       mini-batch SGD on the codes, 8-bit model copy and residual, anchored at a pilot fit:
            the algorithms of the papers, any data size; --solver halp takes integer steps around
            a float64 centre to the exact solution on 8-bit codes, --solver svrg the same in float32
  ridge     scikit-learn's Ridge objective to its exact optimum: L-BFGS on the codes, re-anchored by
            a handful of exact gradients (needs the table, not only a store)
  logistic  the same for LogisticRegression

A training run keeps MODEL.checkpoint up to date; Ctrl-C (or SIGTERM) leaves it behind, it can be used
for 'predict' at once, and --resume continues from it to the same bits as an uninterrupted run.
"""

#: Tables up to this size are read again to report the loss on the full-precision rows.
SCORE_LIMIT = 256_000_000


def add_parser(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "train",
        help="train a model on a store or a table",
        epilog=EPILOG,
        description="Train a linear model on a store (.tq) or a CSV table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("data", metavar="DATA", help="a .tq store, or a table (then --target is needed)")
    p.add_argument(
        "--out", metavar="MODEL", required=True, help="model file to write (safetensors)"
    )
    p.add_argument(
        "--model",
        choices=("sgd", "ridge", "logistic"),
        default="sgd",
        help="see below (default sgd)",
    )
    p.add_argument(
        "--plot",
        metavar="FILE",
        help="picture of the run: loss against epochs and bytes, with its report",
    )
    p.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    add_encoding(p)
    g = p.add_argument_group("training")
    g.add_argument(
        "--loss",
        choices=("squared", "logistic"),
        default="squared",
        help="of the sgd model; classes with the squared loss are an LS-SVM (default squared)",
    )
    g.add_argument(
        "--alpha",
        type=non_negative_float,
        metavar="A",
        help="penalty: sgd 1e-4 on scaled coefficients; ridge 1 and logistic 1 (= 1/C) as in scikit-learn",
    )
    g.add_argument(
        "--penalty",
        choices=("l2", "l1", "elasticnet", "none"),
        default="l2",
        help="of the sgd model (default l2)",
    )
    g.add_argument(
        "--solver",
        choices=("sgd", "halp", "svrg"),
        default="sgd",
        help="of the sgd model (default sgd)",
    )
    g.add_argument(
        "--z-bits",
        type=int,
        choices=(8, 16),
        help="halp: bits of the displacement (default 16)",
    )
    g.add_argument(
        "--mu",
        type=mu_type,
        default="auto",
        metavar="auto|M",
        help="halp: range of the displacement is the gradient norm / M (default auto)",
    )
    g.add_argument(
        "--model-bits",
        type=rounded_bits,
        default=8,
        metavar="B",
        help="model copy read in a step: 2-8 or 32 (default 8)",
    )
    g.add_argument(
        "--residual-bits",
        type=rounded_bits,
        default=8,
        metavar="B",
        help="residual: 2-8 or 32 (default 8)",
    )
    g.add_argument(
        "--gradient-bits",
        type=rounded_bits,
        default=32,
        metavar="B",
        help="gradient: 2-8 or 32 (default 32, not rounded)",
    )
    g.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help="most epochs (default 30, more for small data; halp and svrg 100)",
    )
    g.add_argument(
        "--batch",
        type=positive_int,
        metavar="N",
        help="rows per step, best a multiple of 64 (default 256; with halp and svrg 1)",
    )
    g.add_argument(
        "--threads",
        type=positive_int,
        default=1,
        metavar="N",
        help="the result does not depend on it (default 1)",
    )
    g.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="where the epochs run: cpu, cuda or cuda:N (default cpu); the result does not depend on it",
    )
    r = p.add_argument_group("interruption")
    r.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep this checkpoint also after a finished run (default MODEL.checkpoint, removed)",
    )
    r.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint if there is one"
    )
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train, write the model, report."""
    path = must_exist(arguments.data)
    for output in (arguments.out, arguments.plot, arguments.json):
        must_be_writable(output)
    if arguments.plot:
        from torchext.viz import must_be_picture

        must_be_picture(arguments.plot)
    kind = kind_of(path)
    if kind in ("model", "safetensors"):
        raise DataError(f"{arguments.data}: not a store or a table of numbers")
    if kind == "store":
        refuse_given(
            arguments,
            (*ENCODING, "target"),
            "decided when the store was made; give the table, or leave it out",
        )
    elif arguments.target is None:
        raise UsageError("--target NAME is missing: the column of the table to predict")
    if arguments.model != "sgd" and arguments.solver != "sgd":
        raise UsageError(
            f"--solver {arguments.solver} belongs to --model sgd, got {arguments.model}"
        )
    with terminate_as_interrupt():
        if arguments.model == "sgd":
            model, target = _sgd(path, kind, arguments)
        else:
            model, target = _exact(path, kind, arguments)
    from torchext.linear._model_io import save_model

    save_model(model, arguments.out, target=target)
    _finish(model, path, kind, target, arguments)


def _sgd(path: Path, kind: str, arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """SGD on the codes; the checkpoint is kept when it is interrupted."""
    from torchext.data import QuantizedDataset
    from torchext.linear import SGDClassifier, SGDRegressor

    loss = {"squared": "squared_error", "logistic": "log_loss"}[arguments.loss]
    centred = arguments.solver != "sgd"
    again = kind != "store" and (centred or isinstance(arguments.anchor, int))
    checkpoint = arguments.checkpoint or f"{arguments.out}.checkpoint"
    if not arguments.resume:
        Path(checkpoint).unlink(missing_ok=True)
    common: dict[str, Any] = {
        "penalty": None if arguments.penalty == "none" else arguments.penalty,
        "alpha": 1e-4 if arguments.alpha is None else arguments.alpha,
        "solver": arguments.solver,
        "z_bits": arguments.z_bits,
        "mu": arguments.mu,
        "model_bits": arguments.model_bits,
        "residual_bits": arguments.residual_bits,
        "gradient_bits": None if arguments.gradient_bits == 32 else arguments.gradient_bits,
        "batch_size": arguments.batch,
        "max_iter": arguments.epochs,
        "device": arguments.device,
        "n_jobs": arguments.threads,
        "random_state": arguments.key,
        "checkpoint": checkpoint,
        "resume": arguments.resume,
        "callbacks": [progress_line()],
    }
    data: tuple[Any, ...]
    if again:
        table = read_table(path, arguments.target)
        refuse_given(
            arguments,
            ("level_rows",),
            "belongs to stores, not to --anchor R or --solver halp, svrg",
        )
        options = encoding_of(arguments)
        options.pop("level_rows")
        task = options.pop("task")
        classes = table.y is not None and (
            table.y.dtype.kind not in "fiu"
            or task == "classification"
            or (task == "auto" and loss == "log_loss")
        )
        if centred:
            options["bits"] = arguments.bits  # the estimator's default is another
        common.update(options)
        data = (table.X, table.y)
    else:
        store = (
            QuantizedDataset.open(path)
            if kind == "store"
            else quantize.build(path, arguments, loss, None, common["alpha"])
        )
        classes = store.classes is not None
        if loss == "log_loss" and not classes:
            raise DataError(
                f"{arguments.data}: --loss logistic needs classes, the target holds numbers"
            )
        data = (store,)
    model: Any
    if classes:
        model = SGDClassifier("log_loss" if loss == "log_loss" else "squared", **common)
    else:
        model = SGDRegressor(**common)
    try:
        model.fit(*data)
    except KeyboardInterrupt:
        epoch = len(getattr(model, "loss_curve_", []))
        if not Path(checkpoint).exists():
            raise KeyboardInterrupt("before the first step; nothing was written") from None
        raise KeyboardInterrupt(
            f"after {epoch} whole epochs; {checkpoint} is a usable model, --resume continues from it"
        ) from None
    if arguments.checkpoint is None:
        Path(checkpoint).unlink(missing_ok=True)
    return (_named(model, table) if again else model), arguments.target


def _exact(path: Path, kind: str, arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """Ridge or LogisticRegression on the rows of a table, or from the anchor of a store."""
    from torchext import linear

    name = {"ridge": "Ridge", "logistic": "LogisticRegression"}[arguments.model]
    if arguments.plot:
        raise UsageError("--plot shows epochs of SGD; the exact models have none")
    alpha = 1.0 if arguments.alpha is None else arguments.alpha
    if arguments.model == "logistic" and alpha == 0:
        raise UsageError("--alpha must be above 0 for the logistic model (alpha = 1/C)")
    options: dict[str, Any] = {"alpha": alpha} if name == "Ridge" else {"C": 1.0 / alpha}
    if kind == "store":
        from torchext.data import QuantizedDataset

        note(
            "only a store is given: the solution of its codes and stored anchor, not the exact optimum"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the note has said it
            return getattr(linear, name)(**options).fit(QuantizedDataset.open(path)), None
    refuse_given(
        arguments,
        ENCODING.keys() - {"bits", "task"},
        f"--model {arguments.model} chooses its own codes; only --bits counts",
    )
    table = read_table(path, arguments.target)
    options["bits"] = encoding_of(arguments)["bits"]
    model = getattr(linear, name)(**options)
    return _named(model.fit(table.X, table.y), table), table.target


def _named(model: Any, table: Any) -> Any:
    """The fitted model with the column names of the table, which an array does not carry."""
    model.feature_names_in_ = np.asarray(table.names, dtype=object)
    return model


def _finish(
    model: Any, path: Path, kind: str, target: str | None, arguments: argparse.Namespace
) -> None:
    """Say what was made and how good it is; write plot and JSON."""
    facts: dict[str, Any] = {
        "model": arguments.out,
        "data": str(path),
        "kind": type(model).__name__,
    }
    report = getattr(model, "report_", None)
    if report is not None and hasattr(report, "to_dict"):
        say(str(report))
        curve = list(model.loss_curve_)
        say(
            f"loss on the codes, penalty included: {curve[0]:.6g} in epoch 1, {curve[-1]:.6g} in "
            f"epoch {len(curve)}"
        )
        facts |= {"report": report.to_dict(), "loss_curve": curve}
        if report["sampling"] in ("double", "corrected", "stochastic"):
            say(
                "compare with nearest at equal bytes and with float32: torchext bench TABLE --bits "
                f"{report['bits_per_value']} 32"
            )
    else:
        report = model.report_
        say(
            f"{report['bits_per_value']} bits per value, stored {report['stored_bits_per_value']:.3g}, "
            f"sampling nearest, {report['levels']} levels; {report['full_precision_passes']} passes over the "
            f"full-precision rows, {report['code_passes']} over the codes"
        )
        if report["full_precision_passes"]:
            how = ", finished on the full-precision rows" if report["fell_back"] else ""
            say(f"gradient {report['gradient_norm']:.1e} of that at 0 (exact){how}")
        facts["report"] = report
    if kind == "table" and target is not None:
        if path.stat().st_size <= SCORE_LIMIT:
            facts |= _score(model, path, target)
        else:
            say(
                "the table is large: 'torchext predict MODEL TABLE --target NAME' gives the score on "
                "full-precision rows"
            )
    if arguments.plot:
        from torchext.viz import plot_report

        plot_report(
            model,
            arguments.plot,
            title=f"{path.name}: {type(model).__name__}, {model.bits_per_value_} bits per value",
        )
        say(f"plot: {arguments.plot}")
    say(f"model: {arguments.out}")
    write_json(arguments.json, facts)


def _score(model: Any, path: Path, target: str) -> dict[str, Any]:
    """Loss on the full-precision training rows."""
    table = read_table(path, target)
    z = table.X @ np.atleast_2d(model.coef_).T + model.intercept_
    if hasattr(model, "classes_"):
        index = (z[:, 0] > 0).astype(np.intp) if z.shape[1] == 1 else z.argmax(axis=1)
        found, truth = np.asarray(model.classes_)[index], np.asarray(table.y)
        if found.dtype.kind in "fiu" and truth.dtype.kind in "fiu":
            right = float(np.mean(found.astype(np.float64) == truth.astype(np.float64)))
        else:
            right = float(np.mean(found.astype(str) == truth.astype(str)))
        say(f"on the full-precision training rows: accuracy {right:.4f}")
        return {"train_accuracy": right}
    truth = np.asarray(table.y, dtype=np.float64)
    error, spread = float(np.mean((z[:, 0] - truth) ** 2)), float(np.var(truth))
    say(
        f"on the full-precision training rows: mean squared error {error:.6g}, R2 "
        f"{1 - error / max(spread, 1e-300):.4f}"
    )
    return {"train_mean_squared_error": error, "train_r2": 1 - error / max(spread, 1e-300)}


def mu_type(text: str) -> float | str:
    """``auto`` or a positive number."""
    try:
        value = text if text == "auto" else float(text)
    except ValueError:
        value = -1.0
    if value != "auto" and not 0 < float(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be auto or a positive number, got {text}")
    return value


def progress_line() -> Any:
    """A callback that keeps one line of a terminal up to date and is silent elsewhere."""
    shown = sys.stderr.isatty()

    def show(info: Any) -> bool:
        if shown:
            end = "\n" if info.epoch >= info.max_iter else ""
            sys.stderr.write(
                f"\repoch {info.epoch}/{info.max_iter}  loss {info.loss:.6g}  {info.seconds:.3g} "
                f"s/epoch {end}"
            )
            sys.stderr.flush()
        return False

    return show


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that a batch system also gets a checkpoint."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return

    def raise_interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
