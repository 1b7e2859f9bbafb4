"""What all pictures share: plain axes without pyplot, byte labels, and writing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any


def figure(
    rows: int,
    cols: int,
    *,
    width: float,
    height: float,
    sharey: bool = False,
    widths: Sequence[float] | None = None,
    heights: Sequence[float] | None = None,
) -> Any:
    """A figure without pyplot, so that a library never changes the user's backend, with plain axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plots need matplotlib: pip install 'torchext-zipml[viz]'") from None
    picture = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(picture)
    ratios = {"width_ratios": widths, "height_ratios": heights}
    axes = picture.subplots(
        rows, cols, sharey=sharey, gridspec_kw={k: v for k, v in ratios.items() if v is not None}
    )
    for one in axes.flat if hasattr(axes, "flat") else [axes]:
        one.grid(True, which="major", color="#E6E6E6", linewidth=0.7)
        one.set_axisbelow(True)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return picture, axes


def byte_formatter() -> Any:
    """Axis labels in bytes with decimal units."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int) -> str:
        for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= unit:
                return f"{value / unit:.3g} {name}"
        return f"{value:.3g} B"

    return FuncFormatter(text)


def save(picture: Any, path: str | os.PathLike[str] | None) -> Any:
    """Write a picture if a path is given; returns it."""
    if path is not None:
        picture.savefig(os.fspath(path))
    return picture
