"""``python -m benchmarks.halp``: HALP on integers against SVRG in float32, both in this library.

1. Seconds per inner step of one row: (data bits, z bits) = (8, 8) and (8, 16) against float32. The float32
   step is a fair one: cached scores, displacement form, alpha * g multiplied in advance, rows of later
   steps fetched by the same four streams, the next row's product formed in the loop that updates z, the
   same rows in the same order, the same instruction set, memory in huge pages.
2. Seconds until the gradient norm is 1e-6 of that at 0, least squares and logistic, full passes included:
   ``solver="halp"`` and ``"svrg"`` on the same 8-bit codes, and scikit-learn's saga on the decoded float32
   rows. Ratios on the codes; with the encoding of float32 rows counted for HALP alone; and for both, where
   SVRG's is the centring and scaling of the same rows in float32.

One thread; processor time of that thread, so that other work on the machine does not count; contestants take
turns and ratios are formed inside each turn.

    python -m benchmarks.halp                          # 1 GiB of float32
    python -m benchmarks.halp --only steps --isa avx2
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._bench import interleave, machine, ratios, spread, write
from torchext.linear._grid_rows import GridRows, grid_rows
from torchext.linear._variance_reduced import (
    CURVATURE,
    REFRESH,
    VarianceReduced,
    VrOptions,
)
from torchext.linear._vr_run import batch_bound
from torchext.random import key_from_seed

L2 = 1e-3
TOL = 1e-6
#: Rows of the mini-batches.
BATCH = 64


def _huge(shape: tuple[int, ...], kind: Any) -> torch.Tensor:
    """Zeros in memory for which numpy asks for huge pages."""
    return torch.from_numpy(np.zeros(shape, dtype=kind))


def steps(gib: float, cols: int, rounds: int, loss: str) -> dict[str, Any]:
    """Nanoseconds per step of the three contestants, a whole epoch of 2 K steps a turn."""
    rows, pitch = int(gib * 2**28 / cols), 64 * -(-cols // 64)
    codes, floats = _huge((rows, pitch), np.int8), _huge((rows, pitch), np.float32)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, rows, 4096):
        part = codes[first : first + 4096, :cols]
        part.random_(-127, 128, generator=generator)
        floats[first : first + 4096, :cols] = part
    alpha, count = 0.2 / (127**2 / 3 * cols), 2 * rows
    phi = torch.randn(1, rows, generator=generator)
    alpha_g = 1e-6 * torch.randn(1, cols + 1, dtype=torch.float64, generator=generator)
    clips, key = torch.zeros(3, dtype=torch.int64), key_from_seed(0)
    shared = (phi, None, loss, alpha_g, alpha, 0.0, 1.0)

    def timed(run: Callable[[], None]) -> Callable[[], float]:
        def turn() -> float:
            began = time.thread_time()
            run()
            return (time.thread_time() - began) / count

        return turn

    def halp(kind: torch.dtype, dz: float) -> Callable[[], None]:
        z = torch.empty(1, pitch, dtype=kind)
        return lambda: torch.ops.torchext._halp_epoch(
            codes, *shared, dz, count, 1, REFRESH, "step", z, None, clips, None, key
        )

    moved = torch.empty(1, pitch)
    seconds = interleave(
        {
            "float32": timed(
                lambda: torch.ops.torchext._svrg_epoch(
                    floats, *shared, 1.0, count, 1, moved, None, key
                )
            ),
            "8, 8": timed(halp(torch.int8, 1e-5)),
            "8, 16": timed(halp(torch.int16, 4e-8)),
        },
        rounds,
    )
    return {
        "cols": cols,
        "rows": rows,
        "loss": loss,
        "seconds": seconds,
        "ratio": {n: ratios(seconds["float32"], seconds[n]) for n in ("8, 8", "8, 16")},
    }


def _problem(rows: int, cols: int, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Independent normal columns with a noisy linear target, or classes +-1 drawn from its sigmoid."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, cols), dtype=np.float32)
    score = X @ rng.standard_normal(cols, dtype=np.float32)
    score = (score / score.std()).astype(np.float64)
    if loss == "squared":
        y = score + 0.5 * rng.standard_normal(rows)
        return X, y - y.mean()
    return X, np.where(rng.random(rows) < 1 / (1 + np.exp(-2 * score)), 1.0, -1.0)


def to_precision(rows: int, cols: int, rounds: int, loss: str, saga: bool) -> dict[str, Any]:
    """Seconds until the gradient norm is TOL of that at 0."""
    X, y = _problem(rows, cols, loss)
    intercept = loss != "squared"

    def encode(bits: int) -> GridRows:
        return grid_rows(X, None, bits=bits, scale="max", intercept=intercept, as_float=bits == 32)

    codes = encode(8)
    floats = replace(codes, x=_huge(tuple(codes.x.shape), np.float32))
    floats.x.copy_(codes.x)
    targets = torch.from_numpy(y).reshape(-1, 1)
    base = VrOptions(
        loss=loss, l2=L2, intercept=intercept, step=0.2 / (CURVATURE[loss] * codes.bound + L2),
        steps=2 * rows, z_bits=16, auto_mu=True, max_iter=100, tol=TOL, threads=1,
    )  # fmt: skip
    bound = batch_bound(codes, None, intercept, BATCH)
    batches = replace(
        base, step=0.2 / (CURVATURE[loss] * bound + L2), steps=2 * rows // BATCH, batch=BATCH
    )
    contestants: dict[str, tuple[GridRows, VrOptions]] = {
        "svrg": (floats, replace(base, z_bits=32, auto_mu=False)),
        "halp": (codes, base),
        "halp, 8-bit z": (codes, replace(base, z_bits=8)),
        f"svrg, {BATCH} rows": (floats, replace(batches, z_bits=32, auto_mu=False)),
        f"halp, {BATCH} rows": (codes, batches),
    }
    epochs: dict[str, int] = {}
    last: dict[str, torch.Tensor] = {}

    def run(name: str) -> float:
        data, options = contestants[name]
        solver = VarianceReduced(data, targets, None, options, key_from_seed(0))
        began = time.thread_time()
        solver.start(torch.zeros(1, cols + 1, dtype=torch.float64), None)
        solver.run(lambda _: False)
        state = solver.state
        took = time.thread_time() - began
        assert state.stop == "tol", f"{name} did not reach the tolerance"
        epochs[name], last[name] = state.epoch, state.w
        return took

    def encoding(bits: int) -> float:
        began = time.thread_time()
        encode(bits)
        return time.thread_time() - began

    turns: dict[str, Callable[[], float]] = {
        "encoding, 8 bits": lambda: encoding(8),
        "encoding, float32": lambda: encoding(32),
        **{name: (lambda n=name: run(n)) for name in contestants},  # type: ignore[misc]
    }
    seconds = interleave(turns, rounds)

    def both(name: str, encoding: str) -> list[float]:
        return [a + b for a, b in zip(seconds[name], seconds[f"encoding, {encoding}"], strict=True)]

    facts: dict[str, Any] = {
        "rows": rows, "cols": cols, "loss": loss, "seconds": seconds, "epochs": epochs,
        "ratio": {n: ratios(seconds["svrg"], seconds[n]) for n in contestants if n != "svrg"},
        "ratio_batches": ratios(seconds[f"svrg, {BATCH} rows"], seconds[f"halp, {BATCH} rows"]),
        "ratio_encoding_of_halp": ratios(seconds["svrg"], both("halp", "8 bits")),
        "ratio_encoding_of_both": ratios(both("svrg", "float32"), both("halp", "8 bits")),
    }  # fmt: skip
    if saga:
        judge = VarianceReduced(codes, targets, None, base, key_from_seed(0))
        facts["saga"] = _saga(floats.x[:, :cols].numpy(), y, codes, judge)
    return facts


def _saga(a: np.ndarray, y: np.ndarray, codes: GridRows, judge: VarianceReduced) -> dict[str, Any]:
    """scikit-learn's saga with more and more epochs, until the gradient is small or 64 are not enough."""
    import warnings

    from sklearn.linear_model import LogisticRegression, Ridge

    a = a * np.float32(codes.dx)
    zero = torch.zeros(1, codes.cols + 1, dtype=torch.float64)
    start = float(judge.gradient(zero)[1].norm())
    found: dict[str, Any] = {}
    for count in (8, 16, 32, 64):
        common: dict[str, Any] = {
            "solver": "saga",
            "tol": 1e-30,
            "max_iter": count,
            "random_state": 0,
        }
        if judge.options.loss == "squared":
            model = Ridge(alpha=L2 * len(a), fit_intercept=False, **common)
        else:
            model = LogisticRegression(C=1 / (L2 * len(a)), **common)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.thread_time()
            model.fit(a, y)
        w = zero.clone()
        w[:, :-1] = torch.from_numpy(np.asarray(model.coef_, dtype=np.float64).reshape(1, -1))
        w[:, -1] = float(np.ravel(model.intercept_)[0]) / codes.unit
        found = {"epochs": count, "seconds": time.thread_time() - began}
        found["gradient"] = float(judge.gradient(w)[1].norm()) / start
        if found["gradient"] <= TOL:
            break
    return found


def main() -> None:
    """Run, print, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cols", type=int, nargs="+", default=[768, 3072, 9984])
    parser.add_argument("--size", type=float, default=1.0, help="GiB of float32 (default 1)")
    parser.add_argument(
        "--rounds", type=int, default=9, help="turns of every contestant (default 9)"
    )
    parser.add_argument(
        "--isa", choices=("ref", "avx2", "avx512"), help="lower the instruction set"
    )
    parser.add_argument("--only", choices=("steps", "precision"), help="one part only")
    parser.add_argument("--loss", choices=("squared", "logistic"), help="one loss only")
    parser.add_argument("--no-saga", action="store_true", help="leave out scikit-learn")
    parser.add_argument("--json", type=Path, help="file for the results")
    a = parser.parse_args()
    if a.isa and os.environ.get("TORCHEXT_ISA") != a.isa:
        environment = {**os.environ, "TORCHEXT_ISA": a.isa}
        command = [sys.executable, "-m", "benchmarks.halp", *sys.argv[1:]]
        sys.exit(subprocess.call(command, env=environment))
    torch.set_num_threads(1)
    facts: dict[str, Any] = {"machine": machine(), "size_gib": a.size, "steps": [], "precision": []}
    m = facts["machine"]
    print(
        f"{m['processor']}, kernels {m['isa']}, load {m['load_at_start']:.1f}; {a.size} GiB of float32"
    )
    losses = (a.loss,) if a.loss else ("squared", "logistic")
    for loss in losses if a.only != "precision" else ():
        for cols in a.cols:
            facts["steps"].append(s := steps(a.size, cols, a.rounds, loss))
            for name, each in s["seconds"].items():
                r = s["ratio"].get(name)
                more = f"  {r['median']:.2f} ({r['q25']:.2f}-{r['q75']:.2f}) times" if r else ""
                print(
                    f"{loss:9} d = {cols:6,} {name:8}{spread([1e9 * v for v in each]):>28} ns a step{more}"
                )
    for loss in losses if a.only != "steps" else ():
        rows = int(a.size * 2**28 / 3072)
        facts["precision"].append(p := to_precision(rows, 3072, a.rounds, loss, not a.no_saga))
        print(f"{loss}, {rows:,} x 3,072, gradient 1e-6")
        for name, each in p["seconds"].items():
            r = p["ratio"].get(name)
            more = f"  {r['median']:.2f} ({r['q25']:.2f}-{r['q75']:.2f}) times" if r else ""
            count = f", {p['epochs'][name]} epochs" if name in p["epochs"] else ""
            print(f"  {name:18}{spread(each):>28} s{count}{more}")
        for words, key in (
            (f", mini-batches of {BATCH} rows in both", "batches"),
            (", encoding counted for HALP alone", "encoding_of_halp"),
            (", encoding counted for both", "encoding_of_both"),
        ):
            r = p[f"ratio_{key}"]
            print(f"  halp{words}: {r['median']:.2f} ({r['q25']:.2f}-{r['q75']:.2f}) times")
        if "saga" in p:
            s = p["saga"]
            print(
                f"  saga: {s['seconds']:.1f} s, {s['epochs']} epochs, gradient {s['gradient']:.1e}"
            )
    write(a.json, facts)


if __name__ == "__main__":
    main()
