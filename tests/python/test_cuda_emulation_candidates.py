"""Levels among candidates by the CUDA kernels, emulated: levels, costs and certificates of the CPU op."""

from __future__ import annotations

import levels_data
import pytest
import torch
from parity import same_bits, tensors
from test_cuda_emulation_levels import DATA, both, check, draws
from torch import Tensor

OBJECTIVES = pytest.mark.parametrize("objective", levels_data.OBJECTIVES)


def covering(x: Tensor, count: int, seed: int = 0) -> Tensor:
    """Candidates at random, in any order, some twice; the ends of the data among them."""
    g = torch.Generator().manual_seed(seed)
    v = x.double()
    inner = v.min() + (v.max() - v.min()) * torch.rand(count, generator=g).double()
    return torch.cat([inner, v.max().reshape(1), inner[:3], v.min().reshape(1)])


@OBJECTIVES
@pytest.mark.parametrize("s", [2, 3, 4, 7, 40])
@pytest.mark.parametrize("n", [1, 2, 33, 129, 1100])
def test_sizes(n: int, s: int, objective: str) -> None:
    x = draws(n, seed=n)
    for count in (1, 9, 100):
        found = check(
            x, s, candidates=covering(x, count), objective=objective, level_dtype="float64"
        )
        assert found[4].item()


@OBJECTIVES
@pytest.mark.parametrize("name", DATA)
def test_hostile_data(name: str, objective: str) -> None:
    x = DATA[name].double()
    for s in (2, 5):
        check(x, s, candidates=covering(x, 50), objective=objective)


@OBJECTIVES
def test_the_cheapest_of_all_choices(objective: str) -> None:
    """Against every choice, so that the two devices are not wrong together."""
    import itertools

    x, grid = draws(40), torch.arange(-4.0, 5.0)
    found = check(x, 4, candidates=grid, objective=objective)
    costs = []
    for choice in itertools.combinations(grid.tolist(), 4):
        levels = torch.tensor(choice)
        if objective == "nearest" or (levels[0] <= x.min() and x.max() <= levels[-1]):
            costs.append(levels_data.cost_of(x, levels, objective, covers=False))
    assert found[2].item() == pytest.approx(min(costs), rel=1e-12)


@OBJECTIVES
def test_more_candidates_than_are_of_use(objective: str) -> None:
    """Far below and above all values, and where only the smallest can be a level."""
    x = draws(200)
    wide = torch.arange(-1000.0, 1000.0, 0.5)
    for s in (3, 9):
        check(x, s, candidates=wide, objective=objective)
    check(x, 3, candidates=torch.tensor([-50.0, 50.0]), objective=objective)
    if objective == "nearest":
        check(x, 1, candidates=wide, objective=objective)
        for beyond in ([100.0, 101.0, 102.0], [-9.0, -8.0], [0.1]):
            check(x, 2, candidates=torch.tensor(beyond), objective=objective)


@OBJECTIVES
@pytest.mark.parametrize("dim", [0, 1])
def test_tables(dim: int, objective: str) -> None:
    x = draws(3, 70)
    w = torch.rand(3, 70, generator=torch.Generator().manual_seed(2))
    w[0] += 0.31  # no column without any
    grid = torch.linspace(-5, 5, 41)
    check(x, 4, candidates=grid, objective=objective, dim=dim)
    check(x, 4, candidates=grid, objective=objective, weight=w * (w > 0.3), dim=dim)
    check(x, 4, candidates=grid, objective=objective, bucket_size=32, rtol=0.01)
    check(torch.zeros(0, 5), 4, candidates=grid, objective=objective, dim=0)


@OBJECTIVES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype, objective: str) -> None:
    """Candidates of one type, values of another, levels stored in a third."""
    x = draws(300).to(dtype)
    for candidates in (torch.linspace(-6, 6, 77), torch.arange(-6.0, 7.0).half()):
        for level_dtype in ("", "float16", "float64"):
            check(x, 5, candidates=candidates, objective=objective, level_dtype=level_dtype)


@OBJECTIVES
def test_magnitudes_whose_squares_leave_the_range(objective: str) -> None:
    x = draws(100).double()
    wide = torch.tensor([-1e300, -3.0, 0.0, 3.0, 1e300], dtype=torch.float64)
    for scale in (1e-300, 1e300):
        grid = scale * torch.linspace(-6, 6, 50).double()
        check(scale * x, 4, candidates=grid, objective=objective)
    check(x, 4, candidates=wide, objective=objective)


@OBJECTIVES
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_has_no_levels(bad: float, objective: str) -> None:
    """A candidate or a value is not finite."""
    x, grid = draws(2, 40), torch.linspace(-5, 5, 21)
    x[1, 7] = bad
    arguments = (None, 4, 0, None, objective, "exact", 0.0, "")
    weight, *rest = arguments
    got = tensors(torch.ops.torchext_emulated.optimal_levels(x, weight, grid, *rest))
    want = tensors(torch.ops.torchext.optimal_levels(x[:1], weight, grid, *rest))
    assert all(same_bits(a[:1], b) for a, b in zip(got, want, strict=True))
    assert got[0][1].isnan().all() and got[1].tolist()[1] == 0 and not got[4][1]
    assert got[2][1].isnan() and got[3][1].isnan()
    grid[3] = bad
    got = tensors(torch.ops.torchext_emulated.optimal_levels(x, weight, grid, *rest))
    assert got[0].isnan().all() and not got[1].any() and not got[4].any()


def test_tables_that_candidates_do_not_cover_have_no_levels() -> None:
    x = torch.stack([draws(40), 100 * draws(40)])
    arguments = (None, torch.linspace(-5, 5, 21), 4, 0, None, "stochastic", "exact", 0.0, "")
    got = tensors(torch.ops.torchext_emulated.optimal_levels(x, *arguments))
    assert got[1].tolist()[0] == 4 and got[1].tolist()[1] == 0 and got[0][1].isnan().all()
    with pytest.raises(RuntimeError, match="candidates must cover the values"):
        torch.ops.torchext.optimal_levels(x, *arguments)


def test_refused() -> None:
    x, grid = draws(64), torch.arange(-9.0, 9.0)
    for more, text in (
        ({"method": "dnc"}, "method must be exact when candidates are given"),
        (
            {"candidates": grid.reshape(2, 9)},
            r"candidates must have shape \(candidates,\) .* got \(2, 9\)",
        ),
        ({"candidates": torch.zeros(16385)}, r"with 1 to 16384 on CUDA, got \(16385\)"),
    ):
        with pytest.raises(RuntimeError, match=text):
            both(x, 4, **{"candidates": grid, **more})
    with pytest.raises(
        RuntimeError, match="at most 16384 values per table on CUDA with candidates"
    ):
        both(torch.zeros(16385), 4, candidates=grid)
