"""Statistics and histograms of columns on CUDA, in emulation: the bits of the CPU."""

from __future__ import annotations

import emulation
import pytest
import torch
from column_cases import counts, stats, table

emulation.load()
CPU, EMULATED = torch.ops.torchext, torch.ops.torchext_emulated
SHAPES = [(0, 3), (1, 1), (7, 4), (1024, 1), (1025, 33), (3001, 70)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics(
    shape: tuple[int, int], centred: bool, weighted: bool, dtype: torch.dtype
) -> None:
    x = table(*shape, dtype)
    weight = (1 + torch.arange(len(x))).double().sqrt() if weighted else None
    centre = torch.linspace(-1, 3, shape[1]).double() if centred else None
    want, got = (stats(ops._column_stats, x, weight, centre) for ops in (CPU, EMULATED))
    for a, b in zip(want, got, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(torch.signbit(a), torch.signbit(b))
    assert bool(got[0][4].any()) == ((weighted or centred) and len(x) > 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_value_that_is_not_finite(bad: float) -> None:
    x = torch.zeros(2100, 7)
    x[2060, 4] = x[1060, 5] = x[1060, 6] = bad
    assert int(stats(EMULATED._column_stats, x)[2]) == 36 * 7 + 5
    x[0, 0] = bad
    assert int(stats(EMULATED._column_stats, x)[1]) == 0


def test_sums_beyond_float64_are_no_bad_values() -> None:
    x = torch.full((9, 2), 1e308, dtype=torch.float64)
    for ops in (CPU, EMULATED):
        state, found, _ = stats(ops._column_stats, x)
        assert int(found) == -1 and state[1].isinf().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [4, 32])  # 2,048 bins and 4,096
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_histograms(shape: tuple[int, int], levels: int, dtype: torch.dtype) -> None:
    x = table(*shape, dtype)
    want = counts(CPU._histogram_add, x, levels)
    assert int(want[0].sum()) == x.numel() + 5 * want[0].numel()
    assert torch.equal(want, counts(EMULATED._histogram_add, x, levels))


def test_counts_beyond_a_block_and_sums_beyond_a_word() -> None:
    x = table(20_000, 3)
    x[:, 2] = 1 + 2.0**-12 * torch.rand(20_000)  # few bins hold all
    x[0, 2] = -1e6
    assert torch.equal(*(counts(ops._histogram_add, x, 8) for ops in (CPU, EMULATED)))


def test_rows_that_lie_apart() -> None:
    x = table(300, 12)
    for part in (x[:, 3:8], x.t().contiguous().t()):
        assert torch.equal(*(counts(ops._histogram_add, part, 8) for ops in (CPU, EMULATED)))
        for a, b in zip(*(stats(ops._column_stats, part) for ops in (CPU, EMULATED)), strict=True):
            assert torch.equal(a, b)


def test_bins_of_other_maps_count_nothing() -> None:
    """The op cannot read them to refuse."""
    x = table(50, 3)
    maps = CPU._histogram_new(
        x, torch.zeros(3).double(), torch.ones(3).double(), x[:2].T.contiguous(), 4
    )
    found = torch.zeros(2, 3, 4096, dtype=torch.int64)
    EMULATED._histogram_add(x, maps, found)
    assert not bool(found.any())
    with pytest.raises(RuntimeError, match="_histogram_add: counts must have 2048 bins a column"):
        CPU._histogram_add(x, maps, found)
    with pytest.raises(RuntimeError, match="_histogram_add: counts must have 2048 or 4096 bins"):
        EMULATED._histogram_add(x, maps, found[:, :, :99].contiguous())
    with pytest.raises(RuntimeError, match=r"_column_stats: state must have shape \(5, 3\)"):
        EMULATED._column_stats(x, None, None, torch.zeros(6, 3).double())
