"""Ridge and LogisticRegression: scikit-learn's optimum to 1e-6 from 2- and 4-bit codes, on every data set."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from linear_sets import REAL, SYNTHETIC, real, synthetic
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from torchext import _testing
from torchext.data import DataError, QuantizedDataset
from torchext.linear import LogisticRegression, Ridge, load_model, save_model

EXCESS = 1e-6  # acceptance: relative excess of scikit-learn's objective
COEF = 1e-4  # relative distance of the coefficients; twice that where full precision had to finish


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table(name):
    found = real(name) if name in REAL else synthetic(name)
    if found is None:
        pytest.skip(f"{name} is not here; point TORCHEXT_DATA at a folder with {name}.csv.gz")
    return found


def ridge_objective(X, y, coef, intercept, alpha, weight=None):
    residual = X @ np.atleast_2d(coef).T + intercept - np.asarray(y).reshape(len(X), -1)
    w = np.ones(len(X)) if weight is None else weight
    return float((w[:, None] * residual**2).sum() + alpha * (np.asarray(coef) ** 2).sum())


def logistic_gradient(X, index, coef, intercept, C=1.0, weight=None):
    """Objective of scikit-learn and its gradients, float64, softmax or two classes."""
    w = np.ones(len(X)) if weight is None else weight
    z = X @ coef.T + intercept
    if len(coef) == 1:
        sign = 2.0 * index[:, None] - 1.0
        loss = np.logaddexp(0, -sign * z)[:, 0]
        e = -sign / (1 + np.exp(sign * z))
    else:
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z)
        loss = np.log(p.sum(axis=1)) - z[np.arange(len(z)), index]
        e = p / p.sum(axis=1, keepdims=True) - np.eye(len(coef))[index]
    e = C * w[:, None] * e
    return C * (w * loss).sum() + 0.5 * (coef**2).sum(), e.T @ X + coef, e.sum(axis=0)


def newton(X, index, C=1.0, weight=None):
    """Coefficients and intercept of two classes, by Newton's method in float64 to machine accuracy."""
    scale = np.abs(X).max(axis=0)
    A = np.concatenate([X / scale, np.ones((len(X), 1))], axis=1)
    ridge = np.append(1.0 / scale**2, 0.0)
    w = np.ones(len(X)) if weight is None else weight
    x, sign = np.zeros(A.shape[1]), 2.0 * index - 1.0

    def objective(x):
        return C * (w * np.logaddexp(0, -sign * (A @ x))).sum() + 0.5 * (ridge * x * x).sum()

    for _ in range(60):
        p = 1 / (1 + np.exp(-(A @ x)))
        gradient = C * A.T @ (w * (p - index)) + ridge * x
        hessian = C * (A * (w * p * (1 - p))[:, None]).T @ A + np.diag(ridge)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        length = 1.0
        while objective(x - length * step) > objective(x) and length > 1e-8:
            length /= 2
        x = x - length * step
        if np.abs(length * step).max() < 1e-13 * np.abs(x).max():
            break
    return (x[:-1] / scale)[None], x[-1:]


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", [*REAL, *SYNTHETIC])
def test_ridge_is_exact(name, bits) -> None:
    X, y = table(name)
    model = Ridge(bits=bits).fit(X, y)
    best = theirs.Ridge(alpha=1.0, solver="cholesky").fit(X.astype(np.float64), y)
    ours = ridge_objective(X.astype(np.float64), y, model.coef_, model.intercept_, 1.0)
    least = ridge_objective(X.astype(np.float64), y, best.coef_, best.intercept_, 1.0)
    assert ours / least - 1 <= EXCESS
    assert np.linalg.norm(model.coef_ - best.coef_) <= COEF * (
        1 + model.fell_back_
    ) * np.linalg.norm(best.coef_)
    assert not model.fell_back_ or (name, bits) == ("corr", 2)
    assert model.grad_norm_ <= 1e-6 and (model.fell_back_ or model.n_anchors_ <= 20)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", ["cadata", "cpusmall", *SYNTHETIC])
def test_two_classes_are_exact(name, bits) -> None:
    X, y = table(name)
    index = (y > np.median(y)).astype(int)
    model = LogisticRegression(bits=bits).fit(X, index)
    coef, intercept = newton(X.astype(np.float64), index)
    ours = logistic_gradient(X.astype(np.float64), index, model.coef_, model.intercept_)[0]
    least = logistic_gradient(X.astype(np.float64), index, coef, intercept)[0]
    assert ours / least - 1 <= EXCESS
    assert np.linalg.norm(model.coef_ - coef) <= COEF * (1 + model.fell_back_) * np.linalg.norm(
        coef
    )
    assert not model.fell_back_ or (name, bits) == ("corr", 2)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4])
def test_ten_classes_are_exact(bits) -> None:
    """The objective is 1-strongly convex in the coefficients, so their gradient bounds the excess."""
    X, y = table("usps")
    classes, index = np.unique(y, return_inverse=True)
    model = LogisticRegression(bits=bits).fit(X, y)
    coef, intercept = model.coef_, model.intercept_.copy()
    for _ in range(3):  # the best intercepts for these coefficients
        z = X @ coef.T + intercept
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        hessian = np.diag(p.sum(axis=0)) - p.T @ p
        intercept -= np.linalg.lstsq(hessian, (p - np.eye(10)[index]).sum(axis=0), rcond=None)[0]
    value, gradient, slopes = logistic_gradient(X, index, coef, intercept)
    assert np.abs(slopes).max() < 1e-7
    assert (gradient**2).sum() / 2 / value <= EXCESS
    given = logistic_gradient(X, index, model.coef_, model.intercept_)[0]
    assert given / value - 1 <= EXCESS / 10
    assert not model.fell_back_ and model.n_anchors_ <= 20
    np.testing.assert_array_equal(model.classes_, classes)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(500, 7)) * np.array([1, 1, 1e3, 1e-3, 1, 5, 1]) + 3.0
    y = X @ rng.normal(size=7) + rng.normal(size=500)
    return X, y, rng.integers(0, 4, size=500), rng.uniform(0.0, 2.0, size=500)


def close(ours, best, X, tolerance=1e-4):
    """Coefficients in units of their columns, and intercepts, up to a share of the largest."""
    size = np.abs(X).max(axis=0)
    want = np.atleast_2d(best.coef_) * size
    np.testing.assert_allclose(
        np.atleast_2d(ours.coef_) * size, want, atol=tolerance * np.abs(want).max()
    )
    largest = max(np.abs(want).max(), np.abs(best.intercept_).max())
    np.testing.assert_allclose(ours.intercept_, best.intercept_, atol=tolerance * largest)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_weights_and_intercept_as_in_scikit_learn(small, fit_intercept, weighted) -> None:
    X, y, index, weight = small
    w = weight if weighted else None
    close(
        Ridge(alpha=2.0, fit_intercept=fit_intercept, tol=1e-9).fit(X, y, w),
        theirs.Ridge(alpha=2.0, fit_intercept=fit_intercept, solver="cholesky").fit(X, y, w),
        X,
    )
    scaled = X / np.array([1, 1, 1e3, 1e-3, 1, 5, 1])
    for labels in (index, index > 1):
        close(
            LogisticRegression(C=0.5, fit_intercept=fit_intercept, tol=1e-9).fit(scaled, labels, w),
            theirs.LogisticRegression(
                C=0.5, fit_intercept=fit_intercept, tol=1e-10, max_iter=10_000, solver="newton-cg"
            ).fit(scaled, labels, w),
            scaled,
            1e-3,
        )


def test_targets_and_penalties_by_column(small) -> None:
    X, y, _, _ = small
    Y = np.stack([y, -2 * y + X[:, 0]], axis=1)
    close(
        Ridge(alpha=[1.0, 10.0], tol=1e-9).fit(X, Y),
        theirs.Ridge(alpha=[1.0, 10.0], solver="cholesky").fit(X, Y),
        X,
    )


def test_class_weight_warm_start_and_probabilities(small) -> None:
    X, _, index, _ = small
    X = (X - X.mean(0)) / X.std(0)
    for class_weight in ("balanced", {0: 3.0, 1: 0.5, 2: 1.0, 3: 1.0}):
        best = theirs.LogisticRegression(class_weight=class_weight, tol=1e-8, max_iter=5000).fit(
            X, index
        )
        close(LogisticRegression(class_weight=class_weight, tol=1e-8).fit(X, index), best, X, 1e-3)
    model = LogisticRegression(warm_start=True).fit(X, index)
    first = model.n_iter_[0]
    model.fit(X, index)
    assert model.n_iter_[0] < first and model.n_anchors_ <= 2
    best = theirs.LogisticRegression(tol=1e-8, max_iter=5000).fit(X, index)
    np.testing.assert_allclose(model.predict_proba(X), best.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), best.predict(X))


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
@pytest.mark.parametrize("name", ["uniform", "gauss"])
def test_the_last_exact_gradient_serves_for_one_more_step(name, kind) -> None:
    """``loss_curve_`` ends at the last anchor, the coefficients a step on the codes further."""
    X, y = synthetic(name)
    model, target = (Ridge(), y) if kind == "ridge" else (LogisticRegression(), (y > 0).astype(int))

    def excess(tol):
        """Of the last anchor and of the coefficients."""
        m = clone(model).set_params(tol=tol).fit(X, target)
        assert m.grad_norm_ <= tol and not m.fell_back_
        if kind == "ridge":
            ours, factor = ridge_objective(X.astype(np.float64), y, m.coef_, m.intercept_, 1.0), 2
        else:
            ours, factor = (
                logistic_gradient(X.astype(np.float64), target, m.coef_, m.intercept_)[0],
                1,
            )
        return factor * len(X) * m.loss_curve_[-1] - least, ours - least, m.n_anchors_

    least = 0.0
    least = min(excess(1e-9)[:2])
    anchor, end, _ = excess(1e-3)
    assert 0.0 < end < 0.2 * anchor
    anchor, end, passes = excess(0.5)  # one pass: nothing is known of how well the codes do
    assert passes == 1 and end == pytest.approx(anchor)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_last_step_keeps_what_the_last_anchor_has_shown(bits) -> None:
    """Nearly dependent columns, few bits: a fit that starts from the coefficients finds nothing to do."""
    stepped = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        factors, noise = int(rng.choice([2, 4, 12])), 10 ** rng.uniform(-1.5, 0.5)
        X = rng.normal(size=(1200, factors)) @ rng.normal(size=(factors, 20))
        X = (X + noise * rng.normal(size=X.shape)).astype(np.float32)
        z = X @ rng.normal(size=20)
        index = (z - z.mean() + 0.3 * z.std() * rng.normal(size=len(z)) > 0).astype(int)
        model = LogisticRegression(
            C=10 ** rng.uniform(-1, 3.5),
            bits=bits,
            tol=10 ** rng.uniform(-6, -1.5),
            warm_start=True,
        ).fit(X, index)
        before, norm = model.loss_curve_[-1], model.grad_norm_
        model.fit(X, index)
        assert model.grad_norm_ <= model.tol and model.loss_curve_[0] <= before * (1 + 1e-12)
        stepped += model.loss_curve_[0] < before and model.grad_norm_ != norm
    assert stepped >= 2


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_the_anchor_of_a_store_saves_a_pass_over_the_rows(kind) -> None:
    X, y = synthetic("gauss")
    label = (y > 0).astype(int)
    target, model = (y, Ridge(bits=2)) if kind == "ridge" else (label, LogisticRegression(bits=2))
    loss = "squared_error" if kind == "ridge" else "log_loss"

    def store(**options):
        return QuantizedDataset.from_arrays(
            X, target, bits=2, sampling="nearest", loss=loss, random_state=3, **options
        )

    plain = clone(model).fit(X, target, store=store(anchor="none"))
    saved = clone(model).fit(X, target, store=store())
    assert saved.loss_curve_[0] < plain.loss_curve_[0]
    assert saved.n_anchors_ <= plain.n_anchors_
    np.testing.assert_allclose(saved.coef_, plain.coef_, rtol=1e-4, atol=1e-6)
    # Other targets have another gradient: the anchor of the store says nothing about them.
    other = y[::-1].copy() if kind == "ridge" else 1 - label
    a, b = (clone(model).fit(X, other, store=store(**o)) for o in ({}, {"anchor": "none"}))
    assert a.loss_curve_ == b.loss_curve_
    weighted = clone(model).fit(X, target, np.ones(len(X)), store=store())
    assert weighted.loss_curve_[0] == pytest.approx(plain.loss_curve_[0], rel=1e-9)


def test_every_source_gives_the_same_bits(small, tmp_path) -> None:
    X, y, _, _ = small
    X = np.ascontiguousarray(X)
    kept = X.copy()
    model = Ridge(tol=1e-8).fit(X, y)
    np.save(tmp_path / "X.npy", X)
    frozen = X.copy()
    frozen.flags.writeable = False
    blocks = Ridge(tol=1e-8).fit(
        lambda: ((X[i : i + 100], y[i : i + 100]) for i in range(0, 500, 100))
    )
    store = QuantizedDataset.from_arrays(
        X, bits=4, sampling="nearest", anchor="none", shuffle=False
    )
    others = [
        Ridge(tol=1e-8).fit(tmp_path / "X.npy", y),
        Ridge(tol=1e-8).fit(str(tmp_path / "X.npy"), y),
        Ridge(tol=1e-8).fit(frozen, y),
        Ridge(tol=1e-8).fit(np.asfortranarray(X), y),
        Ridge(tol=1e-8).fit(torch.from_numpy(X), torch.from_numpy(y)),
        Ridge(tol=1e-8, n_jobs=2).fit(X, y),
        Ridge(tol=1e-8).fit(X, y, store=store),
        blocks,
    ]
    for other in others:
        np.testing.assert_array_equal(other.coef_, model.coef_)
        assert other.intercept_ == model.intercept_
    np.testing.assert_array_equal(X, kept)


def test_threads_and_instruction_sets_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(70_000, 9)).astype(np.float32)
    y = X @ rng.normal(size=9) + rng.normal(size=70_000)
    for model, target in (
        (Ridge(), y),
        (LogisticRegression(), y > 0),
        (LogisticRegression(), np.digitize(y, [-1, 1])),
    ):
        results = []
        for threads, isa in ((1, "ref"), (2, torch.ops.torchext._cpu_isa()), (7, "ref")):
            torch.set_num_threads(threads)
            with _testing.isa(isa):
                results.append(model.fit(X, target).coef_.copy())
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_a_store_of_any_layout_and_order_serves(small, layout) -> None:
    X, y, index, _ = small
    store = QuantizedDataset.from_arrays(
        X, y, bits=3, sampling="corrected", layout=layout, shuffle=True, random_state=1
    )
    close(Ridge(tol=1e-9).fit(X, y, store=store), theirs.Ridge(solver="cholesky").fit(X, y), X)
    assert LogisticRegression().fit(X, index > 1, store=store).grad_norm_ <= 1e-6


def test_codes_alone_are_said_to_be_rounded(small, tmp_path) -> None:
    X, y, index, weight = small
    store = QuantizedDataset.from_arrays(
        X, y, sample_weight=weight, bits=6, shuffle=True, random_state=1
    )
    with pytest.warns(UserWarning, match="fitted on codes alone"):
        model = Ridge().fit(store)
    best = theirs.Ridge(solver="cholesky").fit(X, y, weight)
    assert model.n_anchors_ == 0 and np.isnan(model.grad_norm_) and model.n_features_in_ == 7
    save_model(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        load_model(tmp_path / "model.safetensors").predict(X), model.predict(X)
    )
    assert np.corrcoef(model.predict(X), best.predict(X))[0, 1] > 0.999
    labels = QuantizedDataset.from_arrays(
        X, np.array(["a", "b", "c", "d"])[index], bits=6, random_state=1
    )
    with pytest.warns(UserWarning, match="fitted on codes alone"):
        model = LogisticRegression().fit(labels)
    assert list(model.classes_) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("digits", [1, 2])
def test_full_precision_takes_over_and_says_so(digits) -> None:
    X, y = synthetic("corr", rows=3000)
    model = Ridge(bits=1, max_anchors=digits).fit(X, y)
    best = theirs.Ridge(solver="cholesky").fit(X.astype(np.float64), y)
    assert model.fell_back_ and model.report_["fell_back"] and model.grad_norm_ <= 1e-6
    np.testing.assert_allclose(model.coef_, best.coef_, atol=2e-3 * np.abs(best.coef_).max())


def test_what_cannot_converge_is_a_warning(small) -> None:
    X, _, index, _ = small
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning, match="not converged"):
            LogisticRegression(C=np.inf, tol=1e-300).fit(X[:20, :3], index[:20] > 1)


def test_odd_shapes(small) -> None:
    X, y, index, _ = small
    few = Ridge(alpha=1.0, tol=1e-9).fit(X[:3], y[:3])  # fewer rows than columns
    np.testing.assert_allclose(
        few.predict(X[:3]),
        theirs.Ridge(solver="cholesky").fit(X[:3], y[:3]).predict(X[:3]),
        rtol=1e-4,
    )
    one = Ridge().fit(X[:1], y[:1])
    assert not one.coef_.any() and one.intercept_ == pytest.approx(y[0])
    constant = np.hstack([X, np.full((500, 1), 7.0)])
    assert Ridge().fit(constant, y).coef_[-1] == 0.0
    assert not Ridge().fit(np.zeros((20, 3)), y[:20]).coef_.any()
    far = Ridge(tol=1e-10).fit(X + 1e6, y)  # mean/std = 1e6
    best = theirs.Ridge(solver="cholesky").fit(X, y)
    np.testing.assert_allclose(far.coef_, best.coef_, rtol=1e-4)
    assert LogisticRegression().fit(X, index > 1).coef_.shape == (1, 7)


def test_bad_input_is_named(small) -> None:
    X, y, index, _ = small
    bad = X.copy()
    bad[17, 3] = np.nan
    with pytest.raises(DataError, match=r"row 17, column 3: the value is NaN"):
        Ridge().fit(bad, y)
    with pytest.raises(ValueError, match=r"y contains (NaN|infinity)"):
        Ridge().fit(X, np.where(np.arange(500) == 3, np.inf, y))
    with pytest.raises(ValueError, match="bits must be 1 to 8, got 16"):
        Ridge(bits=16).fit(X, y)
    with pytest.raises(ValueError, match="tol must be positive, got 0"):
        Ridge(tol=0).fit(X, y)
    with pytest.raises(ValueError, match="max_anchors must be an integer >= 1, got 0"):
        Ridge(max_anchors=0).fit(X, y)
    with pytest.raises(ValueError, match="alpha must be a number >= 0 or one per target"):
        Ridge(alpha=-1.0).fit(X, y)
    with pytest.raises(ValueError, match="C must be positive, got 0"):
        LogisticRegression(C=0).fit(X, index)
    with pytest.raises(ValueError, match="needs at least 2 classes; got 1 class"):
        LogisticRegression().fit(X, np.zeros(500))
    with pytest.raises(ValueError, match="at least one non-zero"):
        Ridge().fit(X, y, np.zeros(500))
    store = QuantizedDataset.from_arrays(X[:100], y[:100], bits=4)
    with pytest.raises(
        ValueError, match=r"store must hold the same rows as X: it has shape \(100, 7\)"
    ):
        Ridge().fit(X, y, store=store)
    double = QuantizedDataset.from_arrays(X, y, bits=4, sampling="double")
    with pytest.raises(ValueError, match="store must hold one draw of 1 to 8 bits"):
        Ridge().fit(X, y, store=double)
    with pytest.raises(ValueError, match="holds its own targets"):
        Ridge().fit(store, y)
    with pytest.raises(ValueError, match="encode it for classification"):
        LogisticRegression().fit(store)
    with pytest.raises(ValueError, match="fit needs targets"):
        Ridge().fit(lambda: [X])


def test_models_are_kept(small, tmp_path) -> None:
    X, y, index, _ = small
    for model in (Ridge().fit(X, y), LogisticRegression().fit(X, index)):
        save_model(model, tmp_path / "model.safetensors")
        for again in (
            load_model(tmp_path / "model.safetensors"),
            pickle.loads(pickle.dumps(model)),
        ):
            np.testing.assert_array_equal(again.predict(X), model.predict(X))
