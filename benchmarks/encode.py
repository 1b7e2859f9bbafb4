"""Speed of the two passes that build a store: ``python -m benchmarks.encode [--json FILE]``.

Statistics, Lloyd levels (from as many rows as a build takes) and the encoder (codes, moments and the
anchor's gradients in double) on one float32 table, against a plain copy of the table in the same run; then
whole builds with ``QuantizedDataset.from_arrays`` in memory, levels, pilot and shuffle included. Figures are
10^9 values a second; a round runs every contestant once, so that the ratios survive a busy machine.
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
from torchext.data._column_levels import column_levels
from torchext.data.options import BuildOptions
from torchext.random import key_from_seed

PASSES = "both passes, nearest 4 anchor"
WHOLE = "from_arrays, nearest"
DEFAULT = "from_arrays, auto (default)"
CASES = (("nearest", 4), ("nearest", 2), ("nearest", 8), ("stochastic", 4), ("double", 4))


def encoder_runs(x: torch.Tensor, sample: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Contestants by name; each works on the whole table."""
    rows, cols = x.shape
    state = enc.new_stats(cols)
    enc.update_stats(x, state)
    mean, scale, bounds = enc.finish_stats(state)
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(rows, 1, generator=generator)
    x0 = torch.randn(1, cols, generator=generator) * 0.01
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

    runs: dict[str, Callable[[], Any]] = {
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
        WHOLE: {"sampling": "nearest"},
        "from_arrays, no anchor, no shuffle": {
            "sampling": "nearest",
            "anchor": "none",
            "shuffle": False,
        },
        DEFAULT: {},
    }
    for name, options in whole.items():
        runs[name] = lambda o=options: QuantizedDataset.from_arrays(  # type: ignore[misc]
            x, y, bits=4, random_state=0, **o
        )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=131072)
    parser.add_argument("--cols", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
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
    runs = encoder_runs(x, sample)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    passes = ("statistics", "lloyd 4 bits", "nearest 4 anchor")
    seconds[PASSES] = [sum(t) for t in zip(*(seconds[p] for p in passes), strict=True)]
    report: dict[str, Any] = {
        **machine(),
        **{k: v for k, v in vars(args).items() if k != "json"},
        "runs": {},
    }
    for name, times in seconds.items():
        speed = sorted(x.numel() / t / 1e9 for t in times)
        middle = statistics.median(speed)
        report["runs"][name] = {"gvalues_per_s": middle, "least": speed[0], "most": speed[-1]}
        print(f"{name:36s} {middle:7.3f} Gvalue/s  ({speed[0]:.3f} .. {speed[-1]:.3f})")
    print(
        f"\n{args.rows:,} x {args.cols:,} float32, 4 bits, {args.threads} thread(s), median of rounds"
    )
    for name in (PASSES, WHOLE, DEFAULT):
        middle = statistics.median(seconds[name])
        print(f"{name:36s} {middle:7.3f} s = {x.numel() / middle / 1e9:.3f} Gvalue/s")
    if args.json:
        import json

        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
