"""What the benchmarks share: facts about the machine, interleaved timing, medians with their spread.

A shared or loaded machine makes absolute times meaningless from one minute to the next. Therefore all
contestants of a comparison take turns, one epoch each, in one process; only ratios inside a round
are formed, and their median is reported with its quartiles.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import platform
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchext


def machine() -> dict[str, Any]:
    """Processor class, cores, versions, instruction set and date: what a figure must carry."""
    model, cores = "unknown", os.cpu_count()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    import sklearn

    return {
        "processor": model,
        "cores": cores,
        "load_at_start": os.getloadavg()[0],
        "isa": torchext.cpu_isa(),
        "torchext": torchext.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


class Turns:
    """Runs ``fit`` in a thread that pauses after every epoch, so that epochs of several fits interleave.

    ``fit`` must accept a callback with the epoch's ``seconds`` (the estimators' ``callbacks=``). Only
    one thread runs at any time.
    """

    def __init__(self, fit: Callable[[Callable[[Any], bool]], Any]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._seconds, self._stop, self.failed = 0.0, False, None  # type: ignore[assignment]
        self.result: Any = None
        self.failed: BaseException | None = None

        def after_epoch(info: Any) -> bool:
            self._seconds = info.seconds
            self._done.release()
            self._go.acquire()
            return self._stop

        def work() -> None:
            self._go.acquire()
            try:
                self.result = fit(after_epoch)
            except BaseException as error:
                self.failed = error
            self._done.release()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def __call__(self) -> float:
        """One epoch; its seconds."""
        self._go.release()
        self._done.acquire()
        if self.failed is not None:
            raise self.failed
        return self._seconds

    def close(self) -> Any:
        """End the fit; returns what ``fit`` returned."""
        self._stop = True
        self._go.release()
        self._thread.join()
        if self.failed is not None:
            raise self.failed
        return self.result


def interleave(
    contestants: dict[str, Callable[[], float]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """``rounds`` turns of every contestant, each returning its seconds; ``warmup`` rounds are dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + warmup):
            for name, run in contestants.items():
                took = run()
                if turn >= warmup:
                    seconds[name].append(took)
    finally:
        gc.enable()
    return seconds


def ratios(base: list[float], other: list[float]) -> dict[str, float]:
    """Median and quartiles of base/other, formed round by round."""
    each = sorted(b / o for b, o in zip(base, other, strict=True))
    low, middle, high = np.percentile(each, [25, 50, 75])
    return {
        "median": float(middle),
        "q25": float(low),
        "q75": float(high),
        "min": each[0],
        "max": each[-1],
    }


def spread(values: list[float]) -> str:
    """Median and quartiles in words."""
    low, high = np.percentile(values, [25, 75])
    return f"{statistics.median(values):.4g} ({low:.4g}-{high:.4g})"


def write(path: Path | None, facts: dict[str, Any]) -> None:
    """JSON beside the printed text."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n")
        print(f"wrote {path}")
