"""Encoding and what comes before it on a real GPU: the CPU's results to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from column_cases import counts, stats, table
from encode_cases import MODES, Case, assert_same

from torchext import _build
from torchext.data import QuantizedDataset

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("mode", MODES)
def test_codes_and_sums(mode: str, bits: int) -> None:
    if mode == "double" and bits < 2:
        pytest.skip("refused by the op")
    same_codes(5000, bits, mode)


@pytest.mark.parametrize("mode", MODES)
def test_small_codes(mode: str) -> None:
    """Under compute-sanitizer too."""
    same_codes(130, 4, mode)
    same_codes(130, 8, mode)


def same_codes(rows: int, bits: int, mode: str) -> None:
    op = torch.ops.torchext._encode
    case = Case(rows, 131, bits, mode, tables=bits <= 4, outputs=2, weighted=True)
    assert_same(case.run(op), case.run(op, "cuda"))
    x0 = torch.randn(2, 131)
    for loss in ("squared_error", "log_loss"):
        case.y = case.y if loss == "squared_error" or case.y is None else case.y.sign()
        at = {"x0": x0, "loss": loss}
        assert_same(case.run(op, **at), case.run(op, "cuda", **at))


@pytest.mark.parametrize("cols", [1, 28, 131])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_of_columns(dtype: torch.dtype, cols: int) -> None:
    op, x = torch.ops.torchext._column_stats, table(70_001, cols, dtype)
    weight, centre = torch.arange(len(x)).double().sqrt(), torch.linspace(-1, 3, cols).double()
    for how in ((weight, None), (weight, centre), (None, centre)):
        for a, b in zip(stats(op, x, *how), stats(op, x, *how, device="cuda"), strict=True):
            assert torch.equal(a, b)
    x[60_000, -1] = x[65_000, 0] = float("nan")
    assert int(stats(op, x, device="cuda")[2]) == (60_000 - 1024) * cols + cols - 1


@pytest.mark.parametrize("cols", [1, 28, 131])
@pytest.mark.parametrize("levels", [4, 32])
def test_histograms_of_columns(levels: int, cols: int) -> None:
    op, x = torch.ops.torchext._histogram_add, table(70_001, cols)
    assert torch.equal(counts(op, x, levels), counts(op, x, levels, "cuda"))


def same_stores(rows: int, cols: int, **options: Any) -> None:
    x = table(rows, cols)
    y = x[:, :2].sum(1) + torch.randn(rows)
    want = QuantizedDataset.from_arrays(x, y, random_state=0, **options)
    store = QuantizedDataset.from_arrays(x.cuda(), y.cuda(), random_state=0, **options)
    assert store.device.type == "cuda"
    found = store.to("cpu").tensors()
    for name, tensor in want.tensors().items():
        assert torch.equal(found[name], tensor), name
    assert store.pilot == want.pilot


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("sampling", ["auto", "nearest", "stochastic", "double"])
def test_stores(sampling: str, bits: int) -> None:
    if sampling == "double" and bits < 2:
        pytest.skip("refused")
    same_stores(70_001, 131, bits=bits, sampling=sampling)


@pytest.mark.parametrize("bits", [2, 6])
def test_small_stores(bits: int) -> None:
    """Also under compute-sanitizer."""
    same_stores(1100, 7, bits=bits)
