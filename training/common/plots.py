"""Curves of a comparison: the mean over seeds, and the range as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.common.runs import RunError

#: Colour by kind of method (Okabe and Ito), line by bits.
COLOURS = {
    "sgd": "#222222", "momentum": "#999999", "svrg": "#0072B2", "lp-sgd": "#D55E00", "lp-svrg": "#E69F00",
    "halp": "#009E73", "bit-centred": "#CC79A7", "lm-halp": "#56B4E9", "lm-svrg": "#0072B2",
}  # fmt: skip
LINES: dict[int, Any] = {4: ":", 6: (0, (3, 1, 1, 1)), 8: "-", 16: "--", 32: "-"}

#: x and y values of one run.
Curve = tuple[Sequence[float], Sequence[float]]


class Panel:
    """One pair of axes: curves by name of the method, one per seed."""

    def __init__(
        self,
        curves: Mapping[str, Sequence[Curve]],
        xlabel: str,
        ylabel: str,
        title: str = "",
        log: bool = True,
        log_x: bool = False,
        points: bool = False,
    ) -> None:
        self.curves, self.xlabel, self.ylabel, self.title = curves, xlabel, ylabel, title
        self.log, self.log_x, self.points = log, log_x, points

    def draw(self, axes: Any) -> None:
        """Into matplotlib's axes."""
        for name, runs in self.curves.items():
            kind, _, bits = name.rpartition("-")
            if not bits.isdigit():
                kind, bits = name, "32"
            style = {"color": COLOURS.get(kind, "#000000"), "ls": LINES.get(int(bits), "-")}
            if self.points:
                style |= {"marker": "o", "ms": 4}
            length = min(len(y) for _, y in runs)
            x = np.asarray(runs[0][0][:length])
            y = np.array([run[1][:length] for run in runs])
            axes.plot(x, y.mean(0), label=name, lw=1.6, **style)
            if len(runs) > 1:
                axes.fill_between(x, y.min(0), y.max(0), color=style["color"], alpha=0.12, lw=0)
        if self.log:
            axes.set_yscale("log")
        if self.log_x:
            axes.set_xscale("log")
        axes.set(xlabel=self.xlabel, ylabel=self.ylabel, title=self.title)
        axes.grid(alpha=0.25)


def figure_class() -> Any:
    """matplotlib's Figure.

    Raises:
        RunError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RunError("--plot needs matplotlib: pip install matplotlib") from None
    return Figure


def draw(path: Path, title: str, panels: Sequence[Panel], footnote: str = "") -> None:
    """Panels side by side over one legend, written to ``path`` (PNG, SVG, PDF)."""
    figure = figure_class()(figsize=(1.2 + 4.6 * len(panels), 4.9), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        panel.draw(axes)
    handles: dict[str, Any] = {}
    for axes in all_axes:
        handles |= {
            str(label): h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    columns = min(len(handles), 3 * len(panels) + 1)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    figure.suptitle(title)
    if footnote:
        all_axes[0].annotate(
            footnote, (0, -0.17), xycoords="axes fraction", fontsize=7, va="top", color="#555555"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
