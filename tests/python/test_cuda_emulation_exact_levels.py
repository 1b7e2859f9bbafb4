"""Exact levels of one large table by the CUDA kernels, emulated: levels and costs of the CPU, certified."""

from __future__ import annotations

import levels_data
import pytest
import torch
from parity import same_bits
from pretend_gpu import GPU, PretendGpu
from test_cuda_emulation_levels import both, check, draws, tensors
from torch import Tensor

import torchext

N = 16_500


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_kinds_of_data(name: str) -> None:
    assert check(levels_data.draw(name, N).float(), 5)[4].item()


@pytest.mark.parametrize("s", [2, 3, 4, 16])
def test_numbers_of_levels(s: int) -> None:
    assert check(draws(N), s)[4].item()


def test_many_levels() -> None:
    assert check(levels_data.draw("zeros", N).float(), 32)[4].item()


@pytest.mark.parametrize("name", ["normal", "lognormal", "clusters"])
def test_more_values(name: str) -> None:
    assert check(levels_data.draw(name, 1 << 18).float(), 4)[4].item()


def among(values: Tensor, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return values[torch.randint(len(values), (N,), generator=g)]


ADVERSARIAL = {
    "one coarse bin": 1 + 1e-4 * draws(N),
    "neighbours": among(1 + torch.arange(3000) * 2.0**-23),
    "as few as levels": among(1 + torch.arange(5) * 2.0**-23),
    "few, uneven": among(draws(37)),
    "geometric": 2.0 ** among(torch.arange(-100.0, 100.0)),
    "grid": torch.arange(N).float() % 1000,
    "tight clusters": among(torch.arange(10.0)) + 1e-6 * draws(N),
    "two clusters": 1e6 * among(torch.arange(2.0)) + 0.1 * draws(N),
    "nearly all zeros": draws(N) * (draws(N + 1)[1:] > 2.3),
    "largest": 1e37 * draws(N),
    "ends in one bin": torch.cat([torch.full((N,), 1 + 2.0**-23), torch.tensor([1, 1 + 2.0**-22])]),
    "unaligned": draws(N + 1)[1:],
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial(name: str) -> None:
    for s in (3, 5):
        assert check(ADVERSARIAL[name], s)[4].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    for level_dtype in ("", "float64"):
        assert check(draws(N).to(dtype), 6, level_dtype=level_dtype)[4].item()


def test_random_bit_patterns() -> None:
    """Thousands of coarse bins are in use, so that there are more of them than shared memory counts."""
    bits = torch.randint(-(2**31), 2**31, (N,), generator=torch.Generator().manual_seed(5))
    x = bits.to(torch.int32).view(torch.float32).nan_to_num(0, 0, 0)
    got, want = both(x, 5)
    assert got[4].item() and got[2].item() == pytest.approx(want[2].item(), rel=1e-9)


def test_what_no_arithmetic_proves() -> None:
    """Clusters of width 1e-6 beside values of 1e6: neither device certifies its levels."""
    x = torch.cat([1e-6 * draws(N), 1e6 * torch.arange(10.0)])
    got, want = both(x, 12)
    assert not want[4].item() and not got[4].item()
    assert 0 <= got[3].item() <= got[2].item() <= want[2].item() * (1 + 1e-6)


def test_values_that_are_not_finite() -> None:
    x = draws(N)
    x[12_345] = float("-inf")
    found = tensors(torch.ops.torchext_emulated.optimal_levels(
        x, None, None, 4, None, None, "stochastic", "exact", 0.0, ""
    ))  # fmt: skip
    assert found[0].isnan().all() and found[2].isnan() and found[3].isnan()
    assert found[1].item() == 0 and not found[4].item()


def test_refused() -> None:
    x = torch.zeros(2 * 16385)
    above = "on CUDA under method exact above 16384 values"
    with pytest.raises(RuntimeError, match=f"x must be one table {above}, got 2"):
        both(x, 4, bucket_size=16385)
    with pytest.raises(RuntimeError, match=f"levels must be at most 256 {above}, got 257"):
        both(x, 257)


def test_auto_is_exact_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draws(N)
    with PretendGpu() as gpu:
        found = torchext.optimal_levels(x.to(GPU), 4)
        assert gpu.syncs == 0
        assert found.method == "exact" and found.certified.item()
        assert same_bits(torchext.optimal_levels(x, 4).cost, found.cost.cpu())
        monkeypatch.setattr("torchext.levels._LEVELS_CUDA", 3)
        assert torchext.optimal_levels(x.to(GPU), 4).method == "hist"
