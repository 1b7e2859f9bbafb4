"""Ridge, LogisticRegression and the solvers "halp" and "svrg" with device="cuda", on a pretended GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from pretend_gpu import PretendGpu
from sklearn.base import clone

from torchext.data import QuantizedDataset
from torchext.linear import LogisticRegression, Ridge, SGDClassifier, SGDRegressor


def data(rows: int, cols: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    X = rng.normal(size=(rows, cols)).astype(np.float32)
    w = rng.normal(size=(cols, max(classes, 1)))
    z = X @ w + 0.5 * rng.normal(size=(rows, max(classes, 1)))
    return X, z[:, 0] if classes == 0 else (z[:, 0] > 0) * 1 if classes == 2 else z.argmax(axis=1)


def same(a: Any, b: Any, names: tuple[str, ...]) -> None:
    for name in names:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


FITTED = ("coef_", "intercept_", "loss_curve_", "n_iter_")
HALP: dict[str, Any] = {"solver": "halp", "max_iter": 2, "random_state": 3, "alpha": 1e-3}


@pytest.mark.parametrize(
    "model, classes, passes",
    [
        (Ridge(alpha=2.0, bits=3), 0, {"_encode", "_exact_pass", "_code_gram"}),
        (Ridge(bits=2, fit_intercept=False), 0, {"_encode", "_exact_pass", "_code_gram"}),
        (
            LogisticRegression(C=0.5, bits=3),
            2,
            {"_encode", "_exact_pass", "_loss_terms", "_code_sum"},
        ),
        (
            LogisticRegression(C=0.5, bits=3),
            3,
            {"_encode", "_exact_pass", "_loss_terms", "_code_dot"},
        ),
        (SGDRegressor(**HALP), 0, {"_grid_rows", "_exact_pass", "_halp_epoch"}),
        (
            SGDRegressor(**{**HALP, "solver": "svrg"}),
            0,
            {"_grid_rows", "_exact_pass", "_svrg_epoch"},
        ),
        (SGDClassifier(loss="log_loss", **HALP), 2, {"_grid_rows", "_exact_pass", "_halp_epoch"}),
        (SGDRegressor(**HALP, batch_size=6), 0, {"_grid_rows", "_exact_pass", "_halp_epoch"}),
        (
            SGDRegressor(**HALP, z_bits=8, batch_size=70),
            0,
            {"_grid_rows", "_exact_pass", "_halp_epoch"},
        ),
        (
            SGDRegressor(**{**HALP, "solver": "svrg"}, batch_size=70),
            0,
            {"_grid_rows", "_exact_pass", "_svrg_epoch"},
        ),
        (
            SGDClassifier(loss="log_loss", **HALP, batch_size=7),
            3,
            {"_grid_rows", "_exact_pass", "_halp_epoch"},
        ),
    ],
    ids=(
        "ridge ridge-through-0 logistic softmax halp svrg halp-classes halp-batches halp-8-batches "
        "svrg-batches halp-classes-batches"
    ).split(),
)
def test_fits_are_those_of_the_cpu(
    model: Any, classes: int, passes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(model, (SGDRegressor, SGDClassifier)):
        monkeypatch.setattr("torchext.linear._vr_run.MIN_ROWS", 60)
    X, y = data(90, 6, classes)
    weight = np.linspace(0.5, 1.5, len(X)) if classes != 3 else None
    cpu = clone(model).fit(X, y, sample_weight=weight)
    with PretendGpu() as gpu:
        there = clone(model).set_params(device="cuda").fit(X, y, sample_weight=weight)
    assert passes <= gpu.ops
    same(there, cpu, FITTED)
    assert np.array_equal(there.predict(X), cpu.predict(X))


def test_rows_that_do_not_fit_are_sent_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchext.linear._products._BLOCK", 4)  # blocks of 1024 rows
    X, y = data(2100, 3, 0)
    cpu = Ridge(bits=3).fit(X, y)
    for free, encodes in ((100, False), (X.nbytes, False), (2 * X.nbytes, True)):
        with PretendGpu(free_bytes=free) as gpu:
            there = Ridge(bits=3, device="cuda").fit(X, y)
        assert ("_encode" in gpu.ops) == encodes
        assert gpu.ran.count("_exact_pass") == (3 if free == 100 else 1) * there.n_anchors_
        same(there, cpu, FITTED)


@pytest.mark.parametrize("kind", ["file", "blocks", "integers"])
def test_tables_of_other_kinds(kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is mapped, blocks are spilled: rows go to the GPU part by part, and stay."""
    monkeypatch.setattr("torchext.data.gpu_source._COPIED", 300)
    X, y = data(300, 5, 0)
    X = np.rint(100 * X)
    given: Any = X.astype(np.int64)
    if kind == "file":
        given = tmp_path / "x.npy"
        np.save(given, X.astype(np.int64))
    elif kind == "blocks":
        given = lambda: ((X[k : k + 70], y[k : k + 70]) for k in range(0, 300, 70))  # noqa: E731
    targets = () if kind == "blocks" else (y,)
    cpu = Ridge(bits=3).fit(given, *targets)
    with PretendGpu() as gpu:
        there = Ridge(bits=3, device="cuda").fit(given, *targets)
    assert {"_column_stats", "_encode"} <= gpu.ops
    same(there, cpu, FITTED)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", ["ridge", "logistic", "halp", "svrg"])
def test_stores_wherever_their_codes_are(
    kind: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shuffled stores with their pilot anchors."""
    monkeypatch.setattr("torchext.linear._vr_run.MIN_ROWS", 60)
    loss, classes = ("log_loss", 2) if kind == "logistic" else ("squared_error", 0)
    X, y = data(300, 5, classes)
    store = QuantizedDataset.from_arrays(
        X, y, bits=4, sampling="nearest", loss=loss, random_state=1
    )
    models = {"ridge": Ridge(), "logistic": LogisticRegression()}
    model = models.get(kind, SGDRegressor(solver=kind, max_iter=2, random_state=3))
    with (
        pytest.warns(UserWarning, match="fitted on codes alone")
        if kind in models
        else nullcontext()
    ):
        cpu = clone(model).fit(store)
        with PretendGpu():
            there = clone(model).set_params(device="cuda").fit(store.to(where))
    same(there, cpu, ("coef_", "intercept_"))


def test_warm_start_and_checkpoint(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """State is in CPU memory between fits: what one device wrote, another continues."""
    monkeypatch.setattr("torchext.linear._vr_run.MIN_ROWS", 60)
    X, y = data(90, 6, 0)
    options = {**HALP, "checkpoint": str(tmp_path / "run"), "resume": True}
    whole = SGDRegressor(**{**HALP, "max_iter": 3}).fit(X, y)
    with PretendGpu():
        SGDRegressor(**{**options, "device": "cuda", "max_iter": 3}).fit(X, y)
        again = SGDRegressor(**{**options, "device": "cuda", "max_iter": 3}).fit(X, y)
        ridge = Ridge(bits=3, device="cuda").fit(X, y)
        assert isinstance(ridge.coef_, np.ndarray)
    same(again, whole, ("coef_", "intercept_"))


@pytest.mark.parametrize("model", [Ridge(), LogisticRegression(), SGDRegressor(solver="halp")])
def test_devices_that_are_not_there(model: Any) -> None:
    X, y = data(20, 3, 2)
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:<number>", got'):
        clone(model).set_params(device="abacus").fit(X, y)
    with pytest.raises(ValueError, match=r"device='cuda:999' needs"):
        clone(model).set_params(device="cuda:999").fit(X, y)
