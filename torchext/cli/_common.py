"""What the commands share: the error type, argument groups, sizes in words."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torchext.data.options import LEVELS

EXIT_OK, EXIT_DATA, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

SAMPLINGS = ("auto", "nearest", "corrected", "double", "stochastic")


class DataError(Exception):
    """Something is wrong with a file or its contents: one sentence, exit code 1."""


class UsageError(Exception):
    """Arguments that cannot go together: one sentence, exit code 2."""


def say(text: str = "") -> None:
    """Print to standard output, at once (a pipe sees progress)."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print to standard error: what a script that parses the output must not see."""
    print(text, file=sys.stderr, flush=True)


def bits_type(text: str) -> int:
    """argparse type of ``--bits``."""
    if text not in {"1", "2", "3", "4", "5", "6", "7", "8", "16", "32"}:
        raise argparse.ArgumentTypeError(
            f"{text!r}: bits must be 1 to 8, 16, or 32 (float32 rows, no codes)"
        )
    return int(text)


def rounded_bits(text: str) -> int:
    """argparse type of the widths that an SGD step rounds to."""
    if text not in {"2", "3", "4", "5", "6", "7", "8", "32"}:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 2 to 8, or 32 (not rounded)")
    return int(text)


def positive_int(text: str) -> int:
    """argparse type of counts."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an integer of at least 1")
    return value


def non_negative_float(text: str) -> float:
    """argparse type of penalties."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a finite number of at least 0")
    return value


def anchor_type(text: str) -> str | int:
    """argparse type of ``--anchor``: pilot, none, or a number of further passes."""
    if text in ("pilot", "none"):
        return text
    return positive_int(text)


def level_rows_type(text: str) -> int | str:
    """argparse type of ``--level-rows``: all, or a number of rows."""
    return text if text == "all" else positive_int(text)


#: Encoding options and their values when not given; None on the command line means "not given", so that
#: an option that a finished store cannot honour is an error and not ignored.
ENCODING: dict[str, Any] = {
    "bits": 4,
    "sampling": "auto",
    "levels": "auto",
    "anchor": "pilot",
    "task": "auto",
    "copies": 1,
    "level_rows": None,
}


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Options that decide the codes; the same in quantize and train (CSV in)."""
    group = parser.add_argument_group("encoding")
    group.add_argument(
        "--target", metavar="NAME", help="column to predict: its header name, or its number from 0"
    )
    group.add_argument(
        "--bits",
        type=bits_type,
        metavar="B",
        help="bits per value, all random draws counted: 1-8, 16, or 32 for float32 rows (default 4)",
    )
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        help="how a value becomes a code; auto (default) compares nearest and corrected on a pilot",
    )
    group.add_argument(
        "--levels",
        choices=LEVELS,
        help="optimal: least squared error (nearest) or variance (draws) per column; shared: the same, one "
        "table for all columns; lloyd; uniform; symmetric: one grid for all columns, which --solver halp "
        "takes as it is. auto (default): optimal up to 5 bits, mostly uniform above",
    )
    group.add_argument(
        "--level-rows",
        type=level_rows_type,
        metavar="N|all",
        help="random rows from which levels are computed (default 32768; 65536 above 5 bits), or all, which "
        "reads the table once more: for rare values that carry much of the error",
    )
    group.add_argument(
        "--anchor",
        type=anchor_type,
        metavar="pilot|none|R",
        help="exact gradient at a pilot fit (default), at R further points as well (train only), or none",
    )
    group.add_argument(
        "--task",
        choices=("auto", "regression", "classification"),
        help="auto (default): classification if the target is text or the loss logistic",
    )
    group.add_argument(
        "--copies",
        type=positive_int,
        metavar="E",
        help="independent encodings with fresh draws, used in turn (default 1)",
    )
    group.add_argument(
        "--key", type=int, default=0, metavar="N", help="seed of every random bit (default 0)"
    )


def refuse_given(arguments: argparse.Namespace, names: Iterable[str], reason: str) -> None:
    """A :class:`UsageError` that lists those of the options which were given."""
    given = [f"--{n.replace('_', '-')}" for n in names if getattr(arguments, n) is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {reason}")


def encoding_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The encoding options with their defaults filled in."""
    given = {name: getattr(arguments, name) for name in ENCODING}
    options = {name: ENCODING[name] if value is None else value for name, value in given.items()}
    if options["sampling"] == "double" and not 2 <= options["bits"] <= 8:
        raise UsageError(
            f"--sampling double needs --bits 2 to 8 (two of them hold the draws), got {options['bits']}"
        )
    return options


def ratio(bytes_: float, base: float) -> str:
    """How much smaller than ``base``, in words."""
    return (
        f"{base / bytes_:.1f} times smaller"
        if 0 < bytes_ <= base
        else f"{bytes_ / max(base, 1):.1f} times larger"
    )


def size(bytes_: float) -> str:
    """Bytes with a decimal unit."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if bytes_ >= unit:
            return f"{bytes_ / unit:.2f} {name}"
    return f"{bytes_:.0f} bytes"


def must_exist(path: str) -> Path:
    """The path of a readable file, or a :class:`DataError`."""
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{path}: is a folder, a file is needed")
    if not file.exists():
        raise DataError(f"{path}: no such file")
    if not os.access(file, os.R_OK):
        raise DataError(f"{path}: no permission to read it")
    return file


def must_be_writable(path: str | None) -> None:
    """A :class:`DataError` before any work is done if an output (None: not wanted; -: printed) cannot be."""
    if path is None or path == "-":
        return
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise DataError(f"{path}: the folder {folder} does not exist")
    if Path(path).is_dir():
        raise DataError(f"{path}: is a folder, the name of a file is needed")
    if not Path(path).exists() and not os.access(folder, os.W_OK):
        raise DataError(f"{path}: no permission to write into {folder}")


def kind_of(path: Path) -> str:
    """``"store"``, ``"model"``, ``"safetensors"`` (someone else's) or ``"table"``."""
    with open(path, "rb") as f:
        head = f.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or not 2 <= length <= 100_000_000:
            return "store" if path.suffix == ".tq" else "table"
        start = f.read(length)
    if not start.startswith(b"{"):
        return "store" if path.suffix == ".tq" else "table"
    try:
        found = json.loads(start).get("__metadata__", {}).get("format", "")
    except (ValueError, AttributeError):
        return "store" if path.suffix == ".tq" else "safetensors"
    return {"torchext.qdata": "store", "torchext.linear": "model"}.get(found, "safetensors")


def write_json(path: str | None, facts: dict[str, Any]) -> None:
    """Write a JSON file, or print it when the path is ``-``; None does nothing."""
    if path is None:
        return
    text = json.dumps(facts, indent=2, default=str)
    if path == "-":
        say(text)
    else:
        Path(path).write_text(text + "\n")
