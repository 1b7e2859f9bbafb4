"""Plots of levels: under the density of the data, and what bits buy with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from torchext._figures import figure, save

#: Colour per kind of levels (Okabe and Ito); others are taken in turn.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
STYLES: Sequence[Any] = ("-", (0, (5, 1.5, 1, 1.5)), "--", (0, (1, 1.2)))


def plot_levels(
    values: Tensor,
    tables: Mapping[str, Tensor],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    xlabel: str = "value",
    bins: int = 200,
) -> Any:
    """Density of the data with rows of level ticks under it.

    Args:
        values: the data, any shape, finite.
        tables: levels by name, one row of ticks each; levels beyond the data are not drawn.
        path: file to write (PNG, PDF or SVG by its ending); None writes nothing.
        title, xlabel: texts.
        bins: of the histogram.

    Returns:
        the ``matplotlib.figure.Figure``.
    """
    picture, (top, bottom) = figure(
        2, 1, width=9.0, height=4.4, heights=(3.0, 0.42 * len(tables) + 0.1)
    )
    x = values.detach().double().reshape(-1).numpy()
    top.hist(x, bins=bins, density=True, color="#BBBBBB")
    top.set_ylabel("density of the data")
    top.tick_params(labelbottom=False)
    for row, (name, levels) in enumerate(tables.items()):
        q = np.unique(levels.detach().double().numpy())
        colour = COLOURS[row % len(COLOURS)]
        bottom.vlines(q, -row - 0.35, -row + 0.35, color=colour, linewidth=2.0)
        bottom.text(1.01, -row, name, transform=bottom.get_yaxis_transform(), va="center", fontsize=9,
                    color=colour)  # fmt: skip
    bottom.set_ylim(-len(tables) + 0.4, 0.6)
    bottom.set_yticks([])
    bottom.set_xlabel(xlabel)
    bottom.set_xlim(top.get_xlim())
    picture.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    picture.subplots_adjust(left=0.08, right=0.76, top=0.90, bottom=0.13, hspace=0.08)
    return save(picture, path)


def plot_bits(
    panels: Mapping[str, Mapping[tuple[str, str], Sequence[tuple[float, float]]]],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    xlabel: str = "bits per value",
    ylabel: str = "excess loss",
) -> Any:
    """Loss against bits, one panel per data set, logarithmic.

    Args:
        panels: by data set, curves by (method, levels): points (bits, positive loss). Methods differ in line
            style, levels in colour.
        path: file to write; None writes nothing.
        title, xlabel, ylabel: texts.

    Returns:
        the ``matplotlib.figure.Figure``.
    """
    names = list(panels)
    picture, axes = figure(1, len(names), width=3.2 * len(names) + 1.2, height=4.4)
    axes = np.atleast_1d(axes)
    keys = list(dict.fromkeys(key for curves in panels.values() for key in curves))
    methods, kinds = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    lines: dict[str, Any] = {}
    for one, name in zip(axes, names, strict=True):
        for (method, levels), points in panels[name].items():
            (line,) = one.plot(
                [b for b, _ in points],
                [loss for _, loss in points],
                color=COLOURS[kinds.index(levels) % len(COLOURS)],
                linestyle=STYLES[methods.index(method) % len(STYLES)],
                linewidth=1.8,
                marker="o",
                markersize=3.5,
            )
            lines.setdefault(f"{method}, {levels} levels", line)
        one.set_yscale("log")
        one.set_title(name, fontsize=10)
        one.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel(ylabel)
    picture.legend(list(lines.values()), list(lines), loc="lower center", ncol=min(3, max(1, len(lines))),
                   fontsize=8.5, frameon=False, handlelength=3.2)  # fmt: skip
    rows = -(-len(lines) // 3)
    picture.text(0.5, 0.055 + 0.05 * rows, xlabel, ha="center", fontsize=10)
    picture.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    left, bottom = 0.8 / picture.get_figwidth(), 0.17 + 0.05 * rows
    picture.subplots_adjust(left=left, right=0.98, top=0.86, bottom=bottom, wspace=0.28)
    return save(picture, path)
