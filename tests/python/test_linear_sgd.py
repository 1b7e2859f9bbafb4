"""SGDRegressor and SGDClassifier: against a reference model, exact resume, reproducibility, errors."""

from __future__ import annotations

import os
import pickle
import warnings

import linear_model
import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from sklearn.base import clone

import torchext
from torchext import _testing
from torchext.data import QuantizedDataset
from torchext.linear import (
    ConvergenceError,
    SGDClassifier,
    SGDRegressor,
    _order,
    _problem,
    _trainer,
)
from torchext.linear._schedule import Schedule, automatic_step
from torchext.linear._state import State
from torchext.linear._validate import threads_of
from torchext.random import key_from_seed


def regression(rows=700, cols=13, seed=0, outputs=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, cols)) * rng.uniform(0.2, 5, cols) + rng.normal(size=cols)
    y = X @ rng.normal(size=(cols, outputs)) + 0.1 * rng.normal(size=(rows, outputs)) + 3
    return X, y[:, 0] if outputs == 1 else y


def classes(rows=700, cols=9, count=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, count, rows)
    return rng.normal(size=(count, cols))[y] + rng.normal(size=(rows, cols)), y


def options(
    problem,
    *,
    batch=128,
    bits=32,
    l1=0.0,
    l2=0.01,
    max_iter=3,
    average=True,
    threads=1,
    gradient_bits=0,
):
    per_epoch = -(-problem.rows // batch)
    schedule = Schedule("linear", per_epoch, per_epoch * max_iter)
    return _trainer.Options(
        batch, max_iter, 0, 0.0, 5, l1, l2, average, bits, bits, gradient_bits, threads, schedule
    )


def run(problem, opts, gamma=0.05, seed=3):
    x = (
        torch.zeros(problem.outputs, problem.cols)
        if problem.x0 is None
        else problem.split(problem.x0)[0]
    )
    state = State.start(x + 0.1, torch.zeros(problem.outputs), gamma)
    trainer = _trainer.Trainer(problem, opts, key_from_seed(seed), state)
    trainer.run_round(lambda state: False)
    return trainer


CASES = {
    "plain": dict(sampling="nearest", anchor="none"),
    "anchored": dict(sampling="nearest", anchor="pilot", variance_reduced=False),
    "reduced": dict(sampling="nearest", anchor="pilot", variance_reduced=True),
    "corrected": dict(sampling="corrected", levels="uniform", anchor="none"),
    "double": dict(sampling="double", levels="uniform", anchor="none"),
    "logistic": dict(sampling="nearest", anchor="pilot", loss="log_loss", variance_reduced=False),
    "logistic reduced": dict(
        sampling="nearest", anchor="pilot", loss="log_loss", variance_reduced=True
    ),
    "weighted": dict(sampling="nearest", anchor="pilot", variance_reduced=True, weight=True),
    "float32": dict(sampling="nearest", anchor="pilot", variance_reduced=True, bits=32),
    "std": dict(sampling="nearest", anchor="pilot", variance_reduced=True, scale="std"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("l1", [0.0, 0.003])
def test_unrounded_epochs_follow_the_formula(case, l1):
    how = dict(CASES[case])
    loss, bits, scale = (
        how.pop("loss", "squared_error"),
        how.pop("bits", 4),
        how.pop("scale", "max"),
    )
    reduced = how.pop("variance_reduced", "auto")
    X, y = regression(outputs=2)
    if loss == "log_loss":
        y = np.where(y > 3, 1.0, -1.0)
    weight = np.random.default_rng(1).uniform(0.2, 2, len(X)) if how.pop("weight", False) else None
    store = QuantizedDataset.from_arrays(
        X, y, bits=bits, loss=loss, sample_weight=weight, random_state=0, **how
    )
    problem = _problem.build(store, loss=loss, theta="keff", scale=scale, variance_reduced=reduced)
    opts = options(problem, l1=l1)
    trainer = run(problem, opts)

    def array(t):
        return None if t is None else t.double().numpy()

    index = torch.arange(store.rows)
    q = array(problem.decode(index))
    second = array(problem.decode(index, draw=1)) if store.sampling == "double" else None
    x = (
        np.zeros((2, store.cols))
        if problem.x0 is None
        else array(problem.split(problem.x0)[0]).copy()
    )
    x += np.float32(0.1)
    intercept, average = np.zeros(2), np.zeros((2, store.cols + 1))
    sums = []
    for number in range(3):
        if number <= 1:
            average[:] = 0
        order = _order.epoch_order(trainer.sampler, number, trainer.batches).numpy()
        gamma = opts.schedule.gammas(0.05, number * trainer.batches, trainer.batches).numpy()
        sums.append(
            linear_model.epoch(
                q, array(problem.y), x, intercept, order, gamma, batch=128, loss=loss,
                weight=array(problem.weight), z0=array(problem.z0), x0=array(problem.x0),
                constant=array(problem.constant), shrink=array(problem.shrink), average=average, l1=l1,
                l2=0.01,
                variance_reduced=problem.variance_reduced, fit_intercept=problem.fit_intercept, second=second,
            )
        )  # fmt: skip
    state = trainer.state
    np.testing.assert_allclose(state.x.numpy(), x, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(state.intercept.numpy(), intercept, rtol=2e-4, atol=2e-5)
    steps = 2 * trainer.batches
    np.testing.assert_allclose(state.average.numpy() / steps, average / steps, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(state.sums.numpy()[:2], sums[-1][:2], rtol=1e-3)
    np.testing.assert_array_equal(state.sums.numpy()[2], [store.rows] * 2)


@pytest.mark.parametrize(
    "case", ["plain", "anchored", "reduced", "corrected", "double", "logistic"]
)
def test_rounding_to_8_bits_changes_little(case):
    how = dict(CASES[case])
    loss, reduced = how.pop("loss", "squared_error"), how.pop("variance_reduced", "auto")
    X, y = regression(rows=2000)
    y = np.where(y > 3, 1.0, -1.0)[:, None] if loss == "log_loss" else y
    store = QuantizedDataset.from_arrays(X, y, bits=4, loss=loss, random_state=0, **how)
    problem = _problem.build(store, loss=loss, theta="keff", scale="max", variance_reduced=reduced)
    exact = run(problem, options(problem, max_iter=10)).state
    rounded = run(problem, options(problem, max_iter=10, bits=8, gradient_bits=8)).state
    x, z = exact.solution(True)[0], rounded.solution(True)[0]
    assert float((x - z).norm() / x.norm()) < 0.02
    assert rounded.losses == pytest.approx(exact.losses, rel=0.05)


# -- reproducibility ---------------------------------------------------------------------------------


def test_threads_stay_within_the_processors_of_the_process():
    allowed = os.sched_getaffinity(0)
    count = len(allowed)
    assert [threads_of(n) for n in (None, 1, 1000, -1, -1000)] == [1, 1, count, count, 1]
    os.sched_setaffinity(0, [min(allowed)])
    try:
        assert [threads_of(n) for n in (2, 7, -1)] == [1, 1, 1]
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_same_bits_for_any_thread_count_and_instruction_set(bits):
    X, y = regression(rows=1500, cols=37)
    model = SGDRegressor(bits=bits, random_state=5, max_iter=4, tol=None, gradient_bits=8)
    expected = clone(model).fit(X, y).coef_
    for threads in (2, 7):
        np.testing.assert_array_equal(
            clone(model).set_params(n_jobs=threads).fit(X, y).coef_, expected
        )
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if there:
                np.testing.assert_array_equal(clone(model).fit(X, y).coef_, expected)


def test_random_state_decides():
    X, y = regression()
    fit = lambda seed: SGDRegressor(bits=2, random_state=seed, max_iter=3).fit(X, y).coef_  # noqa: E731
    np.testing.assert_array_equal(fit(1), fit(1))
    assert not np.array_equal(fit(1), fit(2))
    first = SGDRegressor(max_iter=2, random_state=np.random.RandomState(3)).fit(X, y).coef_
    np.testing.assert_array_equal(
        first, SGDRegressor(max_iter=2, random_state=np.random.RandomState(3)).fit(X, y).coef_
    )


def test_order_is_a_keyed_permutation():
    key = key_from_seed(11)
    words = torch.ops.torchext._philox(key, 26, 0, 0).numpy()[:101] & 0xFFFFFFFF
    expected = sorted(range(101), key=lambda i: (int(words[i]), i))
    assert _order.permutation(key, 101).tolist() == expected
    orders = [_order.epoch_order(_order.sampler_key(key), e, 101).tolist() for e in range(3)]
    assert all(sorted(o) == list(range(101)) for o in orders)
    assert orders[0] != orders[1] != orders[2]


def test_fit_on_a_store_equals_fit_on_arrays(tmp_path):
    X, y = regression()
    model = SGDRegressor(bits=4, random_state=7, max_iter=3).fit(X, y)
    store = QuantizedDataset.from_arrays(
        X, y, bits=4, random_state=7, alpha=model.alpha, path=tmp_path / "data.tq"
    )
    for data in (store, QuantizedDataset.open(tmp_path / "data.tq")):
        again = SGDRegressor(bits=4, random_state=7, max_iter=3).fit(data)
        np.testing.assert_array_equal(again.coef_, model.coef_)
        np.testing.assert_array_equal(again.intercept_, model.intercept_)


def test_inputs_are_not_changed_and_pickle_holds_no_data():
    X, y = regression(rows=5000)
    kept = X.copy(), y.copy()
    model = SGDRegressor(random_state=0, max_iter=2).fit(X, y)
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])
    stored = pickle.dumps(model)
    assert len(stored) < 20_000
    np.testing.assert_array_equal(pickle.loads(stored).predict(X), model.predict(X))


# -- checkpoints -------------------------------------------------------------------------------------


def interrupt_at(epoch):
    def stop(info):
        if info.epoch == epoch:
            raise KeyboardInterrupt

    return stop


RUNS = [
    dict(bits=4),
    dict(bits=2, average=False, variance_reduced=False),
    dict(bits=4, anchor=2),
    dict(bits=4, sampling="double", levels="uniform", anchor="none", copies=2),
    dict(bits=32),
]


@pytest.mark.parametrize("how", RUNS, ids=str)
@pytest.mark.parametrize("at", [1, 4, 8])
def test_resume_equals_never_having_stopped(tmp_path, how, at):
    X, y = regression()
    path = tmp_path / "run.safetensors"
    base = SGDRegressor(random_state=3, max_iter=6, tol=None, **how)
    whole = clone(base).fit(X, y)
    stopped = clone(base).set_params(checkpoint=path, callbacks=[interrupt_at(at)])
    if at < len(whole.loss_curve_):
        with pytest.raises(KeyboardInterrupt):
            stopped.fit(X, y)
        assert stopped.predict(X).shape == y.shape  # usable as it is
        assert len(stopped.loss_curve_) == at
    resumed = clone(base).set_params(checkpoint=path, resume=True, n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    np.testing.assert_array_equal(resumed.intercept_, whole.intercept_)
    assert resumed.loss_curve_ == whole.loss_curve_
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_resume_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    X, y = regression()
    monkeypatch.setattr(_trainer, "CALL_VALUES", 64 * X.shape[1] * 2)
    base = SGDRegressor(random_state=3, max_iter=3, tol=None, batch_size=64)
    whole = clone(base).fit(X, y)
    call, count = _trainer.Trainer._call, iter(range(100))

    def interrupted(self):
        call(self)
        if next(count) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(_trainer.Trainer, "_call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clone(base).set_params(checkpoint=tmp_path / "c").fit(X, y)
    monkeypatch.setattr(_trainer.Trainer, "_call", call)
    resumed = clone(base).set_params(checkpoint=tmp_path / "c", resume=True).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    assert resumed.loss_curve_ == whole.loss_curve_


def test_checkpoint_of_another_run_is_refused(tmp_path):
    X, y = regression()
    path = tmp_path / "c"
    SGDRegressor(random_state=0, max_iter=2, checkpoint=path).fit(X, y)
    with pytest.raises(ValueError, match="differs in alpha;"):
        SGDRegressor(random_state=0, max_iter=2, alpha=1.0, checkpoint=path, resume=True).fit(X, y)
    with pytest.raises(ValueError, match="differs in key, data;"):
        SGDRegressor(random_state=1, max_iter=2, checkpoint=path, resume=True).fit(X, y)
    with pytest.raises(ValueError, match="differs in data;"):
        SGDRegressor(random_state=0, max_iter=2, checkpoint=path, resume=True).fit(X + X**2, y)
    damaged = path.read_bytes()[:-8]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not a readable model file"):
        SGDRegressor(random_state=0, max_iter=2, checkpoint=path, resume=True).fit(X, y)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable model file"):
        SGDRegressor(random_state=0, max_iter=2, checkpoint=path, resume=True).fit(X, y)


# -- steps, guards, stopping -------------------------------------------------------------------------


def test_schedules():
    assert Schedule("constant", 4, 8).gammas(0.5, 3, 2).tolist() == [0.5, 0.5]
    assert Schedule("linear", 4, 8).gammas(0.5, 0, 8).tolist() == [0.5] * 5 + [0.375, 0.25, 0.125]
    assert Schedule("epoch", 2, 8).gammas(0.6, 0, 6).tolist() == pytest.approx(
        [0.6, 0.6, 0.3, 0.3, 0.2, 0.2]
    )
    inverse = Schedule("invscaling", 2, 8, power_t=0.5).gammas(1.0, 3, 1)
    assert inverse.tolist() == [0.5]
    assert Schedule("shift", 1, 8, shift_every=2).gammas(0.3, 0, 5).tolist() == [
        0.25,
        0.25,
        0.125,
        0.125,
        0.0625,
    ]


def test_automatic_step_is_the_rule():
    rng = np.random.default_rng(0)
    q = rng.standard_t(4, size=(3000, 6))
    q[:, 0] *= 5  # a clear first eigenvalue: twenty power iterations find it
    lmax = np.linalg.eigvalsh(q.T @ q / len(q))[-1]
    square = (q**2).sum(1)
    r2 = (square**2).mean() / square.mean()
    bound = automatic_step(torch.from_numpy(q), None, 0.1, 64, 1.0)
    assert bound.lmax == pytest.approx(lmax, rel=1e-6)
    assert bound.r2 == pytest.approx(r2, rel=1e-6)
    exact = 1 / (lmax + r2 / 64 + 0.1)
    assert exact * (1 - 2**-7) < bound.step <= exact
    weighted = automatic_step(torch.from_numpy(q), torch.full((3000,), 2.0), 0.0, 64, 1.0)
    assert weighted.lmax == pytest.approx(2 * lmax, rel=1e-6)
    assert automatic_step(torch.zeros(5, 3), None, 0.0, 64, 1.0).step > 0


def test_guard_halves_the_step_and_recovers():
    X, y = regression()
    good = SGDRegressor(anchor="none", random_state=0, max_iter=40, tol=None).fit(X, y)
    with pytest.warns(UserWarning, match="step halved"):
        wild = SGDRegressor(
            anchor="none", random_state=0, max_iter=40, tol=None, eta0=20 * good.report_.step_size
        ).fit(X, y)
    assert wild.score(X, y) > 0.95
    assert len(wild.report_.guards) >= 1
    assert wild.report_.step_size < 20 * good.report_.step_size
    with pytest.raises(ConvergenceError, match="halving the step size"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SGDRegressor(anchor="none", random_state=0, eta0=1e9).fit(X, y)


def test_tol_callbacks_and_early_stopping():
    X, y = regression(rows=3000)
    base = SGDRegressor(random_state=0, max_iter=60)
    early = clone(base).set_params(tol=1e-3).fit(X, y)
    assert early.n_iter_ < 60
    assert early.report_.stopped == "no improvement"
    assert clone(base).set_params(tol=None, max_iter=9).fit(X, y).n_iter_ == 9
    seen = []
    model = (
        clone(base)
        .set_params(tol=None, callbacks=[lambda info: seen.append(info) or info.epoch == 3])
        .fit(X, y)
    )
    assert model.n_iter_ == 3 == len(seen)
    assert [s.loss for s in seen] == model.loss_curve_
    assert model.report_.stopped == "by a callback"
    held = clone(base).set_params(early_stopping=True, validation_fraction=0.2).fit(X, y)
    assert len(held.validation_loss_curve_) == held.n_iter_
    assert held.score(X, y) > 0.99


def test_sklearn_callbacks_are_called():
    callback = pytest.importorskip("sklearn.callback")

    class Recorder:
        def __init__(self):
            self.events = []

        def setup(self, estimator, context):
            self.events.append("setup")

        def teardown(self, estimator, context):
            self.events.append("teardown")

        def on_fit_task_begin(self, estimator, context):
            self.events.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context):
            self.events.append(f"end {context.task_name}")

    assert isinstance(Recorder(), callback.FitCallback)
    X, y = regression()
    recorder = Recorder()
    SGDRegressor(random_state=0, max_iter=2, tol=None).set_callbacks(recorder).fit(X, y)
    epochs = ["begin epoch", "end epoch"] * 2
    assert recorder.events == ["setup", "begin fit", *epochs, "end fit", "teardown"]


# -- what the models are -----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 16, 32])
def test_every_width_fits(bits):
    X, y = regression(rows=2000)
    model = SGDRegressor(bits=bits, random_state=0).fit(X, y)
    assert model.score(X, y) > (0.99 if bits > 1 else 0.9)
    assert model.bits_per_value_ == bits
    report = model.report_
    assert report["bits_per_value"] == bits
    assert report.bytes_per_epoch >= bits * X.size / 8 * 0.99
    assert "bits per value" in str(report)


@pytest.mark.parametrize("sampling", ["nearest", "stochastic", "corrected", "double", "auto"])
@pytest.mark.parametrize("anchor", ["none", "pilot", 1])
def test_every_sampling_and_anchor(sampling, anchor):
    X, y = regression(rows=2000)
    model = SGDRegressor(
        bits=6, sampling=sampling, anchor=anchor, random_state=0, batch_size=64
    ).fit(X, y)
    assert model.score(X, y) > 0.98
    assert model.sampling_ == (sampling if sampling != "auto" else model.sampling_)
    assert model.report_.full_precision_passes == (anchor if isinstance(anchor, int) else 0)


def test_multiple_outputs_equal_their_shapes():
    X, y = regression(outputs=3)
    model = SGDRegressor(random_state=0).fit(X, y)
    assert model.coef_.shape == (3, X.shape[1])
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.99


@pytest.mark.parametrize("loss", ["squared", "log_loss"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_classifier(loss, count):
    X, y = classes(count=count)
    names = np.array(["ant", "bee", "cat", "dog", "elk"])[y]
    model = SGDClassifier(loss, bits=3, random_state=0).fit(X, names)
    assert model.score(X, names) > 0.7
    assert model.coef_.shape == (1 if count == 2 else count, X.shape[1])
    assert model.decision_function(X).shape == ((len(X),) if count == 2 else (len(X), count))
    if loss == "log_loss":
        p = model.predict_proba(X)
        np.testing.assert_allclose(p.sum(1), 1.0)
        np.testing.assert_array_equal(model.classes_[p.argmax(1)], model.predict(X))
    else:
        assert not hasattr(model, "predict_proba")
    weighted = SGDClassifier(loss, bits=3, random_state=0, class_weight={names[0]: 20.0}).fit(
        X, names
    )
    assert (weighted.predict(X) == names[0]).sum() > (model.predict(X) == names[0]).sum()


def test_class_weight_is_not_ignored_on_a_store():
    X, y = classes(count=2)
    store = QuantizedDataset.from_arrays(X, y, bits=3, task="classification")
    with pytest.raises(
        ValueError, match="class_weight must be None to fit a data set, got 'balanced'"
    ):
        SGDClassifier(class_weight="balanced").fit(store)


def test_weights_of_zero_leave_rows_out():
    X, y = regression(rows=3000)
    weight = np.ones(len(X))
    weight[2000:] = 0
    dirty = y.copy()
    dirty[2000:] = 100
    model = SGDRegressor(bits=8, random_state=0, alpha=0).fit(X, dirty, sample_weight=weight)
    assert model.score(X[:2000], y[:2000]) > 0.999
    scaled = SGDRegressor(bits=8, random_state=0, alpha=0).fit(X, dirty, sample_weight=7 * weight)
    np.testing.assert_allclose(scaled.coef_, model.coef_, rtol=1e-4, atol=1e-5)


def test_exact_solver_is_ridge():
    from sklearn.linear_model import Ridge

    X, y = regression()
    half = np.abs(X - X.mean(0)).max(0)
    model = SGDRegressor(solver="exact", alpha=0.01).fit(X, y)
    ridge = Ridge(alpha=0.01 * len(X), solver="cholesky").fit(X / half, y)
    np.testing.assert_allclose(model.coef_, ridge.coef_ / half, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, ridge.intercept_, rtol=1e-9)


def test_l1_gives_zeros():
    X, y = regression(rows=3000)
    X = np.column_stack([X, np.random.default_rng(5).normal(size=(len(X), 10))])
    model = SGDRegressor(
        bits=8, penalty="l1", alpha=0.05, average=False, random_state=0, max_iter=60
    ).fit(X, y)
    assert (model.coef_[-10:] == 0).sum() >= 8
    assert model.score(X, y) > 0.9


def test_warm_start_goes_on():
    X, y = regression(rows=3000)
    model = SGDRegressor(anchor="none", warm_start=True, random_state=0, max_iter=5, tol=None).fit(
        X, y
    )
    first = model.loss_curve_
    assert model.fit(X, y).loss_curve_[0] < first[0]


@pytest.mark.parametrize("bits", [2, 4, 8, 32])
def test_partial_fit_learns_from_a_stream(bits):
    X, y = regression(rows=20_000)
    model = SGDRegressor(bits=bits, random_state=0)
    for first in range(0, len(X), 1000):
        model.partial_fit(X[first : first + 1000], y[first : first + 1000])
    assert model.score(X, y) > 0.97
    assert model.n_iter_ == 20
    assert model.n_clipped_ < 0.02 * X.size
    if bits != 32:
        model.partial_fit(100 * X[:100], y[:100])
        assert model.n_clipped_ > 100


@pytest.mark.parametrize("levels", ["lloyd", "optimal"])
def test_partial_fit_clamps_nothing_that_it_rounds_at_random(levels):
    X = np.random.default_rng(0).lognormal(size=(1000, 3)).astype(np.float32)
    model = SGDRegressor(bits=2, sampling="stochastic", levels=levels, random_state=0)
    model.partial_fit(X, X.sum(axis=1))
    book = model._stream.book
    low, high = book.levels[0, :, 0], book.levels[0, :, -1]
    scaled = (torch.from_numpy(X).double() - model._stream.mean) / model._stream.scale
    assert bool((low <= scaled.amin(0)).all()) and bool((high >= scaled.amax(0)).all())


def test_partial_fit_of_a_classifier():
    X, y = classes(rows=4000)
    model = SGDClassifier("log_loss", random_state=0)
    with pytest.raises(ValueError, match="classes must be passed"):
        model.partial_fit(X[:100], y[:100])
    for first in range(0, len(X), 500):
        model.partial_fit(X[first : first + 500], y[first : first + 500], classes=[0, 1, 2])
    assert model.score(X, y) > 0.7
    with pytest.raises(ValueError, match="not the same as on last call"):
        model.partial_fit(X, y, classes=[0, 1])


def test_torch_tensors_and_constant_columns():
    X, y = regression()
    X[:, 3] = 7.0
    model = SGDRegressor(random_state=0).fit(torch.from_numpy(X), torch.from_numpy(y))
    assert model.coef_[3] == 0.0
    assert model.score(X, y) > 0.9


# -- errors ------------------------------------------------------------------------------------------

BAD = [
    (dict(bits=9), "bits must be 1 to 8"),
    (dict(model_bits=9), "model_bits must be"),
    (dict(residual_bits=1), "residual_bits must be"),
    (dict(gradient_bits=9), "gradient_bits must be"),
    (dict(sampling="best"), "sampling must be one of"),
    (dict(penalty="l3"), "penalty must be one of"),
    (dict(loss="hinge"), "loss must be one of"),
    (dict(learning_rate="fast"), "learning_rate must be one of"),
    (dict(scale="minmax"), "scale must be one of"),
    (dict(anchor=0), "anchor must be"),
    (dict(anchor="two"), "anchor must be"),
    (dict(alpha=-1.0), "alpha must be >= 0"),
    (dict(batch_size=0), "batch_size must be an integer >= 1"),
    (dict(max_iter=0), "max_iter must be"),
    (dict(eta0=0.0), "eta0 must be positive"),
    (dict(l1_ratio=2.0), "l1_ratio must be"),
    (dict(device="tpu"), "device must be"),
    (dict(n_jobs=0), "n_jobs must not be 0"),
    (dict(solver="exact", penalty="l1"), "solver="),
    (dict(variance_reduced=True, anchor="none"), "variance_reduced=True needs an anchor"),
]


@pytest.mark.parametrize(("how", "text"), BAD, ids=str)
def test_bad_parameters(how, text):
    X, y = regression(rows=100)
    with pytest.raises(ValueError, match=text):
        SGDRegressor(**how).fit(X, y)


def test_bad_data():
    from scipy.sparse import csr_matrix

    X, y = regression(rows=100)
    with pytest.raises(TypeError, match="dense"):
        SGDRegressor().fit(csr_matrix(X), y)
    store = QuantizedDataset.from_arrays(X, y, random_state=0)
    with pytest.raises(ValueError, match="holds its own labels"):
        SGDRegressor().fit(store, y)
    with pytest.raises(ValueError, match="full-precision"):
        SGDRegressor(anchor=2).fit(store)
    with pytest.raises(ValueError, match="full-precision"):
        SGDRegressor(early_stopping=True).fit(store)
    with pytest.raises(ValueError, match="not classes"):
        SGDClassifier().fit(store)
    with pytest.raises(ValueError, match=r"positive sum|non-zero"):
        SGDRegressor().fit(X, y, sample_weight=np.zeros(100))
    with pytest.raises(ValueError, match="at least 2 classes"):
        SGDClassifier().fit(X, np.zeros(100))
    with pytest.raises(ValueError, match="need sums over"):
        SGDRegressor(sampling="double").partial_fit(X, y)
    assert torchext.cpu_isa() in _testing.ISAS
