"""Properties of optimal levels that hold for any data, and figures that were published."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from levels_data import OBJECTIVES, cost_of, draw, numbers
from torch import Tensor

import torchext
from torchext import OptimalLevels

values = st.lists(numbers, min_size=1, max_size=40)
weighted = st.lists(
    st.tuples(numbers, st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])), min_size=1, max_size=40
)
objectives = st.sampled_from(OBJECTIVES)
often = settings(max_examples=60, deadline=None, derandomize=True)


def tensor(x: list[float]) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def same(a: OptimalLevels, b: OptimalLevels) -> bool:
    """Equal bits of all results."""
    return all(torch.equal(p, q) for p, q in zip(a[:5], b[:5], strict=True))


def near(a: Tensor | float, b: Tensor | float, rel: float = 1e-9) -> bool:
    return float(a) == pytest.approx(float(b), rel=rel, abs=1e-300)


@often
@given(weighted, st.integers(2, 6), objectives, st.randoms(use_true_random=False))
def test_order_and_absent_values_leave_no_trace(
    pairs: list[tuple[float, float]], s: int, objective: str, random
) -> None:  # type: ignore[no-untyped-def]
    """Bit for bit: any order, values of weight 0 left out, -0.0 for 0.0."""
    pairs = [(pairs[0][0], 1.0), *pairs[1:]]

    def solve(p: list[tuple[float, float]]) -> OptimalLevels:
        x, w = zip(*p, strict=True)
        return torchext.optimal_levels(
            tensor(list(x)), s, objective=objective, weight=tensor(list(w))
        )

    want = solve(pairs)
    random.shuffle(pairs)
    assert same(want, solve(pairs))
    assert same(want, solve([p for p in pairs if p[1] > 0]))
    assert same(want, solve([(-0.0 if v == 0 else v, w) for v, w in pairs]))


def test_absent_values_do_not_widen_the_error_bound() -> None:
    """The lower bound is the same to the bit where it is not tight enough for a certificate."""
    x = tensor([-2.0, 0.0, 1.0, -1.0, 2.0, 0.125, 1e8])
    w = tensor([1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    want = torchext.optimal_levels(x, 6, objective="nearest", weight=w)
    wider = torch.cat([x, tensor([0.0])]), torch.cat([w, tensor([0.0])])
    assert same(want, torchext.optimal_levels(wider[0], 6, objective="nearest", weight=wider[1]))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_absent_values_do_not_set_the_scale(objective: str) -> None:
    """Same bits of everything with and without values whose squares would overflow."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(500, generator=g, dtype=torch.float64)
    w = torch.rand(500, generator=g, dtype=torch.float64)
    absent = tensor([1.7e308, -1.7e308, 1e301, 5e-324])
    wider = torch.cat([absent, x]), torch.cat([torch.zeros(4, dtype=torch.float64), w])
    for options in (
        {},
        {"method": "hist"},
        {"level_dtype": torch.float16},
        {"candidates": torch.arange(-20, 20, dtype=torch.float64) / 4},
    ):
        want = torchext.optimal_levels(x, 6, objective=objective, weight=w, **options)
        got = torchext.optimal_levels(wider[0], 6, objective=objective, weight=wider[1], **options)
        assert want.cost > 0 and want.count == 6
        assert same(want, got), options


@often
@given(
    st.lists(st.tuples(numbers, st.integers(1, 3)), min_size=1, max_size=25),
    st.integers(2, 6),
    objectives,
)
def test_a_weight_is_a_number_of_copies(
    pairs: list[tuple[float, int]], s: int, objective: str
) -> None:
    x = tensor([v for v, _ in pairs])
    copies = torch.tensor([n for _, n in pairs])
    once = torchext.optimal_levels(x, s, objective=objective, weight=copies.double())
    repeated = torchext.optimal_levels(x.repeat_interleave(copies), s, objective=objective)
    assert near(repeated.cost, once.cost)
    # below 1e-16 of the squares that it is made of, a cost may be left without a certificate
    tiny = once.cost <= 1e-16 * (copies * (x - x.mean()) ** 2).sum()
    assert tiny or (once.certified.item() and repeated.certified.item())
    one = torchext.optimal_levels(x, s, objective=objective)
    all_one = torchext.optimal_levels(x, s, objective=objective, weight=torch.ones(len(x)))
    twice = torchext.optimal_levels(torch.cat([x, x]), s, objective=objective)
    assert same(one, all_one) and near(twice.cost, 2 * one.cost)


@often
@given(values, objectives)
def test_falling_and_convex_in_the_number_of_levels(x: list[float], objective: str) -> None:
    """f(s + 1) <= f(s), gains shrink, and the distinct values themselves cost nothing."""
    distinct = len(set(x))
    f = [
        torchext.optimal_levels(tensor(x), s, objective=objective).cost.item()
        for s in range(2, min(distinct, 9) + 2)
    ]
    slack = 1e-9 * f[0]
    assert all(b <= a for a, b in itertools.pairwise(f))
    assert all(a - b >= b - c - slack for a, b, c in zip(f, f[1:], f[2:], strict=False))
    assert (
        torchext.optimal_levels(tensor(x), max(2, distinct), objective=objective).cost.item() == 0
    )


@often
@given(values, st.integers(2, 6), objectives, st.integers(-40, 40))
def test_equivariance(x: list[float], s: int, objective: str, power: int) -> None:
    """Powers of two bit for bit; mirror images."""
    v = tensor(x)
    found = torchext.optimal_levels(v, s, objective=objective)
    by_two = torchext.optimal_levels(v * 2.0**power, s, objective=objective)
    assert torch.equal(by_two.levels, found.levels * 2.0**power)
    assert by_two.cost.item() == found.cost.item() * 4.0**power
    mirrored = torchext.optimal_levels(-v, s, objective=objective)
    assert near(mirrored.cost, found.cost)


@often
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.integers(2, 6), objectives,
    st.sampled_from([3.0, -3.0, 0.3, -0.07]), st.floats(-100, 100),
)  # fmt: skip
def test_affine_equivariance(
    x: list[int], s: int, objective: str, scale: float, shift: float
) -> None:
    v = torch.tensor(x, dtype=torch.float64)
    found = torchext.optimal_levels(v, s, objective=objective)
    moved = torchext.optimal_levels(scale * v + shift, s, objective=objective)
    assert moved.cost.item() == pytest.approx(scale**2 * found.cost.item(), rel=1e-9, abs=1e-12)


@often
@given(values, st.integers(2, 6))
def test_nearest_never_costs_more_than_stochastic(x: list[float], s: int) -> None:
    unbiased, nearest = (torchext.optimal_levels(tensor(x), s, objective=o) for o in OBJECTIVES)
    assert nearest.cost <= unbiased.cost * (1 + 1e-12)
    error = torchext.rounding_error(tensor(x), unbiased, rounding="nearest")
    assert nearest.lower_bound <= error.bias2 <= unbiased.cost * (1 + 1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(["normal", "lognormal", "integers", "clusters", "zeros"]), st.integers(0, 99)
)
def test_stationary_and_monotone_in_the_data(name: str, seed: int) -> None:
    """Stationary at every level; data on a level costs nothing; fewer data do not cost more."""
    x = draw(name, 400, seed)
    best = torchext.optimal_levels(x, 6)
    twice = torchext.optimal_levels(torch.cat([x, x]), 6)
    assert near(twice.cost, 2 * best.cost, 1e-12)
    if name in ("normal", "lognormal"):  # one optimum only
        assert torch.equal(twice.levels, best.levels)
        assert torch.equal(torchext.optimal_levels(-x, 6).levels.flip(0), -best.levels)
    more = torchext.optimal_levels(torch.cat([x, best.levels]), 6)
    assert more.cost.item() == pytest.approx(best.cost.item(), rel=1e-12)
    fewer = torchext.optimal_levels(x[:-40], 6)
    assert fewer.cost.item() <= best.cost.item() * (1 + 1e-12)
    q = best.levels.tolist()
    for a, b, c in zip(q, q[1:], q[2:], strict=False):
        left, right = x[(x > a) & (x < b)] - a, c - x[(x >= b) & (x < c)]
        at = int((x == b).sum())
        tolerance = 1e-9 * (c - a) * len(x)
        assert left.sum() <= right.sum() + tolerance
        assert left.sum() + at * (b - a) >= right.sum() - at * (c - b) - tolerance


#: What a value adds between the levels that leave the gaps p above and q below it; 0 outside.
INTERVAL_COSTS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "stochastic": lambda p, q: p * q,
    "nearest": lambda p, q: min(p, q) ** 2,  # neighbouring levels, which candidates rest on
}


@pytest.mark.parametrize("objective", INTERVAL_COSTS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=20),
    st.lists(st.floats(-110, 110), min_size=4, max_size=4),
)
def test_quadrangle_inequality(objective: str, x: list[float], corners: list[float]) -> None:
    """What every solver rests on: C(a,c) + C(b,d) <= C(a,d) + C(b,c) for a <= b, c <= d, exactly."""
    a, b = sorted(corners[:2])
    c, d = sorted(corners[2:])
    zero = Fraction(0)

    def cost(lo: float, hi: float) -> Fraction:
        gaps = (
            (max(Fraction(hi) - Fraction(t), zero), max(Fraction(t) - Fraction(lo), zero))
            for t in x
        )
        return sum((INTERVAL_COSTS[objective](p, q) for p, q in gaps), zero)

    assert cost(a, c) + cost(b, d) <= cost(a, d) + cost(b, c)


def test_lloyd_max_error_of_the_normal_distribution() -> None:
    """Mean squared errors that tables of quantizers list."""
    x = draw("normal", 200_000)
    for s, mse in ((2, 0.3634), (4, 0.1175), (5, 0.0799), (8, 0.03454), (16, 0.009497)):
        found = torchext.optimal_levels(x, s, objective="nearest")
        assert found.cost.item() / len(x) == pytest.approx(mse, rel=0.02)


def gain(name: str, seeds: int, bits: int = 3) -> float:
    """Variance on uniform levels over that on optimal ones, mean of so many draws."""
    ratios = []
    for seed in range(seeds):
        x = draw(name, 2000, seed)
        uniform = torch.linspace(x.min().item(), x.max().item(), 2**bits, dtype=torch.float64)
        uniform[0], uniform[-1] = x.min(), x.max()
        best = torchext.optimal_levels(x, bits=bits).cost.item()
        ratios.append(cost_of(x, uniform, "stochastic") / best)
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize(("name", "least", "most"), [
    ("uniform", 1.0, 1.05), ("normal", 1.3, 1.8), ("exponential", 2.2, 4), ("lognormal", 3.5, math.inf),
])  # fmt: skip
def test_gain_over_uniform_levels(name: str, least: float, most: float) -> None:
    assert least <= gain(name, 12) <= most


@pytest.mark.parametrize("name", ["uniform", "normal", "exponential", "lognormal"])
def test_discretised_candidates(name: str) -> None:
    """ZipML's M cells: little is lost with 256, and less than its bound."""
    cells = 256
    for seed, bits in itertools.product(range(4), (2, 3, 4)):
        x = draw(name, 2000, seed)
        x = (x - x.min()) / (x.max() - x.min())
        s = 2**bits
        grid = torch.arange(cells + 1, dtype=torch.float64) / cells
        best = torchext.optimal_levels(x, s)
        found = torchext.optimal_levels(x, s, candidates=grid)
        excess = (found.cost - best.cost).item() / len(x)
        assert 0 <= excess + 1e-15 <= 0.05 * best.cost.item() / len(x)
        k = s - 1
        b = torch.histc(x, cells, 0, 1).max().item() * cells / len(x)
        c = best.levels.diff().max().item() * k + 2 * k / cells
        assert excess <= b * k / (4 * cells**3) + b * c**2 / (cells * k)
