"""ZipML's claim measured: how many bits do optimal levels save?

ZipML (ICML 2017) reports that levels placed by its dynamic programme train with 3 bits as well as
uniform ones with 5, up to 1.7 times less data. This script computes, for data sets that ship with the
repository and two synthetic ones, where training on 2 to 6 bits ends with uniform levels, with optimal
levels per column, and with one optimal table for all columns; which number of uniform bits gives the
same loss; and by what factor optimal levels lower the variance of rounding.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import torchext
from torchext.viz import plot_bits, plot_levels
from training.linear import data, level_study
from training.linear.level_study import Point

EPILOG = """\
examples:
  python -m training.linear.optimal_levels                        # everything, a few minutes
  python -m training.linear.optimal_levels --data cadata --methods nearest --bits 2 4
  python -m training.linear.optimal_levels --rows 500 --seeds 1 --out /tmp/levels    # a quick look

How to read the tables. F/F* is the loss on the full-precision rows where training on the codes ends,
over the least possible one; 'indefinite' means that SGD would not end at all. "b bits" are 2^b levels, as
ZipML counts them; double sampling has 2^b + 1 and stores 2 bits more for its draws. In brackets: the
number of bits at which uniform levels reach the same loss, and how many times more bytes that is, draws
included. Nothing in brackets: uniform levels were better already with the fewest bits, or never as good.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m training.linear.optimal_levels",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = [*data.NAMES, *level_study.SYNTHETIC]
    p.add_argument("--data", nargs="+", choices=every, default=every, metavar="NAME",
                   help=f"data sets, of {', '.join(every)} (default: all)")  # fmt: skip
    p.add_argument("--methods", nargs="+", choices=list(level_study.METHODS), metavar="METHOD",
                   default=list(level_study.METHODS),
                   help=f"of {'; '.join(level_study.METHODS)} (default: all)")  # fmt: skip
    p.add_argument("--bits", nargs="+", type=int, choices=range(1, 9), default=[2, 3, 4, 5, 6],
                   metavar="B", help="bits, 1 to 8: 2^B levels (default 2 3 4 5 6)")  # fmt: skip
    p.add_argument("--seeds", type=int, default=5, metavar="N",
                   help="encodings with different draws; tables show the median (default 5)")  # fmt: skip
    p.add_argument("--rows", type=int, metavar="K", help="only the first K rows, for a quick look")
    p.add_argument("--out", type=Path, default=Path("levels-output"), metavar="DIR",
                   help="folder of tables and pictures (default levels-output)")  # fmt: skip
    return p


def counted(found: Iterable[Point], total: int) -> list[Point]:
    """All points, with a bar if somebody watches and tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        return list(found)
    return list(tqdm(found, total=total, unit="store", disable=not sys.stderr.isatty()))


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def loss_table(found: list[Point], name: str, bits: list[int]) -> str:
    """F/F* by method and levels, and the uniform bits that the optimal levels are worth."""
    methods = list(dict.fromkeys(p.method for p in found))
    rows = []
    for method in methods:
        for levels in level_study.LEVELS:
            row = [method, levels]
            for b in bits:
                value = level_study.excess(found, name, method, levels, b)
                known = any(p.method == method and p.bits == b for p in found)
                text = "-" if not known else "indefinite" if value is None else f"{1 + value:.5f}"
                if levels != "uniform" and value is not None:
                    text += equal_text(found, name, method, levels, b)
                row.append(text)
            rows.append(row)
    return markdown(["method", "levels", *(f"{b} bits" for b in bits)], rows)


def equal_text(found: list[Point], name: str, method: str, levels: str, bits: int) -> str:
    """Uniform bits of the same loss and the ratio of stored bits, in brackets."""
    same = level_study.equal_bits(found, name, method, levels, bits)
    if same is None:
        return ""
    draws = level_study.METHODS[method][2]
    return f" (= {same:.1f}, {(same + draws) / (bits + draws):.2f}x)"


def variance_table(bits: list[int]) -> str:
    """MV(uniform)/MV(optimal) of unbiased rounding."""
    rows = [
        [kind, *(f"{level_study.variance_ratio(kind, b):.2f}" for b in bits)]
        for kind in level_study.KINDS
    ]
    return markdown(["values", *(f"{b} bits" for b in bits)], rows)


def pictures(found: list[Point], names: list[str], bits: list[int], out: Path) -> None:
    """The levels under the data, and loss against bits."""
    values = torch.from_numpy(data.load("cadata")[0][:, 0])  # median income
    low, high = float(values.min()), float(values.max())
    tables = {
        "uniform": torch.linspace(low, high, 8, dtype=torch.float64),
        "optimal, nearest rounding": torchext.optimal_levels(values, 8, objective="nearest").levels,
        "optimal, unbiased rounding": torchext.optimal_levels(values, 8).levels,
    }
    plot_levels(values, tables, out / "optimal-levels.png", title="Eight levels for a skewed column",
                xlabel="median income (10,000 dollars), California housing")  # fmt: skip
    methods = [
        m
        for m in ("nearest", "corrected", "double, refreshed")
        if any(p.method == m for p in found)
    ]
    panels = {}
    for name in names:
        panels[name] = {
            (method, levels): [
                (b, value) for b in bits
                if (value := level_study.excess(found, name, method, levels, b)) is not None and value > 0
            ]
            for method in methods for levels in ("uniform", "optimal")
        }  # fmt: skip
    plot_bits(panels, out / "loss-bits.png", title="Where training on codes ends",
              xlabel="bits b: 2^b levels (double sampling: 2^b + 1, and 2 bits of draws)",
              ylabel="F/F* - 1 on the full-precision rows")  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Compute, print, write."""
    arguments: Any = parser().parse_args(argv)
    names, methods, bits = arguments.data, arguments.methods, sorted(set(arguments.bits))
    if arguments.seeds < 1 or (arguments.rows is not None and arguments.rows < 200):
        parser().error("--seeds must be at least 1 and --rows at least 200")
    arguments.out.mkdir(parents=True, exist_ok=True)
    wide = range(min(bits), 9)  # uniform levels also beyond, to find equal losses
    each = sum(
        len([b for b in (wide if kind == "uniform" else bits) if b <= level_study.METHODS[m][3]])
        for m in methods for kind in level_study.LEVELS
    )  # fmt: skip
    how = (arguments.seeds, arguments.rows)

    def run() -> Iterable[Point]:
        for name in names:
            yield from level_study.points([name], methods, ["uniform"], list(wide), *how)
            yield from level_study.points([name], methods, ["optimal", "shared"], bits, *how)

    found = counted(run(), each * len(names) * arguments.seeds)
    out = [
        f"Fixed points, median of {arguments.seeds} seeds, ridge 1e-3 of the mean diagonal in F and F*.\n"
    ]
    out += [f"**{name}**\n\n{loss_table(found, name, bits)}\n" for name in names]
    out += [f"Variance of unbiased rounding, uniform over optimal levels, 2,000 values, mean of 20 draws:\n\n"
            f"{variance_table([b for b in bits if b <= 6])}\n"]  # fmt: skip
    text = "\n".join(out)
    print(text)
    (arguments.out / "results.md").write_text(text)
    with open(arguments.out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(found[0])))
        writer.writeheader()
        writer.writerows(asdict(p) for p in found)
    pictures(found, names, bits, arguments.out)
    print(f"tables and pictures: {arguments.out}/")


if __name__ == "__main__":
    main()
