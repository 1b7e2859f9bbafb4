"""``torchext info``: what is in a store, a model or a checkpoint, and whether it is intact."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torchext.cli._common import DataError, kind_of, must_exist, say, size

EPILOG = """\
examples:
  torchext info houses.tq            # columns, bits, levels, pilot losses
  torchext info houses.tq --verify   # also read every byte and compare the checksums
  torchext info price.safetensors    # settings and report of the run that made a model
  torchext info houses.tq --json
"""


def add_parser(commands: Any) -> None:
    """Register the command."""
    p = commands.add_parser(
        "info",
        help="describe a store or a model",
        epilog=EPILOG,
        description="Describe a data set store, a model or a checkpoint.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("file", metavar="FILE", help="a .tq store, a model or a checkpoint")
    p.add_argument(
        "--verify", action="store_true", help="read everything and check the checksums of a store"
    )
    p.add_argument("--json", action="store_true", help="print JSON instead of text")
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Describe the file."""
    path = must_exist(arguments.file)
    kind = kind_of(path)
    if kind == "store":
        facts = _store(path, arguments.verify)
    elif kind == "model":
        from torchext.linear._model_io import describe_model

        facts = describe_model(path)
    elif kind == "table":
        raise DataError(
            f"{arguments.file}: a table, not a store; encode it with 'torchext quantize'"
        )
    else:
        raise DataError(f"{arguments.file}: a safetensors file that torchext did not write")
    if arguments.json:
        say(json.dumps(facts, indent=2, default=str))
        return
    _print(facts)


def _store(path: Path, verify: bool) -> dict[str, Any]:
    from torchext.data import QuantizedDataset

    store = QuantizedDataset.open(path, verify=True if verify else None)
    facts = dict(store.info())
    facts["file_bytes"] = path.stat().st_size
    if verify:
        facts["verified"] = "all checksums agree"
    return facts


def _print(facts: dict[str, Any]) -> None:
    """One fact a line, nested ones indented; long lists are cut."""
    inner_names = [key for value in facts.values() if isinstance(value, dict) for key in value]
    width = max(len(name) for name in [*facts, *inner_names]) + 2
    for name, value in facts.items():
        if isinstance(value, dict):
            say(f"{name}:")
            for key, inner in value.items():
                say(f"  {key:{width}}{_short(inner)}")
        elif name.endswith("bytes") and isinstance(value, (int, float)):
            say(f"{name:{width}}{int(value):,} ({size(value)})")
        else:
            say(f"{name:{width}}{_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_short(v) for v in value[:8])
        return f"{shown}, ... ({len(value)} in all)" if len(value) > 8 else shown or "none"
    return str(value)
