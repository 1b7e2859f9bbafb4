"""Nearest levels by the CUDA kernels, emulated; and levels rounded to the type they are stored in."""

from __future__ import annotations

from typing import Any

import levels_data
import pytest
import torch
from parity import same_bits
from test_cuda_emulation_exact_levels import ADVERSARIAL
from test_cuda_emulation_levels import DATA, LARGE, NAMES, TIED, both, draws, large
from test_cuda_emulation_levels import check as check_any
from torch import Tensor


def check(x: Tensor, s: int, **more: Any) -> list[Tensor]:
    return check_any(x, s, objective="nearest", **more)


@pytest.mark.parametrize("s", [1, 4, 11])
@pytest.mark.parametrize("name", levels_data.NAMES)
def test_kinds_of_data(name: str, s: int) -> None:
    x = levels_data.draw(name, 300)
    check(x, s, ties=name in TIED)
    if name not in TIED:
        check(x.float(), s)


@pytest.mark.parametrize("s", [1, 2, 4, 11])
@pytest.mark.parametrize("name", DATA)
def test_hostile_data(name: str, s: int) -> None:
    """In float64: where sets of levels cost the same, storing them does not."""
    check(DATA[name].double(), s, ties=name in TIED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("level_dtype", ["", "float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype: torch.dtype, level_dtype: str) -> None:
    """Means are rounded to the type of the levels, and the cost is that of the rounded ones."""
    x = draws(300).to(dtype)
    for s in (1, 9, 200):
        found = check(x, s, level_dtype=level_dtype)
        cost = levels_data.cost_of(x, found[0][: found[1]], "nearest")
        assert found[2].item() == pytest.approx(cost, rel=1e-12)


def test_values_without_weight_beside_others() -> None:
    """The sum of the weights in a cell is lost to rounding: it has no level."""
    x = torch.tensor([0.0, 1.0, 2.0, 50.0, 51.0, 1000.0, 1001.0], dtype=torch.float64)
    w = torch.tensor([1.0, 3.0, 1.0, 1e-40, 1e-41, 2.0, 1.0], dtype=torch.float64)
    for s in (1, 2, 3, 5):
        check(x, s, weight=w, ties=True)


def test_precise_arithmetic_takes_over() -> None:
    """Plain double proves nothing about the cost inside clusters of width 1e-7."""
    x = 1e3 + torch.arange(120).double() % 6 + 1e-7 * draws(120).double()
    for s in (6, 7, 8):
        assert check(x, s)[4].item()


def test_means_value_by_value() -> None:
    """Sums cancel even in double-double: one value far away."""
    x = torch.cat([1e-9 * draws(60).double(), torch.tensor([1e9], dtype=torch.float64)])
    for s in (2, 3, 5):
        found = check(x, s)
        cost = levels_data.cost_of(x, found[0], "nearest")
        assert found[2].item() == pytest.approx(cost, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level_dtype", ["float16", "bfloat16", "float32"])
def test_stochastic_levels_of_a_narrower_type(dtype: torch.dtype, level_dtype: str) -> None:
    """The ends are rounded outward, equal levels are one, a single one may become two."""
    near = 1 + 1e-4 * draws(60).to(dtype)
    for x in (draws(300).to(dtype), near, near[:1], 1e-30 * draws(50).to(dtype)):
        for s in (2, 3, 9):
            found = check_any(x, s, level_dtype=level_dtype)
            levels_data.cost_of(x, found[0][: found[1]], "stochastic", covers=False)
    g = torch.Generator().manual_seed(5)
    check_any(draws(90), 5, level_dtype=level_dtype, weight=torch.rand(90, generator=g))
    check_any(draws(90), 5, level_dtype=level_dtype, bucket_size=32, rtol=1e-3)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
def test_levels_beyond_the_type_are_none(objective: str) -> None:
    x = torch.stack([draws(50), 1e6 * draws(50)])
    got = torch.ops.torchext_emulated.optimal_levels(
        x, None, None, 4, 0, None, objective, "exact", 0.0, "float16"
    )
    assert got[0][1].isnan().all() and got[1].tolist()[1] == 0 and not got[4][1]
    want = torch.ops.torchext.optimal_levels(
        x[0], None, None, 4, None, None, objective, "exact", 0.0, "float16"
    )
    assert all(same_bits(a[0], b) for a, b in zip(got, want, strict=True))
    with pytest.raises(RuntimeError, match="level_dtype must hold every level"):
        both(x, 4, objective=objective, dim=0, level_dtype="float16")


BINS = [(name, s) for name in LARGE for s in (1, 2, 5)] + [("normal", 33)]


@pytest.mark.parametrize(("name", "s"), BINS)
def test_bins(name: str, s: int) -> None:
    """The CPU's levels and cost; a lower bound that is as good and holds for any levels."""
    x = large(name)
    got, want = both(x, s, objective="nearest", method="hist")
    for k in (0, 1, 2):
        assert same_bits(got[k], want[k]), f"{NAMES[k]}: {got[k]} is not {want[k]}"
    cost, lower = got[2].item(), got[3].item()
    assert lower <= best(x, s) * (1 + 1e-12) and got[4].item() >= want[4].item()
    assert cost - lower <= 1.01 * (cost - want[3].item())


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_bins_of_kinds_of_data(name: str) -> None:
    x = levels_data.draw(name, 16_500).float()
    got, want = both(x, 4, objective="nearest", method="hist")
    for k in (1, 2) if name == "distinct" else (0, 1, 2):  # equidistant values: a tie
        assert same_bits(got[k], want[k]), f"{NAMES[k]}: {got[k]} is not {want[k]}"
    assert got[3].item() <= best(x, 4) * (1 + 1e-12) and got[4].item() >= want[4].item()


def best(x: Tensor, s: int) -> float:
    """What the best levels cost before they are stored."""
    arguments = (x.double(), None, None, s, None, None, "nearest", "exact", 0.0, "")
    return float(torch.ops.torchext.optimal_levels(*arguments)[2])


@pytest.mark.parametrize("method", ["exact", "hist"])
@pytest.mark.parametrize("level_dtype", ["float16", "bfloat16"])
def test_levels_of_one_table_in_a_narrower_type(level_dtype: str, method: str) -> None:
    for objective in levels_data.OBJECTIVES if method == "hist" else ("stochastic",):
        for name in ("normal", "log-normal", "bfloat16", "float16"):
            more = {"objective": objective, "method": method, "level_dtype": level_dtype}
            got, want = both(large(name), 5, **more)
            for k in (0, 1, 2):
                assert same_bits(got[k], want[k]), f"{name} {NAMES[k]}: {got[k]} is not {want[k]}"


def test_bins_that_are_not_finite() -> None:
    x = large("normal")
    x[12_345] = float("nan")
    for level_dtype in ("", "float64"):
        arguments = (x, None, None, 4, None, None, "nearest", "hist", 0.0, level_dtype)
        found = torch.ops.torchext_emulated.optimal_levels(*arguments)
        assert found[0].isnan().all() and found[1].item() == 0 and not found[4].item()
        assert found[2].isnan() and found[3].isnan()


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_exact_of_one_table(name: str) -> None:
    found = check(levels_data.draw(name, 16_500).float(), 5, ties=name in TIED)
    assert found[4].item()


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_exact_of_adversarial_data(name: str) -> None:
    x = ADVERSARIAL[name]
    for s in (1, 4):
        check(x, s, ties=name in TIED)


@pytest.mark.parametrize("name", ["normal", "lognormal", "cauchy", "zeros", "clusters", "denormal"])
def test_exact_of_sorted_values(name: str) -> None:
    """float64, or weights of which a fifth are 0."""
    x = levels_data.draw(name, 16_500)
    g = torch.Generator().manual_seed(3)
    w = torch.rand(len(x), generator=g) * (torch.rand(len(x), generator=g) > 0.2)
    assert check(x, 6)[4].item()
    assert check(x.float(), 4, weight=w)[4].item()


@pytest.mark.parametrize("s", [2, 3, 16])
def test_exact_numbers_of_levels(s: int) -> None:
    assert check(draws(16_500), s)[4].item()


def test_exact_of_more_values() -> None:
    assert check(draws(1 << 17), 4)[4].item()


@pytest.mark.parametrize("rtol", [0.3, 1e-3])
def test_bins_to_a_tolerance(rtol: float) -> None:
    for x in (large("normal"), large("log-normal").double()):
        got, want = both(x, 6, objective="nearest", method="hist", rtol=rtol, level_dtype="float64")
        cost, lower = got[2].item(), got[3].item()
        assert got[4].item() and lower >= cost * (1 - rtol) and lower <= want[2].item()
        # The cost is that of cells between bins, whose values may be nearer to another level.
        assert (
            lower * (1 - 1e-12) <= levels_data.cost_of(x, got[0], "nearest") <= cost * (1 + 1e-12)
        )
