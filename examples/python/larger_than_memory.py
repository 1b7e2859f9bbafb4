"""A CSV file of any size: encoded once at a few bits per value, then trained on from the small file.

    python examples/python/larger_than_memory.py                      # makes a table of its own
    python examples/python/larger_than_memory.py big.csv.gz --target price --bits 2

The text is read once and in pieces, the rows wait in an unnamed temporary file until they are encoded, and
training reads the mapped store. None of the three holds the table in memory.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from torchext import QuantizedDataset
from torchext.linear import SGDRegressor


def write_table(path: Path, rows: int, columns: int) -> None:
    """Correlated columns and a noisy linear target, written in pieces."""
    rng = np.random.default_rng(0)
    mixture, slope = rng.normal(size=(columns, columns)), rng.normal(size=columns)
    with open(path, "w") as file:
        file.write(",".join([*(f"x{j}" for j in range(columns)), "target"]) + "\n")
        for first in range(0, rows, 10_000):
            x = rng.normal(size=(min(10_000, rows - first), columns)) @ mixture
            y = x @ slope + rng.normal(size=len(x))
            np.savetxt(file, np.column_stack([x, y]), fmt="%.6g", delimiter=",")


def main(argv: list[str] | None = None) -> SGDRegressor:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("table", nargs="?", help="CSV file, plain or gzip; default: one is made")
    parser.add_argument("--target", default="target", help="name of the column to predict")
    parser.add_argument("--bits", type=int, default=4, help="bits per value, 1 to 8 (default 4)")
    parser.add_argument("--rows", type=int, default=200_000, help="of the table that is made")
    given = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        table = Path(given.table or Path(folder, "table.csv"))
        if given.table is None:
            write_table(table, given.rows, columns=32)

        store = QuantizedDataset.from_csv(
            table, given.target, bits=given.bits, path=Path(folder, "table.tq"), random_state=0
        )
        print(f"{table.name}: {store.rows:,} rows x {store.cols} columns")
        print(
            f"text {table.stat().st_size / 1e6:.1f} MB, float32 {4e-6 * store.rows * store.cols:.1f} MB, ",
            end="",
        )
        print(f"codes {store.codes.nbytes / 1e6:.1f} MB")

        model = SGDRegressor(alpha=1e-6, random_state=0).fit(store)
        print(model.report_)
    return model


if __name__ == "__main__":
    main()
