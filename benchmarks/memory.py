"""``python -m benchmarks.memory``: peak memory while encoding and training, above the mapped file.

Each step runs in its own process, which reports the growth of its anonymous memory (``RssAnon`` and
heap, not the mapped pages of the source and the store) over what the imports need. Two sizes show
whether it depends on the number of rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._bench import machine, write

MIB = 2**20


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("this benchmark needs /proc/self/status")


class Peak:
    """Highest anonymous memory inside a ``with`` block, sampled every 2 ms."""

    def __enter__(self) -> Peak:
        self.base = self.peak = anonymous()
        self.running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    @property
    def grown(self) -> float:
        """MiB above the start."""
        return (max(self.peak, anonymous()) - self.base) / MIB


def step(name: str, folder: Path, cols: int) -> float:
    """One measured step; called in a fresh process."""
    from torchext.data import QuantizedDataset
    from torchext.linear import SGDRegressor

    warm = np.random.default_rng(0).standard_normal((512, 8))
    SGDRegressor(bits=4, max_iter=1).fit(
        warm, warm[:, 0]
    )  # first-use allocations of torch and scikit-learn
    X, y = np.load(folder / "X.npy", mmap_mode="r"), np.load(folder / "y.npy", mmap_mode="r")
    with Peak() as peak:
        if name == "encode":
            QuantizedDataset.from_arrays(X, y, bits=4, random_state=0, path=folder / "data.tq")
        else:
            store = QuantizedDataset.open(folder / "data.tq", verify=False)
            SGDRegressor(bits=4, max_iter=3, random_state=0).fit(store)
    return peak.grown


def main() -> None:
    """Run all steps at two sizes, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[65_536, 262_144])
    parser.add_argument("--cols", type=int, default=1_024)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.step:
        print(json.dumps(step(a.step[0], Path(a.step[1]), a.cols)))
        return
    facts: dict[str, Any] = {"machine": machine(), "cols": a.cols, "runs": []}
    print(
        f"anonymous memory above the start, MiB; n = {a.cols:,}; n^2 doubles would be "
        f"{8 * a.cols**2 / MIB:.0f} MiB"
    )
    for rows in a.rows:
        with tempfile.TemporaryDirectory() as folder:
            X = np.lib.format.open_memmap(f"{folder}/X.npy", "w+", np.float32, (rows, a.cols))
            rng = np.random.default_rng(0)
            for first in range(0, rows, 8192):
                X[first : first + 8192] = rng.standard_normal(
                    (len(X[first : first + 8192]), a.cols), dtype=np.float32
                )
            np.save(f"{folder}/y.npy", rng.standard_normal(rows))
            X.flush()
            source = X.nbytes
            del X
            run: dict[str, Any] = {"rows": rows, "source_mib": source / MIB}
            for name in ("encode", "train"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.memory",
                    "--cols",
                    str(a.cols),
                    "--step",
                    name,
                    folder,
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                run[name] = float(json.loads(done.stdout.splitlines()[-1]))
            facts["runs"].append(run)
            print(
                f"  {rows:>9,} rows ({source / MIB:,.0f} MiB float32): encode {run['encode']:.0f}, "
                f"train {run['train']:.0f}"
            )
    write(a.json, facts)


if __name__ == "__main__":
    main()
