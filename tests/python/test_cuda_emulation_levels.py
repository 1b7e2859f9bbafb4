"""optimal_levels on CUDA, emulated: tables, levels, costs and certificates of the CPU op, bit for bit."""

from __future__ import annotations

from typing import Any

import emulation
import levels_data
import pytest
import torch
from parity import same_bits, tensors
from torch import Tensor

import torchext  # noqa: F401  registers the ops of the CPU

emulation.load()

NAMES = ("levels", "count", "cost", "lower_bound", "certified")
OBJECTIVES = pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
TIED = ("integers", "distinct", "grid", "smallest")  # several sets of nearest levels cost the same


def both(x: Tensor, s: int, **more: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What the two ops find."""
    o: dict[str, Any] = {
        "weight": None, "candidates": None, "dim": None, "bucket_size": None,
        "objective": "stochastic", "method": "exact", "rtol": 0.0, "level_dtype": "", **more,
    }  # fmt: skip
    arguments = (
        x, o["weight"], o["candidates"], s, o["dim"], o["bucket_size"], o["objective"], o["method"],
        o["rtol"], o["level_dtype"],
    )  # fmt: skip
    return (
        tensors(torch.ops.torchext_emulated.optimal_levels(*arguments)),
        tensors(torch.ops.torchext.optimal_levels(*arguments)),
    )


def check(x: Tensor, s: int, **more: Any) -> list[Tensor]:
    got, want = both(x, s, **more)
    proved = want[4]
    for name, a, b in zip(NAMES, got, want, strict=True):
        if name == "levels" and more.get("ties"):
            continue
        if name == "lower_bound":  # what rounding leaves open without a proof depends on the way
            assert ((a >= 0) & (a <= got[2])).all()
            a, b = a[proved], b[proved]
        assert same_bits(a, b), f"{name}: {a} is not {b}"
    return got


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_ends_are_exact_however_far_apart() -> None:
    x = torch.tensor([1.1420971e-275, 3e-200, 5e299, 7e299, 9.5e299, 1e300], dtype=torch.float64)
    for values in (x, -x, torch.cat([x, -x])):
        got = check(values, 4)
        assert got[0][0] == values.min() and got[0][-1] == values.max()


@pytest.mark.parametrize(
    "objective, s",
    [("nearest", 1), *((o, s) for o in ("stochastic", "nearest") for s in (2, 3, 4, 5, 8, 17))],
)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 31, 32, 33, 100, 129])
def test_one_table_of_every_size(n: int, s: int, objective: str) -> None:
    x = draws(n, seed=n)
    for values in (x, x.double()):
        found = check(values, s, objective=objective)
        cost = levels_data.cost_of(values, found[0][: found[1]], objective)
        assert found[2].item() == pytest.approx(cost, rel=1e-12, abs=1e-30) and found[4].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    for level_dtype in ("", "float64"):
        found = check(draws(300).to(dtype), 9, level_dtype=level_dtype)
        assert found[0].dtype == (torch.float64 if level_dtype else dtype)


@OBJECTIVES
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_a_table_per_index(dim: int, objective: str) -> None:
    """Strided groups, and a transposed tensor: the same tables."""
    x = draws(3, 5, 20)
    check(x, 4, dim=dim, objective=objective)
    check(x.transpose(0, 2), 4, dim=dim, objective=objective)


@OBJECTIVES
@pytest.mark.parametrize(("n", "bucket"), [(96, 32), (100, 32), (20, 32), (65, 64), (5, 1)])
def test_buckets(n: int, bucket: int, objective: str) -> None:
    """The last one short, all short, one value each; few values are exact under every method."""
    for method in ("exact", "dnc", "hist"):
        check(draws(n, seed=bucket), 4, bucket_size=bucket, objective=objective, method=method)


GOLDEN = [
    ([0.0, 1, 3, 4, 6, 10, 15, 21, 28, 36], None, 4, 164, [0, 10, 21, 36]),
    ([0.0, 1, 3, 4, 6, 10, 15, 21, 28, 36], None, 7, 14, [0, 4, 10, 15, 21, 28, 36]),
    ([-8.0, -3, 0, 1, 4], [1.0, 1, 90, 3, 5], 3, 24, [-8, 0, 4]),
    ([0.0, 1, 2, 3, 10], [1.0, 2, 1, 1, 1], 4, 1, [0, 1, 3, 10]),
    ([-5.0, -4, -1, 0, 2, 3, 7, 8], None, 5, 9, [-5, -4, 0, 3, 8]),  # ties: the first argmin
    ([-5.0, -4, -1, 0, 2, 3, 7, 8], None, 6, 5, [-5, -4, 0, 3, 7, 8]),
    ([-5.0, -4, -1, 0, 2, 3, 7, 8], None, 7, 2, [-5, -4, -1, 0, 3, 7, 8]),
]


@pytest.mark.parametrize(("x", "weight", "s", "cost", "levels"), GOLDEN)
def test_golden(
    x: list[float], weight: list[float] | None, s: int, cost: float, levels: list[float]
) -> None:
    w = None if weight is None else torch.tensor(weight)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(s))
    found = check(torch.tensor(x)[order], s, weight=None if w is None else w[order])
    assert found[0].tolist() == levels and found[2].item() == cost and found[4].item()


DATA = {
    "constant": torch.full((70,), -2.5),
    "zeros": torch.tensor([0.0, -0.0] * 20),
    "two values": torch.tensor([1.0, 3.0] * 30),
    "grid": torch.arange(200.0) % 23,
    "90 % zeros": draws(200) * (draws(200, seed=1) > 1.2),
    "log-normal": draws(200).mul(3).exp(),
    "Cauchy": draws(200) / draws(200, seed=2),
    "far from 0": draws(200).double() + 1e8,
    "tight clusters": torch.arange(200).double() % 10 + 1e-9 * draws(200).double(),
    "outlier": torch.cat([draws(150).double(), torch.tensor([1e12], dtype=torch.float64)]),
    "huge": draws(100).double() * 1e307,
    "tiny": draws(100).double() * 1e-300,
    "smallest": torch.arange(1, 90).double() * 5e-324,
}


@pytest.mark.parametrize("s", [2, 4, 11])
@pytest.mark.parametrize("name", DATA)
def test_hostile_data(name: str, s: int) -> None:
    """One level of four near each of ten clusters: which of its values is below the rounding of the cost."""
    check(DATA[name], s, ties=name == "tight clusters")


@OBJECTIVES
@pytest.mark.parametrize("name", ["grid", "log-normal", "tight clusters", "huge", "90 % zeros"])
def test_weights(name: str, objective: str) -> None:
    """Some absent; equal values of different weights; weights whose squares leave the range."""
    x = DATA[name].double()
    g = torch.Generator().manual_seed(3)
    w = torch.rand(x.shape, generator=g).double() * (torch.rand(x.shape, generator=g) > 0.2)
    more = {"objective": objective, "ties": objective == "nearest" and name in TIED}
    for scale in (1.0, 1e-200, 1e-310, 1e250):
        check(x, 6, weight=w * scale, **more)
    check(x.float() if name != "huge" else x, 6, weight=w.float(), bucket_size=40, **more)


@OBJECTIVES
@pytest.mark.parametrize("n", [1023, 1025, 2100])
def test_large_tables_leave_shared_memory(n: int, objective: str) -> None:
    assert check(draws(n, seed=n), 5, objective=objective)[4].item()


def test_precise_arithmetic_takes_over() -> None:
    """Plain double proves nothing about the cost inside clusters of width 1e-9."""
    x = 1e6 + torch.arange(120).double() % 6 + 1e-9 * draws(120).double()
    for s in (6, 7, 8):
        assert check(x, s)[4].item()


@OBJECTIVES
def test_what_is_not_finite_has_no_levels(objective: str) -> None:
    x = draws(5, 40)
    x[1, 3], x[3, 0] = float("nan"), float("-inf")
    arguments = (None, None, 4, 0, None, objective, "exact", 0.0, "")
    want = tensors(torch.ops.torchext.optimal_levels(x[::2], *arguments))
    got = tensors(torch.ops.torchext_emulated.optimal_levels(x, *arguments))
    assert all(same_bits(a[::2], b) for a, b in zip(got, want, strict=True))
    levels, count, cost, lower, certified = (t[1::2] for t in got)
    assert levels.isnan().all() and cost.isnan().all() and lower.isnan().all()
    assert count.tolist() == [0, 0] and not certified.any()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 0.0])
def test_wrong_weights_have_no_levels(bad: float) -> None:
    """Negative, not finite, or none positive."""
    w = torch.zeros(8) if bad == 0 else torch.tensor([1.0] * 7 + [bad])
    arguments = (draws(8), w, None, 3, None, None, "stochastic", "exact", 0.0, "")
    found = tensors(torch.ops.torchext_emulated.optimal_levels(*arguments))
    assert found[0].isnan().all() and found[1].item() == 0 and not found[4].item()
    with pytest.raises(RuntimeError, match="weight"):
        torch.ops.torchext.optimal_levels(*arguments)


def large(name: str, n: int = 16_500) -> Tensor:
    x = draws(n, seed=7)
    y = draws(n, seed=8)
    return {
        "normal": x, "log-normal": x.exp(), "Cauchy": x / y, "90 % zeros": x * (y > 1.28),
        "constant": torch.full((n,), -1.5), "bfloat16": x.bfloat16(), "float16": x.half(),
        "clusters": (x * 3).round() + 1e-5 * y, "offset": 1000 + x, "unaligned": draws(n + 1)[1:],
    }[name]  # fmt: skip


LARGE = (
    "normal", "log-normal", "Cauchy", "90 % zeros", "constant", "bfloat16", "float16", "clusters", "offset",
    "unaligned",
)  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_bins(name: str) -> None:
    """The CPU's bins, levels and cost; a lower bound of its own that is as good."""
    x = large(name)
    s = 5 if name == "normal" else 4
    got, want = both(x, s, method="hist")
    for k in (0, 1, 2):
        assert same_bits(got[k], want[k]), f"{NAMES[k]}: {got[k]} is not {want[k]}"
    exact = torch.ops.torchext.optimal_levels(
        x.double(), None, None, s, None, None, "stochastic", "exact", 0.0, ""
    )
    cost, lower = got[2].item(), got[3].item()
    assert lower <= exact[2].item() * (1 + 1e-12) and got[4].item() == want[4].item()
    assert cost - lower <= 1.5 * (cost - want[3].item()) + 1e-9 * cost
    if name in ("constant", "bfloat16"):
        assert got[4].item()


@pytest.mark.parametrize("s", [2, 3])
def test_bins_few_levels(s: int) -> None:
    got, want = both(large("normal"), s, method="hist")
    assert all(same_bits(got[k], want[k]) for k in (0, 1, 2, 4))
    assert got[3].item() == pytest.approx(want[3].item(), rel=1e-3)


def test_bins_of_values_that_are_not_finite() -> None:
    x = large("normal")
    x[12_345] = float("inf")
    found = tensors(torch.ops.torchext_emulated.optimal_levels(
        x, None, None, 4, None, None, "stochastic", "hist", 0.0, ""
    ))  # fmt: skip
    assert found[0].isnan().all() and found[1].item() == 0 and not found[4].item()


@pytest.mark.parametrize("rtol", [0.3, 1e-3])
def test_bins_to_a_tolerance(rtol: float) -> None:
    """Levels that are proved to cost no more than the optimum but for the tolerance; float64 too."""
    for x in (large("normal"), large("normal").double(), large("90 % zeros")):
        got, want = both(x, 6, method="hist", rtol=rtol)
        cost, lower = got[2].item(), got[3].item()
        assert got[4].item() and lower >= cost * (1 - rtol) and lower <= want[2].item()
        assert cost == pytest.approx(levels_data.cost_of(x, got[0], "stochastic"), rel=1e-12)


@OBJECTIVES
def test_empty(objective: str) -> None:
    check(torch.zeros(0, 5), 4, dim=0, objective=objective)
    with pytest.raises(RuntimeError, match="x must hold at least one value per table"):
        check(torch.zeros(0), 4, objective=objective)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"method": "adaquant"}, "method must be exact, dnc or hist on CUDA, got adaquant"),
        ({"weight": torch.ones(3)}, r"weight must have shape \(64\), got \(3\)"),
        ({"method": "best"}, "method must be exact, hist, adaquant, dnc, smawk or dp, got best"),
    ],
)
def test_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError, match=f"torchext::optimal_levels: .*{text}"):
        both(draws(64), 4, **more)


def test_refused_sizes() -> None:
    x = torch.zeros(2 * 16385)
    text = "at most 16384 values per table on CUDA under method dnc, got 16385"
    with pytest.raises(RuntimeError, match=text):
        both(x, 4, method="dnc", bucket_size=16385)
    above = "on CUDA under method hist above 16384 values"
    with pytest.raises(RuntimeError, match=f"x must be one table {above}, got 2"):
        both(x, 4, method="hist", bucket_size=16385)
    with pytest.raises(RuntimeError, match=f"x must be float32, bfloat16 or float16 {above}"):
        both(x.double(), 4, method="hist")
    with pytest.raises(RuntimeError, match=f"levels must be at most 1024 {above}"):
        both(x, 1025, method="hist")
    with pytest.raises(RuntimeError, match=r"levels must be in \[2, 65536\] on CUDA, got 1"):
        both(torch.zeros(5), 1)
