"""rounding_error: the definition in long double, the same bits in any order, and what quantizers do."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from levels_data import NAMES, draw
from torch import Tensor

import torchext
from torchext import RoundingError, _testing, quantization

ROUNDINGS = ("stochastic", "nearest")


def model(
    x: Tensor, levels: Tensor, rounding: str, weight: Tensor | None = None
) -> tuple[float, float, int]:
    """The definition, value by value, in long double."""
    v = x.double().numpy().astype(np.longdouble).reshape(-1)
    q = np.unique(levels.double().numpy()).astype(np.longdouble)
    w = np.ones(v.size) if weight is None else weight.double().numpy().reshape(-1)
    outside = (v < q[0]) | (v > q[-1])
    clipped = int((outside & (w > 0)).sum())
    squares = ((v[:, None] - q[None]) ** 2).min(1)
    if rounding == "nearest":
        return 0.0, float((w * squares).sum()), clipped
    up = np.clip(np.searchsorted(q, v), 1, max(1, len(q) - 1))
    hi, lo = q[np.minimum(up, len(q) - 1)], q[np.minimum(up, len(q) - 1) - (len(q) > 1)]
    variance = np.where(outside, 0, (hi - v) * (v - lo))
    return float((w * variance).sum()), float((w * squares)[outside].sum()), clipped


def close(got: RoundingError, want: tuple[float, float, int]) -> bool:
    return (
        got.variance.item() == pytest.approx(want[0], rel=1e-14, abs=0)
        and got.bias2.item() == pytest.approx(want[1], rel=1e-14, abs=0)
        and got.clipped.item() == want[2]
    )


def same(a: RoundingError, b: RoundingError) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_golden_vectors() -> None:
    def one(x: float, levels: list[float]) -> RoundingError:
        values = torch.tensor([x], dtype=torch.float64)
        return torchext.rounding_error(values, torch.tensor(levels, dtype=torch.float64))

    assert one(0.3, [0, 0.5, 1]).variance.item() == pytest.approx(0.06, rel=1e-15)
    assert one(0.5, [0, 1 / 3, 2 / 3, 1]).variance.item() == pytest.approx(1 / 36, rel=1e-14)
    beyond = one(1.2, [0, 1])
    assert beyond.bias2.item() == pytest.approx(0.04, rel=1e-14)
    assert (beyond.variance.item(), beyond.clipped.item()) == (0, 1)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_definition(name: str, rounding: str) -> None:
    """Every dtype, tables of any length, with values beyond them, with and without weights."""
    for dtype, n, s in itertools.product(
        (torch.float32, torch.float64, torch.bfloat16), (1, 9, 1025, 3000), (1, 2, 5, 16, 33)
    ):
        x = draw(name, n).to(dtype)
        levels = x.double().quantile(torch.linspace(0.02, 0.98, s, dtype=torch.float64)).unique()
        weight = (torch.arange(n) % 4).double() / 7
        for w in (None, weight):
            got = torchext.rounding_error(x, levels, rounding=rounding, weight=w)
            want = model(x, levels, rounding, w)
            assert close(got, want), (name, dtype, n, s)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9, unique=True),
    st.sampled_from(ROUNDINGS),
    st.randoms(use_true_random=False),
)
def test_no_bit_depends_on_the_order(
    x: list[float], levels: list[float], rounding: str, random
) -> None:  # type: ignore[no-untyped-def]
    table = torch.tensor(sorted(levels), dtype=torch.float64)
    table = torch.cat([table, table[-1:].expand(2)])  # padding
    want = torchext.rounding_error(torch.tensor(x, dtype=torch.float64), table, rounding=rounding)
    assert close(want, model(torch.tensor(x, dtype=torch.float64), table, rounding))
    random.shuffle(x)
    values = torch.tensor(x, dtype=torch.float64)
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if there:
                assert same(want, torchext.rounding_error(values, table, rounding=rounding))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_same_bits_everywhere(rounding: str) -> None:
    """Order, threads, strides, instruction sets and what else is in the call leave no trace."""
    kinds = zip(
        ("cauchy", "outliers") * 2,
        (torch.float32, torch.float64) * 2,
        (4, 16, 32, 200),
        strict=True,
    )
    for name, dtype, count in kinds:  # each kind of table
        x = draw(name, 70_000).to(dtype)
        levels = torchext.optimal_levels(x[:999], count).levels
        weight = torch.rand(70_000, generator=torch.Generator().manual_seed(3))
        for w in (None, weight):
            want = torchext.rounding_error(x, levels, rounding=rounding, weight=w)
            order = torch.randperm(70_000, generator=torch.Generator().manual_seed(1))
            others = [(x[order], None if w is None else w[order])]
            others.append((torch.stack([x, x], 1)[:, 0], w))
            before = torch.get_num_threads()
            for threads, isa in itertools.product((1, 3), _testing.ISAS):
                torch.set_num_threads(threads)
                with _testing.isa(isa) as there:
                    for v, u in others if there else []:
                        got = torchext.rounding_error(v, levels, rounding=rounding, weight=u)
                        assert same(got, want)
            torch.set_num_threads(before)


def test_groups_equal_single_calls() -> None:
    x = torch.randn(6, 50, 5, generator=torch.Generator().manual_seed(3))
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(4))
    shared = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    for dim, w in itertools.product((0, 1, 2, -1), (None, weight)):
        for levels in (shared, torchext.optimal_levels(x, 4, dim=dim)):
            found = torchext.rounding_error(x, levels, dim=dim, weight=w)
            assert found.variance.shape == (x.shape[dim],)
            for k in range(0, x.shape[dim], 5):
                one = torchext.rounding_error(
                    x.select(dim, k),
                    levels if isinstance(levels, Tensor) else levels.levels[k],
                    weight=None if w is None else w.select(dim, k),
                )
                assert all(torch.equal(a[k], b) for a, b in zip(found, one, strict=True))
    for size in (1, 64, 1499, 5000):
        levels = torchext.optimal_levels(x, 4, bucket_size=size)
        found = torchext.rounding_error(x, levels, bucket_size=size)
        assert found.clipped.shape == (-(-1500 // size),) and not found.clipped.any()
        last = (len(found.clipped) - 1) * size
        one = torchext.rounding_error(x.reshape(-1)[last:], levels.levels[-1])
        assert all(torch.equal(a[-1], b) for a, b in zip(found, one, strict=True))
        assert torch.allclose(found.variance, levels.cost, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["normal", "lognormal", "cauchy", "clusters", "offset", "integers"]
)
def test_equals_the_cost_of_optimal_levels(name: str) -> None:
    for dtype, s in itertools.product((torch.float32, torch.float64), (2, 7, 16)):
        x = draw(name, 3000).to(dtype)
        for rounding in ROUNDINGS:
            found = torchext.optimal_levels(x, s, objective=rounding)
            error = torchext.rounding_error(x, found, rounding=rounding)
            total = error.variance.item() + error.bias2.item()
            assert total == pytest.approx(found.cost.item(), rel=1e-9)


def test_extreme_values() -> None:
    big = torch.tensor([-1.5e308, 0.0, 1.5e308], dtype=torch.float64)
    inside = torchext.rounding_error(big, big[[0, 2]])
    assert inside.variance.item() == math.inf and inside.clipped.item() == 0
    light = torch.full((3,), 1e-310, dtype=torch.float64)  # the sum is in range, the square is not
    exact = float(Fraction(1.5e308) ** 2 * Fraction(1e-310))
    assert torchext.rounding_error(big, big[[0, 2]], weight=light).variance.item() == exact
    tiny = torch.tensor([1e-160, 2e-160], dtype=torch.float64)
    levels = torch.tensor([0.0, 4e-160], dtype=torch.float64)
    assert torchext.rounding_error(tiny, levels).variance.item() == pytest.approx(
        7e-320, abs=1e-323
    )
    none = torchext.rounding_error(torch.zeros(0), torch.tensor([0.0, 1.0]))
    assert [t.item() for t in none] == [0, 0, 0]
    constant = torchext.rounding_error(torch.full((9,), 2.0), torch.tensor([2.0, 2.0]))
    assert [t.item() for t in constant] == [0, 0, 0]
    x = torch.tensor([5.0, 0.5])
    absent = torchext.rounding_error(x, torch.tensor([0.0, 1.0]), weight=torch.tensor([0.0, 2.0]))
    assert [t.item() for t in absent] == [0.5, 0, 0]  # weight 0 is not clipped either
    x = torch.tensor([1.7e308, 0.25], dtype=torch.float64)  # nor does it set the scale
    absent = torchext.rounding_error(x, torch.tensor([0.0, 1.0]), weight=torch.tensor([0.0, 2.0]))
    assert [t.item() for t in absent] == [0.375, 0, 0]


def test_errors_name_what_is_wrong() -> None:
    x, levels = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 3.0])

    def refused(match: str, *args: Tensor, **kwargs: object) -> None:
        with pytest.raises(RuntimeError, match=match) as caught:
            torchext.rounding_error(*args, **kwargs)  # type: ignore[arg-type]
        assert str(caught.value).startswith("torchext::rounding_error: ")

    bad = torch.tensor([0.0, math.nan, 1.0])
    refused("x must be finite, got nan at element 1", bad, levels)
    refused("levels must be finite, got nan at element 1", x, bad)
    refused("levels must be ascending, got 0 at position 2", x, torch.tensor([0.0, 1.0, 0.0]))
    refused(
        r"levels must have shape \(levels,\) or \(1, levels\), got \(3, 2\)", x, torch.zeros(3, 2)
    )
    refused("levels must hold at least one level", x, torch.zeros(0))
    refused("rounding must be stochastic or nearest, got up", x, levels, rounding="up")
    refused(r"weight must have shape \(3\), got \(2\)", x, levels, weight=levels)
    refused("weight must not be negative, got -1", x, levels, weight=-torch.ones(3))
    refused("dim must be None when bucket_size is given", x, levels, dim=0, bucket_size=8)
    refused("x must be float32, .* got int64", x.long(), levels)


@pytest.mark.parametrize("table", [torch.float64, torch.float16])
def test_rounding_to_these_levels_is_unbiased(table: torch.dtype) -> None:
    """Every value on its own, over 400 draws; nearest rounding fails the same test."""
    n, draws = 4096, 400
    x = draw("normal", n).float()
    found = torchext.optimal_levels(x, 8, level_dtype=table)
    levels = found.levels.float().double()
    up = torch.searchsorted(levels, x.double()).clamp(1, 7)
    variance = (levels[up] - x.double()) * (x.double() - levels[up - 1])
    assert variance.sum().item() == pytest.approx(found.cost.item(), rel=1e-6)
    moves = variance > 0

    def z(rounding: str) -> Tensor:
        total = torch.zeros(n, dtype=torch.float64)
        for r in range(draws):
            key = torchext.random.key_from_seed(100 + r)
            total += (
                torchext.quantize(x, 3, levels=found, rounding=rounding, key=key)
                .dequantize()
                .double()
            )
        return ((total / draws - x) / (variance / draws).sqrt())[moves]

    fair = z("stochastic")
    count = int(moves.sum())
    assert fair.abs().max() < 6.5
    assert abs(fair.square().sum().item() - count) < 4.9 * math.sqrt(2 * count)  # 1e-6, two-sided
    quantization._warned.add("nearest")
    assert z("nearest").abs().max() > 6.5


def test_quantizers_take_the_result() -> None:
    """One table, one per row, per column and per bucket; the expected error is the measured one."""
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    key = torchext.random.key_from_seed(7)
    for kwargs in ({}, {"dim": 0}, {"dim": 1}, {"bucket_size": 128}, {"bucket_size": 600}):
        found = torchext.optimal_levels(x, bits=3, **kwargs)  # type: ignore[arg-type]
        q = torchext.quantize(x, 3, levels=found, key=key, **kwargs)  # type: ignore[arg-type]
        y = torchext.fake_quantize(x, 3, levels=found, key=key, **kwargs)  # type: ignore[arg-type]
        plain = torchext.quantize(x, 3, levels=found.levels, key=key, **kwargs)  # type: ignore[arg-type]
        assert torch.equal(q.dequantize(), y) and torch.equal(q.codes, plain.codes)
        expected = torchext.quantization_variance(x, 3, levels=found, **kwargs).item()  # type: ignore[arg-type]
        assert expected == pytest.approx(found.cost.sum().item(), rel=1e-6)
        assert 0.8 * expected < (y - x).square().sum().item() < 1.25 * expected
    draws = torchext.quantize_draws(x, torchext.optimal_levels(x, 5), key=key)
    assert draws.levels.shape == (5,)
    half = torchext.optimal_levels(x, bits=2, level_dtype=torch.bfloat16)  # decoded levels are used
    assert torch.isin(
        torchext.quantize(x, 2, levels=half, key=key).dequantize(), half.levels.float()
    ).all()


def test_a_table_for_the_other_rounding_warns_once() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(1))
    quantization._warned.clear()
    tables = {o: torchext.optimal_levels(x, 4, objective=o) for o in ROUNDINGS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rounding in ROUNDINGS:
            torchext.quantize(x, 2, levels=tables[rounding], rounding=rounding)
            torchext.quantize(x, 2, levels=tables["nearest"].levels, rounding=rounding)
    for made, used in (ROUNDINGS, ROUNDINGS[::-1]):
        with pytest.warns(
            UserWarning, match=f"optimal for {made} rounding are used with {used}"
        ) as seen:
            torchext.quantize(x, 2, levels=tables[made], rounding=used)
            torchext.fake_quantize(x, 2, levels=tables[made], rounding=used)
        assert len(seen) == 1 and seen[0].filename == __file__
