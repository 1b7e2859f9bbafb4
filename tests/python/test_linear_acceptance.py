"""What low-bit training must reach, through the estimators; numbers of the acceptance table in brackets.

"Bits" of rows 4-10 are levels per draw, 2^b; double sampling stores two bits more. The guard ridge of
double sampling is off there (theta=0). Draws are refreshed by one encoding per epoch (``copies``).
Every limit must hold for five seeds of the data and of the random bits.
"""

from __future__ import annotations

import linear_data
import numpy as np
import pytest
import torch
from linear_data import over_optimum, real, ridge_of

pytest.importorskip("sklearn")
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from torchext.data import QuantizedDataset
from torchext.linear import SGDClassifier, SGDRegressor, _problem
from torchext.random import key_from_seed

SEEDS = range(5)
PLAIN = dict(
    anchor="none", levels="uniform", model_bits=32, residual_bits=32, batch_size=1, learning_rate="epoch",
    average=False, alpha=0.0, tol=None, theta=0,
)  # fmt: skip


def grid(n: int, b: int, total: int) -> np.ndarray:
    """2^b uniform levels on [-1, 1] in the code space of double sampling with ``total`` bits, end padded."""
    levels = np.linspace(-1, 1, 2**b)
    padding = np.full(2 ** (total - 2) + 1 - len(levels), 1.0)
    return np.tile(np.concatenate([levels, padding]), (n, 1))


def double(n: int, b: int) -> dict:
    """Parameters for symmetric double sampling from 2^b levels."""
    total = {1: 2, 2: 4, 3: 5, 4: 6, 6: 8}[b]
    return dict(bits=total, sampling="double", levels=grid(n, b, total))


# -- the papers' algorithms on U(n) --------------------------------------------------------------------


def trained(n: int, seed: int, **how) -> float:
    """F/F* after SGD on U(n), everything drawn from one seed."""
    X, y = linear_data.uniform(n, seed=seed)
    model = SGDRegressor(**{**PLAIN, "random_state": seed, **how}).fit(X, y)
    return over_optimum(X, y, model.coef_)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("b", [1, 2])
def test_4_naive_draws_converge_to_an_unwanted_ridge(b, seed):
    X, y = linear_data.uniform(100, seed=seed)
    store = QuantizedDataset.from_arrays(
        X, y, bits=b, sampling="stochastic", levels="uniform", anchor="none", copies=40, random_state=seed
    )  # fmt: skip
    how = {**PLAIN, "eta0": 0.004, "max_iter": 40, "random_state": seed}
    model = SGDRegressor(**how).fit(store)
    A, scale = linear_data.scaled(X)
    gram, linear = A.T @ A / len(A), A.T @ (y - y.mean()) / len(A)
    closed = np.linalg.solve(gram + np.diag(store.noise[1].numpy()), linear)
    found, expected = over_optimum(X, y, model.coef_), over_optimum(X, y, closed / scale)
    assert expected == pytest.approx({1: 45, 2: 4.3}[b], rel=0.3)
    assert found == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("b", "least"), [(1, 10.0), (2, 2.0)])
def test_5_nearest_on_a_uniform_grid_is_biased(b, least, seed):
    assert trained(100, seed, bits=b, sampling="nearest", eta0=0.004, max_iter=40) >= least


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("b", "most"), [(1, 3.0), (2, 1.10)])
def test_6_7_double_sampling_repairs(b, most, seed):
    how = dict(**double(100, b), eta0=0.004, max_iter=40)
    refreshed = trained(100, seed, **how, copies=40)
    assert refreshed <= most
    assert refreshed < trained(100, seed, **how)  # draws fixed once


@pytest.mark.parametrize(
    ("how", "most"),
    [(dict(model_bits=2), 2.0), (dict(model_bits=3), 1.3), (dict(gradient_bits=2), 1.03)],
    ids=str,
)
def test_8_model_or_gradient_at_2_bits(how, most):
    """The table's 2-bit model has four levels; symmetric integers have three at 2 bits, seven at 3."""
    for seed in SEEDS:
        assert trained(10, seed, bits=32, eta0=0.05, max_iter=20, **how) <= most, seed


def test_9_four_bits_end_to_end():
    how = dict(**double(10, 4), eta0=0.05, max_iter=20, copies=20, model_bits=4, gradient_bits=4)
    for seed in SEEDS:
        assert trained(10, seed, **how) <= 1.05, seed


@pytest.mark.parametrize("seed", SEEDS)
def test_10_six_bit_samples_and_8_bits_end_to_end_match_float32(seed):
    common = dict(eta0=0.05, max_iter=20)
    exact = trained(100, seed, bits=32, **common)
    six = dict(**double(100, 6), copies=20, **common)
    assert trained(100, seed, **six) == pytest.approx(exact, abs=0.02)
    eight = trained(100, seed, **six, model_bits=8, gradient_bits=8)
    assert eight == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("b", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_11_step_ceiling(b, batch):
    """Below 2c/(c^2 + (n (c + v)^2 - c^2)/B) the error shrinks, above it explodes (y = 0: x is the error)."""
    n = 100
    X, y = linear_data.uniform(n, noise=0.0)
    steps = max(2000, 30_000 // batch)
    copies = -(-steps * batch // len(X))
    store = QuantizedDataset.from_arrays(
        X,
        y,
        bits=b,
        sampling="corrected",
        levels="uniform",
        anchor="none",
        copies=copies,
        random_state=1,
    )
    problem = _problem.build(
        store, loss="squared_error", theta=1.0, scale="max", variance_reduced=False
    )
    c, v = 1 / 3, float(store.noise[1].mean())
    ceiling = 2 * c / (c * c + (n * (c + v) ** 2 - c * c) / batch)
    start = torch.randn(1, n, generator=torch.Generator().manual_seed(0))

    def error(factor):
        x, batches = start.clone(), -(-store.rows // batch)
        for at in range(0, steps, batches):
            count = min(batches, steps - at)
            torch.ops.torchext._sgd_epoch(
                store.codes[at // batches], store.rows, n, b, store.layout, store.grid, store.table,
                torch.zeros_like(problem.y), None, None, x, torch.zeros(1), None, None,
                problem.shrink, None, torch.arange(count),
                torch.full((count,), factor * ceiling, dtype=torch.float64), batch, "squared_error", 0.0, 0.0,
                False, False, 32, 32, 0, key_from_seed(0), at, 1,
            )  # fmt: skip
        return float(x.norm() / start.norm())

    assert error(0.85) < 1
    assert not error(1.15) <= 1e3


def test_13_fewer_bits_cost_accuracy_on_uniform_levels():
    """Only that training orders them; test_store_acceptance.py has the gain of optimal levels."""
    X, y = linear_data.lognormal()
    excess = []
    for bits in (5, 6, 7, 8):  # 3 to 6 bits and two draw bits
        model = SGDRegressor(
            bits=bits, sampling="double", levels="uniform", anchor="none", alpha=0.0, random_state=0
        )
        excess.append(over_optimum(X, y, model.set_params(max_iter=30).fit(X, y).coef_) - 1)
    assert excess[0] > excess[1] > excess[2] > excess[3]


# -- end to end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cadata", "cpusmall"])
@pytest.mark.parametrize(("bits", "most"), [(8, 1.005), (4, 1.015)])
def test_27_model_residual_and_gradient_at_few_bits(name, bits, most):
    X, y = real(name)
    ridge = ridge_of(X)
    for seed in SEEDS:
        model = SGDRegressor(
            bits=4, alpha=ridge, batch_size=64, max_iter=30, model_bits=bits, residual_bits=bits,
            gradient_bits=bits, random_state=seed,
        ).fit(X, y)  # fmt: skip
        assert over_optimum(X, y, model.coef_, ridge) <= most


def test_27_corrected_at_two_bits():
    """cadata, 8/8/8, Lloyd levels, the sharper shrinkage [1.005; nearest 1.024]."""
    X, y = real("cadata")
    ridge = ridge_of(X)
    for seed in SEEDS:
        model = SGDRegressor(
            bits=2, sampling="corrected", theta="mp", levels="lloyd", anchor="none", alpha=ridge, tol=None,
            batch_size=64, max_iter=30, model_bits=8, residual_bits=8, gradient_bits=8, random_state=seed,
        ).fit(X, y)  # fmt: skip
        assert over_optimum(X, y, model.coef_, ridge) <= 1.02, seed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("name", "most"), [("cadata", 1.001), ("cpusmall", 1.001), ("usps", 1.007)]
)
def test_25_defaults(name, most, bits, seed):
    """Plain fit, nothing tuned: within 0.5 % of the pilot-anchored fixed point, and better than x0."""
    X, y = linear_data.digits() if name == "usps" else real(name)
    ridge = ridge_of(X)
    store = QuantizedDataset.from_arrays(X, y, bits=bits, alpha=ridge, random_state=seed)
    model = SGDRegressor(bits=bits, alpha=ridge, random_state=seed).fit(store)
    start = over_optimum(X, y, store.anchor[0].T.numpy() / store.scale.numpy(), ridge)
    found = over_optimum(X, y, model.coef_, ridge)
    print(f"{name} {bits} bits: x0 {start:.5f}, trained {found:.5f}, {model.n_iter_} epochs")
    assert found <= most
    assert found < start


@pytest.mark.parametrize("name", ["cadata", "cpusmall"])
def test_33_several_anchors_reach_the_optimum(name):
    X, y = real(name)
    ridge = ridge_of(X)
    for seed in SEEDS:
        model = SGDRegressor(bits=2, alpha=ridge, anchor=3, random_state=seed).fit(X, y)
        assert model.report_.full_precision_passes == 3
        assert over_optimum(X, y, model.coef_, ridge) - 1 <= 2e-5


def logistic_excess(X, y, model, alpha):
    """Mean log-loss + alpha/2 ||x||^2 on unquantised data, minus its minimum (scikit-learn to 1e-10)."""
    from sklearn.linear_model import LogisticRegression

    A, scale = linear_data.scaled(X)
    sign = 2 * y - 1

    def objective(x, b):
        return float(np.logaddexp(0, -sign * (A @ x + b)).mean() + alpha / 2 * x @ x)

    best = LogisticRegression(C=1 / (alpha * len(A)), tol=1e-10, max_iter=10_000).fit(A, y)
    x = model.coef_[0] * scale
    return objective(x, model.intercept_[0] + model.coef_[0] @ X.mean(0)) - objective(
        best.coef_[0], best.intercept_[0]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_28_logistic_anchor_at_two_bits(seed):
    X, y = linear_data.logistic(seed)
    alpha = ridge_of(X)
    how = dict(bits=2, alpha=alpha, max_iter=100, tol=None, random_state=seed)
    anchored = logistic_excess(X, y, SGDClassifier("log_loss", **how).fit(X, y), alpha)
    plain = logistic_excess(X, y, SGDClassifier("log_loss", anchor="none", **how).fit(X, y), alpha)
    assert anchored <= 3e-4
    assert anchored <= plain / 20


@pytest.mark.parametrize("seed", SEEDS)
def test_33_logistic_with_several_anchors(seed):
    X, y = linear_data.logistic(seed)
    alpha = ridge_of(X)
    how = dict(bits=2, alpha=alpha, anchor=3, variance_reduced=True, max_iter=100)
    model = SGDClassifier("log_loss", **how, random_state=seed)
    assert logistic_excess(X, y, model.fit(X, y), alpha) <= 1e-6


# -- intercept and scaling -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cadata", "cpusmall"])
def test_29_centring_equals_a_trained_intercept(name):
    X, y = real(name)
    store = QuantizedDataset.from_arrays(
        X, y, bits=4, sampling="nearest", anchor="none", random_state=0
    )
    q = store.decode().double().numpy()
    target = store.y.double().numpy()[:, 0] - float(store.y_mean)
    centred = np.linalg.lstsq(q, target, rcond=None)[0]
    trained = np.linalg.lstsq(np.column_stack([q, np.ones(len(q))]), target, rcond=None)[0]
    A = (X - store.mean.numpy())[store.row_id().numpy()] / store.scale.numpy()
    best = np.mean((A @ np.linalg.lstsq(A, target, rcond=None)[0] - target) ** 2)
    losses = [
        np.mean((A @ centred - target) ** 2),
        np.mean((A @ trained[:-1] + trained[-1] - target) ** 2),
    ]
    assert abs(losses[0] - losses[1]) <= 1e-4 * best


@pytest.mark.parametrize("name", ["cadata", "cpusmall"])
def test_29_exact_solver_equals_a_pipeline(name):
    X, y = real(name)
    model = SGDRegressor(solver="exact", alpha=1e-3).fit(X, y)
    centre = StandardScaler(with_std=False)
    pipe = make_pipeline(centre, MaxAbsScaler(), Ridge(alpha=1e-3 * len(X), solver="cholesky")).fit(
        X, y
    )
    np.testing.assert_allclose(model.coef_, pipe[-1].coef_ / pipe[1].scale_, rtol=1e-5)
    np.testing.assert_allclose(model.predict(X), pipe.predict(X), rtol=1e-6)


@pytest.mark.parametrize("name", ["cadata", "cpusmall"])
def test_29_float32_path_reaches_the_exact_solution(name):
    X, y = real(name)
    ridge = ridge_of(X)
    model = SGDRegressor(bits=32, alpha=ridge, random_state=0).fit(X, y)
    assert over_optimum(X, y, model.coef_, ridge) <= 1.001
