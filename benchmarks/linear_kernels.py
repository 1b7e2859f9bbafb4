"""Speed of the SGD kernels against the library's own float32 path: one epoch, interleaved, medians.

Codes are drawn directly (nothing is encoded), so that only the kernels are measured. The baseline is
the same epoch over float32 rows with the same batch and the same multi-stream prefetch; a ratio above 1
means that many times faster. Run from the repository root: python -m benchmarks.linear_kernels --help
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

import torchext
from torchext import _testing

Clock = Callable[[], float]
VARIANTS = {  # name: (bits, planes, books, affine)
    "4 tables": (4, 1, 1, False),
    "4 tables int16": (4, 2, 1, False),
    "4 affine": (4, 1, 1, True),
    "4 double": (4, 1, 2, False),
    "2 tables": (2, 1, 1, False),
    "2 tables int16": (2, 2, 1, False),
    "8 affine": (8, 1, 1, True),
    "8 tables int16": (8, 2, 1, False),
    "1 tables": (1, 1, 1, False),
    "3 tables": (3, 1, 1, False),
    "5 tables": (5, 1, 1, False),
    "6 tables": (6, 1, 1, False),
    "7 tables int16": (7, 2, 1, False),
    "2 affine": (2, 1, 1, True),
    "3 affine": (3, 1, 1, True),
    "5 affine": (5, 1, 1, True),
    "6 affine": (6, 1, 1, True),
    "7 affine": (7, 1, 1, True),
}


class Store:
    """Random codes of one variant and what the op takes with them."""

    def __init__(
        self, rows: int, cols: int, variant: tuple[int, int, int, bool], y: torch.Tensor
    ) -> None:
        self.rows, self.cols, self.y = rows, cols, y
        self.bits, planes, books, affine = variant
        n, g = cols, torch.Generator().manual_seed(1)
        size = rows // 64 * ((n + 3) // 4) * 32 * self.bits
        # a large random block over and over: cheap to make and too large for any cache
        block = torch.randint(0, 256, (min(size, 1 << 26) + 64,), dtype=torch.uint8, generator=g)
        self.codes = block.repeat(size // block.numel() + 1)[:size]
        top = (1 << self.bits) - 1 if affine else 255 if planes == 1 else 65535
        self.grid = torch.tensor([[-1.0, 2.0 / top]]).repeat(n, 1)
        shape = (planes, books, n, 1 << self.bits)
        self.table = torch.randint(
            0, 256, (0,) if affine else shape, dtype=torch.uint8, generator=g
        )

    def epoch(self, batch: int, threads: int, clock: Clock) -> float:
        return run(self, 8, batch, threads, clock)


class Dense:
    """The float32 baseline: rows of scaled values, padded to 16 columns."""

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols, self.bits = rows, cols, 32
        self.codes = torch.empty(rows, (cols + 15) // 16 * 16).uniform_(-1, 1)
        self.codes[:, cols:] = 0
        self.y = torch.randn(rows, 1)
        self.grid, self.table = torch.zeros(cols, 2), torch.zeros(0, dtype=torch.uint8)

    def epoch(self, batch: int, threads: int, clock: Clock) -> float:
        return run(self, 32, batch, threads, clock)


def run(data: Store | Dense, rounded: int, batch: int, threads: int, clock: Clock) -> float:
    """Seconds of one epoch in a random order of batches."""
    steps = data.rows // batch
    x, intercept = torch.zeros(1, data.cols), torch.zeros(1)
    order = torch.randperm(steps, generator=torch.Generator().manual_seed(3))
    gamma = torch.full((steps,), 0.3 / (1 + data.cols / batch), dtype=torch.float64)
    start = clock()
    torch.ops.torchext._sgd_epoch(
        data.codes, data.rows, data.cols, data.bits, "tile4", data.grid, data.table, data.y, None, None,
        x, intercept, None, None, None, None, order, gamma, batch, "squared_error", 0.0, 0.0, False, False,
        rounded, rounded, 0, torchext.random.key_from_seed(5), 0, threads,
    )  # fmt: skip
    seconds = clock() - start
    if not torch.isfinite(x).all():
        raise RuntimeError("the benchmark diverged: its step size is too large")
    return seconds


def measure(cols: int, args: argparse.Namespace) -> list[dict[str, object]]:
    rows = int(args.gib * 2**30 / 4 / cols) // args.batch * args.batch
    dense = Dense(rows, cols)
    data: dict[str, Store | Dense] = {"float32": dense}
    data |= {name: Store(rows, cols, VARIANTS[name], dense.y) for name in args.variants}
    teams = [1, args.threads] if args.threads > 1 else [1]
    # one thread alone: its own processor time, which a busy machine does not stretch; threads are
    # compared by the time that passes
    clock = time.perf_counter if args.threads > 1 else time.thread_time
    times: dict[tuple[str, int], list[float]] = {(name, t): [] for t in teams for name in data}
    for repeat in range(args.repeats + 1):
        for (
            name,
            threads,
        ), seconds in times.items():  # interleaved: the machine's mood hits all alike
            one = data[name].epoch(args.batch, threads, clock)
            if repeat:
                seconds.append(one)
    out: list[dict[str, object]] = []
    for (name, threads), seconds in times.items():
        ratios = sorted(b / s for b, s in zip(times["float32", threads], seconds, strict=True))
        speedup = statistics.median(a / b for a, b in zip(times[name, 1], seconds, strict=True))
        speed = rows * cols / statistics.median(seconds) * 1e-9
        ratio = statistics.median(ratios)
        out.append(
            {
                "cols": cols,
                "variant": name,
                "threads": threads,
                "ratio": ratio,
                "ratio_low": ratios[0],
                "ratio_high": ratios[-1],
                "gvalues_per_s": speed,
                "thread_speedup": speedup,
            }
        )
        print(
            f"n={cols:5d} threads={threads} {name:15s} x{ratio:5.2f} [{ratios[0]:5.2f}, {ratios[-1]:5.2f}]"
            f" {speed:6.2f} Gvalue/s, x{speedup:.2f} of one thread",
            flush=True,
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cols", type=int, nargs="+", default=[256, 1024, 4096], help="numbers of columns"
    )
    parser.add_argument("--gib", type=float, default=1.0, help="size of the data set at float32")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="also measure this many threads")
    parser.add_argument("--isa", choices=_testing.ISAS, help="lower the instruction set")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=["4 tables", "4 tables int16", "2 tables"],
    )
    parser.add_argument("--json", help="write the results here")
    args = parser.parse_args()
    if args.isa and not _testing.force_isa(args.isa):
        parser.error(f"this processor has no {args.isa}")
    report = {
        "isa": torchext.cpu_isa(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "torchext": torchext.__version__,
        "batch": args.batch,
        "gib_float32": args.gib,
        "results": [r for cols in args.cols for r in measure(cols, args)],
    }
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
