"""Optimal levels: the objective, its optimum by brute force, and what must not change it."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from levels_data import NAMES, OBJECTIVES, brute_force, cost_of, draw, numbers

import torchext
from torchext import _testing

EXACT = ("exact", "dnc", "dp")


# data, weights, then per objective s -> (cost, levels or None where the optimum is not unique)
GOLDEN = [
    ([0, 0.1, 0.2, 0.9, 1], None, "stochastic", {2: (0.34, [0, 1]), 3: (0.08, [0, 0.2, 1]),
     4: (0.01, [0, 0.2, 0.9, 1]), 5: (0, [0, 0.1, 0.2, 0.9, 1])}),
    ([0, 0.1, 0.2, 0.9, 1], None, "nearest", {1: (0.892, [0.44]), 2: (0.025, [0.1, 0.95]), 3: (0.01, None)}),
    ([0, 1, 3, 4, 6, 10, 15, 21, 28, 36], None, "stochastic", {2: (1556, [0, 36]), 3: (392, [0, 15, 36]),
     4: (164, [0, 10, 21, 36]), 5: (84, [0, 6, 15, 28, 36]), 6: (42, [0, 6, 15, 21, 28, 36]),
     7: (14, [0, 4, 10, 15, 21, 28, 36]), 8: (4, [0, 3, 6, 10, 15, 21, 28, 36])}),
    ([0, 1, 3, 4, 6, 10, 15, 21, 28, 36], None, "nearest", {2: (5930 / 21, [39 / 7, 85 / 3]),
     3: (1732 / 15, [14 / 5, 46 / 3, 32]), 4: (299 / 5, None), 5: (353 / 10, None), 6: (53 / 3, None),
     7: (31 / 6, None), 8: (1, None)}),
    ([-8, -3, 0, 1, 4], [1, 1, 90, 3, 5], "stochastic", {2: (2996, [-8, 4]), 3: (24, [-8, 0, 4]),
     4: (9, [-8, -3, 0, 4])}),
    ([-8, -3, 0, 1, 4], [1, 1, 90, 3, 5], "nearest", {2: (7156 / 95, [-8 / 95, 4]), 3: (12, [-8, 0, 4]),
     4: (90 / 31, [-8, -3, 1 / 31, 4])}),
    ([0, 1, 2, 3, 10], [1, 2, 1, 1, 1], "stochastic", {2: (55, [0, 10]), 3: (6, [0, 3, 10]),
     4: (1, [0, 1, 3, 10])}),
    ([0, 1, 2, 3, 10], [1, 2, 1, 1, 1], "nearest", {2: (26 / 5, [7 / 5, 10]),
     3: (7 / 6, [2 / 3, 5 / 2, 10]), 4: (1 / 2, None)}),
    # equally good tables: the leftmost levels, from the last one on
    ([-5, -4, -1, 0, 2, 3, 7, 8], None, "stochastic", {2: (182, [-5, 8]), 3: (38, [-5, 2, 8]),
     4: (13, [-5, -1, 3, 8]), 5: (9, [-5, -4, 0, 3, 8]), 6: (5, [-5, -4, 0, 3, 7, 8]),
     7: (2, [-5, -4, -1, 0, 3, 7, 8])}),
    ([-5, -4, -1, 0, 2, 3, 7, 8], None, "nearest", {3: (11, [-9 / 2, 1, 15 / 2]),
     4: (2, [-9 / 2, -1 / 2, 5 / 2, 15 / 2])}),
]  # fmt: skip


@pytest.mark.parametrize("isa", _testing.ISAS)
@pytest.mark.parametrize(("data", "weights", "objective", "wanted"), GOLDEN)
def test_golden_vectors(data, weights, objective, wanted, isa) -> None:  # type: ignore[no-untyped-def]
    x = torch.tensor(data, dtype=torch.float64)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    repeated = None if weights is None else x.repeat_interleave(torch.tensor(weights))
    with _testing.isa(isa) as there:
        if not there:
            pytest.skip(f"this processor lacks {isa}")
        for s, (cost, levels) in wanted.items():
            for method in EXACT:
                found = torchext.optimal_levels(
                    x, s, objective=objective, method=method, weight=weight
                )
                assert found.cost.item() == pytest.approx(cost, rel=1e-12, abs=1e-300)
                assert found.certified.item()
                if levels is not None:
                    assert found.levels.tolist() == pytest.approx(levels, rel=1e-12, abs=1e-15)
                if repeated is not None:  # a weight of 2 is the value twice
                    again = torchext.optimal_levels(repeated, s, objective=objective, method=method)
                    assert torch.equal(again.levels, found.levels)
                    assert again.cost.item() == pytest.approx(cost, rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(numbers, st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])), min_size=1, max_size=11
    ),
    st.integers(1, 5),
    st.sampled_from(OBJECTIVES),
)
def test_equals_brute_force(pairs: list[tuple[float, float]], s: int, objective: str) -> None:
    if objective == "stochastic":
        s += 1
    values, weights = zip(*pairs, strict=True)
    weight = torch.tensor([1.0, *weights[1:]], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        x = torch.tensor(values, dtype=dtype)
        exact = [[Fraction(v) for v in t.tolist()] for t in (x, weight)]
        best = brute_force(*exact, s, objective)
        for method in EXACT:
            found = torchext.optimal_levels(
                x, s, objective=objective, method=method, weight=weight,
                level_dtype=torch.float64,  # float32 need not hold the mean of two of its values
            )  # fmt: skip
            assert found.cost.item() == pytest.approx(float(best), rel=1e-9, abs=1e-300)
            assert found.lower_bound.item() <= float(best) * (1 + 1e-15)
            assert (found.levels.diff() >= 0).all()
            cost = cost_of(x, found.levels.unique(), objective, weight)
            assert cost == pytest.approx(found.cost.item(), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", NAMES)
def test_certified_on_everything(name: str, objective: str, dtype: torch.dtype) -> None:
    """Few values and many: certified, strictly ascending, cost as defined, equal to the whole programme."""
    for n, s in ((500, 7), (3000, 4), (30_000, 16)):
        x = draw(name, n).to(dtype)
        found = torchext.optimal_levels(x, s, objective=objective)
        distinct = x.unique().numel()
        levels = found.levels[: min(s, distinct)]
        assert found.certified.item() and found.method == "exact"
        assert (levels.diff() > 0).all() and (found.levels[len(levels) :] == levels[-1]).all()
        cost = cost_of(x, levels, objective)
        assert found.cost.item() == pytest.approx(cost, rel=1e-9, abs=0)
        if s >= distinct:
            assert found.cost.item() == 0 and torch.equal(levels, x.unique())
        whole = torchext.optimal_levels(x, s, objective=objective, method="dnc")
        assert whole.cost.item() == pytest.approx(found.cost.item(), rel=2e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["normal", "cauchy", "zeros", "clusters"])
def test_same_bits_everywhere(name: str, objective: str) -> None:
    """Order, strides, instruction set and threads leave no trace."""
    for dtype in (torch.float32, torch.float64):
        for n in (700, 20_000):
            x = draw(name, n).to(dtype)
            want = torchext.optimal_levels(x, 9, objective=objective)
            shuffled = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
            others = [
                torchext.optimal_levels(v, 9, objective=objective) for v in (shuffled, x.flip(0))
            ]
            others.append(
                torchext.optimal_levels(torch.stack([x, x], 1)[:, 0], 9, objective=objective)
            )
            for isa in _testing.ISAS:
                with _testing.isa(isa) as there:
                    if there:
                        others.append(torchext.optimal_levels(x, 9, objective=objective))
            for got in others:
                assert all(torch.equal(a, b) for a, b in zip(want[:5], got[:5], strict=True))


@pytest.mark.parametrize("method", ["exact", "hist", "adaquant"])
def test_tables_equal_single_calls(method: str) -> None:
    x = torch.randn(6, 300, 5, generator=torch.Generator().manual_seed(3))
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(4))
    for dim, w in itertools.product((0, 1, 2, -1), (None, weight)):
        found = torchext.optimal_levels(x, 4, method=method, dim=dim, weight=w)
        assert found.levels.shape == (x.shape[dim], 4)
        for k in range(x.shape[dim]):
            part = None if w is None else w.select(dim, k)
            one = torchext.optimal_levels(x.select(dim, k), 4, method=method, weight=part)
            for a, b in zip(found[:5], one[:5], strict=True):
                assert torch.equal(a[k], b)
    before = torch.get_num_threads()
    try:
        wanted = torchext.optimal_levels(x, 4, method=method, dim=1)
        for threads in (2, 7):
            torch.set_num_threads(threads)
            again = torchext.optimal_levels(x, 4, method=method, dim=1)
            assert torch.equal(again.levels, wanted.levels) and torch.equal(again.cost, wanted.cost)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["normal", "lognormal", "cauchy", "zeros", "clusters"])
def test_approximate_methods(name: str) -> None:
    x = draw(name, 30_000).float()
    for s in (4, 16):
        best = torchext.optimal_levels(x, s)
        for method in ("hist", "adaquant"):
            found = torchext.optimal_levels(x, s, method=method)
            assert found.cost.item() >= best.cost.item() * (1 - 1e-12)
            assert found.lower_bound.item() <= best.cost.item()
            assert found.cost.item() == pytest.approx(
                cost_of(x, found.levels, "stochastic"), rel=1e-9
            )
            assert found.levels[0] == x.min() and found.levels[-1] == x.max()
            if name != "clusters":
                assert found.cost.item() <= (1.001 if method == "hist" else 1.5) * best.cost.item()
    half = draw(name, 30_000).bfloat16()  # every bin is one value: nothing is approximate
    exact, hist = (torchext.optimal_levels(half, 16, method=m) for m in ("exact", "hist"))
    assert torch.equal(exact.levels, hist.levels) and torch.equal(exact.cost, hist.cost)
    assert hist.certified.item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_half_precision_is_widened_exactly(objective: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        x = draw("normal", 5000).to(dtype)
        found = torchext.optimal_levels(x, 8, objective=objective, level_dtype=torch.float32)
        wide = torchext.optimal_levels(x.float(), 8, objective=objective)
        assert torch.equal(found.levels, wide.levels) and torch.equal(found.cost, wide.cost)
        own = torchext.optimal_levels(x, 8, objective=objective)
        assert own.levels.dtype == dtype and torch.equal(own.levels, wide.levels.to(dtype))
        if objective == "stochastic":  # levels are data
            assert torch.equal(own.cost, wide.cost)


def test_errors_name_what_is_wrong() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 5.0])

    def refused(match: str, *args: object, **kwargs: object) -> None:
        with pytest.raises(RuntimeError, match=match) as caught:
            torchext.optimal_levels(*args, **kwargs)  # type: ignore[arg-type]
        assert str(caught.value).startswith("torchext::optimal_levels: ")

    for value in (math.nan, math.inf, -math.inf):
        for n in (6, 40_000):
            bad = torch.zeros(n, dtype=torch.float64)
            bad[n - 2] = value
            for v in (bad, bad.float()):
                refused(f"x must be finite, got -?(nan|inf) at element {n - 2}", v, 3)
                text = f"x must be finite, got -?(nan|inf) at element {n - 2}"
                refused(text, v, 1)
                refused(text, v, 3, method="hist")
                refused(text, v.half(), 3, objective="nearest")
    refused("x must hold at least one value", torch.zeros(0), 3)
    refused("x must hold at least one value", torch.zeros(0, 4), 3, dim=1)
    refused(r"levels must be in \[2, 65536\] where values differ .* got 1", x, 1)
    refused(r"levels must be in \[1, 65536\], got 0", x, 0, objective="nearest")
    refused("objective must be stochastic or nearest, got l1", x, 2, objective="l1")
    refused("method must be exact, .* got best", x, 2, method="best")
    refused("adaquant must have objective stochastic", x, 2, objective="nearest", method="adaquant")
    refused(
        "at most 20000 values per table under method dp, got 20001",
        torch.zeros(20001),
        2,
        method="dp",
    )
    refused("dim must be in", x, 2, dim=1)
    refused(r"weight must have shape \(4\), got \(3\)", x, 2, weight=torch.ones(3))
    refused(
        "weight must not be negative, got -1 at element 1",
        x,
        2,
        weight=torch.tensor([1.0, -1, 1, 1]),
    )
    refused(
        "weight must be finite, got nan at element 0",
        x,
        2,
        weight=torch.tensor([math.nan, 1, 1, 1]),
    )
    refused("weight must have a positive, finite sum, got 0", x, 2, weight=torch.zeros(4))
    refused("x must be float32, float64, bfloat16 or float16, got int64", x.long(), 2)
    empty = torchext.optimal_levels(torch.zeros(0, 4), 3, dim=0)  # no table
    assert empty.levels.shape == (0, 3) and empty.cost.shape == (0,)


def test_extreme_values_and_weights() -> None:
    x = torch.tensor([-0.0, 0.0, 0.0])
    found = torchext.optimal_levels(x, 3)
    assert found.levels.tolist() == [0, 0, 0] and not torch.signbit(found.levels).any()
    tiny = torch.tensor([5e-324, 1e-323, 1.5e-323, 2e-323], dtype=torch.float64)
    assert torch.equal(torchext.optimal_levels(tiny, 4).levels, tiny)
    big = torch.tensor([-1.5e308, 0.0, 1.0, 1.5e308], dtype=torch.float64)
    assert torch.equal(torchext.optimal_levels(big, 4).levels, big)
    assert torchext.optimal_levels(big, 3).levels[[0, 2]].tolist() == [-1.5e308, 1.5e308]
    x = torch.tensor([1.0, 2.0, 4.0, 7.0, 100.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    plain = torchext.optimal_levels(x, 3, weight=weight)
    assert plain.levels.tolist() == [1, 4, 7]  # a weight of 0 does not extend the range
    heavy = torchext.optimal_levels(x, 3, weight=weight * 2.0**900)
    assert torch.equal(heavy.levels, plain.levels) and heavy.cost == plain.cost * 2.0**900


def test_compiles_and_does_not_differentiate() -> None:
    x = torch.randn(200, requires_grad=True, generator=torch.Generator().manual_seed(0))
    eager = torchext.optimal_levels(x, 4)
    assert not eager.levels.requires_grad
    compiled = torch.compile(
        lambda v: torchext.optimal_levels(v, 4).levels, fullgraph=True, backend="eager"
    )
    assert torch.equal(compiled(x), eager.levels)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_exact_evaluates_few_intervals(objective: str) -> None:
    """What the benchmark reports beside the times; the same on every instruction set."""
    x = torch.randn(1 << 16, generator=torch.Generator().manual_seed(1))
    found = []
    for name in _testing.ISAS:
        with _testing.isa(name) as there:
            if there:
                found.append(
                    [_testing.levels_work(x, 8, objective, m) for m in ("exact", "hist", "dnc")]
                )
    assert all(each == found[0] for each in found)
    exact, hist, dnc = found[0]
    assert 0 < hist["evaluations"] and 0 < exact["evaluations"] < dnc["evaluations"] / 2
    assert exact["rounds"] > 0 and exact["blocks"] > 0 and dnc["rounds"] == 0
    with pytest.raises(RuntimeError, match="optimal_levels: x must hold"):
        _testing.levels_work(x[:0], 8, objective)
