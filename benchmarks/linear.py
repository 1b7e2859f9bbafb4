"""``python -m benchmarks.linear``: training speed of low-bit linear models, all contestants in one run.

Seconds per epoch of ``SGDRegressor.fit`` on a store at 4 and 2 bits (nearest, optimal levels, per-column
tables) against the same code on float32 rows, a plain torch mini-batch loop and scikit-learn's
SGDRegressor; then time to a training loss within 1 % of the optimum. Each comparison is interleaved
epoch by epoch; ratios are medians over the rounds.

    python -m benchmarks.linear                       # 1 GiB of float32, n = 256, 1024, 4096
    python -m benchmarks.linear --quick               # 64 MiB: a smoke test, the data fits the cache
    python -m benchmarks.linear --threads 2 --isa avx2 --json avx2.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._bench import Turns, interleave, machine, ratios, spread, write
from benchmarks._contestants import (
    BATCH,
    SEED,
    SklearnLoop,
    TorchLoop,
    encode,
    fit_turns,
    make_data,
)
from benchmarks._precision import to_precision


def epochs(
    rows: int, cols: int, threads: list[int], rounds: int, baselines: bool
) -> dict[str, Any]:
    """Seconds per epoch of every contestant, interleaved."""
    X, y = make_data(rows, cols)
    torch.set_num_threads(1)
    contestants: dict[str, Callable[[], float]] = {}
    encoding = {}
    for bits in (32, 4, 2):
        store, seconds = encode(X, y, bits)
        encoding[str(bits)] = {
            "seconds": seconds,
            "gvalues_per_second": rows * cols / seconds / 1e9,
        }
        for t in threads:
            contestants[f"{bits} bits, {t} thread{'s' if t > 1 else ''}"] = fit_turns(
                store, bits, t
            )
    if baselines:
        contestants["torch loop"] = TorchLoop(X, y, 1e-3)
        contestants["scikit-learn"] = SklearnLoop(X, y)
    seconds_of = interleave(contestants, rounds)
    tables = {}
    for name, run in contestants.items():
        if isinstance(run, Turns):
            tables[name] = run.close().report_["levels"]
    base = (
        seconds_of["32 bits, 1 thread"]
        if 1 in threads
        else seconds_of[f"32 bits, {threads[0]} threads"]
    )
    facts: dict[str, Any] = {
        "rows": rows,
        "cols": cols,
        "float32_gib": X.nbytes / 2**30,
        "encoding": encoding,
        "rows_of_table": [],
    }
    for name, seconds in seconds_of.items():
        threaded = next(
            (t for t in threads if name.endswith(f"{t} thread{'s' if t > 1 else ''}")), None
        )
        own = seconds_of.get(
            f"32 bits, {threaded} thread{'s' if (threaded or 0) > 1 else ''}", base
        )
        facts["rows_of_table"].append(
            {
                "name": name,
                "seconds": seconds,
                "gvalues_per_second": rows * cols / statistics.median(seconds) / 1e9,
                "levels": tables.get(name, "no"),
                "against_float32": ratios(own, seconds),
                "against_float32_1": ratios(base, seconds),
            }
        )
    if baselines:
        facts["4 bits against torch"] = ratios(
            seconds_of["torch loop"], seconds_of["4 bits, 1 thread"]
        )
        facts["4 bits against scikit-learn"] = ratios(
            seconds_of["scikit-learn"], seconds_of["4 bits, 1 thread"]
        )
    return facts


def heavy_tailed(rows: int, cols: int, rounds: int) -> dict[str, Any]:
    """4 bits with int16 tables (log-normal columns) against float32, one thread."""
    X, y = make_data(rows, cols, "heavy")
    stores = {bits: encode(X, y, bits)[0] for bits in (32, 4)}
    planes = int(stores[4].table.shape[0]) if stores[4].table.numel() else 0
    turns = {str(b): fit_turns(s, b, 1) for b, s in stores.items()}
    seconds = interleave(dict(turns), rounds)
    for t in turns.values():
        t.close()
    return {
        "rows": rows,
        "cols": cols,
        "table": f"int{8 * planes}" if planes else "none",
        "ratio": ratios(seconds["32"], seconds["4"]),
    }


def show_epochs(facts: dict[str, Any]) -> None:
    """One block of the report."""
    print(
        f"\nn = {facts['cols']:,}, {facts['rows']:,} rows ({facts['float32_gib']:.2f} GiB float32), "
        f"batch {BATCH}, tile4 layout"
    )
    print(
        f"  {'':24}{'ms per epoch (quartiles)':>34}{'Gvalue/s':>10}{'times float32, same threads':>30}"
    )
    for row in facts["rows_of_table"]:
        r = row["against_float32"]
        print(
            f"  {row['name']:24}{spread([1e3 * s for s in row['seconds']]):>34}"
            f"{row['gvalues_per_second']:>10.2f}"
            f"{r['median']:>14.2f} ({r['q25']:.2f}-{r['q75']:.2f})"
        )
    for name in ("4 bits against torch", "4 bits against scikit-learn"):
        if name in facts:
            print(f"  {name}: {facts[name]['median']:.1f} times faster")
    print(
        "  encoding (both passes, Gvalue/s): "
        + ", ".join(f"{b} bits {e['gvalues_per_second']:.2f}" for b, e in facts["encoding"].items())
    )


def main() -> None:
    """Run, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cols", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--size", type=float, default=1.0, help="GiB of float32 (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (default 9)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--isa", choices=("ref", "avx2", "avx512"), help="lower the instruction set for this run"
    )
    parser.add_argument("--only", choices=("epochs", "precision", "heavy"), help="one part only")
    parser.add_argument(
        "--no-baselines", action="store_true", help="leave out torch and scikit-learn"
    )
    parser.add_argument(
        "--quick", action="store_true", help="64 MiB, 3 rounds, n = 256: a smoke test"
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    a = parser.parse_args()
    if (
        a.isa and os.environ.get("TORCHEXT_ISA") != a.isa
    ):  # the choice is made when the library loads
        sys.exit(
            subprocess.call(
                [sys.executable, "-m", "benchmarks.linear", *sys.argv[1:]],
                env={**os.environ, "TORCHEXT_ISA": a.isa},
            )
        )
    if a.quick:
        a.cols, a.size, a.rounds = [256], 1 / 16, 3
    facts: dict[str, Any] = {
        "machine": machine(),
        "seed": SEED,
        "batch": BATCH,
        "epochs": [],
        "heavy": [],
        "precision": [],
    }
    m = facts["machine"]
    print(
        f"{m['processor']}, {m['cores']} cores, kernels {m['isa']}, torch {m['torch']}, "
        f"scikit-learn {m['scikit-learn']}, load {m['load_at_start']:.1f}"
    )
    print(
        "bits: 2^b optimal levels per column, nearest rounding, all bits counted; model copy and "
        "residual 8 bits; no anchor in epoch times"
    )
    for cols in a.cols:
        rows = int(a.size * 2**30 / 4 / cols) // 256 * 256
        if a.only in (None, "epochs"):
            facts["epochs"].append(epochs(rows, cols, a.threads, a.rounds, not a.no_baselines))
            show_epochs(facts["epochs"][-1])
        if a.only in (None, "heavy"):
            facts["heavy"].append(h := heavy_tailed(rows, cols, a.rounds))
            print(
                f"  log-normal columns, {h['table']} tables, 4 bits: {h['ratio']['median']:.2f} times float32"
            )
        if a.only in (None, "precision") and cols <= 1024:
            facts["precision"].append(p := to_precision(rows, cols))
            print(
                f"  time to within 1 % of the optimum (F* = {p['optimum']:.5g}), one thread, set-up "
                "and encoding apart:"
            )
            for name, run in p["runs"].items():
                more = (
                    f", encoding {run['seconds_encoding']:.2f} s"
                    if "seconds_encoding" in run
                    else ""
                )
                at = f", F(x0)/F* {run['at_anchor']:.4f}" if run.get("at_anchor") else ""
                state = (
                    f"{run['epochs']} epochs"
                    if run["reached"]
                    else f"NOT reached in {run['epochs']} epochs"
                )
                print(
                    f"    {name:14}{run['seconds']:8.3f} s, {state}, F/F* {run['curve'][-1]:.4f}{at}{more}"
                )
    write(a.json, facts)


if __name__ == "__main__":
    main()
