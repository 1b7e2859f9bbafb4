"""What a user may choose when a store is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from torchext.data._levels import level_kind
from torchext.data.progress import Report
from torchext.random import key as fresh_key
from torchext.random import key_from_seed

SAMPLINGS = ("auto", "nearest", "stochastic", "corrected", "double")
LAYOUTS = ("auto", "tile4", "block", "row")
MAX_LEVEL_ROWS = 1 << 23  # what the kernel's counts hold
LEVELS = ("auto", "optimal", "shared", "lloyd", "uniform", "symmetric")


class BuildOptions(TypedDict, total=False):
    """Keyword arguments shared by all ways to build a store; see :class:`Options`."""

    bits: int
    sampling: str
    levels: Any
    anchor: str | int
    loss: str
    copies: int
    layout: str
    shuffle: bool
    random_state: Any
    path: str | Path | None
    task: str
    alpha: float
    scale: str
    progress: bool | Report | None
    folder: str | Path | None
    level_rows: int | str | None


@dataclass(frozen=True)
class Options:
    """How a store is built.

    Attributes:
        bits: total bits per value, all draws counted: 1..8, 16 (uniform levels, nearest or stochastic),
            or 32: scaled float32 values in memory, the full-precision baseline.
        sampling: ``"nearest"``; ``"stochastic"`` (one draw, biased on its own, kept as a baseline);
            ``"corrected"`` (one draw whose known noise training subtracts); ``"double"`` (two draws,
            2 of the bits); ``"auto"``: nearest or corrected, whichever is better on a pilot.
        levels: ``"optimal"``: of least squared error for nearest, of least variance for stochastic
            rounding, per column; ``"shared"``: the same from the values of all columns together, one
            table stretched to the range of each; ``"lloyd"``; ``"uniform"``; ``"symmetric"`` (one grid of
            2^bits - 1 levels around 0 for all columns); an array [n, levels] of ascending scaled values;
            or ``"auto"``: optimal up to 5 bits and for double sampling, uniform for codes of more bits,
            which then need no table (6 bits, nearest: Lloyd).
        anchor: ``"pilot"``: exact gradient at the fit x0 of a few thousand random rows; ``"none"``.
        loss: ``"squared_error"`` or ``"log_loss"``: what x0 minimises.
        copies: independent draws of all codes.
        layout: ``"tile4"`` (``"auto"``), ``"block"`` or ``"row"``.
        shuffle: rows in random order, the same for the same key.
        random_state: seed, key tensor, numpy random state or None (fresh).
        path: file to write; None keeps the codes in memory.
        task: ``"auto"``, ``"regression"`` or ``"classification"``.
        alpha: ridge (mean loss + alpha/2 ||x||^2 on scaled coefficients) of the pilot fits.
        scale: ``"max"``: (x - mean)/max|x - mean|; ``"none"``: values as they are. (``"std"`` scales
            the model, not the codes: an option of the estimators.)
        progress: None, bool or ``report(stage, done, total)``.
        folder: where temporary files go; default: beside ``path``, or the system's folder.
        level_rows: random rows from which levels are computed, at most 2^23; None: 32,768 up to
            5 bits, else 65,536. With as many as there are rows all of them count; ``"all"``: all, however
            many, in one more pass over the source. ``pilot`` and ``info()`` tell what the sample cost
            (``level_error``). ``levels="shared"`` takes a million values at most.
    """

    bits: int = 4
    sampling: str = "auto"
    levels: Any = "auto"
    anchor: str | int = "pilot"
    loss: str = "squared_error"
    copies: int = 1
    layout: str = "auto"
    shuffle: bool = True
    random_state: Any = None
    path: str | Path | None = None
    task: str = "auto"
    alpha: float = 0.0
    scale: str = "max"
    progress: bool | Report | None = None
    folder: str | Path | None = None
    level_rows: int | str | None = None

    def __post_init__(self) -> None:
        if self.bits not in (*range(1, 9), 16, 32):
            raise ValueError(f"bits must be 1..8, 16 or 32, got {self.bits!r}")
        for name, allowed in (
            ("sampling", SAMPLINGS),
            ("layout", LAYOUTS),
            ("scale", ("max", "std", "none")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        if isinstance(self.levels, str) and self.levels not in LEVELS:
            raise ValueError(
                f"levels must be an array or one of {', '.join(LEVELS)}, got {self.levels!r}"
            )
        level_kind(self.levels, self.bits, self.sampling)
        if self.sampling == "double" and not 2 <= self.bits <= 8:
            raise ValueError(
                f"double sampling needs 2..8 bits (2 of them hold the draws), got {self.bits}"
            )
        if self.bits == 16 and (
            not isinstance(self.levels, str) or self.levels in ("lloyd", "shared")
        ):
            raise ValueError("16 bits come with uniform or symmetric levels only")
        if self.bits == 32 and self.path is not None:
            raise ValueError(
                "bits=32 keeps float32 rows in memory and has no file form; use path=None"
            )
        if isinstance(self.anchor, bool) or not (
            self.anchor in ("pilot", "none") or isinstance(self.anchor, int)
        ):
            raise ValueError(
                f"anchor must be 'pilot', 'none' or a number of passes, got {self.anchor!r}"
            )
        rows = self.level_rows
        number = 0 if isinstance(rows, bool) or not isinstance(rows, int) else rows
        if not (rows is None or rows == "all" or 1 <= number <= MAX_LEVEL_ROWS):
            raise ValueError(
                f"level_rows must be 'all', None or an integer in [1, {MAX_LEVEL_ROWS}], got {rows!r}"
            )
        if self.copies < 1:
            raise ValueError(f"copies must be at least 1, got {self.copies}")
        if not self.alpha >= 0:
            raise ValueError(f"alpha must be at least 0, got {self.alpha!r}")

    @property
    def anchored(self) -> bool:
        """Whether an anchor is wanted."""
        return self.anchor == "pilot" or (isinstance(self.anchor, int) and self.anchor > 0)

    @property
    def final_layout(self) -> str:
        """The layout by name."""
        return "tile4" if self.layout == "auto" else self.layout

    @property
    def levels_from(self) -> int:
        """Rows from which levels are computed, if there are so many."""
        if isinstance(self.level_rows, int):
            return self.level_rows
        if self.level_rows == "all":
            return 1 << 62
        return 1 << 15 if self.bits <= 5 else 1 << 16

    def spill_folder(self) -> str | None:
        """Folder of temporary files, None for the system's."""
        if self.folder is not None:
            return str(self.folder)
        return None if self.path is None else str(Path(self.path).resolve().parent)

    def key(self) -> Tensor:
        """The store's key, int64 (2,)."""
        state = self.random_state
        if state is None:
            return fresh_key()
        if isinstance(state, Tensor):
            return state.detach().to("cpu", torch.int64).reshape(2).clone()
        if hasattr(state, "randint"):
            return key_from_seed(int(state.randint(2**31 - 1)))
        if hasattr(state, "integers"):
            return key_from_seed(int(state.integers(2**63 - 1)))
        return key_from_seed(int(state))
