"""``python -m benchmarks.plot RESULT.json OUT.png``: bars of training speed from ``benchmarks.linear``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = {
    "32": "#222222",
    "4": "#0072B2",
    "2": "#D55E00",
    "torch": "#999999",
    "scikit-learn": "#CCCCCC",
}


def plot(facts: dict[str, Any], path: Path) -> None:
    """Values per second of every contestant (log axis), with the ratio to our own float32 path."""
    from torchext.viz import _figure

    blocks = facts["epochs"]
    figure, panels = _figure(
        1, max(2, len(blocks)), width=4.2 * max(2, len(blocks)), height=4.2, sharey=True
    )
    for axes, block in zip(panels, blocks, strict=False):
        rows = block["rows_of_table"]
        for i, row in enumerate(rows):
            colour = COLOURS[row["name"].split()[0]]
            faded = 0.55 if "2 threads" in row["name"] else 1.0
            axes.bar(i, row["gvalues_per_second"], color=colour, alpha=faded, width=0.75)
            ratio = row["against_float32_1"]["median"]
            axes.text(i, row["gvalues_per_second"] * 1.06, f"{ratio:.2g}x", ha="center", fontsize=8)
        axes.set_xticks(
            range(len(rows)), [r["name"] for r in rows], rotation=40, ha="right", fontsize=8
        )
        axes.set_yscale("log")
        axes.set_title(f"n = {block['cols']:,}", fontsize=10, loc="left")
    for axes in panels[len(blocks) :]:
        axes.axis("off")
    panels[0].set_ylabel("1e9 values per second in an epoch")
    m = facts["machine"]
    figure.suptitle(
        f"SGD epochs, batch {facts['batch']}; labels: times our float32, one thread",
        x=0.02,
        ha="left",
        fontsize=11,
    )
    figure.text(
        0.02,
        0.01,
        f"{m['processor']}, {m['isa']}, torch {m['torch']}, {m['date']}; python -m benchmarks.linear",
        fontsize=7,
    )
    figure.subplots_adjust(left=0.06, right=0.99, top=0.87, bottom=0.27, wspace=0.05)
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    plot(json.loads(a.result.read_text()), a.out)


if __name__ == "__main__":
    main()
