"""Progress while a store is built: silent unless somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

#: ``report(stage, done, total)``: rows done of total (0 if not known) in a stage such as ``"encode"``.
Report = Callable[[str, int, int], None]


class Progress:
    """Bars by tqdm when standard error is a terminal, a user's callback, or nothing.

    Args:
        how: None: bars if there is a terminal and tqdm is installed; False: nothing; True: bars; a
            function ``report(stage, done, total)``: called after every block.
    """

    def __init__(self, how: bool | Report | None = None) -> None:
        self._report = how if callable(how) else None
        self._bars = how is True or (how is None and sys.stderr.isatty())
        self._stage = ""
        self._done = 0
        self._total = 0
        self._bar: Any = None

    def start(self, stage: str, total: int = 0) -> None:
        """Begin a stage of ``total`` rows (0: not known)."""
        self.close()
        self._stage, self._done, self._total = stage, 0, total
        if self._bars:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(
                total=total or None, desc=stage, unit="row", unit_scale=True, leave=False
            )

    def add(self, rows: int) -> None:
        """Some rows are done."""
        self._done += rows
        if self._bar is not None:
            self._bar.update(rows)
        if self._report is not None:
            self._report(self._stage, self._done, self._total)

    def close(self) -> None:
        """End the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
