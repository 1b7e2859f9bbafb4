"""Methods times seeds: arguments, one run folder each, the table over seeds, and the plot."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from training.common.methods import EXPLAINED
from training.common.plots import Curve, figure_class
from training.common.runs import (
    Interrupted,
    Process,
    RunError,
    RunFolder,
    drive,
    rank,
    stop_on_signal,
)
from training.data import DataError

#: Rows of every finished run: by method, then by seed.
Results = dict[str, dict[int, list[dict[str, Any]]]]


def parser(doc: str, methods: Sequence[str], out: str) -> argparse.ArgumentParser:
    """Options of all scripts; ``@FILE`` reads further ones from a file, one a line."""
    p = argparse.ArgumentParser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    p.add_argument("--methods", nargs="+", metavar="M", default=list(methods),
                   help=f"{EXPLAINED} (default: {' '.join(methods)})")  # fmt: skip
    p.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S",
                   help="initial weights, order of examples, rounding; shared by all methods")  # fmt: skip
    p.add_argument("--out", type=Path, default=Path(out), metavar="DIR",
                   help=f"a folder for each run is made in here (default: {out})")  # fmt: skip
    p.add_argument("--resume", action="store_true",
                   help="skip runs that are over, continue interrupted ones, to the same bits")  # fmt: skip
    p.add_argument("--checkpoint-seconds", type=float, default=30.0, metavar="S",
                   help="time between checkpoints (30); SIGINT and SIGTERM save and stop")  # fmt: skip
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves (needs matplotlib)")
    return p


def add_data(p: argparse.ArgumentParser, cache: bool = False) -> None:
    """Where the data is."""
    p.add_argument("--data", type=Path, metavar="DIR", help="data folder (default: $TORCHEXT_DATA)")
    if cache:
        p.add_argument("--cache", type=Path, metavar="DIR",
                       help="folder for decoded pictures (default: ~/.cache/torchext)")  # fmt: skip


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """Expected failures end the program with one sentence in place of a traceback."""
    try:
        yield
    except (DataError, RunError, Interrupted, ValueError) as error:
        sys.exit(f"{name}: {error}")


@contextmanager
def devices(given: str) -> Iterator[torch.device]:
    """The device; under torchrun also the process group (gloo on the CPU, else NCCL)."""
    kind = torch.device(given)
    if "RANK" not in os.environ:
        yield kind
        return
    if kind.type == "cuda":
        kind = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(kind)
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield kind
    finally:
        dist.destroy_process_group()


def run_all(
    options: argparse.Namespace,
    methods: Sequence[Any],
    config: Callable[[Any, int], dict[str, Any]],
    make: Callable[[Any, int], Process],
) -> Results:
    """Every method with every seed, one after the other.

    Args:
        options: of :func:`parser`.
        methods: anything with a name.
        config: what the figures of a run depend on; a folder made with another one is refused.
        make: the process of a run.

    Raises:
        Interrupted: by a signal; ``--resume`` goes on.
    """
    results: Results = {}
    if options.plot:
        figure_class()  # fails now rather than after the training
    with stop_on_signal() as stop:
        for method in methods:
            for seed in options.seeds:
                path = options.out / f"{method.name}-seed{seed}"
                folder = RunFolder(path, config(method, seed), options.resume)
                found = folder.result()
                if found is None:
                    found = drive(make(method, seed), folder, options.checkpoint_seconds, stop)
                results.setdefault(method.name, {})[seed] = found["rows"]
                if rank() == 0:
                    last = {k: v for k, v in found["rows"][-1].items() if k != "step"}
                    print(
                        f"{path.name:22} " + " ".join(f"{k} {v:.4g}" for k, v in last.items()),
                        flush=True,
                    )
    return results


def table(results: Results, columns: dict[str, str], best: dict[str, Callable[..., float]]) -> str:
    """Markdown: mean and standard deviation over seeds of the last row; of the best row for ``best``."""
    heads = [*columns.values(), *(f"best {columns[key]}" for key in best)]
    lines = ["| method | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name, runs in results.items():
        cells = [_spread([rows[-1][key] for rows in runs.values()]) for key in columns]
        for key, choose in best.items():
            cells.append(_spread([choose(row[key] for row in rows) for rows in runs.values()]))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def reached(results: Results, column: str, goal: float) -> str:
    """In which epoch every run first came to ``goal`` or below."""
    parts = []
    for name, runs in results.items():
        found = [
            next((r["epoch"] for r in rows if r[column] <= goal), None) for rows in runs.values()
        ]
        parts.append(f"{name} " + "/".join("-" if e is None else str(e) for e in found))
    return f"epochs until {column} is {goal:g}: " + ", ".join(parts)


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    small = abs(mean) < 1e-3 and mean != 0
    text = f"{mean:.1e}" if small else f"{mean:.4g}"
    if len(values) == 1 or small:
        return text
    return f"{text} ± {statistics.stdev(values):.2g}"


def curves(results: Results, x: str, y: str) -> dict[str, list[Curve]]:
    """One column of the rows against another, for :class:`training.common.plots.Panel`."""
    return {
        name: [([r[x] for r in rows], [r[y] for r in rows]) for rows in runs.values()]
        for name, runs in results.items()
    }
