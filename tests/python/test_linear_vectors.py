"""Worked examples of linear models on codes, entry by entry: the numbers are fractions found by hand.

Four rows of two columns, levels (-1, -1/3, 1/3, 1). Codes, moments and anchor of nearest rounding are in
test_encode_kernels.py, the steps of one draw in test_sgd_kernels.py, further rounding examples in
test_quantize.py, bytes of the layouts in test_encode_kernels.py.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from sgd_model import Problem, pack
from test_encode_kernels import KEY, exact_book, tiny, uniforms
from test_sgd_kernels import on_all

import torchext
from torchext.data import _encode as enc
from torchext.data import _levels as lev
from torchext.data import noise

LEVELS = torch.tensor([[-1, -1 / 3, 1 / 3, 1]] * 2)
X = torch.tensor([[0.5, -1.0]])
#: Level below the value, chance of going up, variance of a draw.
BELOW = np.array([[2, 0], [0, 1], [2, 1], [0, 2]])
UP = np.array([[1 / 4, 0], [3 / 4, 7 / 8], [1, 1 / 2], [0, 5 / 8]])
VARIANCE = [[(1, 12), (0, 1)], [(1, 12), (7, 144)], [(0, 1), (1, 9)], [(0, 1), (5, 48)]]
#: Both draws of every value, up or not.
FIRST = np.array([[0, 0], [1, 1], [1, 0], [0, 1]])
SECOND = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])


def encoder(sampling: str, **options: object) -> enc.Encoder:
    one = torch.ones(2, dtype=torch.float64)
    return enc.Encoder(0 * one, one, exact_book(2, sampling, LEVELS), KEY, **options)


def test_rounding() -> None:
    """.3 on {0, 1} goes up with chance .3; .5 lies between 1/3 and 2/3; a level keeps its code."""
    key = torchext.random.key_from_seed(0)
    ups = torchext.quantize(
        torch.full((1 << 16,), 0.3), 1, levels=torch.tensor([0.0, 1.0]), key=key
    )
    share = ups.unpack().double().mean().item()
    assert abs(share - 0.3) < 4 * (0.21 / (1 << 16)) ** 0.5
    thirds = torch.tensor([0, 1 / 3, 2 / 3, 1])
    middle = torchext.quantize(torch.full((1000,), 0.5), 2, levels=thirds, key=key)
    assert set(middle.unpack().tolist()) == {1, 2}
    still = torchext.quantize(thirds.repeat_interleave(1000), 2, levels=thirds, key=key)
    assert still.unpack().tolist() == [0] * 1000 + [1] * 1000 + [2] * 1000 + [3] * 1000


def test_chances_and_variances_of_every_value() -> None:
    a, _ = tiny()
    for k, row in enumerate(a):
        coder = encoder("stochastic")
        codes = enc.unpack_codes(coder.add(row.expand(2000, 2).contiguous()), 2000, 2, 2).numpy()
        np.testing.assert_array_equal(codes, BELOW[k] + (uniforms(2000, 2, 0, 0) < UP[k]))
        expected = [float(Fraction(*v)) for v in VARIANCE[k]]
        assert coder.finish().noise[1].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_full_gradient_and_the_first_form_of_the_correction() -> None:
    """At x = (1/2, -1). The moments hold another correction, D = mean q^2 - mean a^2 and
    h = mean (q - a) y, whose gradient is (-71/144, 17/288)."""
    a, y = tiny()
    coder = encoder("nearest", outputs=1, x0=X)
    coder.add(a, y=y)  # nearest rounding of these rows equals FIRST
    sums = coder.finish()
    exact, naive = sums.gradient[:, :, 0]
    assert exact.tolist() == pytest.approx([-19 / 32, 7 / 64], rel=1e-6)
    assert naive.tolist() == pytest.approx([-4 / 9, 2 / 9], rel=1e-6)
    d = sums.moments[1] - sums.moments[0]
    assert d.tolist() == pytest.approx([-5 / 72, 43 / 288], rel=1e-6)
    h = sums.linear[1, :, 0]
    moved = naive + h - d * X[0].double()
    assert moved.tolist() == pytest.approx([-71 / 144, 17 / 288], rel=1e-6)


def test_two_draws() -> None:
    """The symmetric gradient of two draws: (-11/18, 5/36); the mean of (-13/18, 1/3) and its twin."""
    codes = (BELOW | FIRST << 2 | SECOND << 3).astype(np.uint8)
    five = torch.cat([LEVELS, LEVELS[:, -1:]], 1)  # 4 bits have room for five levels
    book = lev.codebook(4, "double", levels=five)
    assert book.levels is not None
    q1, q2 = (book.levels[d][torch.arange(2), torch.from_numpy(codes).long()] for d in (0, 1))
    third = 1 / 3
    drawn = [[[third, -1], [-third, third], [1, -third], [-1, 1]],
             [[1, -1], [-1, third], [1, third], [-1, third]]]  # fmt: skip
    for q, expected in zip((q1, q2), drawn, strict=True):
        np.testing.assert_allclose(q, expected, atol=1e-6)
    _, y = tiny()
    one_sided = (q1 * (q2 @ X.T - y)).mean(0)
    assert one_sided.tolist() == pytest.approx([-13 / 18, 1 / 3], abs=1e-6)
    p = Problem(rows=4, cols=2, bits=4, books=2)
    p.raw, p.codes = codes, pack(codes, 4, "tile4")
    p.table, p.grid = book.table.numpy(), book.grid.numpy()
    p.x, p.y = X.numpy(), y.numpy()
    step = on_all(
        p, steps=1, batch=64, order=np.zeros(1, np.int64), gamma=np.ones(1),
        model_bits=32, residual_bits=32,
    )  # fmt: skip
    np.testing.assert_allclose(p.x - step["x"], [[-11 / 18, 5 / 36]], atol=1e-6)


def test_columns_without_noise_are_not_corrected() -> None:
    """theta = 0 and no guard ridge where no value moves, by either rule; K <= 2n: theta = 0."""
    v = torch.tensor([0.0, 1e-3], dtype=torch.float64)
    sums = torch.stack([v, v, v**2])
    for kind in ("mp", "keff"):
        still, moving = noise.shrinkage(sums, 1000, 2, kind)
        assert still == 0 and moving == pytest.approx((0.998**0.5 - 0.002**0.5) ** 2)
        assert noise.shrinkage(sums, 4, 2, kind)[1] == pytest.approx(0, abs=1e-12)
    still, moving = noise.double_guard(sums, 1000, 2)
    assert still == 0 and moving == pytest.approx(1e-3 * (0.004**0.5 + 0.001))


@pytest.mark.parametrize("layout", ["row", "tile4", "block"])
def test_every_byte_meets_its_column(layout: str) -> None:
    """Four equal rows whose byte number p of a 64-byte unit is p; residuals (1, 0, 0, 0). The product with
    the codes is p mod 16 in column p and p // 16 in column 64 + p, wherever a kernel's lanes hold them."""
    byte = np.arange(64)
    codes = np.tile(np.concatenate([byte % 16, byte // 16]), (4, 1)).astype(np.uint8)
    if layout == "row":
        np.testing.assert_array_equal(pack(codes[:1], 4, layout), byte)
    p = Problem(rows=4, cols=128, bits=4, affine=True, layout=layout)
    p.raw, p.codes = codes, pack(codes, 4, layout)
    p.grid = np.tile(np.array([0, 1], np.float32), (128, 1))
    p.x, p.y = np.zeros((1, 128), np.float32), np.array([[-1], [0], [0], [0]], np.float32)
    step = on_all(p, steps=1, batch=64, order=np.zeros(1, np.int64), gamma=np.full(1, 4.0))
    np.testing.assert_allclose(-step["x"][0], codes[0], rtol=1e-6)
