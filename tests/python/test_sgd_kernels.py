"""The SGD kernels against a numpy model: bit equality over widths, layouts, instruction sets and threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sgd_model import F, Problem, epoch, fold, pack

from torchext import _testing

ALL = [
    isa
    for isa in _testing.ISAS
    if _testing.ISAS.index(isa) <= _testing.ISAS.index(torch.ops.torchext._cpu_isa())
]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name in ("x", "intercept", "average"):
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    np.testing.assert_allclose(a["sums"], b["sums"], rtol=1e-5)


def on_all(p: Problem, **changes: object) -> dict[str, np.ndarray]:
    """Runs on every instruction set and several thread counts; all must agree to the last bit."""
    results = []
    for isa in ALL:
        with _testing.isa(isa):
            results += [p.call(threads=t, **changes) for t in (1, 2, 7)]
    for r in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(r[name], value, err_msg=name)
    return results[0]


KINDS = [
    {"affine": True},
    {"planes": 1},
    {"planes": 2},
    {"planes": 1, "books": 2},
    {"planes": 2, "books": 2},
]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_epoch_equals_model(bits: int, kind: dict[str, object]) -> None:
    p = Problem(rows=300, cols=90, bits=bits, outputs=1, **kind)
    options = {"steps": 4, "order": np.array([3, 0, 4, 2]), "l2": 0.01}
    same(on_all(p, **options), epoch(p, **options))


@pytest.mark.parametrize("cols", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 127, 130, 255, 257, 1000])
@pytest.mark.parametrize("bits", [2, 4])
def test_column_counts(cols: int, bits: int) -> None:
    p = Problem(rows=200, cols=cols, bits=bits)
    same(on_all(p), epoch(p))


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_layouts_agree(layout: str, bits: int) -> None:
    p = Problem(rows=150, cols=37, bits=bits, layout=layout)
    same(on_all(p), epoch(p))
    decoded = torch.ops.torchext._sgd_decode(
        torch.from_numpy(p.codes), p.rows, p.cols, bits, layout, torch.from_numpy(p.grid),
        torch.from_numpy(p.table), torch.tensor([5, 149, 0]), 0,
    )  # fmt: skip
    np.testing.assert_array_equal(decoded.numpy(), p.values[0][[5, 149, 0]])


@pytest.mark.parametrize("outputs", [2, 3, 7, 10])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_outputs_share_a_decode(outputs: int, kind: dict[str, object], bits: int) -> None:
    p = Problem(rows=256, cols=70, bits=bits, outputs=outputs, **kind)
    options = {"batch": 256, "order": np.zeros(3, np.int64)}
    same(on_all(p, **options), epoch(p, **options))


@pytest.mark.parametrize("batch", [1, 10, 64, 100, 128, 192, 256, 320, 512, 1000])
def test_batch_sizes(batch: int) -> None:
    p = Problem(rows=600, cols=20, bits=4)
    options = {
        "batch": batch,
        "order": np.arange(-(-600 // batch))[:5],
        "gamma": np.full(min(5, -(-600 // batch)), 0.02),
    }
    same(on_all(p, **options), epoch(p, **options))


def test_every_term_of_the_update() -> None:
    rng = np.random.default_rng(3)
    p = Problem(rows=256, cols=33, bits=4, outputs=2)
    x0 = (p.x + 0.1 * rng.normal(size=p.x.shape)).astype(F)
    options = {
        "x0": x0, "constant": rng.normal(size=p.x.shape).astype(F), "shrink": rng.uniform(size=33).astype(F),
        "l1": 0.1, "l2": 0.02, "weight": rng.uniform(0.5, 2, 256).astype(F), "first_step": 1000,
    }  # fmt: skip
    same(on_all(p, **options), epoch(p, **options))
    same(
        on_all(p, variance_reduced=True, y=None, **options),
        epoch(p, variance_reduced=True, **options),
    )
    same(on_all(p, fit_intercept=True, **options), epoch(p, fit_intercept=True, **options))


@pytest.mark.parametrize(
    ("model", "residual", "gradient"), [(8, 8, 8), (4, 4, 4), (2, 2, 2), (3, 8, 0)]
)
def test_narrow_models_and_gradients(model: int, residual: int, gradient: int) -> None:
    p = Problem(rows=256, cols=77, bits=2)
    options = {"model_bits": model, "residual_bits": residual, "gradient_bits": gradient, "batch": 128,
               "order": np.array([1, 0, 1])}  # fmt: skip
    same(on_all(p, **options), epoch(p, **options))


def test_zero_model_and_constant_columns() -> None:
    p = Problem(rows=64, cols=8, bits=4)
    p.grid[3] = 0
    p.x[:] = 0
    r = on_all(p)
    assert r["x"][0, 3] == 0 and np.isfinite(r["x"]).all() and (r["x"][0, :3] != 0).all()


# ---------------------------------------------------------------- float32 path
def float_epoch(p: Problem, steps: int, gamma: float, batch: int) -> np.ndarray:
    x, q, y = p.x.astype(np.float64), p.values.astype(np.float64), p.y.astype(np.float64)
    for i in range(steps):
        rows = slice(i * batch, min(p.rows, (i + 1) * batch))
        for o in range(p.outputs):
            e = [q[k, rows] @ x[o] - y[rows, o] for k in range(p.books)]
            g = sum(q[k, rows].T @ e[p.books - 1 - k] for k in range(p.books))
            x[o] = x[o] - gamma * g / (p.books * len(e[0]))
    return x


@pytest.mark.parametrize("batch", [1, 7, 64, 100, 256])
@pytest.mark.parametrize("books", [1, 2])
def test_float_path(batch: int, books: int) -> None:
    p = Problem(rows=256, cols=50, bits=4, books=books, outputs=2)
    steps = min(3, -(-256 // batch))
    r = on_all(
        p,
        model_bits=32,
        residual_bits=32,
        batch=batch,
        order=np.arange(steps),
        gamma=np.full(steps, 0.02),
    )
    np.testing.assert_allclose(r["x"], float_epoch(p, steps, 0.02, batch), rtol=1e-4, atol=1e-6)


def test_a_short_batch_after_a_long_one() -> None:
    """What the long one left in the padding must not reach the intercept."""
    p = Problem(rows=150, cols=12, bits=4)
    options = {"batch": 100, "model_bits": 32, "residual_bits": 8, "fit_intercept": True}
    both = on_all(p, order=np.array([0, 1]), gamma=np.full(2, 0.05), **options)
    one = np.full(1, 0.05)
    first = on_all(p, order=np.array([0]), gamma=one, **options)
    start = {"x": first["x"], "intercept": first["intercept"], "first_step": 1}
    second = on_all(p, order=np.array([1]), gamma=one, **options, **start)
    np.testing.assert_array_equal(both["x"], second["x"])
    np.testing.assert_array_equal(both["intercept"], second["intercept"])


@pytest.mark.parametrize("cols", [1, 16, 50, 200])
def test_dense_equals_decoded(cols: int) -> None:
    p = Problem(rows=300, cols=cols, bits=4)
    pitch = -(-cols // 16) * 16
    dense = np.zeros((300, pitch), F)
    dense[:, :cols] = p.values[0]
    options = {"model_bits": 32, "residual_bits": 32}
    a, b = on_all(p, **options), on_all(p, codes=dense, bits=32, **options)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    for bits in (2, 4, 8):  # rounded copies of a float32 model and residual: runs, and stays near
        c = on_all(p, codes=dense, bits=32, model_bits=bits, residual_bits=bits, gradient_bits=bits)
        assert np.isfinite(c["x"]).all()
    np.testing.assert_allclose(c["x"], a["x"], atol=0.05)


# ---------------------------------------------------------------- logistic loss
def sigmoid_residual(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -y / (1 + np.exp(y * z))


@pytest.mark.parametrize("bits", [8, 32])
def test_log_loss(bits: int) -> None:
    p = Problem(rows=512, cols=30, bits=4)
    p.y = np.sign(p.y).astype(F)
    z0 = np.random.default_rng(1).normal(size=(512, 1)).astype(F) * 3
    q, y, x = (
        p.values[0].astype(np.float64),
        p.y[:, 0].astype(np.float64),
        p.x[0].astype(np.float64),
    )
    one = {"batch": 512, "order": np.zeros(1, np.int64), "gamma": np.ones(1), "loss": "log_loss",
           "model_bits": bits, "residual_bits": bits, "fit_intercept": True}  # fmt: skip
    r = on_all(p, **one)
    e = sigmoid_residual(q @ x, y)
    tolerance = 1e-5 if bits == 32 else 0.02
    np.testing.assert_allclose(r["x"][0], x - q.T @ e / 512, atol=tolerance)
    np.testing.assert_allclose(r["intercept"][0], -e.mean(), atol=tolerance)
    np.testing.assert_allclose(
        r["sums"][0, 0], np.log1p(np.exp(-y * (q @ x))).sum(), rtol=tolerance
    )
    r = on_all(p, **one, variance_reduced=True, x0=(p.x * F(0.5)), z0=z0)
    e = sigmoid_residual(q @ (x - 0.5 * x) + z0[:, 0], y) - sigmoid_residual(
        z0[:, 0].astype(np.float64), y
    )
    np.testing.assert_allclose(r["x"][0], x - q.T @ e / 512, atol=tolerance)


# ---------------------------------------------------------------- small exact cases
def test_tiny_set() -> None:
    """linear models on the 4 x 2 set whose gradients are known as fractions."""
    codes = np.array([[2, 0], [1, 2], [3, 1], [0, 3]], np.uint8)
    y = np.array([[1.0], [-1], [2], [-2]], F)
    p = Problem(rows=4, cols=2, bits=2, affine=True)
    p.raw, p.codes, p.y = codes, pack(codes, 2, "tile4"), y
    p.grid = np.array([[-1, 2 / 3], [-1, 2 / 3]], F)
    p.x = np.array([[0.5, -1.0]], F)
    one = {"batch": 64, "order": np.zeros(1, np.int64), "gamma": np.ones(1), "steps": 1}
    r = p.call(model_bits=32, residual_bits=32, **one)
    np.testing.assert_allclose(p.x - r["x"], [[-4 / 9, 2 / 9]], atol=1e-6)
    r = p.call(model_bits=32, residual_bits=32, shrink=np.array([1 / 72, 13 / 288], F), **one)
    np.testing.assert_allclose(p.x - r["x"], [[-65 / 144, 77 / 288]], atol=1e-6)
    h = np.array([[-37 / 576, -79 / 576]], F)
    r = p.call(model_bits=32, residual_bits=32, constant=h, **one)
    np.testing.assert_allclose(p.x - r["x"], [[-293 / 576, 49 / 576]], atol=1e-6)
    # the mean over many keys of the rounded step is the same gradient
    steps = [p.call(**(one | {"key": fold(p.key, k)}))["x"] for k in range(4000)]
    np.testing.assert_allclose(p.x - np.mean(steps, 0), [[-4 / 9, 2 / 9]], atol=4e-4)


def test_layout_vectors() -> None:
    r = np.arange(64, dtype=np.uint8)[:, None]
    line = np.repeat(np.arange(16), 4)
    four = pack(np.repeat(r % 16, 4, 1), 4, "tile4")
    np.testing.assert_array_equal(four, np.tile(17 * line, 2))
    np.testing.assert_array_equal(pack(np.repeat(r % 4, 4, 1), 2, "tile4"), line % 4 * 0x55)
    np.testing.assert_array_equal(
        pack(np.tile(np.arange(4, dtype=np.uint8), (64, 1)), 4, "tile4"),
        np.tile(17 * np.arange(4), 32),
    )
    q = np.arange(128, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(pack(q % 16, 4, "block"), np.arange(64) % 16 * 17)
    three = pack(q % 8, 3, "block")
    np.testing.assert_array_equal(three[:32], np.arange(32) % 4 * 0x55)
    np.testing.assert_array_equal(three[32:], np.where(np.arange(16) % 8 < 4, 0, 255))
    np.testing.assert_array_equal(
        pack(np.array([[1, 2, 3, 4, 5]], np.uint8), 4, "row"), [1, 2, 3, 4, 5] + [0] * 59
    )


def test_gradient_is_unbiased() -> None:
    """The mean step over keys equals the exact step on decoded values; the 16-bit thresholds do not show."""
    p = Problem(rows=128, cols=12, bits=4)
    one = {"batch": 128, "order": np.zeros(1, np.int64), "gamma": np.ones(1)}
    exact = p.call(steps=1, model_bits=32, residual_bits=32, **one)["x"]
    runs = np.stack(
        [
            p.call(steps=1, model_bits=4, residual_bits=4, key=fold(p.key, k), **one)["x"]
            for k in range(3000)
        ]
    )
    z = (runs.mean(0) - exact) / (runs.std(0) / np.sqrt(len(runs)))
    assert np.abs(z).max() < 5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bits": 9}, r"torchext::_sgd_epoch: bits must be in \[1, 8\] or 32, got 9"),
        ({"model_bits": 9}, r"model_bits must be in \[2, 8\] or 32, got 9"),
        ({"gradient_bits": 1}, r"gradient_bits must be in \[2, 8\] or 0, got 1"),
        ({"loss": "hinge"}, r"loss must be squared_error or log_loss, got hinge"),
        ({"order": np.array([0, 9, 0])}, r"order must be in \[0, 4\], got 9"),
        ({"batch": 0}, r"batch must be in \[1, \d+\], got 0"),
        ({"threads": 0}, r"threads must be in \[1, 1024\], got 0"),
        ({"variance_reduced": True}, "x0 must be given with variance_reduced, got none"),
        ({"y": np.zeros((3, 1), F)}, r"y must have shape \(300, 1\), got \(3, 1\)"),
        (
            {"codes": np.zeros(5, np.uint8)},
            r"codes must hold \d+ bytes in one dimension, got shape \(5\)",
        ),
        ({"x": np.zeros((1, 8))}, "x must be float32, got float64"),
    ],
    ids=str,
)
def test_errors(changes: dict[str, object], text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        Problem(rows=300, cols=8, bits=4).call(**changes)
