"""Every argument of optimal_levels: what it changes, and what must stay the same."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from levels_data import NAMES, OBJECTIVES, brute_force, cost_of, draw
from torch import Tensor

import torchext
from torchext import OptimalLevels, _testing

HALVES = (torch.float16, torch.bfloat16)


def same(a: OptimalLevels, b: OptimalLevels) -> bool:
    """Equal bits of all results."""
    return all(torch.equal(p, q) for p, q in zip(a[:5], b[:5], strict=True))


def error(x: Tensor, found: OptimalLevels, weight: Tensor | None = None) -> float:
    """The objective at the levels as stored, in long double."""
    table = found.levels[: int(found.count)]
    return cost_of(x, table, found.objective, weight, covers=False)


def test_levels_or_bits() -> None:
    x = draw("normal", 500)
    found = torchext.optimal_levels(x, bits=3)
    assert same(found, torchext.optimal_levels(x, 8))
    assert (found.method, found.objective, found.count.item()) == ("exact", "stochastic", 8)
    assert found._fields[:5] == ("levels", "count", "cost", "lower_bound", "certified")
    for kwargs in ({}, {"levels": 4, "bits": 2}):
        with pytest.raises(ValueError, match="levels or bits must be given, and not both"):
            torchext.optimal_levels(x, **kwargs)
    for bits in (0, 17):
        with pytest.raises(ValueError, match=rf"bits must be in \[1, 16\], got {bits}"):
            torchext.optimal_levels(x, bits=bits)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_count_is_the_number_of_distinct_levels(objective: str) -> None:
    few = torch.tensor([3.0, 1.0, 3.0, 2.0, 1.0])
    for s in (2, 3, 4, 9):
        found = torchext.optimal_levels(few, s, objective=objective)
        assert found.count.item() == min(s, 3) == found.levels.unique().numel()
        assert found.count.dtype == torch.int64 and found.levels.shape == (s,)
    one = torchext.optimal_levels(torch.full((70,), 0.3), 1, objective=objective)
    assert one.count.item() == 1 and one.cost.item() == 0 and one.certified.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
def test_buckets_equal_single_calls(dtype: torch.dtype) -> None:
    """One op call, the last bucket short; any strides; any threads."""
    x = draw("lognormal", 1000).to(dtype).view(10, 100).t()
    weight = torch.rand(x.shape, generator=torch.Generator().manual_seed(4))
    for size, w in itertools.product((1, 7, 64, 999, 1000, 5000), (None, weight)):
        found = torchext.optimal_levels(x, 5, bucket_size=size, weight=w)
        starts = range(0, 1000, size)
        assert found.levels.shape == (len(starts), 5) and found.levels.dtype == dtype
        for k in {0, len(starts) // 2, len(starts) - 1}:
            part = slice(k * size, (k + 1) * size)
            one = torchext.optimal_levels(
                x.reshape(-1)[part], 5, weight=None if w is None else w.reshape(-1)[part]
            )
            assert all(torch.equal(a[k], b) for a, b in zip(found[:5], one[:5], strict=True))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = torchext.optimal_levels(x, 5, bucket_size=7, objective="nearest")
        torch.set_num_threads(1)
        assert same(again, torchext.optimal_levels(x, 5, bucket_size=7, objective="nearest"))
    finally:
        torch.set_num_threads(before)
    none = torchext.optimal_levels(x[:0], 3, bucket_size=8)
    assert none.levels.shape == (0, 3) and none.count.shape == (0,)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
def test_levels_are_stored_in_a_dtype(dtype: torch.dtype, objective: str) -> None:
    """The ends go outward, the others to nearest; the cost is that of what is stored."""
    for name, s in itertools.product(("normal", "lognormal", "offset", "clusters"), (2, 5, 16)):
        x = draw(name, 700)
        if name == "offset" and dtype == torch.float16:
            x = x - 1e6 + 1e3
        exact = torchext.optimal_levels(x, s, objective=objective)
        found = torchext.optimal_levels(x, s, objective=objective, level_dtype=dtype)
        stored = found.levels.double()
        assert found.levels.dtype == dtype and found.certified.item()
        assert (stored[: int(found.count)].diff() > 0).all() and found.count.item() <= s
        assert found.cost.item() == pytest.approx(error(x, found), rel=1e-12)
        assert torch.equal(found.lower_bound, exact.lower_bound)
        if objective == "nearest":
            assert torch.equal(found.levels, torch.unique(exact.levels.to(dtype))[_fill(found)])
            continue
        assert stored[0] <= x.min() and stored[-1] >= x.max()
        top = torch.nextafter(found.levels[0], torch.tensor(torch.inf, dtype=dtype))
        assert top > x.min()  # and no further than needed
        assert torchext.rounding_error(x, found).clipped.item() == 0


def _fill(found: OptimalLevels) -> Tensor:
    return torch.arange(len(found.levels)).clamp(max=int(found.count) - 1)


def test_levels_that_a_dtype_lacks() -> None:
    x = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)
    found = torchext.optimal_levels(x, 4, level_dtype=torch.bfloat16)  # one value between two
    assert found.count.item() == 2 and found.levels[0].item() < 0.1 < found.levels[1].item()
    assert found.cost.item() == pytest.approx(error(x, found), rel=1e-12) and found.cost > 0
    close = torch.tensor([1.0, 1.0001, 1.0002, 1.0003], dtype=torch.float64)
    merged = torchext.optimal_levels(close, 4, level_dtype=torch.bfloat16)
    assert merged.levels.tolist() == [1.0, 1.0078125, 1.0078125, 1.0078125]
    tiny = torch.tensor([3e-8, 1e-7, 6e-7], dtype=torch.float64)  # subnormal in float16
    assert (
        torchext.rounding_error(
            tiny, torchext.optimal_levels(tiny, 2, level_dtype=torch.float16)
        ).clipped
        == 0
    )
    with pytest.raises(RuntimeError, match=r"level_dtype must hold every level.*float16 for 70000"):
        torchext.optimal_levels(torch.tensor([0.0, 7e4]), 2, level_dtype=torch.float16)
    with pytest.raises(RuntimeError, match="float32 for 1e\\+300"):
        wide = torch.tensor([0.0, 1e300], dtype=torch.float64)
        torchext.optimal_levels(wide, 2, level_dtype=torch.float32)
    with pytest.raises(
        ValueError, match="level_dtype must be float16, bfloat16, float32 or float64"
    ):
        torchext.optimal_levels(x, 2, level_dtype=torch.int8)


def among(x: Tensor, grid: list[float], s: int, objective: str) -> float:
    """The best s candidates by trying all."""
    costs = []
    for table in itertools.combinations(sorted(set(grid)), min(s, len(set(grid)))):
        if objective == "nearest" or (table[0] <= x.min() and table[-1] >= x.max()):
            q = torch.tensor(table, dtype=torch.float64)
            costs.append(cost_of(x, q, objective, covers=False))
    return min(costs)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_candidates_equal_brute_force(objective: str) -> None:
    for seed, s in itertools.product(range(8), (2, 3, 4)):
        x = draw(("normal", "integers", "cauchy", "offset")[seed % 4], 40, seed)
        spread = torch.linspace(0, 1, 8, dtype=torch.float64) ** (1 + seed % 3)
        grid = x.min() - 0.1 + spread * (x.max() - x.min() + 0.3)
        shuffled = torch.cat([grid.flip(0), grid[:3]])
        found = torchext.optimal_levels(x, s, objective=objective, candidates=shuffled)
        best = among(x, grid.tolist(), s, objective)
        assert found.cost.item() == pytest.approx(best, rel=1e-12)
        assert found.certified.item() and found.lower_bound.item() <= best * (1 + 1e-15)
        assert torch.isin(found.levels, grid).all()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        again = torchext.optimal_levels(x[order], s, objective=objective, candidates=grid)
        assert same(found, again)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", NAMES)
def test_candidates_of_every_kind_of_data(name: str, objective: str) -> None:
    """All data points as candidates give the optimum; a grid costs no less; weights count."""
    x = draw(name, 300)
    weight = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(2)).double()
    weight[0] = 1
    for w in (None, weight):
        best = torchext.optimal_levels(x, 6, objective=objective, weight=w)
        found = torchext.optimal_levels(x, 6, objective=objective, candidates=x, weight=w)
        assert found.certified.item()
        if objective == "stochastic":
            assert found.cost.item() == pytest.approx(best.cost.item(), rel=1e-12)
        assert found.cost.item() >= best.cost.item() * (1 - 1e-12)
        lo, hi = x.min().item(), x.max().item()
        if lo == hi:
            continue
        grid = lo + torch.arange(-1.0, 66, dtype=torch.float64) * (hi - lo) / 64
        coarse = torchext.optimal_levels(x, 6, objective=objective, candidates=grid, weight=w)
        assert coarse.certified.item() and coarse.cost.item() >= best.lower_bound.item()
        assert coarse.cost.item() == pytest.approx(error(x, coarse, w), rel=1e-9)


def test_candidates_fewer_or_one_sided() -> None:
    x = torch.tensor([0.2, 0.4, 0.9])
    whole = torchext.optimal_levels(x, 8, candidates=torch.tensor([0.0, 0.5, 1.0, 5.0, -7.0]))
    assert whole.levels[:3].tolist() == [0.0, 0.5, 1.0] and whole.count.item() == 3
    one = torchext.optimal_levels(x, 1, objective="nearest", candidates=torch.tensor([0.0, 0.5]))
    assert one.levels.tolist() == [0.5]
    beside = torchext.optimal_levels(x, 2, objective="nearest", candidates=torch.tensor([2.0, 3.0]))
    assert beside.levels.tolist() == [2.0, 2.0] and beside.certified.item()
    with pytest.raises(
        RuntimeError, match=r"candidates must cover the values from 0\.2 to 0\.9, got 0 to"
    ):
        torchext.optimal_levels(x, 2, candidates=torch.tensor([0.0, 0.5]))
    with pytest.raises(RuntimeError, match="method must be exact when candidates are given"):
        torchext.optimal_levels(x, 2, candidates=x, method="hist")
    with pytest.raises(RuntimeError, match="candidates must be finite, got nan at element 1"):
        torchext.optimal_levels(x, 2, candidates=torch.tensor([0.0, math.nan]))
    for bad in (torch.zeros(0), torch.zeros(2, 2)):
        with pytest.raises(RuntimeError, match=r"candidates must have shape \(candidates,\)"):
            torchext.optimal_levels(x, 2, candidates=bad)
    huge = torch.tensor([-1.5e308, 0.0, 1e307, 1.5e308], dtype=torch.float64)
    assert torchext.optimal_levels(huge, 3, candidates=huge).levels[[0, 2]].tolist() == [
        -1.5e308,
        1.5e308,
    ]


@pytest.mark.parametrize("name", ["normal", "lognormal", "uniform", "cauchy", "zeros", "clusters"])
def test_histogram_reaches_the_tolerance(name: str) -> None:
    for dtype, n in ((torch.float32, 40_000), (torch.float64, 20_000), (torch.float32, 500)):
        x = draw(name, n).to(dtype)
        best = torchext.optimal_levels(x, 12)
        rough = torchext.optimal_levels(x, 12, method="hist")
        for rtol in (0.1, 1e-2, 1e-3, 1e-6, 1e-12):
            found = torchext.optimal_levels(x, 12, method="hist", rtol=rtol)
            gap = found.cost.item() - found.lower_bound.item()
            assert found.certified.item() and gap <= max(rtol, 1e-9) * found.cost.item()
            assert found.lower_bound.item() <= best.cost.item() <= found.cost.item() * (1 + 1e-12)
            assert found.cost.item() == pytest.approx(error(x, found), rel=1e-9)
        assert rough.lower_bound.item() <= best.cost.item()  # without one the gap is what it is
    with pytest.raises(RuntimeError, match=r"rtol must be in \[0, 1\), got -1"):
        torchext.optimal_levels(x, 4, method="hist", rtol=-1.0)
    with pytest.raises(RuntimeError, match="got nan"):
        torchext.optimal_levels(x, 4, method="hist", rtol=math.nan)


def test_auto_turns_to_the_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchext.levels._EXACT", 20_000)
    x = draw("normal", 30_000).float()
    found = torchext.optimal_levels(x, 16)
    assert found.method == "hist" and found.certified.item()
    assert found.cost.item() - found.lower_bound.item() <= 1e-3 * found.cost.item()
    for kwargs in (
        {"bucket_size": 20_000},
        {"candidates": x[:50].sort().values},
        {"method": "exact"},
    ):
        if "candidates" in kwargs:
            kwargs["candidates"] = torch.linspace(-9, 9, 50)
        assert torchext.optimal_levels(x, 4, **kwargs).method == "exact"
    assert torchext.optimal_levels(x.view(2, -1), 4, dim=0).method == "exact"


CALLS: dict[str, dict[str, object]] = {
    "buckets": {"bucket_size": 64},
    "bfloat16": {"level_dtype": torch.bfloat16},
    "nearest": {"objective": "nearest"},
    "candidates": {"candidates": torch.linspace(-9, 9, 40)},
    "tolerance": {"method": "hist", "rtol": 1e-3},
    "columns": {"objective": "nearest", "candidates": torch.linspace(-5, 5, 40), "dim": 1},
}


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_on_every_instruction_set(name: str) -> None:
    kwargs = CALLS[name]
    x = torch.randn(200, 100, generator=torch.Generator().manual_seed(5))
    results = []
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if there:
                results.append(torchext.optimal_levels(x, 7, **kwargs))  # type: ignore[arg-type]
    strided = torch.stack([x, x], 2)[..., 1]
    results.append(torchext.optimal_levels(strided, 7, **kwargs))  # type: ignore[arg-type]
    assert all(same(results[0], r) for r in results[1:])


def test_arguments_that_exclude_each_other() -> None:
    x = torch.randn(4, 6)
    with pytest.raises(RuntimeError, match="dim must be None when bucket_size is given"):
        torchext.optimal_levels(x, 3, dim=0, bucket_size=6)
    for size in (0, -8):
        with pytest.raises(
            RuntimeError, match=f"bucket_size must be a positive multiple of 1, got {size}"
        ):
            torchext.optimal_levels(x, 3, bucket_size=size)
    x[1, 2] = math.inf
    with pytest.raises(RuntimeError, match="x must be finite, got inf at element 8"):
        torchext.optimal_levels(x, 3, bucket_size=6)


def test_compiles_with_every_argument() -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    key = torchext.random.key_from_seed(0)

    def run(v: Tensor) -> tuple[Tensor, ...]:
        a = torchext.optimal_levels(v, bits=2, bucket_size=50, level_dtype=torch.bfloat16)
        b = torchext.optimal_levels(v, 3, dim=1, candidates=torch.linspace(-9, 9, 33))
        error = torchext.rounding_error(v, b, dim=1)
        return (*a[:5], *b[:5], *error, torchext.quantize(v, 2, levels=b, dim=1, key=key).codes)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")(x)
    for a, b in zip(compiled, run(x), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype


def test_brute_force_agrees_on_the_objective() -> None:
    """The two oracles of these tests are one."""
    x = [Fraction(v) for v in (0, 1, 3, 4, 6, 10, 15)]
    best = brute_force(x, [Fraction(1)] * 7, 3, "stochastic")
    values = torch.tensor([float(v) for v in x], dtype=torch.float64)
    assert float(best) == among(values, values.tolist(), 3, "stochastic")


@pytest.mark.parametrize("rtol", [0.0, 0.01])
def test_two_levels_of_bins(rtol: float) -> None:
    """The ends, with nothing to search between them."""
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    found = torchext.optimal_levels(x, 2, method="hist", rtol=rtol)
    exact = torchext.optimal_levels(x, 2)
    assert torch.equal(found.levels, exact.levels) and found.certified.item()
    assert found.cost.item() == pytest.approx(exact.cost.item(), rel=1e-12)
