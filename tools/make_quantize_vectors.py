"""Writes tests/vectors/quantize_v1.json from the numpy model of the tests (not from the library).

Run from the repository root: PYTHONPATH=tests/python python tools/make_quantize_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import quantize_model as model

SEED = 0x0123456789ABCDEF
N = 37


def cases() -> list[dict[str, Any]]:
    x = np.array([((i * 29) % 64 - 32) / 13 for i in range(N)], dtype=np.float32)
    rows = []
    for rounding in ("stochastic", "nearest"):
        u = model.uniforms(N, SEED, stream=5) if rounding == "stochastic" else None
        for bits in range(1, 9):
            step = np.full(N, 2.0 / 2 ** (bits - 1), dtype=np.float32)
            lo = np.full(N, -2.25, dtype=np.float32)
            levels = [
                float(np.float32(-2.0 + 4.5 * (i / (2**bits - 1)) ** 2)) for i in range(2**bits)
            ]
            ones = np.ones(N, dtype=np.float32)
            if bits > 1:
                codes = model.encode_symmetric(x, step, bits, u)
                rows.append(["symmetric", bits, [float(step[0])], None, rounding, codes])
            codes = model.encode_minmax(x, lo, step, bits, u)
            rows.append(["minmax", bits, [[-2.25, float(step[0])]], None, rounding, codes])
            rows.append(
                ["levels", bits, None, levels, rounding, model.encode_levels(x, levels, ones, u)]
            )
    names = ("scheme", "bits", "scale", "levels", "rounding")
    return [
        dict(zip(names, row, strict=False))
        | {"x": [float(v) for v in x], "codes": bytes(model.pack(row[5], row[1])).hex()}
        for row in rows
    ]


def main() -> None:
    head = {
        "about": "by the formulas of docs/numerics.md; written by tools/make_quantize_vectors.py",
        "stream_version": 1,
        "seed": f"{SEED:016x}",
        "stream": 5,
    }
    text = json.dumps(head | {"cases": cases()}, indent=None)
    Path("tests/vectors/quantize_v1.json").write_text(
        text.replace('{"scheme"', '\n{"scheme"') + "\n"
    )


if __name__ == "__main__":
    main()
