"""Gradients from one sample's draws: unbiased, and with exactly the variance that theory states.

a, x in R^20 and y are fixed; every row of the encoded table is a, so that row k is draw k of the same
sample. A grid has s intervals on [-1, 1]. TV = sum v, S = sum v x^2, r = a.x - y.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from torchext.data._encode import Encoder, unpack_codes
from torchext.data._levels import codebook, level_count
from torchext.quantization import quantization_variance, quantize
from torchext.random import key_from_seed

N = 20
BITS = {1: 2, 3: 4, 7: 5, 15: 6}  # double sampling whose code holds s intervals
ESTIMATORS = ("naive", "double", "symmetric", "corrected")


def problem(s: int) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """a, x, y and the variances v of a draw."""
    rng = np.random.default_rng(11)
    a, x = rng.uniform(-1, 1, N).astype(np.float32).astype(float), rng.normal(size=N)
    step = 2 / s
    low = -1 + np.floor((a + 1) / step) * step
    return a, x, 0.3, (low + step - a) * (a - low)


@cache
def moments(s: int, draws: int) -> dict[str, tuple[np.ndarray, float, float]]:
    """By estimator: mean error of the gradient, its standard error (norm), mean squared error."""
    a, x, y, v = problem(s)
    exact = a * (a @ x - y)
    bits = BITS[s]
    levels = np.concatenate(
        [np.linspace(-1, 1, s + 1), np.ones(level_count(bits, "double") - s - 1)]
    )
    book = codebook(bits, "double", levels=torch.from_numpy(np.tile(levels, (N, 1))))
    encoder = Encoder(
        torch.zeros(N, dtype=torch.float64),
        torch.ones(N, dtype=torch.float64),
        book,
        key_from_seed(s),
    )
    block = 1 << 16
    rows = torch.from_numpy(a).float().expand(block, N).contiguous()
    total = {name: np.zeros(N) for name in ESTIMATORS}
    square = {name: 0.0 for name in ESTIMATORS}
    columns = torch.arange(N)
    count = -(-draws // block)
    for _ in range(count):
        codes = unpack_codes(encoder.add(rows), block, N, bits).long()
        q1, q2 = (book.levels[d][columns, codes].double() for d in (0, 1))
        weights = torch.from_numpy(x)
        r1, r2 = (q @ weights - y for q in (q1, q2))
        naive = q1 * r1[:, None]
        found = {
            "naive": naive,
            "double": q1 * r2[:, None],
            "symmetric": (q1 * r2[:, None] + q2 * r1[:, None]) / 2,
            "corrected": naive - torch.from_numpy(v * x),
        }
        for name, g in found.items():
            error = g - torch.from_numpy(exact)
            total[name] += error.sum(0).numpy()
            square[name] += float(error.square().sum())
    number = count * block
    return {
        name: (
            total[name] / number,
            float(np.sqrt((square[name] / number - np.sum((total[name] / number) ** 2)) / number)),
            square[name] / number,
        )
        for name in ESTIMATORS
    }  # fmt: skip


def test_double_symmetric_and_corrected_are_unbiased() -> None:
    """Two million draws, three intervals: below 4 standard errors; the naive draw is off by D x."""
    _, x, _, v = problem(3)
    found = moments(3, 2_000_000)
    for name in ("double", "symmetric", "corrected"):
        bias, error, _ = found[name]
        assert np.linalg.norm(bias) < 4 * error, name
    bias, error, _ = found["naive"]
    assert np.linalg.norm(bias - v * x) < 4 * error
    assert np.linalg.norm(bias) > 50 * error  # negative control


@pytest.mark.parametrize("s", [1, 3, 7, 15])
def test_variance_identities(s: int) -> None:
    """E||g - g*||^2 of double, symmetric and corrected within 2 % of their closed forms."""
    a, x, y, v = problem(s)
    r, tv, ss = a @ x - y, v.sum(), (v * x**2).sum()
    step = 2 / s
    low = -1 + np.floor((a + 1) / step) * step
    m3, m4 = v * (2 * low + step - 2 * a), v * (step**2 - 3 * v)
    norm = (a**2).sum()
    expected = {
        "double": tv * r**2 + (norm + tv) * ss,
        "symmetric": (tv * r**2 + norm * ss + tv * ss) / 2
        + r * (a * v * x).sum()
        + (v**2 * x**2).sum() / 2,
        "corrected": tv * r**2 + norm * ss + tv * ss + 2 * r * (a * v * x).sum()
        + 2 * (a * m3 * x**2).sum() + 2 * r * (m3 * x).sum() + ((m4 - 2 * v**2) * x**2).sum(),
    }  # fmt: skip
    found = moments(s, 2_000_000 if s == 3 else 400_000)
    for name, value in expected.items():
        assert found[name][2] == pytest.approx(value, rel=0.02), name


def test_row_scaled_rounding_keeps_the_published_bounds() -> None:
    """E||Q(v) - v||^2 <= min(n/s^2, sqrt(n)/s) ||v||^2 and E||Q(v)||_0 <= s (s + sqrt n), every n and s."""
    rng = np.random.default_rng(0)
    for n in (10, 31, 100, 316, 1000):
        for kind in (rng.normal, rng.laplace, rng.standard_cauchy):
            v = torch.from_numpy(kind(size=n).astype(np.float32))
            norm = float(v.double().norm())
            for s in (1, 2, 4, 8, 16, 32, 64):
                bits = s.bit_length() + 1
                scale = torch.tensor([norm / s], dtype=torch.float32)
                variance = float(quantization_variance(v, bits, scale=scale))
                assert variance <= min(n / s**2, np.sqrt(n) / s) * norm**2 * (1 + 1e-6)
                expected = float(
                    (v.double() / float(scale)).abs().clamp(max=1).sum()
                )  # P(code != 0)
                assert expected <= s * (s + np.sqrt(n))
                codes = [
                    quantize(v, bits, scale=scale, key=key_from_seed(k)).dequantize()
                    for k in range(8)
                ]
                mean = sum(int((q != 0).sum()) for q in codes) / len(codes)
                spread = np.sqrt(n / 4 / len(codes))
                assert abs(mean - expected) <= 6 * spread + 1
