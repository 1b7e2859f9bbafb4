"""``torchext quantize``: a table in, a store of a few bits per value out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from torchext.cli._common import (
    DataError,
    UsageError,
    add_encoding,
    encoding_of,
    kind_of,
    must_be_writable,
    must_exist,
    non_negative_float,
    ratio,
    say,
    size,
    write_json,
)
from torchext.cli._table import is_parquet, target_of

EPILOG = """\
examples:
  torchext quantize houses.csv houses.tq --target price
  torchext quantize houses.csv.gz houses.tq --target 0 --bits 2 --sampling nearest
  torchext quantize digits.csv digits.tq --target digit --task classification --loss logistic

The table is read twice (three times with --level-rows all) and never held in memory. The same table,
options and key give the same file, byte for byte. Nothing appears under the name of the output until it
is complete.

Which sampling? 'auto' encodes a pilot both ways, solves both, and takes 'corrected' only where it wins;
'nearest' with optimal levels is the strong baseline. 'double' is ZipML's double sampling: two draws, so
fewer levels at the same bits; at equal bits it has not beaten nearest on any set we measured.

Which levels? Leave 'auto'. 'shared' finds one table for all columns in a few milliseconds: for thousands of
columns of one shape. 'uniform' needs no tables: 7 and 8 bits, or processors without AVX-512.
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "quantize",
        help="encode a table into a low-bit store",
        epilog=EPILOG,
        description="Encode a CSV or Parquet table into a store (.tq) of a few bits per value.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "data", metavar="IN", help="CSV (plain or gzip, header optional) or Parquet file"
    )
    p.add_argument("out", metavar="OUT.tq", help="store to write; an existing one is replaced")
    add_encoding(p)
    p.add_argument(
        "--loss",
        choices=("squared", "logistic"),
        default="squared",
        help="loss that the anchor is computed for (default squared)",
    )
    p.add_argument(
        "--alpha",
        type=non_negative_float,
        default=0.0,
        metavar="A",
        help="ridge of the pilot fit behind the anchor; best that of the training (default 0)",
    )
    p.add_argument(
        "--json", metavar="FILE", help="also write what is printed as JSON; - for standard output"
    )
    p.set_defaults(run=run)


def build(
    path: Path, arguments: argparse.Namespace, loss: str, out: str | None, alpha: float
) -> Any:
    """Encode a table; the keyword arguments of the two readers are the same."""
    from torchext.data import QuantizedDataset

    options = encoding_of(arguments)
    if isinstance(options["anchor"], int):
        raise UsageError(
            "--anchor R needs the full-precision rows while training; use it with 'torchext train TABLE'"
        )
    if arguments.target is None:
        raise UsageError("--target NAME is missing: the column to predict")
    reader: Any = QuantizedDataset.from_parquet if is_parquet(path) else QuantizedDataset.from_csv
    return reader(
        path,
        target=target_of(path, arguments.target),
        loss=loss,
        random_state=arguments.key,
        path=out,
        alpha=alpha,
        **options,
    )


def run(arguments: argparse.Namespace) -> None:
    """Encode and say what came out."""
    path = must_exist(arguments.data)
    if kind_of(path) in ("store", "model"):
        raise DataError(f"{arguments.data}: already a torchext file, not a table")
    if arguments.bits == 32:
        raise UsageError(
            "--bits 32 keeps the rows as they are and makes no store; train on the table"
        )
    must_be_writable(arguments.out)
    must_be_writable(arguments.json)
    began = time.perf_counter()
    loss = {"squared": "squared_error", "logistic": "log_loss"}[arguments.loss]
    store = build(path, arguments, loss, arguments.out, arguments.alpha)
    seconds = time.perf_counter() - began
    facts = summary(store, path, Path(arguments.out), seconds)
    for line in lines(facts):
        say(line)
    write_json(arguments.json, facts)


def summary(store: Any, source: Path, out: Path, seconds: float) -> dict[str, Any]:
    """The facts about an encoding that a report has to state."""
    values = store.rows * store.cols
    return {
        "source": str(source),
        "store": str(out),
        "rows": store.rows,
        "columns": store.cols,
        "outputs": store.outputs,
        "task": store.task,
        "bits_per_value": store.bits,
        "stored_bits_per_value": float(store.stored_bits),
        "sampling": store.sampling,
        "levels": store.level_kind,
        "layout": store.layout,
        "copies": store.copies,
        "key": [int(v) for v in store.key],
        "pilot": dict(store.pilot or {}),
        "anchored": store.anchor is not None,
        "clipped_values": int(store.n_clipped),
        "file_bytes": out.stat().st_size,
        "float32_bytes": 4 * values,
        "source_bytes": source.stat().st_size,
        "seconds": seconds,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same facts in words."""
    pilot = facts["pilot"]
    bits = (
        f"{facts['bits_per_value']} bits per value (2^b levels a column, all draws counted; "
        f"{facts['stored_bits_per_value']:.3g} stored with padding), sampling {facts['sampling']}, "
        f"{facts['levels']} levels"
    )
    out = [
        f"{facts['store']}: {facts['rows']:,} rows x {facts['columns']:,} columns, {facts['task']}, "
        f"in {facts['seconds']:.2f} s",
        bits,
        f"layout {facts['layout']}, {facts['copies']} cop{'y' if facts['copies'] == 1 else 'ies'}, "
        f"key {tuple(facts['key'])}",
    ]
    if pilot.get("level_cost"):
        out.append(
            f"levels from {pilot['level_rows']:,} rows: mean squared rounding error "
            f"{pilot['level_cost']:.4g} there, {pilot['level_error']:.4g} over all rows"
        )
    near, corr = pilot.get("F_nearest"), pilot.get("F_corrected")
    if near is not None:
        text = f"pilot of {pilot.get('S'):,} rows, loss of the solution at full precision: nearest {near:.6g}"
        if corr is not None:
            text += f", corrected {corr:.6g}"
        elif "F_corrected" in pilot:
            text += ", corrected: its Gram matrix is indefinite"
        out.append(text)
    if pilot.get("F_x0") is not None:
        out.append(
            f"anchor: exact gradient at the pilot fit x0, whose own loss is {pilot['F_x0']:.6g}"
        )
    else:
        out.append("anchor: exact gradient at a pilot fit" if facts["anchored"] else "anchor: none")
    out.append(
        f"{size(facts['file_bytes'])} with labels and tables: "
        f"{ratio(facts['file_bytes'], facts['float32_bytes'])} than float32 "
        f"({size(facts['float32_bytes'])}), {ratio(facts['file_bytes'], facts['source_bytes'])} than "
        "the source "
        f"({size(facts['source_bytes'])})"
    )
    if facts["clipped_values"]:
        out.append(
            f"{facts['clipped_values']:,} values lay outside the range of their column and were clamped"
        )
    return out
