"""solver="halp" and "svrg" on stores, the levels they take as they are, and the rows of a grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from torch.testing._internal.optests import opcheck

from torchext import QuantizedDataset, _testing
from torchext.linear import SGDClassifier, SGDRegressor
from torchext.linear._grid_rows import grid_rows, store_rows

SOLVERS = ("halp", "svrg")
HOW: dict[str, Any] = {"scale": "max", "intercept": False, "as_float": False}


def data(rows: int = 900, cols: int = 12, classes: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + cols)
    X = rng.normal(size=(rows, cols)) * rng.uniform(0.5, 2.0, cols) + rng.normal(size=cols)
    X[:, 5] = 3.25
    if classes:
        scores = X @ rng.normal(size=(cols, classes)) + rng.gumbel(size=(rows, classes))
        return X, scores.argmax(axis=1)
    y = X @ rng.normal(size=cols) + 3.0 + 0.3 * rng.normal(size=rows)
    return X, y.astype(np.float32).astype(np.float64)  # labels of a store are float32


def nearest(X: Any, y: Any = None, **options: Any) -> QuantizedDataset:
    return QuantizedDataset.from_arrays(
        X, y, **({"sampling": "nearest", "random_state": 0} | options)
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_a_store_of_symmetric_levels_is_what_fit_makes_of_arrays(
    solver: str, classes: int, tmp_path: Path
) -> None:
    """Same rows, same order, same key: the same bits."""
    X, y = data(classes=classes)
    common: dict[str, Any] = {
        "solver": solver,
        "max_iter": 4,
        "tol": None,
        "random_state": 3,
    }
    kind = "log_loss" if classes else "squared_error"
    model = SGDClassifier("log_loss", **common) if classes else SGDRegressor(**common)
    options: dict[str, Any] = {"bits": 8, "levels": "symmetric", "loss": kind, "shuffle": False}
    one = model.fit(X, y).coef_.copy(), model.intercept_.copy()
    model.fit(nearest(X, y, path=tmp_path / "a.tq", **options))
    assert np.array_equal(model.coef_, one[0]) and np.array_equal(model.intercept_, one[1])
    assert model.report_["z_bits"] == {"svrg": 32, "halp": 16}[solver]


@pytest.mark.parametrize("solver", SOLVERS)
def test_sixteen_bits_of_symmetric_levels(solver: str) -> None:
    """The levels are float32, so that a few of the codes differ by one: the same to what they can tell."""
    X, y = data()
    model = SGDRegressor(solver=solver, bits=16, tol=1e-9, random_state=0)
    one = model.fit(X, y).coef_
    store = nearest(X, y, bits=16, levels="symmetric")
    model.set_params(bits=None).fit(store)
    assert model.bits_per_value_ == 16 and np.allclose(model.coef_, one, atol=1e-5)


def solution(store: QuantizedDataset, unit: np.ndarray, alpha: float) -> np.ndarray:
    """Coefficients of the ridge regression on the decoded values in the given units."""
    a = store.decode().double().numpy() * unit
    y = store.y.double().numpy()[:, 0]
    x = np.linalg.solve(a.T @ a / len(a) + alpha * np.eye(len(unit)), a.T @ (y - y.mean()) / len(a))
    return x * unit / store.scale.numpy()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "bits, levels", [(2, "lloyd"), (4, "lloyd"), (8, "uniform"), (16, "uniform"), (32, "auto")]
)
@pytest.mark.parametrize("scale", ["max", "std", "none"])
def test_any_levels_of_nearest_rounding(solver: str, bits: int, levels: str, scale: str) -> None:
    """The solution is that of the decoded values; on a grid of 16 bits they are rounded by 1.5e-5."""
    X, y = data()
    store = nearest(X, y, bits=bits, levels=levels, layout="block" if bits < 32 else "auto")
    std = np.sqrt(store.moments[0].numpy())
    unit = {
        "max": np.ones(12), "std": 1 / np.where(std > 0, std, 1.0), "none": store.scale.numpy()
    }[scale]  # fmt: skip
    model = SGDRegressor(solver=solver, bits=16, alpha=0.01, scale=scale, tol=1e-9, random_state=0)
    want = solution(store, unit, 0.01)
    assert np.allclose(model.fit(store).coef_, want, atol=1e-4) and model.coef_[5] == 0.0
    if solver == "svrg":
        assert np.allclose(model.set_params(bits=32).fit(store).coef_, want, atol=1e-7)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_levels_of_few_bits_are_points_of_the_grid(bits: int) -> None:
    X, _ = data()
    store = nearest(X, bits=bits, levels="symmetric", anchor="none")
    rows = store_rows(store, torch.arange(900), None, bits=8, **HOW)
    most = 2 ** (bits - 1) - 1
    codes = store.read_codes().to(torch.int16) - most
    codes[:, 5] = 0  # constant
    assert int(codes.abs().max()) == most
    assert torch.equal(rows.rows.to(torch.int16), codes * (127 // most))
    assert rows.dx == pytest.approx(1 / most / (127 // most), rel=1e-15)
    assert rows.unit == pytest.approx(127 * rows.dx)


def test_symmetric_levels() -> None:
    """One grid with zero; the errors are those of rounding to it; draws are unbiased."""
    X, _ = data()
    store = nearest(X, bits=5, levels="symmetric", anchor="none", shuffle=False)
    a = (X - store.mean.numpy()) / store.scale.numpy()
    assert store.info()["levels"] == "symmetric" and store.info()["grid"] == "affine"
    assert np.abs(store.decode().numpy() - np.rint(a * 15) / 15).max() < 1e-6
    drawn = QuantizedDataset.from_arrays(
        X,
        bits=5,
        levels="symmetric",
        sampling="stochastic",
        copies=200,
        random_state=0,
        shuffle=False,
    )
    mean = torch.stack([drawn.decode(copy=c) for c in range(200)]).double().mean(0).numpy()
    assert np.abs(mean - a).max() < 6.5 * (0.5 / 15) / math.sqrt(200)
    for wrong in ({"bits": 1}, {"bits": 4, "sampling": "double"}):
        with pytest.raises(ValueError, match='levels="symmetric" need 2 bits or more'):
            QuantizedDataset.from_arrays(X, levels="symmetric", **wrong)


def test_weights_resume_and_key_of_a_store(tmp_path: Path) -> None:
    X, y = data()
    weight = np.arange(900) % 3.0  # a third of the rows is not there
    options: dict[str, Any] = {"bits": 8, "levels": "symmetric", "shuffle": False}
    store = nearest(X, y, sample_weight=weight, **options)
    common: dict[str, Any] = {"solver": "halp", "tol": None, "max_iter": 5}
    whole = SGDRegressor(**common).fit(store)  # by the key of the store
    path = tmp_path / "run.safetensors"
    SGDRegressor(**common, checkpoint=path, callbacks=[lambda p: p.epoch == 2]).fit(store)
    again = SGDRegressor(**common, checkpoint=path, resume=True).fit(store)
    assert np.array_equal(whole.coef_, again.coef_) and again.n_iter_ == 5
    kept = weight > 0
    arrays = SGDRegressor(solver="halp", tol=1e-9, random_state=0).fit(
        X[kept], y[kept], weight[kept]
    )
    found = SGDRegressor(solver="halp", tol=1e-9).fit(store)
    assert np.allclose(found.coef_, arrays.coef_, rtol=0.02, atol=0.02)


def test_logistic_on_a_store_is_scikit_learns_on_its_values() -> None:
    X, y = data(classes=3)
    store = nearest(X, y, bits=4, loss="log_loss")
    model = SGDClassifier("log_loss", solver="svrg", bits=32, alpha=0.01, tol=1e-8, random_state=0)
    model.fit(store)
    reference = Reference(C=1 / (0.01 * 900), tol=1e-10, max_iter=10_000)
    reference.fit(store.decode().double().numpy(), store.y.numpy())
    coef = reference.coef_ / store.scale.numpy()
    assert np.allclose(model.coef_, coef - coef.mean(0), atol=2e-5)
    assert list(model.classes_) == [0, 1, 2] and model.score(X, y) > 0.8


def test_refusals() -> None:
    X, y = data()
    for sampling in ("stochastic", "corrected", "double"):
        store = QuantizedDataset.from_arrays(X, y, bits=8, sampling=sampling, random_state=0)
        with pytest.raises(
            ValueError, match=f'needs a data set with sampling="nearest", got .{sampling}'
        ):
            SGDRegressor(solver="halp").fit(store)
    with pytest.raises(ValueError, match='solver="exact" needs the full-precision rows'):
        SGDRegressor(solver="exact").fit(nearest(X, y, bits=8))
    with pytest.raises(ValueError, match="no labels to train on"):
        SGDRegressor(solver="halp").fit(nearest(X, bits=8))


def grid(x: torch.Tensor, top: int, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of the op, and the squared norms."""
    cols = x.shape[1]
    mean = torch.linspace(-1.0, 1.0, cols, dtype=torch.float64)
    inverse = torch.linspace(10.0, 60.0, cols, dtype=torch.float64)
    codes, squares = (
        torch.zeros(len(x), cols + 3, dtype=kind),
        torch.zeros(len(x), dtype=torch.float64),
    )
    torch.ops.torchext._grid_rows(x, mean, inverse, top, codes, squares)
    want = (x.double() - mean) * inverse
    want = want.clamp(-top, top).round() if top else want.float().double()
    assert torch.equal(codes[:, :cols].double(), want) and not codes[:, cols:].any()
    if top:
        assert torch.equal(squares, want.square().sum(1))
    else:
        lanes = torch.zeros(len(x), 8, dtype=torch.float64)
        for j in range(cols):
            lanes[:, j % 8] += want[:, j].square()
        for lane in range(1, 8):
            lanes[:, 0] += lanes[:, lane]
        assert torch.equal(squares, lanes[:, 0])
    return codes, squares


@pytest.mark.parametrize("isa", _testing.ISAS)
@pytest.mark.parametrize(
    "kind, top", [(torch.int8, 127), (torch.int16, 32767), (torch.float32, 127), (torch.float32, 0)]
)
def test_rows_of_a_grid(isa: str, kind: torch.dtype, top: int) -> None:
    """Against torch's round (half to even), all lengths, both float types, strides and huge values."""
    generator = torch.Generator().manual_seed(0)
    with _testing.isa(isa):
        for cols in (*range(1, 70), 255, 256, 257, 1000):
            x = torch.randn(5, cols, dtype=torch.float64, generator=generator) * (max(top, 60) / 60)
            grid(x, top, kind)
            grid(x.float(), top, kind)
        wide = torch.randn(9, 40, generator=generator)
        wide[0, :4] = torch.tensor([3e38, -3e38, 0.0, -0.0])
        grid(wide[::2, 3:30], top, kind)
        grid(torch.zeros(0, 4), top, kind)


def test_rows_of_a_grid_opcheck_and_errors() -> None:
    x, one, codes = torch.randn(4, 3), torch.ones(3).double(), torch.zeros(4, 64, dtype=torch.int8)
    squares = torch.zeros(4, dtype=torch.float64)
    opcheck(torch.ops.torchext._grid_rows.default, (x, one, one, 127.0, codes, squares))
    for change, text in (
        ({0: x.half()}, "x must be float32 or float64, got float16"),
        ({1: one[:2]}, "mean must have shape"),
        ({3: 128.0}, r"top must be in \[1, 127\], got 128"),
        ({4: codes[:, :2]}, "codes must have shape"),
        ({4: codes.long()}, "codes must be float32, got int64"),
        ({5: squares[:3]}, "squares must have shape"),
    ):
        args = [x, one, one, 127.0, codes, squares]
        for place, value in change.items():
            args[place] = value
        with pytest.raises(RuntimeError, match=f"_grid_rows: {text}"):
            torch.ops.torchext._grid_rows(*args)


def test_constant_and_single_rows() -> None:
    for X in (np.full((3, 2), 7.5), np.array([[1.0, -2.0]])):
        rows = grid_rows(X, None, bits=8, **HOW)
        assert not rows.rows.any() and rows.bound == 0.0
        rows = store_rows(nearest(X, bits=8), torch.arange(len(X)), None, bits=8, **HOW)
        assert not rows.rows.any() and rows.bound == 0.0
