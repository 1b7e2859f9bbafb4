"""Stochastic rounding is unbiased, with the variance of the formula and independent errors.

Keys are fixed, so nothing here is flaky. Nearest rounding and a draw used twice are the negative
controls: the same tests must refuse them, or they would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import torchext
from torchext import ops, random
from torchext.random import Purpose

stats = pytest.importorskip("scipy.stats")

N, REPEATS = 4096, 300
KEY = random.fold_in(random.key_from_seed(2025), Purpose.TEST)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A format whose intervals [points[i], points[i + 1]] are known to the test."""

    scheme: str
    bits: int
    points: Array

    def round(self, x: Tensor, key: Tensor, rounding: str = "stochastic", stream: int = 0) -> Array:
        table = torch.tensor(self.points, dtype=torch.float32)
        step = table[1] - table[0]
        scale = {
            "symmetric": step[None],
            "minmax": torch.stack([table[0], step])[None],
            "levels": None,
        }[self.scheme]
        levels = table if self.scheme == "levels" else None
        out = ops.fake_quantize(
            x, scale, levels, self.bits, self.scheme, None, None, rounding, key, stream
        )
        return out.double().numpy()


GRIDS = [
    Grid("symmetric", 4, np.arange(-7, 8) * 0.1875),
    Grid("symmetric", 2, np.arange(-1, 2) * 0.8125),
    Grid("minmax", 1, np.array([-1.25, 0.875])),
    Grid("minmax", 5, -0.6875 + np.arange(32) * 0.0625),
    Grid("levels", 2, np.array([-1.0, -0.25, 0.125, 1.5])),
    Grid("levels", 8, np.sign(k := np.linspace(-1, 1, 250)) * k * k),
]
grids = pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.scheme}{g.bits}")


def probe(grid: Grid) -> tuple[Tensor, Array, Array, Array]:
    """Values inside the intervals, the lower points, the interval widths and the chances of going up."""
    index = np.arange(N) % (len(grid.points) - 1)
    fraction = 0.05 + 0.9 * ((np.arange(N) * 0.6180339887) % 1)
    low = grid.points[index]
    width = grid.points[index + 1] - low
    x = torch.tensor(low + fraction * width, dtype=torch.float32)
    return x, low, width, (x.double().numpy() - low) / width


def refused(samples: Callable[[Tensor], Array], expected: Array, variance: Array) -> str:
    """Why REPEATS samples contradict a mean and a variance; an empty text if they do not."""
    total = np.zeros_like(expected)
    for r in range(REPEATS):
        total += samples(random.fold_in(KEY, r))
    z = (total / REPEATS - expected) / np.sqrt(variance / REPEATS)
    if np.abs(z).max() >= 6.5:
        return f"max|z| = {np.abs(z).max():.1f}"
    low, high = stats.chi2.ppf([0.5e-6, 1 - 0.5e-6], len(z))
    square = float(z @ z)
    return "" if low < square < high else f"sum z^2 = {square:.0f}, not in [{low:.0f}, {high:.0f}]"


@grids
def test_unbiased_and_nearest_is_not(grid: Grid) -> None:
    x, _, width, up = probe(grid)
    variance = width**2 * up * (1 - up)
    assert refused(lambda key: grid.round(x, key), x.double().numpy(), variance) == ""
    assert refused(lambda key: grid.round(x, key, "nearest"), x.double().numpy(), variance) != ""


@grids
def test_a_bias_of_a_fortieth_of_a_step_is_seen(grid: Grid) -> None:
    """The sensitivity of the test above, in the unit users think in."""
    x, _, width, up = probe(grid)
    moved = x.double().numpy() + width / 40
    assert refused(lambda key: grid.round(x, key), moved, width**2 * up * (1 - up)) != ""


@grids
def test_variance_equals_the_formula(grid: Grid) -> None:
    x, _, width, up = probe(grid)
    exact = float(np.sum(width**2 * up * (1 - up)))
    table = torch.tensor(grid.points, dtype=torch.float32)
    step = table[1] - table[0]
    scale = torch.stack([table[0], step]) if grid.scheme == "minmax" else step
    predicted = torchext.quantization_variance(
        x, grid.bits, scheme=grid.scheme,
        scale=None if grid.scheme == "levels" else scale,
        levels=table if grid.scheme == "levels" else None,
    )  # fmt: skip
    assert predicted.item() == pytest.approx(exact, rel=1e-4)
    errors = [grid.round(x, random.fold_in(KEY, r)) - x.double().numpy() for r in range(100)]
    sums = [float(e @ e) for e in errors]
    assert abs(np.mean(sums) - exact) < 6.5 * np.std(sums) / 10


@grids
def test_histogram_of_codes(grid: Grid) -> None:
    """The counts of upward draws in the intervals are independent: their z^2 add up to a chi2."""
    x, low, width, up = probe(grid)
    ups = np.zeros(N)
    for r in range(50):
        ups += np.rint((grid.round(x, random.fold_in(KEY, r)) - low) / width)
    interval = np.arange(N) % (len(grid.points) - 1)
    found = np.bincount(interval, ups)
    mean = np.bincount(interval, 50 * up)
    spread = np.bincount(interval, 50 * up * (1 - up))
    bounds = stats.chi2.ppf([0.5e-6, 1 - 0.5e-6], len(found))
    assert bounds[0] < float(np.sum((found - mean) ** 2 / spread)) < bounds[1]


def test_errors_are_uncorrelated() -> None:
    """Across neighbours, streams, draws, steps and ranks."""
    grid = GRIDS[0]
    x, _, width, up = probe(grid)
    deviation = np.sqrt(width**2 * up * (1 - up))

    def errors(key: Tensor, stream: int = 0) -> Array:
        return (grid.round(x, key, stream=stream) - x.double().numpy()) / deviation

    def independent(a: Array, b: Array) -> bool:
        return abs(float(a @ b)) / len(a) < 5 / len(a) ** 0.5

    base = errors(KEY)
    for lag in (1, 2, 3, 4, 64):
        assert independent(base[:-lag], base[lag:]), f"neighbours at distance {lag}"
    phase = random.fold_in(random.fold_in(random.fold_in(KEY, Purpose.COMM), 5), 1)
    others = {
        "stream": errors(KEY, 1),
        "step": errors(random.fold_in(KEY, 1)),
        "rank": errors(random.fold_in(phase, 0)),
    }
    for name, other in others.items():
        assert independent(base, other), name
    assert independent(others["rank"], errors(random.fold_in(phase, 1))), "two ranks"
    assert not independent(base, errors(KEY)), "the same key twice must be seen"


DRAWS = [("bits", 2), ("bits", 3), ("count", 2), ("count", 3), ("ternary", 2)]


@pytest.mark.parametrize(("form", "draws"), DRAWS)
def test_products_of_draws_are_unbiased(form: str, draws: int) -> None:
    """Double sampling: E Q_0 Q_k = x^2 for every pair; one draw squared carries its variance."""
    grid = GRIDS[4]
    x, _, width, up = probe(grid)
    value, variance = x.double().numpy(), width**2 * up * (1 - up)
    levels = torch.tensor(grid.points, dtype=torch.float32)
    second = variance * (variance + 2 * value**2)  # variance of a product of independent draws

    def pair(key: Tensor, first: int, other: int) -> tuple[Array, Array]:
        q = torchext.quantize_draws(x, levels, draws, form=form, key=key)
        return q.dequantize(first).double().numpy(), q.dequantize(other).double().numpy()

    for d in range(1, draws):

        def product(key: Tensor, d: int = d) -> Array:
            a, b = pair(key, 0, d)
            return a * b

        assert refused(product, value**2, second) == "", (0, d)
    assert refused(lambda key: pair(key, draws - 1, 0)[0], value, variance) == ""
    assert refused(lambda key: pair(key, 0, 0)[0] ** 2, value**2, second) != ""
