"""solver="halp" and solver="svrg": the exact solution on the codes, resumed, repeated, and bad input."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from halp_model import problem_p
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.linear_model import Ridge as RidgeReference

from torchext import _testing
from torchext.linear import ConvergenceError, SGDClassifier, SGDRegressor, load_model
from torchext.linear._grid_rows import GridRows, grid_rows
from torchext.linear._state import read_file, write_file
from torchext.linear._variance_reduced import VarianceReduced, VrOptions
from torchext.random import key_from_seed

SOLVERS = ("halp", "svrg")


def data(rows: int = 1500, cols: int = 12, classes: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + cols)
    X = rng.normal(size=(rows, cols)) * rng.uniform(0.5, 2.0, cols) + rng.normal(size=cols)
    if classes:
        scores = X @ rng.normal(size=(cols, classes)) + rng.gumbel(size=(rows, classes))
        return X, scores.argmax(axis=1)
    return X, X @ rng.normal(size=cols) + 3.0 + 0.3 * rng.normal(size=rows)


def decoded(X: np.ndarray, bits: int, scale: str) -> Any:
    """The rows as the solver sees them, in scaled units, and what they were made with."""
    found = grid_rows(X, None, bits=bits, scale=scale, intercept=True, as_float=False)
    return found.rows.double().numpy() * found.dx, found


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "bits, scale, batch", [(8, "max", 20), (16, "std", 1), (8, "none", None), (8, "std", 300)]
)
def test_least_squares_is_ridge_on_the_codes(
    solver: str, bits: int, scale: str, batch: int | None
) -> None:
    X, y = data()
    model = SGDRegressor(
        solver=solver,
        bits=bits,
        scale=scale,
        batch_size=batch,
        alpha=0.01,
        tol=1e-11,
        random_state=0,
    )
    model.fit(X, y)
    a, found = decoded(X, bits, scale)
    exact = RidgeReference(alpha=0.01 * len(X), fit_intercept=scale == "none", solver="cholesky")
    exact.fit(a, y - y.mean())
    assert np.allclose(model.coef_ * found.scale.numpy(), exact.coef_, rtol=1e-8, atol=1e-9)
    offset = exact.intercept_ - (exact.coef_ / found.scale.numpy()) @ found.mean.numpy()
    assert np.allclose(model.intercept_, y.mean() + offset, rtol=1e-8)
    assert model.report_["gradient_norm"] <= 1e-11
    assert model.report_["stopped"] == "gradient below tol"
    assert model.report_["batch_size"] == (batch or 1)
    assert model.report_["steps_per_epoch"] == -(-3000 // (batch or 1))
    assert len(model.loss_curve_) == model.n_iter_ == len(model.grad_norm_curve_) - 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_mini_batches_take_no_more_epochs(solver: str) -> None:
    """The automatic step grows with the batch; at last there are too few steps (12 of 1,024 rows)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 100)) @ (np.eye(100) + 0.03 * rng.normal(size=(100, 100)))
    y = X @ rng.normal(size=100) + rng.normal(size=6000)

    def epochs(batch: int) -> int:
        model = SGDRegressor(
            solver=solver, batch_size=batch, alpha=0.0, tol=1e-6, random_state=0
        ).fit(X, y)
        return int(model.n_iter_)

    one = epochs(1)
    assert one <= 12 and epochs(16) <= one and epochs(64) <= one < epochs(1024)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("classes, batch", [(2, 1), (4, 1), (2, 64), (4, 9)])
def test_logistic_is_scikit_learns_on_the_codes(solver: str, classes: int, batch: int) -> None:
    X, y = data(1000, 8, classes)
    model = SGDClassifier(
        "log_loss", solver=solver, batch_size=batch, alpha=0.01, tol=1e-8, random_state=0
    ).fit(X, y)
    a, found = decoded(X, 8, "max")
    exact = Reference(C=1.0 / (0.01 * len(X)), tol=1e-10, max_iter=5000).fit(a, y)
    assert np.allclose(model.coef_ * found.scale.numpy(), exact.coef_, atol=2e-5)
    near = (X - found.mean.numpy()) / found.scale.numpy()
    assert np.allclose(model.predict_proba(X), exact.predict_proba(near), atol=1e-4)
    assert model.report_["z_bits"] == (32 if solver == "svrg" else 16)


def test_bits_32_is_full_precision() -> None:
    X, y = data()
    model = SGDRegressor(solver="svrg", bits=32, alpha=0.0, tol=1e-9, random_state=0).fit(X, y)
    exact = SGDRegressor(solver="exact", alpha=0.0).fit(X, y)
    assert np.allclose(model.coef_, exact.coef_, rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_several_targets_and_weights(solver: str) -> None:
    X, y = data()
    both = np.stack([y, -2.0 * y + X[:, 0]], axis=1)
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    model = SGDRegressor(solver=solver, bits=16, alpha=0.0, tol=1e-9, random_state=0)
    model.fit(X, both, sample_weight=weight)
    exact = SGDRegressor(solver="exact", alpha=0.0).fit(X, both, sample_weight=weight)
    assert model.coef_.shape == (2, 12)
    assert np.allclose(model.coef_, exact.coef_, rtol=1e-3, atol=1e-3)
    one = SGDRegressor(solver=solver, bits=16, alpha=0.0, random_state=0)
    assert np.allclose(
        one.fit(X, y, weight).score(X, y, weight), exact.score(X, both, weight), atol=0.01
    )


@pytest.mark.parametrize("batch", [1, 65])
@pytest.mark.parametrize("solver", SOLVERS)
def test_same_bits_on_any_thread_count_and_instruction_set(solver: str, batch: int) -> None:
    X, y = data(700, 70, 3)
    found = []
    for isa in _testing.ISAS:
        for jobs in (1, 2):
            with _testing.isa(isa):
                model = SGDClassifier(
                    "log_loss",
                    solver=solver,
                    batch_size=batch,
                    max_iter=3,
                    n_jobs=jobs,
                    random_state=4,
                )
                found.append(model.fit(X, y))
    for other in found[1:]:
        assert np.array_equal(found[0].coef_, other.coef_)
        assert np.array_equal(found[0].intercept_, other.intercept_)
    again = SGDClassifier("log_loss", solver=solver, max_iter=3, random_state=5).fit(X, y)
    assert not np.array_equal(found[0].coef_, again.coef_)


@pytest.mark.parametrize("solver", SOLVERS)
def test_resume_gives_the_same_bits(solver: str, tmp_path: Path) -> None:
    X, y = data()
    common: dict[str, Any] = {"solver": solver, "tol": None, "max_iter": 6, "random_state": 0}
    whole = SGDRegressor(**common).fit(X, y)
    path = tmp_path / "run.safetensors"

    class Stop(Exception):
        pass

    def interrupt(info: Any) -> None:
        if info.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        SGDRegressor(**common, checkpoint=path, callbacks=[interrupt]).fit(X, y)
    assert load_model(path).predict(X).shape == y.shape
    resumed = SGDRegressor(**common, checkpoint=path, resume=True).fit(X, y)
    assert np.array_equal(whole.coef_, resumed.coef_)
    assert whole.loss_curve_ == resumed.loss_curve_
    assert whole.grad_norm_curve_ == resumed.grad_norm_curve_
    assert whole.report_["mu"] == resumed.report_["mu"]
    with pytest.raises(ValueError, match="differs in data"):
        SGDRegressor(**common, checkpoint=path, resume=True).fit(X, y + 1.0)


@pytest.mark.parametrize("change", ["one more", "one less", "other parameters"])
def test_a_checkpoint_of_another_version_is_refused(change: str, tmp_path: Path) -> None:
    """In one sentence, and the file stays as it was."""
    X, y = data()
    path = tmp_path / "run.safetensors"
    common: dict[str, Any] = {
        "solver": "halp",
        "max_iter": 2,
        "random_state": 0,
        "checkpoint": path,
    }
    SGDRegressor(**common).fit(X, y)
    tensors, meta = read_file(path)
    state, mark = json.loads(meta["state"]), json.loads(meta["fingerprint"])
    if change == "one more":
        state["slow"] = 0
    elif change == "one less":
        del tensors["state.numbers"]
    else:
        mark["params"]["widen"] = None
    write_file(path, tensors, {**meta, "state": state, "fingerprint": mark})
    before = path.read_bytes()
    message = "differs in widen" if change == "other parameters" else "another version of torchext"
    with pytest.raises(ValueError, match=message):
        SGDRegressor(**common, resume=True).fit(X, y)
    assert path.read_bytes() == before


class CtrlC:
    """Raises KeyboardInterrupt before line ``count`` that runs in the solver's epochs."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __enter__(self) -> CtrlC:
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith("_variance_reduced.py"):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace


@pytest.mark.parametrize("solver", SOLVERS)
def test_ctrl_c_at_any_line_leaves_whole_epochs(solver: str, tmp_path: Path) -> None:
    """Whatever line it hits: model, record and checkpoint are those of a run of fewer epochs."""
    X, y = data(40, 3)
    epochs = 3
    common: dict[str, Any] = {"solver": solver, "tol": None, "random_state": 0, "mu": 50.0}
    if solver == "svrg":
        del common["mu"]
    whole = [SGDRegressor(**common, max_iter=k).fit(X, y) for k in range(1, epochs + 1)]
    path = tmp_path / "run.safetensors"
    line, seen = 0, set()
    while True:
        line += 1
        path.unlink(missing_ok=True)
        model = SGDRegressor(**common, max_iter=epochs, checkpoint=path)
        try:
            with CtrlC(line):
                model.fit(X, y)
            break
        except KeyboardInterrupt:
            if not hasattr(model, "report_"):  # before the first pass
                continue
        done = model.report_["epochs"]
        seen.add(done)
        assert len(model.grad_norm_curve_) in (done + 1, 0)
        if done:
            other = whole[done - 1]
            assert np.array_equal(model.coef_, other.coef_)
            assert model.loss_curve_ == other.loss_curve_
            assert model.grad_norm_curve_ == other.grad_norm_curve_
            assert model.report_["mu"] == other.report_["mu"]
        else:
            assert not model.coef_.any()
        if line % 20 == 0:
            resumed = SGDRegressor(**common, max_iter=epochs, checkpoint=path, resume=True)
            assert np.array_equal(resumed.fit(X, y).coef_, whole[-1].coef_)
    assert seen == set(range(epochs + 1)) and line > 100


def test_callbacks_warm_start_and_constant_columns() -> None:
    X, y = data()
    X[:, 3] = 7.25
    model = SGDRegressor(
        solver="halp", tol=1e-10, random_state=0, callbacks=[lambda info: info.epoch == 2]
    )
    model.fit(X, y)
    assert model.n_iter_ == 2 and model.report_["stopped"] == "by a callback"
    assert model.coef_[3] == 0.0
    model.set_params(callbacks=None, warm_start=True).fit(X, y)
    first = model.n_iter_
    model.fit(X, y)
    assert model.n_iter_ == 1 < first and model.report_["gradient_norm"] <= 1e-10


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_to_learn(solver: str) -> None:
    """A zero gradient leaves delta 0: keep the centre."""
    X = np.ones((5, 2))
    model = SGDRegressor(solver=solver, random_state=0).fit(X, np.arange(5.0))
    assert not model.coef_.any() and np.allclose(model.predict(X), 2.0)
    assert model.report_["stopped"] == "gradient is 0" and len(model.loss_curve_) == 1
    one = SGDRegressor(solver=solver, random_state=0).fit(np.array([[2.0]]), [3.0])
    assert np.allclose(one.predict([[5.0]]), 3.0)


def test_bits_of_the_displacement() -> None:
    """With many columns 16 bits (the default) go with float32; 8 get there too, in more epochs."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 500))
    y = X @ rng.standard_normal(500) + 0.5 * rng.standard_normal(4000)
    common: dict[str, Any] = {"alpha": 0.01, "tol": 1e-6, "random_state": 0}
    base = SGDRegressor(solver="svrg", **common).fit(X, y)
    wide = SGDRegressor(solver="halp", **common).fit(X, y)
    narrow = SGDRegressor(solver="halp", z_bits=8, **common).fit(X, y)
    assert (wide.report_["z_bits"], narrow.report_["z_bits"]) == (16, 8)
    assert wide.n_iter_ <= base.n_iter_ + 1 < narrow.n_iter_
    for model in (wide, narrow):
        assert model.report_["restores"] == 0 and np.allclose(model.coef_, base.coef_, atol=1e-4)


def epochs_on_p(seed: int, z_bits: int, start: float) -> int:
    """Epochs to 1e-6 of the first gradient norm on problem P; mu starts at start / (alpha T)."""
    codes, y, dx = problem_p(seed)
    rows = grid_rows(dx * codes, None, bits=8, scale="none", intercept=False, as_float=z_bits == 32)
    options = VrOptions("squared", 0.0, False, 1e-3, 2000, z_bits, True, 40, 1e-6, 1)
    targets = torch.from_numpy(y).reshape(-1, 1)
    solver = VarianceReduced(rows, targets, None, options, key_from_seed(seed + 1))
    solver.start(torch.zeros(1, 101, dtype=torch.float64), start / 2.0)
    solver.run(lambda _: False)
    assert solver.state.stop == "tol"
    return solver.state.epoch


@pytest.mark.parametrize("start, narrow, wide", [(1, 1.3, 1.1), (10, 1.3, 1.1), (100, 1.5, 1.3)])
def test_automatic_mu_on_problem_p(start: float, narrow: float, wide: float) -> None:
    """Mean over three problems against SVRG, whatever mu the rule starts from."""
    svrg, eight, sixteen = (
        sum(epochs_on_p(seed, z_bits, start) for seed in range(3)) for z_bits in (32, 8, 16)
    )
    assert eight <= narrow * svrg and sixteen <= wide * svrg


def test_codes_of_the_grid() -> None:
    X = np.array([[-1.0, 0.0, 3.0], [1.0, 0.5, 3.0], [0.3, -0.5, 3.0]])
    plain = grid_rows(X, None, bits=8, scale="none", intercept=False, as_float=False)
    assert plain.dx == 3.0 / 127 and plain.unit == 3.0
    assert np.array_equal(plain.rows.numpy(), np.rint(X.astype(np.float32) / (3.0 / 127)))
    assert plain.x.shape == (3, 64) and not plain.x[:, 3:].any()
    assert plain.bound == pytest.approx(((plain.rows.double() * plain.dx) ** 2).sum(1).max())
    centred = grid_rows(X, None, bits=16, scale="max", intercept=True, as_float=True)
    assert centred.x.abs().max() == 32767 and not centred.rows[:, 2].any()


@pytest.mark.parametrize(
    "change, text",
    [
        ({"bits": 4}, r"bits must be one of \(8, 16\)"),
        ({"solver": "svrg", "bits": 4}, r"bits must be one of \(8, 16, 32\)"),
        ({"z_bits": 4}, "z_bits must be 8 or 16"),
        ({"bits": 16, "z_bits": 8}, "z_bits must be 8 or 16, and 16 with bits=16"),
        ({"mu": 0.0}, "mu must be"),
        ({"mu": "best"}, "mu must be"),
        ({"penalty": "l1"}, "penalty must be"),
        ({"learning_rate": "linear"}, "learning_rate must be"),
        ({"sampling": "double"}, "sampling does not apply to solver="),
        ({"model_bits": 4}, "model_bits does not apply"),
        ({"early_stopping": True}, "early_stopping does not apply"),
        ({"solver": "svrg", "mu": 2.0}, "mu does not apply"),
        ({"solver": "sgd", "z_bits": 8}, "z_bits does not apply"),
        ({"batch_size": 40_000}, "batch_size must be at most 32768"),
        ({"batch_size": "many"}, "batch_size must be an integer >= 1, got 'many'"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"eta0": 10.0, "alpha": 1.0}, "eta0 \\* alpha must be below 0.5"),
    ],
)
def test_bad_parameters(change: dict[str, Any], text: str) -> None:
    X, y = data(50, 3)
    with pytest.raises(ValueError, match=text):
        SGDRegressor(**({"solver": "halp"} | change)).fit(X, y)


def test_other_refusals() -> None:
    X, y = data(100, 3)
    assert not hasattr(SGDRegressor(solver="halp"), "partial_fit")
    with pytest.raises(ConvergenceError, match="use a smaller eta0"):
        SGDRegressor(solver="svrg", eta0=5.0, random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST test images as codes 0..127 of 1/127 (10000, 784), and class numbers (10000, 1)."""
    folder = Path(os.environ.get("TORCHEXT_DATA", "")) / "MNIST" / "raw"
    if "TORCHEXT_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("MNIST/raw is not in $TORCHEXT_DATA")
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as f:
        pixels = np.frombuffer(f.read(), dtype=np.uint8, offset=16).reshape(10_000, 784)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), dtype=np.uint8, offset=8)
    codes = torch.from_numpy(np.rint(pixels * (127 / 255)).astype(np.int8))
    return codes, torch.from_numpy(labels.astype(np.float64)).reshape(-1, 1)


def test_softmax_on_digits_is_as_fast_as_svrg(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Ten classes, 16-bit z on 8-bit data: epochs to 1e-6 within 20 % of SVRG's."""
    codes, labels = digits
    bound = float((codes.double() / 127).square().sum(1).max())
    step, l2 = 0.25 / (0.5 * bound + 0.02), 0.02
    epochs = {}
    for z_bits in (16, 32):
        kind = torch.int8 if z_bits == 16 else torch.float32
        x = torch.zeros(10_000, 832, dtype=kind)
        x[:, :784] = codes
        one = torch.ones(784, dtype=torch.float64)
        rows = GridRows(x, 784, 1 / 127, 1.0, 0 * one, one, bound)
        options = VrOptions("softmax", l2, False, step, 20_000, z_bits, True, 30, 1e-6, 1)
        solver = VarianceReduced(rows, labels, None, options, key_from_seed(0))
        solver.start(torch.zeros(10, 785, dtype=torch.float64), None)
        solver.run(lambda _: False)
        state = solver.state
        assert state.stop == "tol"
        epochs[z_bits] = state.epoch
    assert epochs[16] <= 1.2 * epochs[32] <= 20
