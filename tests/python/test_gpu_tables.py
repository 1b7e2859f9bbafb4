"""Tables on a GPU given to estimators: checked, encoded and read there, to the fit of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from pretend_gpu import PretendGpu
from sklearn.base import clone

from torchext import _load
from torchext.data import DataError, QuantizedDataset
from torchext.linear import LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from torchext.linear._grid_rows import store_rows

ROWS, COLS = 300, 6
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(ROWS, COLS)) * RNG.uniform(0.2, 3, COLS) + 1).astype(np.float32)
X[:, 3] = 2.0
Y = X @ RNG.normal(size=(COLS, 2)) + 0.1 * RNG.normal(size=(ROWS, 2))
LABELS = np.digitize(Y[:, 0], np.quantile(Y[:, 0], [0.4, 0.7]))
WEIGHT = RNG.uniform(0.5, 2, ROWS)
WEIGHT[::50] = 0.0

SGD: dict[str, Any] = dict(batch_size=128, max_iter=2, random_state=0)
GRID = ("halp", "svrg")
FEW = 150  # rows where many steps are emulated
HALP: dict[str, Any] = dict(solver="halp", max_iter=2, random_state=0)
SVRG = HALP | {"solver": "svrg"}
MODELS: dict[str, tuple[Any, bool]] = {
    "ridge": (Ridge(bits=3), False),
    "ridge-through-0": (Ridge(bits=3, levels="uniform", fit_intercept=False), False),
    "logistic": (LogisticRegression(bits=3, tol=1e-3), True),
    "sgd": (SGDRegressor(**SGD), False),
    "sgd-anchors": (SGDRegressor(**SGD, anchor=1), False),
    "sgd-watched": (SGDRegressor(**SGD, early_stopping=True, tol=1e-9), False),
    "sgd-float": (SGDRegressor(**SGD, bits=32), False),
    "sgd-row": (SGDRegressor(**SGD, layout="row"), False),
    "sgd-classes": (SGDClassifier("log_loss", **SGD), True),
    "exact": (SGDRegressor(solver="exact"), False),
    "halp": (SGDRegressor(**HALP), False),
    "halp-16-std": (SGDRegressor(**HALP, bits=16, scale="std"), False),
    "halp-classes": (SGDClassifier("log_loss", **HALP), True),
    "svrg-std": (SGDRegressor(**SVRG, scale="std"), False),
    "svrg-float": (SGDRegressor(**SVRG, bits=32), False),
    "svrg-plain": (SGDRegressor(**SVRG, scale="none"), False),
}


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchext.linear._vr_run.MIN_ROWS", 60)


def same(a: Any, b: Any) -> None:
    for name in ("coef_", "intercept_", "loss_curve_", "n_iter_"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_fit_of_the_cpu(name: str, weighted: bool) -> None:
    model, classes = MODELS[name]
    solver = getattr(model, "solver", "sgd")
    x, y, weight = X, LABELS if classes else Y, WEIGHT if weighted else None
    if not isinstance(model, SGDRegressor | SGDClassifier) or solver in GRID:
        x, y, weight = x[:FEW], y[:FEW], None if weight is None else weight[:FEW]
    cpu = clone(model).fit(x, y, sample_weight=weight)
    with PretendGpu() as gpu:
        there = clone(model).set_params(device="cuda")
        moved = None if weight is None else torch.from_numpy(weight).to("cuda")
        there.fit(torch.from_numpy(x).to("cuda"), torch.from_numpy(y).to("cuda"), moved)
    same(there, cpu)
    assert "_column_stats" in gpu.ops
    if solver in GRID:
        assert "_grid_rows" in gpu.ops
    elif name not in ("exact", "sgd-float", "sgd-row"):
        assert "_encode" in gpu.ops


@pytest.mark.parametrize(
    "model",
    [
        Ridge(bits=3, levels="uniform"),
        LogisticRegression(bits=3, levels="uniform", tol=1e-2),
        SGDRegressor(**SGD, levels="uniform", anchor="none", sampling="nearest"),
        SGDRegressor(
            **SGD, levels="uniform", anchor="none", sampling="nearest", early_stopping=True
        ),
        SGDRegressor(**HALP | {"max_iter": 1}, scale="std"),
    ],
    ids=["ridge", "logistic", "sgd", "sgd-watched", "halp"],
)
def test_the_table_stays_there(model: Any) -> None:
    """What is read back: numbers a column, a sample for the step size, a sample of codes."""
    few = slice(ROWS if getattr(model, "solver", "") == "sgd" else FEW)
    x = np.tile(X[few], (1, 10)).astype(np.float64)
    with PretendGpu() as gpu:
        table = torch.from_numpy(x).to("cuda")
        clone(model).set_params(device="cuda").fit(table, LABELS[few])
        assert gpu.read < x.nbytes


@pytest.mark.parametrize("solver", ["halp", "svrg"])
@pytest.mark.parametrize("weighted", [False, True])
def test_arrays_are_put_on_the_grid_there(solver: str, weighted: bool) -> None:
    options = HALP | {"solver": solver, "scale": "std" if weighted else "max"}
    x, y, weight = X[:FEW], Y[:FEW], WEIGHT[:FEW] if weighted else None
    cpu = SGDRegressor(**options).fit(x, y, weight)
    codes = FEW * (64 * (4 if solver == "svrg" else 1) + 8)
    for room, encodes in ((x.nbytes + codes, True), (x.nbytes + codes // 2, False)):
        with PretendGpu(free_bytes=room) as gpu:
            there = SGDRegressor(**options, device="cuda").fit(x, y, weight)
        assert ("_grid_rows" in gpu.ops) == ("_column_stats" in gpu.ops) == encodes
        same(there, cpu)


@pytest.mark.parametrize("where", ["array", "tensor"])
@pytest.mark.parametrize(
    "case",
    [dict(), dict(bits=3, levels="lloyd", scale="std"), dict(levels="shared"), dict(bits=32),
     dict(sampling="stochastic", levels="uniform")],
    ids=str,
)  # fmt: skip
def test_batches_are_encoded_there(case: dict[str, Any], where: str) -> None:
    cpu = SGDRegressor(**SGD | case)
    with PretendGpu() as gpu:
        cuda = SGDRegressor(**SGD | case, device="cuda")
        for part in np.array_split(np.arange(ROWS), 3):
            x = X[part] * (1 + (part[0] > 0))
            cpu.partial_fit(x, Y[part])
            table = torch.from_numpy(x).to("cuda") if where == "tensor" else x
            cuda.partial_fit(table, Y[part])
    assert gpu.ran.count("_encode") == (0 if case.get("bits") == 32 else 3)
    same(cuda, cpu)
    assert (cuda.n_clipped_ == cpu.n_clipped_ and cpu.n_clipped_ > 0) or case.get("bits") == 32


def test_batches_that_do_not_fit_are_encoded_on_the_cpu() -> None:
    cpu = SGDRegressor(**SGD).partial_fit(X, Y)
    with PretendGpu(free_bytes=X.nbytes) as gpu:
        cuda = SGDRegressor(**SGD, device="cuda").partial_fit(X, Y)
    assert not gpu.ops & {"_encode", "_column_stats"} and "_sgd_epoch" in gpu.ops
    same(cuda, cpu)


@pytest.mark.parametrize("name", ["ridge", "logistic", "sgd", "sgd-classes", "halp-classes"])
def test_predictions_are_made_where_the_rows_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchext.linear._table._BLOCK", 1000 * COLS)
    model, classes = MODELS[name]
    fitted = clone(model).fit(X, LABELS if classes else Y[:, 0])
    methods = ["predict"]
    if classes:
        methods += ["decision_function", "predict_proba"]
    for method in methods:
        want = getattr(fitted, method)(X)
        with PretendGpu() as gpu:
            for device in ("cuda", "cpu"):
                before = gpu.read
                fitted.set_params(device=device)
                found = getattr(fitted, method)(torch.from_numpy(X).to("cuda"))
                assert isinstance(found, np.ndarray) and found.shape == want.shape
                np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)
                scores = 8 * ROWS * len(np.atleast_2d(fitted.coef_))
                assert gpu.read - before == (scores if device == "cuda" else X.nbytes)
    monkeypatch.setattr(_load, "has_cuda_kernels", lambda: False)
    fitted.set_params(device="cuda").predict(X)  # a model goes to a machine without a GPU


@pytest.mark.parametrize("name", ["ridge", "sgd", "halp"])
def test_what_is_refused(name: str) -> None:
    model = clone(MODELS[name][0]).set_params(device="cuda")
    bad = torch.from_numpy(X).clone()
    bad[250, 5] = float("nan")
    with PretendGpu():
        x = torch.from_numpy(X).to("cuda")
        with pytest.raises(DataError, match="X: row 250, column 5: the value is NaN"):
            model.fit(bad.to("cuda"), Y)
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
            model.fit(x[0], Y)
        with pytest.raises(DataError, match="complex numbers cannot be encoded"):
            model.fit(x.to(torch.complex64), Y)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            model.fit(x, Y[1:])
        model.fit(x[:FEW], Y[:FEW])
        with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6"):
            model.predict(x[:, :5])
        with pytest.raises(DataError, match="X: row 250, column 5: the value is NaN"):
            model.predict(bad.to("cuda"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8, torch.float64])
def test_types_and_strides(dtype: torch.dtype) -> None:
    whole = torch.from_numpy(X[:FEW]).to(dtype)
    for x in (whole.t().contiguous().t(), whole[:, 1:5]):
        for model in (Ridge(bits=3), SGDRegressor(**SGD), SGDRegressor(**HALP)):
            cpu = clone(model).fit(x, Y[:FEW])
            with PretendGpu():
                same(clone(model).set_params(device="cuda").fit(x.to("cuda"), Y[:FEW]), cpu)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "bits, levels", [(3, "lloyd"), (4, "symmetric"), (8, "uniform"), (16, "uniform"), (32, "auto")]
)
def test_values_of_a_store_are_put_on_the_grid_there(bits: int, levels: str, where: str) -> None:
    store = QuantizedDataset.from_arrays(
        X, Y[:, 0], bits=bits, levels=levels, sampling="nearest", layout="row", random_state=0
    )
    rows = torch.arange(ROWS)[WEIGHT > 0]
    weight = WEIGHT[WEIGHT > 0]
    for scale, as_float in (("max", False), ("std", True), ("none", False)):
        how: dict[str, Any] = dict(bits=8, scale=scale, intercept=True, as_float=as_float)
        want = store_rows(store, rows, weight, **how)
        with PretendGpu() as gpu:
            found = store_rows(store.to(where), rows, weight, torch.device("cuda", 0), **how)
            assert "_grid_rows" in gpu.ops and found.x.device.type == "cuda"
            assert torch.equal(found.x.cpu(), want.x)
        with PretendGpu(free_bytes=want.x.nbytes) as gpu:
            found = store_rows(store, rows, weight, torch.device("cuda", 0), **how)
            assert "_grid_rows" not in gpu.ops and torch.equal(found.x.cpu(), want.x)
        for name in ("dx", "unit", "bound"):
            assert getattr(found, name) == getattr(want, name)
