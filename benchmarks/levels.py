"""Speed and quality of the level solvers: ``python -m benchmarks.levels [--quick] [--json FILE]``.

All solvers run on the same data in one process and take turns; a figure is the ratio to our own SMAWK
in the same run (``method="smawk"``: std::sort unless the values are sorted, plain double sums, one
allocation, the last layer as one row), from medians of processor seconds of one thread. `sorted` feeds
ascending values, `unsorted` shuffled ones, for which std::sort is added to the baseline.
Costs of the approximate methods are divided by the optimum. `evals/value`, `rounds` and `blocks` (interval
bounds evaluated, rounds of pruning, most blocks held at a time: of `exact sorted`) are the same on any
machine. The bars that the solvers are held to come last, each with met or NOT MET.
"""

from __future__ import annotations

import argparse
import gc
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchext
from benchmarks._bench import machine, write
from torchext import _testing

DATA: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda g, n: g.normal(size=n),
    "lognormal": lambda g, n: np.exp(g.normal(size=n)),
    "uniform": lambda g, n: g.uniform(size=n),
    "t3": lambda g, n: g.standard_t(3, size=n),
    "laplace": lambda g, n: g.laplace(size=n),
    "cauchy": lambda g, n: g.standard_cauchy(size=n),
    "90% zeros": lambda g, n: g.normal(size=n) * (g.uniform(size=n) < 0.1),
    "10 clusters": lambda g, n: g.integers(10, size=n) + 1e-3 * g.normal(size=n),
    "256 integers": lambda g, n: g.integers(256, size=n).astype(float),
}
#: What a solver might stumble over; `--adversarial`.
ADVERSARIAL: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "constant": lambda g, n: np.full(n, 7.5),
    "two values": lambda g, n: np.where(g.uniform(size=n) < 0.5, -1.5, 2.25),
    "8 values": lambda g, n: g.integers(8, size=n).astype(float),
    "outliers": lambda g, n: g.normal(size=n) * np.where(g.uniform(size=n) < 1e-3, 1e6, 1),
    "mean 1e6": lambda g, n: 1e6 + g.normal(size=n),
    "ascending": lambda g, n: np.sort(g.normal(size=n)),
    "descending": lambda g, n: -np.sort(g.normal(size=n)),
    "subnormal": lambda g, n: 1e-40 * g.normal(size=n),
    "all integers": lambda g, n: g.permutation(n).astype(float),
}
FIVE = ("normal", "lognormal", "t3", "laplace", "90% zeros")


def draw(name: str, n: int) -> torch.Tensor:
    return torch.from_numpy(
        (DATA | ADVERSARIAL)[name](np.random.default_rng(42), n).astype(np.float32)
    )


def take_turns(
    runs: dict[str, Callable[[], Any]], rounds: int, slow: float = 2.0, least: float = 0.01
) -> dict[str, float]:
    """Median processor seconds of each; what takes over ``slow`` seconds runs at most three times.

    A turn repeats its contestant until ``least`` seconds have passed and counts the mean: a single short call
    would be timed with the caches, and the clock of the memory, as the one before left them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    for turn in range(rounds):
        for name, run in runs.items():
            if turn >= 3 and seconds[name][0] > slow:
                continue
            begin = time.thread_time()
            calls, passed = 0, 0.0
            while passed < least:
                run()
                calls, passed = calls + 1, time.thread_time() - begin
            seconds[name].append(passed / calls)
    return {name: statistics.median(times) for name, times in seconds.items()}


class Bars:
    """The requirements, each with what was measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, bar: str, case: str, value: float, limit: float, least: bool = True) -> None:
        met = value >= limit if least else value <= limit
        self.rows.append(dict(bar=bar, case=case, value=value, limit=limit, least=least, met=met))

    def show(self) -> None:
        print("\nbars")
        for r in self.rows:
            sign, verdict = ">=" if r["least"] else "<=", "met" if r["met"] else "NOT MET"
            print(
                f"  {r['bar']:8s} {r['case']:42s} {r['value']:9.4g} {sign} {r['limit']:<6g} {verdict}"
            )


def gap(found: torchext.OptimalLevels) -> float:
    """How far below the cost the proved bound is, relative."""
    return 1 - found.lower_bound.item() / found.cost.item() if found.cost > 0 else 0.0


def cost_again(x: torch.Tensor, levels: torch.Tensor, objective: str) -> float:
    """The cost, added up value by value; scaled, as squares of subnormal values vanish."""
    scale = 2.0 ** math.floor(math.log2(max(x.abs().max().item(), 1e-300)))
    found = torchext.rounding_error(x / scale, levels.double() / scale, rounding=objective)
    return (found.variance + found.bias2).item() * scale**2


def single(name: str, n: int, s: int, objective: str, rounds: int) -> dict[str, Any]:
    """All methods on one tensor; seconds, ratios and costs."""
    x = draw(name, n)
    ascending = x.sort().values
    wide = ascending.double()

    def run(v: torch.Tensor, method: str, s: int = s) -> Callable[[], Any]:
        return lambda: torchext.optimal_levels(v, s, objective=objective, method=method)

    runs = {
        "smawk": run(wide, "smawk"),
        # Two levels need no row minima: the difference of these two is std::sort.
        "prepare": run(wide, "smawk", 2),
        "sort and prepare": run(x.double(), "smawk", 2),
        "dnc": run(wide, "dnc"),
        "exact sorted": run(ascending, "exact"),
        "exact sorted f64": run(wide, "exact"),
        "exact unsorted": run(x, "exact"),
        "hist": run(x, "hist"),
    }
    if objective == "stochastic":
        runs["adaquant"] = run(wide, "adaquant")
    seconds = take_turns(runs, rounds)
    best = torchext.optimal_levels(x, s, objective=objective)
    again = cost_again(wide, best.levels, objective)
    row: dict[str, Any] = {
        "data": name, "values": n, "levels": s, "objective": objective, "seconds": seconds,
        "certified": bool(best.certified), "gap": gap(best),
        "cost / value by value": best.cost.item() / again if again > 0 else 1.0,
        "work": {
            solver: _testing.levels_work(v, s, objective, method)
            for solver, v, method in (
                ("dnc", wide, "dnc"), ("exact sorted", ascending, "exact"),
                ("exact sorted f64", wide, "exact"), ("hist", x, "hist"),
            )
        },
        "vnmse": best.cost.item() / max(wide.square().sum().item(), 1e-300),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    for method in ("hist", "adaquant")[: 2 if objective == "stochastic" else 1]:
        found = torchext.optimal_levels(x, s, objective=objective, method=method)
        row[f"{method} / optimum"] = found.cost.item() / best.cost.item() if best.cost > 0 else 1.0
        if method == "hist":
            row["hist gap"] = gap(found)
    base, sort = seconds["smawk"], seconds["sort and prepare"] - seconds["prepare"]
    row["ratios"] = {
        k: (base + (sort if k == "exact unsorted" else 0)) / t for k, t in seconds.items()
    }
    row["sort / hist"] = sort / seconds["hist"]
    return row


def table(rows: list[dict[str, Any]]) -> None:
    names = ("dnc", "exact sorted", "exact sorted f64", "exact unsorted")
    print(
        f"{'data':14s}{'values':>9s}{'s':>4s} {'objective':11s}{'SMAWK ms':>9s}"
        + "".join(f"{n + ' x':>19s}" for n in names)
        + f"{'evals/value':>12s}{'rounds':>7s}{'blocks':>8s}"
        + f"{'hist ms':>9s}{'sort/hist':>10s}{'hist/opt-1':>11s}{'gap':>9s}{'adaq/opt':>9s}{'vNMSE':>10s}"
    )
    for r in rows:
        adaquant, work = r.get("adaquant / optimum"), r["work"]["exact sorted"]
        print(
            f"{r['data']:14s}{r['values']:9d}{r['levels']:4d} {r['objective']:11s}"
            f"{1e3 * r['seconds']['smawk']:9.3g}"
            + "".join(f"{r['ratios'][n]:19.3g}" for n in names)
            + f"{work['evaluations'] / r['values']:12.3g}{work['rounds']:7d}{work['blocks']:8d}"
            f"{1e3 * r['seconds']['hist']:9.3g}{r['sort / hist']:10.3g}{r['hist / optimum'] - 1:11.2g}"
            f"{r['hist gap']:9.2g}{adaquant or float('nan'):9.3g}{r['vnmse']:10.4g}"
            + ("" if r["certified"] else "  NOT CERTIFIED")
        )


def batch(bars: Bars, rounds: int) -> list[dict[str, Any]]:
    """Many buckets of 512 values, 16 levels, per instruction set."""
    found = []
    x = torch.randn(1024, 512, generator=torch.Generator().manual_seed(42))
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if not there:
                continue
            seconds = take_turns(
                {
                    m: lambda m=m: torchext.optimal_levels(x, 16, dim=0, method=m)  # type: ignore[misc]
                    for m in ("exact", "smawk")
                },
                rounds,
            )
        each = {m: t / len(x) * 1e6 for m, t in seconds.items()}
        print(
            f"buckets of 512, s = 16, {isa:7s} exact {each['exact']:6.1f} us, SMAWK {each['smawk']:6.1f} us, "
            f"ratio {each['smawk'] / each['exact']:.2f}"
        )
        if isa in ("ref", "avx512"):
            ratio, most = (10.0, 50.0) if isa == "avx512" else (3.0, 165.0)
            bars.add("B4", f"{isa}: SMAWK / exact per bucket", each["smawk"] / each["exact"], ratio)
            bars.add("B4", f"{isa}: us per bucket", each["exact"], most, least=False)
        found.append({"isa": isa, "us": each})
    columns = torch.randn(20_000, 1024, generator=torch.Generator().manual_seed(42))
    t = take_turns({"columns": lambda: torchext.optimal_levels(columns, 16, dim=1)}, 3)["columns"]
    bars.add("columns", "20,000 x 1,024, 16 levels, seconds", t, 2.0, least=False)
    return found


def judge(rows: list[dict[str, Any]], bars: Bars) -> None:
    """The bars of single tensors, from the rows of 2**20 values, and B5 from all."""
    for r in rows:
        name, s, big = r["data"], r["levels"], r["values"] == 2**20
        case = f"{name}, s = {s}"
        if r["objective"] == "nearest":
            if big and name == "normal" and s == 16:
                bars.add("nearest", f"{case}: SMAWK / exact", r["ratios"]["exact sorted"], 3)
        elif big and name in ("normal", "lognormal"):
            limit = {4: 12, 8: 30, 16: 50, 32: 40}[s]
            for kind in ("exact sorted", "exact sorted f64"):
                bars.add("B1", f"{case}, {kind}", r["ratios"][kind], limit)
            if s == 16:
                bars.add(
                    "B2", f"{case}: (std::sort + SMAWK) / exact", r["ratios"]["exact unsorted"], 30
                )
        if r["objective"] == "stochastic" and big and name in FIVE:
            bars.add("B3", f"{case}: hist / optimum", r["hist / optimum"], 1.001, least=False)
            bars.add("B3", f"{case}: std::sort / hist", r["sort / hist"], 12 if s <= 16 else 6)
    for objective in ("stochastic", "nearest"):
        some = [r for r in rows if r["objective"] == objective]
        kinds = ("exact sorted", "exact sorted f64", "exact unsorted")
        if some:
            worst, at = max(
                (1 / r["ratios"][k], (r["data"], r["values"], r["levels"], k))
                for r in some
                for k in kinds
            )
            label = "B5" if objective == "stochastic" else "B5 near."
            bars.add(label, f"slowest against SMAWK: {at}", worst, 1.2, least=False)
            bars.add(
                label,
                "certified, share of all cases",
                sum(r["certified"] for r in some) / len(some),
                1.0,
            )
            off = max(abs(r["cost / value by value"] - 1) for r in some)
            bars.add(label, "cost, against its terms value by value", off, 1e-9, least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2**16 and 2**20 values, fewer rounds")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[12, 16, 20, 22], help="log2 of the values"
    )
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument(
        "--adversarial",
        action="store_true",
        help=f"these data instead: {', '.join(ADVERSARIAL)}",
    )
    parser.add_argument(
        "--levels", type=int, nargs="+", choices=[4, 8, 16, 32], default=[4, 8, 16, 32]
    )
    parser.add_argument("--objectives", nargs="+", default=["stochastic", "nearest"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.rounds = [16, 20], 3
    if args.adversarial:
        args.data = list(ADVERSARIAL)
    torch.set_num_threads(1)
    bars, rows = Bars(), []
    for objective in args.objectives:
        for size in args.sizes:
            for name in args.data:
                some = [single(name, 2**size, s, objective, args.rounds) for s in args.levels]
                table(some)
                sys.stdout.flush()
                rows += some
    judge(rows, bars)
    buckets = batch(bars, args.rounds)
    bars.show()
    write(args.json, {**machine(), "rows": rows, "batch": buckets, "bars": bars.rows})


if __name__ == "__main__":
    main()
