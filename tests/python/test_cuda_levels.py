"""optimal_levels on a GPU: the tables of the CPU, at sizes that fill the card, in graphs and on streams."""

from __future__ import annotations

import levels_data
import pytest
import torch
from parity import same_bits
from torch import Tensor

import torchext
from torchext import _build

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]


def draws(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def check(x: Tensor, s: int, weight: Tensor | None = None, **more: object) -> None:
    want = torchext.optimal_levels(x, s, weight=weight, **more)  # type: ignore[arg-type]
    on_gpu = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in more.items()}
    heavy = None if weight is None else weight.cuda()
    got = torchext.optimal_levels(x.cuda(), s, weight=heavy, **on_gpu)  # type: ignore[arg-type]
    for a, b in zip(want[:5], got[:5], strict=True):
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        assert b.is_cuda and same_bits(a, b)


@pytest.mark.parametrize("bucket", [7, 64, 512, 1024, 4096, 16384])
@pytest.mark.parametrize("s", [2, 3, 16, 33])
def test_buckets(bucket: int, s: int) -> None:
    """Tables in one warp's reach, in shared memory, and beyond it."""
    check(draws(5 * 16384 + 3), s, bucket_size=bucket)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_columns_and_rows(dtype: torch.dtype, dim: int) -> None:
    check(draws(700, 300).to(dtype), 16, dim=dim)


@pytest.mark.parametrize("bucket", [7, 64, 1024, 4096, 16384])
@pytest.mark.parametrize("s", [1, 2, 3, 16, 33])
def test_nearest_buckets(bucket: int, s: int) -> None:
    check(draws(3 * 16384 + 3), s, bucket_size=bucket, objective="nearest")


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(
    "level_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
def test_level_dtypes(objective: str, level_dtype: torch.dtype, dim: int) -> None:
    check(draws(700, 300), 16, dim=dim, objective=objective, level_dtype=level_dtype)


def test_nearest_weights() -> None:
    x = draws(64, 500)
    w = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    check(x, 8, weight=w * (w > 0.2), dim=0, objective="nearest")


def test_many_tables_share_the_workspace() -> None:
    check(draws(20_000, 33), 4, dim=0)


def test_weights() -> None:
    x = draws(64, 500).mul(4).round().div(4)
    w = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    check(x, 8, weight=w * (w > 0.2), dim=0)


def test_precise_arithmetic() -> None:
    x = 1e6 + torch.arange(4000).double() % 6 + 1e-9 * draws(4000).double()
    check(x, 7, bucket_size=500)
    x = 1e3 + torch.arange(4000).double() % 6 + 1e-7 * draws(4000).double()
    check(x, 7, bucket_size=500, objective="nearest")


def test_not_finite() -> None:
    x = draws(3, 100).cuda()
    x[1, 5] = float("nan")
    found = torchext.optimal_levels(x, 4, dim=0)
    assert found.count.tolist() == [4, 0, 4] and found.certified.tolist() == [True, False, True]
    assert found.levels[1].isnan().all() and found.cost[1].isnan()


def test_graph_follows_the_values() -> None:
    x = draws(100, 512).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torchext.optimal_levels(x, 16, dim=0)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torchext.optimal_levels(x, 16, dim=0)
    for scale in (1.0, 3.0):
        x.copy_(scale * draws(100, 512))
        graph.replay()
        want = torchext.optimal_levels(x.cpu(), 16, dim=0)
        assert same_bits(want.levels, found.levels) and same_bits(want.cost, found.cost)


def test_other_stream() -> None:
    x = torch.zeros(100, 512, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        x.copy_(draws(100, 512))
        found = torchext.optimal_levels(x, 16, dim=0)
    stream.synchronize()
    assert same_bits(torchext.optimal_levels(draws(100, 512), 16, dim=0).levels, found.levels)


@pytest.mark.parametrize("weighted", [False, True])
def test_small_tables(weighted: bool) -> None:
    """Under compute-sanitizer too."""
    x = draws(3, 90)
    check(x, 5, torch.rand(x.shape) if weighted else None, dim=0)
    check(x.double() * 1e-9 + torch.arange(3 * 90).reshape(3, 90) % 4, 5, dim=0)
    check(draws(1100), 4)


@pytest.mark.parametrize("weighted", [False, True])
def test_small_nearest_tables(weighted: bool) -> None:
    """Under compute-sanitizer too."""
    x = draws(3, 90)
    check(x, 5, torch.rand(x.shape) if weighted else None, dim=0, objective="nearest")
    far = x.double() * 1e-7 + torch.arange(3 * 90).reshape(3, 90) % 4
    check(far, 5, dim=0, objective="nearest")
    check(draws(1100), 4, objective="nearest")
    check(x, 5, dim=0, level_dtype=torch.float16)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
def test_small_candidates(objective: str) -> None:
    """Under compute-sanitizer too."""
    x = draws(3, 90)
    grid = torch.linspace(-5, 5, 41)
    for weight in (None, torch.rand(x.shape)):
        check(x, 5, weight, candidates=grid, dim=0, objective=objective, level_dtype=torch.float16)
    check(draws(1100).double(), 4, candidates=grid, objective=objective)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
def test_small_sorted(objective: str) -> None:
    """Under compute-sanitizer too: float64 and weighted values of one table, and a tolerance."""
    x = draws(16_500)
    check(x.double(), 4, objective=objective)
    check(x, 4, torch.rand(x.shape), objective=objective)
    found = torchext.optimal_levels(x.cuda(), 8, method="hist", rtol=0.01, objective=objective)
    assert found.certified.item() and (found.lower_bound >= 0.99 * found.cost).item()


def test_small_bins() -> None:
    """Under compute-sanitizer too: a few bins, and more than shared memory holds."""
    for x in (draws(16_500), draws(16_500) / draws(16_501)[1:]):
        for objective in levels_data.OBJECTIVES:
            want = torchext.optimal_levels(x, 4, method="hist", objective=objective)
            got = torchext.optimal_levels(x.cuda(), 4, method="hist", objective=objective)
            assert same_bits(want.levels, got.levels) and same_bits(want.cost, got.cost)
            check(x, 4, objective=objective)


@pytest.mark.parametrize("n", [16_385, 1_000_003, 1 << 25])
@pytest.mark.parametrize("s", [2, 4, 16, 64])
def test_bins(n: int, s: int) -> None:
    x = draws(n)
    want = torchext.optimal_levels(x, s, method="hist")
    got = torchext.optimal_levels(x.cuda(), s, method="hist")
    assert same_bits(want.levels, got.levels) and same_bits(want.cost, got.cost)
    assert (got.lower_bound.cpu() <= got.cost.cpu()).all()
    assert got.lower_bound.item() == pytest.approx(want.lower_bound.item(), rel=0.05)


@pytest.mark.parametrize("kind", ["sorted", "constant", "zeros", "Cauchy", "bfloat16"])
def test_bins_of_other_data(kind: str) -> None:
    x, y = draws(1_000_000), draws(1_000_001)[1:]
    x = {
        "sorted": x.sort().values, "constant": torch.full_like(x, 0.7), "zeros": x * (y > 1.28),
        "Cauchy": x / y, "bfloat16": x.bfloat16(),
    }[kind]  # fmt: skip
    want = torchext.optimal_levels(x, 8, method="hist")
    got = torchext.optimal_levels(x.cuda(), 8, method="hist")
    assert same_bits(want.levels, got.levels) and same_bits(want.cost, got.cost)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
@pytest.mark.parametrize("n", [16_385, 1 << 22, 1 << 24])
@pytest.mark.parametrize("s", [2, 4, 16, 64])
def test_exact_of_one_table(n: int, s: int, objective: str) -> None:
    check(draws(n), s, objective=objective)


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_exact_of_other_data(name: str) -> None:
    check(levels_data.draw(name, 1 << 20).float(), 16)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
@pytest.mark.parametrize("n", [16_385, 1 << 20, 1 << 24])
@pytest.mark.parametrize("s", [2, 16, 64])
def test_exact_of_sorted_values(n: int, s: int, objective: str) -> None:
    x = draws(n)
    check(x.double(), s, objective=objective)
    w = torch.rand(n, generator=torch.Generator().manual_seed(1))
    check(x, s, w * (w > 0.2), objective=objective)


@pytest.mark.parametrize("objective", levels_data.OBJECTIVES)
@pytest.mark.parametrize("n", [100, 5000, 16384])
@pytest.mark.parametrize("count", [16, 1000, 16384])
def test_candidates(count: int, n: int, objective: str) -> None:
    grid = torch.linspace(-7, 7, count)
    check(draws(20, n), 16, candidates=grid, dim=0, objective=objective)


@pytest.mark.parametrize("n", [16_385, 1_000_003, 1 << 25])
@pytest.mark.parametrize("s", [1, 2, 16, 64])
def test_nearest_bins(n: int, s: int) -> None:
    x = draws(n)
    want = torchext.optimal_levels(x, s, method="hist", objective="nearest")
    got = torchext.optimal_levels(x.cuda(), s, method="hist", objective="nearest")
    assert same_bits(want.levels, got.levels) and same_bits(want.cost, got.cost)
    assert (got.lower_bound.cpu() >= want.lower_bound * (1 - 1e-6)).all()


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_nearest_bins_of_other_data(name: str) -> None:
    x = levels_data.draw(name, 1 << 20).float()
    want = torchext.optimal_levels(x, 16, method="hist", objective="nearest")
    got = torchext.optimal_levels(x.cuda(), 16, method="hist", objective="nearest")
    if name not in ("distinct", "integers"):  # where several sets of levels cost the same
        assert same_bits(want.levels, got.levels)
        assert same_bits(want.cost, got.cost)
    assert got.cost.item() == pytest.approx(want.cost.item(), rel=1e-6)


def test_auto() -> None:
    x = draws(1 << 16).cuda()
    assert torchext.optimal_levels(x, 256).method == "exact"
    assert torchext.optimal_levels(x, 257).method == "hist"
    assert torchext.optimal_levels(x, 16, objective="nearest").method == "exact"


@pytest.mark.parametrize("method", ["hist", "exact"])
def test_graph_of_one_table(method: str) -> None:
    x = draws(100_000).cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torchext.optimal_levels(x, 16, method=method)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torchext.optimal_levels(x, 16, method=method)
    for scale in (1.0, 3.0):
        x.copy_(scale * draws(100_000))
        graph.replay()
        want = torchext.optimal_levels(x.cpu(), 16, method=method)
        assert same_bits(want.levels, found.levels) and same_bits(want.cost, found.cost)


def test_refused() -> None:
    x = torch.zeros(1 << 15, device="cuda")
    for more, text in (
        ({"method": "dnc"}, "at most 16384 values per table on CUDA"),
        ({"method": "smawk", "bucket_size": 64}, "method must be exact, dnc or hist on CUDA"),
        ({"candidates": torch.zeros(3)}, "at most 16384 values per table on CUDA with candidates"),
        ({"weight": torch.ones(1 << 15), "bucket_size": 64}, "weight must be on the device of x"),
    ):
        with pytest.raises(RuntimeError, match=text):
            torchext.optimal_levels(x, 4, **more)  # type: ignore[arg-type]
