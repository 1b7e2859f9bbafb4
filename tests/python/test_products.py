"""Full passes over codes and rows: numpy models, equal bits on instruction sets and threads, error texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchext import _testing
from torchext.data import QuantizedDataset
from torchext.data._encode import pack_codes
from torchext.linear._losses import Loss

ops = torch.ops.torchext
ALL = [
    isa for isa in _testing.ISAS if _testing.ISAS.index(isa) <= _testing.ISAS.index(ops._cpu_isa())
]


def on_all(call):
    """Runs on every instruction set with 1, 2 and 7 threads; all must agree to the last bit."""
    results, before = [], torch.get_num_threads()
    try:
        for isa in ALL:
            with _testing.isa(isa):
                for threads in (1, 2, 7):
                    torch.set_num_threads(threads)
                    results.append([t.numpy() for t in call()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    return results[0]


class Codes:
    """Random codes with a random grid; T as the table, if any, says."""

    def __init__(self, rows: int, cols: int, bits: int, planes: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, rows, cols, bits, planes])
        self.rows, self.cols, self.bits = rows, cols, bits
        codes = rng.integers(0, 1 << bits, size=(rows, cols), dtype=np.uint8)
        self.packed = pack_codes(torch.from_numpy(codes), bits)
        grid = np.stack([rng.normal(size=cols), rng.uniform(0.1, 1, size=cols) / 100], axis=1)
        grid[0, 1] = 0.0  # a constant column has no step
        self.grid = torch.from_numpy(grid.astype(np.float32))
        self.table = torch.empty(0, dtype=torch.uint8)
        t = codes.astype(np.int64)
        if planes:
            table = rng.integers(0, 256, size=(planes, 1, cols, 1 << bits), dtype=np.uint8)
            self.table = torch.from_numpy(table)
            at = (np.arange(cols), codes)
            t = sum(table[p, 0][at].astype(np.int64) << (8 * p) for p in range(planes))
        self.t = t
        lo, step = self.grid.numpy().astype(np.float64).T
        self.q = lo + step * t

    def dot(self, x, digits):
        x = x.clone()
        z = ops._code_dot(
            self.packed, self.rows, self.cols, self.bits, self.grid, self.table, x, digits
        )
        return z, x

    def sum(self, e, digits):
        return ops._code_sum(
            self.packed, self.rows, self.cols, self.bits, self.grid, self.table, e, digits
        )

    def gram(self, x, digits, offset=None, shift=None, weight=None):
        x = x.clone()
        g = ops._code_gram(
            self.packed, self.rows, self.cols, self.bits, self.grid, self.table, x, offset, shift, weight,
            digits,
        )  # fmt: skip
        return g, x


def round_rows(e: np.ndarray, rows: int, digits: int) -> np.ndarray:
    """e as the backward products see it: slabs of ``rows`` rows on their own scales."""
    out = np.zeros(e.shape)
    for first in range(0, e.shape[1], rows):
        part = e[:, first : first + rows]
        unit = np.abs(part).max(axis=1, keepdims=True) / np.float32(top(digits))
        inverse = np.where(unit >= 2.0**-126, np.float32(1) / np.maximum(unit, 2.0**-126), 0)
        digit = np.rint(part * inverse.astype(np.float32)).astype(np.float64)
        out[:, first : first + rows] = digit * unit.astype(np.float64)
    return out


def top(digits: int) -> int:
    return 127 if digits == 1 else 127 * 128 + 63


SHAPES = [
    (1, 1, 4, 1), (63, 3, 1, 0), (64, 4, 2, 1), (65, 5, 3, 2), (257, 66, 4, 1), (300, 130, 4, 2),
    (700, 33, 5, 1), (129, 17, 6, 0), (500, 64, 7, 1), (4097, 9, 8, 1), (9000, 70, 2, 2),
]  # fmt: skip


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("outputs", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_code_dot_is_the_product_with_the_rounded_vector(shape, outputs, digits) -> None:
    data = Codes(*shape)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(outputs, data.cols)))
    z, rounded = on_all(lambda: data.dot(x, digits))
    step = data.grid.numpy()[:, 1].astype(np.float64)
    sigma = np.abs(step * x.numpy()).max(axis=1, keepdims=True) / top(digits)
    # Rounding moves step * x by half of sigma at most, and not at all where there is no step.
    assert (np.abs(step * (rounded - x.numpy())) <= 0.5000001 * sigma).all()
    np.testing.assert_array_equal(rounded[:, step == 0], x.numpy()[:, step == 0])
    want = rounded @ data.q.T
    scale = np.abs(rounded) @ np.abs(data.q.T)
    assert (np.abs(z - want) <= 1e-7 * scale + 1e-30).all()


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("outputs", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_code_sum_rounds_every_slab_on_its_own_scale(shape, outputs, digits) -> None:
    data = Codes(*shape)
    rng = np.random.default_rng(2)
    e = rng.normal(size=(outputs, data.rows)).astype(np.float32)
    e[:, 4096:] *= 1e-3  # a slab of small residuals keeps its digits
    (g,) = on_all(lambda: [data.sum(torch.from_numpy(e), digits)])
    rounded = round_rows(e, 4096, digits)
    np.testing.assert_allclose(g, rounded @ data.q, rtol=1e-9, atol=1e-9 * data.rows)


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_code_gram_is_both_products(shape, outputs, digits) -> None:
    data = Codes(*shape)
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(outputs, data.cols)))
    offset = torch.from_numpy(rng.normal(size=outputs))
    shift = torch.from_numpy(rng.normal(size=data.cols))
    weight = torch.from_numpy(rng.uniform(size=data.rows).astype(np.float32))
    for more in ((None, None, None), (offset, None, weight), (None, shift, None)):
        g, rounded = on_all(lambda more=more: data.gram(x, digits, *more))
        z, same = data.dot(x, digits)
        np.testing.assert_array_equal(rounded, same.numpy())
        z = z.numpy().astype(np.float64)
        if more[0] is not None:
            z = z + offset.numpy()[:, None]
        if more[1] is not None:
            z = z + (rounded @ shift.numpy())[:, None]
        e = z.astype(np.float32) * (1 if more[2] is None else weight.numpy())
        # A score may round the other way than here, and then one digit of e may: no more than that.
        rows = np.concatenate([data.q, np.ones((data.rows, 1))], axis=1)
        slack = 2.0 * np.abs(e).max() / top(digits) * np.abs(rows).max()
        want = round_rows(e, 512, digits) @ rows
        assert (np.abs(g - want) <= 1e-6 * np.abs(want).max() + slack).all()
        free = e.astype(np.float64) @ rows
        noise = np.abs(e).max() / top(digits) * np.sqrt((rows**2).sum(0))
        assert (np.abs(g - free) <= 3 * noise + slack).all()


def test_zero_and_constant_vectors() -> None:
    data = Codes(200, 9, 4, 1)
    z, x = data.dot(torch.zeros(2, 9, dtype=torch.float64), 1)
    assert not z.any() and not x.any()
    assert not data.sum(torch.zeros(2, 200), 2).any()
    assert not data.gram(torch.zeros(2, 9, dtype=torch.float64), 1)[0].any()
    ones = data.sum(torch.ones(1, 200), 1).numpy()[0]
    np.testing.assert_allclose(ones, data.q.sum(0), rtol=1e-6)


LOSSES = ("squared", "logistic", "softmax")


def reference(x, w, offset, y, weight, loss):
    """Loss, gradient (m, n + 1) and scores from the formulas, float64."""
    z = x @ w.T + offset
    v = np.ones(len(x)) if weight is None else weight
    if loss == "squared":
        total, e = (0.5 * (z - y) ** 2).sum(axis=1), z - y
    elif loss == "logistic":
        total, e = np.logaddexp(0, -y * z).sum(axis=1), -y / (1 + np.exp(y * z))
    else:
        peak = z.max(axis=1, keepdims=True)
        p = np.exp(z - peak)
        label = y[:, 0].astype(int)
        total = np.log(p.sum(axis=1)) + peak[:, 0] - z[np.arange(len(z)), label]
        e = p / p.sum(axis=1, keepdims=True) - np.eye(z.shape[1])[label]
    e = e * v[:, None]
    return (v * total).sum(), np.concatenate([e.T @ x, e.sum(0)[:, None]], axis=1), z


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows,cols", [(1, 1), (15, 3), (16, 8), (37, 17), (1025, 33), (3000, 65)])
def test_exact_pass(rows, cols, loss, dtype) -> None:
    rng = np.random.default_rng([rows, cols])
    outputs = {"squared": 2, "logistic": 1, "softmax": 3}[loss]
    x = rng.normal(size=(rows, cols)).astype(dtype)
    w, offset = rng.normal(size=(outputs, cols)), rng.normal(size=outputs)
    y = rng.normal(size=(rows, outputs))
    if loss == "logistic":
        y = np.sign(y)
    elif loss == "softmax":
        y = rng.integers(0, outputs, size=(rows, 1)).astype(np.float64)
    weight = rng.uniform(size=rows)
    for v in (None, weight):
        total, gradient, z = reference(x.astype(np.float64), w, offset, y, v, loss)

        def call(v=v):
            out = (
                torch.zeros(outputs, rows), torch.zeros(outputs, cols + 1, dtype=torch.float64),
                torch.zeros(1, dtype=torch.float64),
            )  # fmt: skip
            ops._exact_pass(
                torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(offset), torch.from_numpy(y),
                None if v is None else torch.from_numpy(v), loss, *out,
            )  # fmt: skip
            return out

        got_z, got_gradient, got_total = on_all(call)
        np.testing.assert_allclose(got_total[0], total, rtol=1e-12)
        np.testing.assert_allclose(got_gradient, gradient, rtol=1e-10, atol=1e-10 * rows)
        np.testing.assert_allclose(got_z.T, z, rtol=2e-7, atol=1e-6)


def test_exact_pass_adds_and_takes_any_strides() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 12))
    w, y = torch.ones(1, 12, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.float64)
    results = []
    for view in (
        x,
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        np.repeat(x, 2, axis=1)[:, ::2],
    ):
        z = torch.zeros(1, 100)
        g, total = torch.zeros(1, 13, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for first in (0, 20):
            part = slice(first, 20 if first == 0 else 50)
            ops._exact_pass(
                torch.from_numpy(view)[part], w, torch.zeros(1, dtype=torch.float64), y[part], None,
                "squared", z[:, part], g, total,
            )  # fmt: skip
        results.append((z, g, total))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    np.testing.assert_allclose(results[0][1][0, -1].item(), x.sum())


def test_extreme_scores_overflow_nothing() -> None:
    x = torch.tensor([[1e4], [-1e4]], dtype=torch.float64)
    for loss, outputs in (("logistic", 1), ("softmax", 2)):
        y = torch.ones(2, 1, dtype=torch.float64)
        w = torch.tensor([[1.0]] if outputs == 1 else [[0.0], [1.0]], dtype=torch.float64)
        z, g, total = (
            torch.zeros(outputs, 2), torch.zeros(outputs, 2, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
        )  # fmt: skip
        ops._exact_pass(x, w, torch.zeros(outputs, dtype=torch.float64), y, None, loss, z, g, total)
        assert total.item() == 1e4 and torch.isfinite(g).all()


def scores_to_probabilities(z, loss):
    if loss == "softmax":
        p = np.exp(z - z.max(axis=0))
        return p / p.sum(axis=0)
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize(
    "loss,outputs", [("squared", 3), ("logistic", 2), ("softmax", 2), ("softmax", 10)]
)
@pytest.mark.parametrize("rows", [1, 17, 1024, 2500])
def test_loss_terms(rows, loss, outputs, scale, weighted) -> None:
    rng = np.random.default_rng([rows, outputs])
    z, moved, score = (rng.normal(size=(outputs, rows)).astype(np.float32) for _ in range(3))
    z, moved = 3 * z, (scale * moved).astype(np.float32)
    length = np.linspace(-1, 1, outputs).astype(np.float32) * np.float32(scale)
    y = np.sign(rng.normal(size=(outputs, rows))).astype(np.float32)
    if loss == "softmax":
        y = rng.integers(0, outputs, size=(1, rows)).astype(np.float32)
    v = rng.uniform(size=rows).astype(np.float32) if weighted else None
    there = z.astype(np.float64) + moved + length[:, None].astype(np.float64) * score
    d, w = there - z, 1.0 if v is None else v.astype(np.float64)
    p, q = (scores_to_probabilities(a, loss) for a in (z.astype(np.float64), there))
    if loss == "squared":
        base, change = z - y, d
        curvature = (w * score.astype(np.float64) ** 2).sum(1)
    elif loss == "logistic":
        base, change = -y / (1 + np.exp(y * z.astype(np.float64))), q - p
        curvature = (w * q * (1 - q) * score.astype(np.float64) ** 2).sum(1)
    else:
        base, change = p - np.eye(outputs)[y[0].astype(int)].T, q - p
        bent = w * (q * (score - (q * score).sum(0)) ** 2).sum(0)
        curvature = np.zeros(outputs)
        curvature[0] = bent.sum()

    def call(*move):
        out = torch.zeros(outputs, rows)
        sums = ops._loss_terms(
            torch.from_numpy(z),
            torch.from_numpy(y),
            None if v is None else torch.from_numpy(v),
            *move,
            loss,
            out,
        )
        return out, sums

    start, sums = on_all(lambda: call(None, None, None))
    np.testing.assert_allclose(start, w * base, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(sums[:, 2], (w * base).sum(1), rtol=1e-5, atol=1e-6 * rows)
    moves = [torch.from_numpy(t) for t in (moved, score, length)]
    slopes, sums = on_all(lambda: call(*moves))
    far = np.abs(d).max()  # a move of 1e-6 keeps its relative precision; z + 100 is rounded
    limit = 1e-6 * min(far, 1.0) + 1e-7 * far
    np.testing.assert_allclose(slopes, w * change, rtol=4e-6, atol=limit)
    np.testing.assert_allclose(
        sums[:, 0], (w * change * score).sum(1), rtol=1e-5, atol=limit * rows
    )
    np.testing.assert_allclose(
        sums[:, 1], curvature, rtol=1e-5, atol=1e-5 * np.abs(curvature).max()
    )
    np.testing.assert_allclose(sums[:, 2], (w * change).sum(1), rtol=1e-5, atol=limit * rows)
    np.testing.assert_allclose(sums[:, 3], (d**2).sum(1), rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_curvature_of_the_logistic_loss(weighted) -> None:
    """v p (1 - p), at scores near and far from 0, and 0 for rows of weight 0."""
    rng = np.random.default_rng(3)
    z = (rng.normal(size=999) * 10.0 ** rng.uniform(-2, 1.5, size=999)).astype(np.float32)
    y = np.sign(rng.normal(size=999)).astype(np.float32)
    v = rng.uniform(size=999).astype(np.float32) if weighted else np.ones(999, np.float32)
    v[::7] = 0.0 if weighted else 1.0
    loss = Loss("logistic", torch.from_numpy(y)[None], torch.from_numpy(v) if weighted else None)
    p = 1 / (1 + np.exp(-np.abs(z.astype(np.float64))))
    got = loss.curvature(torch.from_numpy(z)[None]).double().numpy()
    assert loss.diagonal
    assert (got >= 0).all()
    np.testing.assert_allclose(got, v * p * (1 - p), rtol=1e-5, atol=3e-7)


def test_errors_name_the_argument() -> None:
    data = Codes(100, 5, 4, 1)
    x = torch.zeros(1, 5, dtype=torch.float64)
    with pytest.raises(
        RuntimeError, match=r"torchext::_code_dot: digits must be in \[1, 2\], got 3"
    ):
        data.dot(x, 3)
    with pytest.raises(RuntimeError, match=r"torchext::_code_dot: x must be float64, got float32"):
        data.dot(x.float(), 1)
    with pytest.raises(
        RuntimeError, match=r"torchext::_code_sum: e must have shape \(outputs, 100\)"
    ):
        data.sum(torch.zeros(1, 99), 1)
    with pytest.raises(RuntimeError, match="torchext::_code_sum: codes must hold"):
        ops._code_sum(data.packed[:-1], 100, 5, 4, data.grid, data.table, torch.zeros(1, 100), 1)
    with pytest.raises(RuntimeError, match=r"_code_gram: weight must have shape \(100\)"):
        data.gram(x, 1, weight=torch.zeros(99))
    z = torch.zeros(2, 5)
    with pytest.raises(
        RuntimeError, match="_loss_terms: loss must be squared, logistic or softmax"
    ):
        ops._loss_terms(z, z, None, None, None, None, "hinge", None)
    with pytest.raises(RuntimeError, match="_loss_terms: score and length must come together"):
        ops._loss_terms(z, z, None, z, z, None, "squared", None)
    with pytest.raises(RuntimeError, match=r"_loss_terms: y must have shape \(1, 5\)"):
        ops._loss_terms(z, z, None, None, None, None, "softmax", None)
    y = torch.full((2, 1), 3.0, dtype=torch.float64)
    with pytest.raises(
        RuntimeError, match=r"_exact_pass: y must be class numbers in \[0, 1\], got 3"
    ):
        ops._exact_pass(
            torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), y,
            None, "softmax", torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.float64),
            torch.zeros(1, dtype=torch.float64),
        )  # fmt: skip


def test_on_the_codes_of_a_store() -> None:
    x = np.exp(np.random.default_rng(0).normal(size=(300, 6)))
    store = QuantizedDataset.from_arrays(
        x, bits=3, sampling="nearest", anchor="none", shuffle=False
    )
    v = torch.linspace(-1, 1, 6, dtype=torch.float64)[None].clone()
    z = ops._code_dot(store.codes[0], 300, 6, 3, store.grid, store.table, v, 2)
    np.testing.assert_allclose(
        z[0].numpy(), (store.decode().double() @ v[0]).numpy(), rtol=1e-5, atol=1e-6
    )
