"""Plots of training runs: loss against epochs, bytes and bits, the report of one run, levels under data.

Every function returns a matplotlib ``Figure`` and writes it when ``path`` is given. Matplotlib is
imported inside the functions and never touches the global state of ``pyplot``; it comes with the
extra ``torchext-zipml[viz]``.

A picture must not hide what it compares: runs are grouped by bits (one colour each), nearest
rounding and float32 stay visible as thin grey-edged references, and byte axes count all draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torchext._figures import byte_formatter, figure, save
from torchext._level_plots import plot_bits, plot_levels

__all__ = ["Run", "plot_bits", "plot_levels", "plot_report", "plot_runs", "run_of"]

#: One colour per number of bits, distinguishable for colour-blind readers (Okabe and Ito).
BIT_COLOURS = {
    1: "#CC79A7",
    2: "#D55E00",
    3: "#E69F00",
    4: "#0072B2",
    6: "#56B4E9",
    8: "#009E73",
    16: "#56B4E9",
    32: "#222222",
}
#: Line style per method; anything else is drawn solid.
METHOD_STYLES: dict[str, Any] = {
    "nearest": (0, (1, 1.2)),
    "stochastic": (0, (3, 1, 1, 1)),
    "double": "--",
    "corrected": (0, (5, 1.5, 1, 1.5)),
    "anchored": "-",
    "float32": "-",
}


@dataclass(frozen=True)
class Run:
    """One curve.

    Attributes:
        label: name of the curve in the legend.
        losses: loss after every epoch; what kind of loss is said by the axis.
        bytes_per_epoch: bytes of data read in an epoch, all draws counted.
        bits: bits per value, 32 for float32 rows; chooses the colour.
        method: ``"nearest"``, ``"double"``, ``"corrected"``, ``"anchored"``, ``"float32"``; chooses the line.
        start: loss before the first epoch (at x = 0, or at the anchor), drawn at epoch 0.
    """

    label: str
    losses: Sequence[float]
    bytes_per_epoch: float
    bits: int
    method: str = "anchored"
    start: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def points(self) -> tuple[list[float], list[float]]:
        """Epochs (with 0 if the start is known) and losses."""
        first = 1 if self.start is None else 0
        values = [*([] if self.start is None else [self.start]), *self.losses]
        return [float(e) for e in range(first, first + len(values))], list(values)


def run_of(estimator: Any, label: str | None = None) -> Run:
    """The :class:`Run` of a fitted SGD estimator: its ``loss_curve_`` (measured on the codes)."""
    report = estimator.report_
    bits = int(report["bits_per_value"])
    anchored = report["anchor"] != "none"
    method = "float32" if bits == 32 else ("anchored" if anchored else str(report["sampling"]))
    return Run(
        label=label or f"{bits} bits, {report['sampling']}{', anchored' if anchored else ''}",
        losses=list(estimator.loss_curve_),
        bytes_per_epoch=float(report["bytes_per_epoch"]),
        bits=bits,
        method=method,
        start=report["loss_at_anchor"] if anchored else report["loss_at_zero"],
    )


def plot_runs(
    runs: Iterable[Run],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
    ylabel: str = "training loss on the codes",
    log: bool = True,
    footnote: str = "",
    levels: Sequence[tuple[float, str]] = (),
) -> Any:
    """Two panels over the same losses: against epochs, and against bytes of data read.

    Args:
        runs: the curves; runs of equal bits share a colour, runs of equal method a line style.
        path: file to write (PNG, PDF or SVG by its ending); None writes nothing.
        title: heading above both panels.
        ylabel: what the loss is; say whether it is on the codes or on the full-precision rows.
        log: logarithmic loss axis.
        footnote: small text below, for the settings that a reader needs to repeat the run.
        levels: horizontal reference lines (loss, name).

    Returns:
        the ``matplotlib.figure.Figure``.
    """
    picture, (left, right) = figure(1, 2, width=11.0, height=4.6, sharey=True)
    shown = list(runs)
    for run in shown:
        epochs, losses = run.points()
        style = {
            "color": BIT_COLOURS.get(run.bits, "#666666"),
            "linestyle": METHOD_STYLES.get(run.method, "-"),
            "linewidth": 2.2 if run.method in ("anchored", "float32") else 1.4,
            "label": run.label,
        }
        left.plot(epochs, losses, **style)
        # The byte axis is logarithmic: epoch 0 has read nothing and cannot be on it.
        passes = [(e, loss) for e, loss in zip(epochs, losses, strict=True) if e > 0]
        right.plot(
            [e * run.bytes_per_epoch for e, _ in passes], [loss for _, loss in passes], **style
        )
    for value, name in levels:
        for axes in (left, right):
            axes.axhline(value, color="#999999", linewidth=0.8, zorder=0)
        right.text(
            1.0,
            value,
            f" {name}",
            transform=right.get_yaxis_transform(),
            fontsize=8,
            va="center",
            color="#666666",
        )
    left.set_xlabel("epochs")
    right.set_xlabel("data bytes read (all draws counted)")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(byte_formatter())
    right.xaxis.set_minor_formatter("")
    left.set_ylabel(ylabel)
    if log:
        left.set_yscale("log")
    handles, labels = left.get_legend_handles_labels()
    rows = -(-len(labels) // 4)
    picture.legend(
        handles,
        labels,
        loc="lower center",
        ncol=min(4, max(1, len(labels))),
        fontsize=8.5,
        frameon=False,
    )
    picture.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    bottom = 0.14 + 0.045 * rows + 0.035 * (1 + footnote.count("\n") if footnote else 0)
    if footnote:
        picture.text(
            0.02, 0.045 * rows + 0.03, footnote, fontsize=7.5, color="#666666", va="bottom"
        )
    picture.subplots_adjust(left=0.075, right=0.97, top=0.90, bottom=bottom, wspace=0.06)
    return save(picture, path)


def plot_report(
    estimator: Any, path: str | os.PathLike[str] | None = None, *, title: str = ""
) -> Any:
    """One run with the facts needed to judge it: the curve on the left, its report on the right.

    Args:
        estimator: a fitted SGD estimator (``loss_curve_`` and ``report_``).
        path: file to write; None writes nothing.
        title: heading; the estimator's name if empty.
    """
    report = estimator.report_
    run = replace(
        run_of(estimator), start=None
    )  # the loss at the start is known only without the penalty
    picture, (axes, text) = figure(1, 2, width=11.0, height=4.6, widths=(1.15, 1.0))
    epochs, losses = run.points()
    colour = BIT_COLOURS.get(run.bits, "#666666")
    axes.plot(
        epochs,
        losses,
        color=colour,
        linewidth=2.0,
        marker="o",
        markersize=3,
        label="loss on the codes, with penalty",
    )
    if report["loss_at_anchor"] is not None:
        axes.axhline(
            report["loss_at_anchor"],
            color="#999999",
            linewidth=0.9,
            linestyle="--",
            label="at the anchor x0, without penalty",
        )
    valid = list(getattr(estimator, "validation_loss_curve_", []) or [])
    if valid:
        axes.plot(
            range(1, len(valid) + 1),
            valid,
            color="#CC79A7",
            linewidth=1.4,
            label="validation loss, full precision",
        )
    axes.set_xlabel("epochs")
    axes.set_ylabel("mean loss")
    if min(losses) > 0 and max(losses) / min(losses) > 5:
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9)
    upper = axes.secondary_xaxis(
        "top", functions=(lambda e: e * run.bytes_per_epoch, lambda b: b / run.bytes_per_epoch)
    )
    upper.xaxis.set_major_formatter(byte_formatter())
    upper.set_xlabel("data bytes read (all draws counted)", fontsize=9)
    upper.tick_params(labelsize=8)
    text.axis("off")
    text.text(
        0.0,
        1.0,
        _wrapped(str(report), 62),
        va="top",
        ha="left",
        fontsize=8.2,
        family="monospace",
        linespacing=1.45,
    )
    picture.suptitle(
        title or type(estimator).__name__, x=0.02, ha="left", fontsize=12, fontweight="bold"
    )
    picture.subplots_adjust(left=0.075, right=0.985, top=0.80, bottom=0.12, wspace=0.08)
    return save(picture, path)


def must_be_picture(path: str | os.PathLike[str]) -> None:
    """A ValueError unless the ending of ``path`` names a format that figures can be written in."""
    picture, _ = figure(1, 2, width=1.0, height=1.0)
    formats = sorted(picture.canvas.get_supported_filetypes())
    ending = os.path.splitext(os.fspath(path))[1][1:].lower()
    if ending not in formats:
        raise ValueError(f"{path}: the ending must be one of {', '.join(formats)}, got {ending!r}")


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ") for line in text.splitlines()
    )
