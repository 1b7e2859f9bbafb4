"""Speed of the two passes that build a store: ``python -m benchmarks.encode [--levels] [--json FILE]``.

Statistics, Lloyd levels (from as many rows as a build takes) and the encoder (codes, moments and the
anchor's gradients in double) on one float32 table, against a plain copy of the table in the same run; then
whole builds with ``QuantizedDataset.from_arrays`` in memory, levels, pilot and shuffle included. With
``--levels`` what the kinds of levels cost instead: 16 of them alone, from the rows that a build takes, and
builds with each. Figures are seconds, and 10^9 values of the table a second; a round runs every contestant
once, so that the ratios survive a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._bench import machine
from torchext.data import Options, QuantizedDataset
from torchext.data import _encode as enc
from torchext.data import _levels as lev
from torchext.data._column_levels import column_levels, optimal_column_levels, shared_levels
from torchext.data.options import BuildOptions
from torchext.data.plan import shared_level_rows
from torchext.random import key_from_seed

CASES = (("nearest", 4), ("nearest", 2), ("nearest", 8), ("stochastic", 4), ("double", 4))
#: Sampling and levels of the builds of ``--levels``.
BUILDS = (
    ("nearest", "lloyd"),
    ("nearest", "optimal"),
    ("nearest", "shared"),
    ("stochastic", "uniform"),
    ("stochastic", "optimal"),
    ("auto", "lloyd"),
    ("auto", "optimal"),
)

Runs = dict[str, Callable[[], Any]]


def statistics_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, scale and bounds of the columns."""
    state = enc.new_stats(x.shape[1])
    enc.update_stats(x, state)
    return enc.finish_stats(state)


def build(x: torch.Tensor, y: torch.Tensor, options: BuildOptions) -> Callable[[], Any]:
    """A whole store of 4 bits in memory."""
    return lambda: QuantizedDataset.from_arrays(x, y, bits=4, random_state=0, **options)


def level_runs(x: torch.Tensor, y: torch.Tensor, sample: torch.Tensor) -> Runs:
    """Levels alone, of the sample, and builds with them."""
    where = (x, *statistics_of(x), 16)
    runs: Runs = {
        f"levels alone, {kind}": lambda k=kind: column_levels(*where, kind=k, rows=sample)  # type: ignore[misc]
        for kind in ("lloyd", "nearest", "stochastic")
    }
    runs["levels alone, both optimal ones"] = lambda: optimal_column_levels(*where, rows=sample)
    few = sample[: shared_level_rows(x.shape[1])]
    runs["levels alone, shared"] = lambda: shared_levels(*where, rows=few)
    for sampling, levels in BUILDS:
        runs[f"from_arrays, {sampling}, {levels}"] = build(
            x, y, {"sampling": sampling, "levels": levels}
        )
    for sampling in ("nearest", "stochastic"):
        runs[f"from_arrays, {sampling}, optimal, of all rows"] = build(
            x, y, {"sampling": sampling, "levels": "optimal", "level_rows": "all"}
        )
    return runs


def encoder_runs(x: torch.Tensor, y: torch.Tensor, sample: torch.Tensor) -> Runs:
    """Contestants by name; each works on the whole table."""
    rows, cols = x.shape
    mean, scale, bounds = statistics_of(x)
    x0 = torch.randn(1, cols, generator=torch.Generator().manual_seed(3)) * 0.01
    target = torch.empty_like(x)
    codes = torch.empty(enc.layout_bytes(rows, cols, 8), dtype=torch.uint8)

    def encode(mode: str, bits: int, book: lev.Codebook, anchor: bool) -> None:
        encoder = enc.Encoder(
            mean,
            scale,
            book,
            key_from_seed(1),
            outputs=int(anchor),
            x0=x0 if anchor else None,
            bounds=bounds,
        )
        encoder.add(x, codes[: enc.layout_bytes(rows, cols, bits)], y=y if anchor else None)

    runs: Runs = {
        "copy": lambda: target.copy_(x),
        "statistics": lambda: enc.update_stats(x, enc.new_stats(cols)),
        "lloyd 4 bits": lambda: column_levels(x, mean, scale, bounds, 16, rows=sample).levels,
    }
    for mode, bits in CASES:
        if mode == "nearest":
            book = lev.codebook(
                bits,
                mode,
                levels=column_levels(x, mean, scale, bounds, 2**bits, rows=sample).levels,
            )
        else:
            book = lev.codebook(bits, mode, lo=bounds[:, 0], hi=bounds[:, 1])
        for anchor in (True, False):
            name = f"{mode} {bits}" + (" anchor" if anchor else "")
            runs[name] = lambda m=mode, b=bits, k=book, a=anchor: encode(m, b, k, a)  # type: ignore[misc]
    whole: dict[str, BuildOptions] = {
        "from_arrays, nearest": {"sampling": "nearest"},
        "from_arrays, no anchor, no shuffle": {
            "sampling": "nearest",
            "anchor": "none",
            "shuffle": False,
        },
        "from_arrays, auto (default)": {},
    }
    for name, options in whole.items():
        runs[name] = build(x, y, options)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=131072)
    parser.add_argument("--cols", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--levels", action="store_true", help="what the kinds of levels cost")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x = torch.randn(args.rows, args.cols, generator=torch.Generator().manual_seed(0))
    level_rows = Options(bits=4).levels_from
    sample = (
        torch.randperm(args.rows, generator=torch.Generator().manual_seed(2))[:level_rows]
        .sort()
        .values
    )
    y = torch.randn(args.rows, 1, generator=torch.Generator().manual_seed(1))
    runs = (level_runs if args.levels else encoder_runs)(x, y, sample)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    if not args.levels:
        passes = ("statistics", "lloyd 4 bits", "nearest 4 anchor")
        seconds["both passes, nearest 4 anchor"] = [
            sum(t) for t in zip(*(seconds[p] for p in passes), strict=True)
        ]
    report: dict[str, Any] = {
        **machine(),
        **{k: v for k, v in vars(args).items() if k != "json"},
        "runs": {},
    }
    print(
        f"{args.rows:,} x {args.cols:,} float32, 4 bits, {args.threads} thread(s), {args.rounds} rounds"
    )
    print(f"{'':36s} {'median s':>9s} {'least s':>9s} {'Gvalue/s':>9s}  (least .. most)")
    for name, times in seconds.items():
        middle, speed = statistics.median(times), sorted(x.numel() / t / 1e9 for t in times)
        rate = x.numel() / middle / 1e9
        report["runs"][name] = {
            "seconds": middle,
            "least_seconds": min(times),
            "gvalues_per_s": rate,
            "least": speed[0],
            "most": speed[-1],
        }
        print(
            f"{name:36s} {middle:9.4f} {min(times):9.4f} {rate:9.3f}  ({speed[0]:.3f} .. {speed[-1]:.3f})"
        )
    if args.json:
        import json

        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
