"""Exact levels of one large float64 or weighted table by the CUDA kernels, emulated: those of the CPU."""

from __future__ import annotations

import levels_data
import pytest
import torch
from parity import same_bits
from pretend_gpu import GPU, PretendGpu
from test_cuda_emulation_exact_levels import ADVERSARIAL, N
from test_cuda_emulation_levels import both, check, draws, tensors
from torch import Tensor

import torchext

TIED = ("integers", "distinct")  # several sets of levels cost the same


def weights(n: int, seed: int = 3) -> Tensor:
    """A fifth of them 0."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=g) * (torch.rand(n, generator=g) > 0.2)


@pytest.mark.parametrize("name", levels_data.NAMES)
def test_kinds_of_data(name: str) -> None:
    """float64 values, every other kind of float32 values with weights."""
    x = levels_data.draw(name, N)
    weighted = levels_data.NAMES.index(name) % 2
    more = {"weight": weights(N)} if weighted else {}
    assert check(x.float() if weighted else x, 5, ties=name in TIED, **more)[4].item()


@pytest.mark.parametrize(("s", "weighted"), [(2, True), (3, False), (4, True), (16, False)])
def test_numbers_of_levels(s: int, weighted: bool) -> None:
    more = {"weight": weights(N)} if weighted else {}
    assert check(draws(N).double(), s, **more)[4].item()


def test_more_values() -> None:
    """Bins of the first round hold several values of which only some are looked at again."""
    n = 100_000
    assert check(levels_data.draw("normal", n), 4)[4].item()
    assert check(levels_data.draw("zeros", n), 3, weight=weights(n).double())[4].item()


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial(name: str) -> None:
    x = ADVERSARIAL[name]
    weighted = list(ADVERSARIAL).index(name) % 2
    assert check(x, 5, weight=weights(len(x)) if weighted else torch.ones(len(x)))[4].item()


def test_values_far_closer_than_float32_tells() -> None:
    assert check(1 + 1e-12 * draws(N).double(), 6)[4].item()


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e300])
def test_magnitudes_whose_squares_leave_the_range(scale: float) -> None:
    """The ends are the data's, although scaling rounds the smallest."""
    x = scale * draws(N).double()
    found = check(x, 5, ties=True)
    assert found[0][0] == x.min() and found[0][-1] == x.max()
    means = check(x, 5, objective="nearest")
    assert x.min() < means[0][0] and means[0][-1] < x.max()


@pytest.mark.parametrize("scale", [1e-200, 1e250])
def test_weights_whose_products_leave_the_range(scale: float) -> None:
    check(draws(N).double(), 5, weight=scale * weights(N).double())


def test_weights_of_one() -> None:
    """Weights change nothing where they are all the same power of two."""
    x = draws(N)
    plain = check(x, 6)
    for w in (torch.ones(N), torch.full((N,), 0.25)):
        found = check(x, 6, weight=w)
        assert same_bits(found[0], plain[0])
        assert found[2].item() == w[0].item() * plain[2].item()


def test_few_values_have_weight() -> None:
    w = torch.zeros(N)
    for count in (1, 2, 3, 700):
        w[100 : 100 + count] = 0.5
        found = check(draws(N), 4, weight=w)
        assert found[1].item() == min(count, 4) and found[4].item()


def test_hist_of_weighted_values_is_exact() -> None:
    for x in (draws(N), draws(N).double()):
        assert check(x, 6, weight=weights(N), method="hist", rtol=0.1)[4].item()


@pytest.mark.parametrize("level_dtype", ["float16", "bfloat16", "float32"])
def test_level_dtypes(level_dtype: str) -> None:
    check(draws(N).double(), 6, level_dtype=level_dtype)
    check(draws(N).half(), 6, level_dtype=level_dtype, weight=weights(N))


def no_levels(x: Tensor, weight: Tensor | None) -> None:
    found = tensors(torch.ops.torchext_emulated.optimal_levels(
        x, weight, None, 4, None, None, "stochastic", "exact", 0.0, ""
    ))  # fmt: skip
    assert found[0].isnan().all() and found[2].isnan() and found[3].isnan()
    assert found[1].item() == 0 and not found[4].item()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_what_is_not_finite_or_negative_has_no_levels(bad: float) -> None:
    one = torch.zeros(N, dtype=torch.bool).index_fill(0, torch.tensor(5), True)
    no_levels(draws(N), torch.ones(N).masked_fill(one, bad))
    if bad != -1:
        no_levels(draws(N).double().masked_fill(one, bad), None)


@pytest.mark.parametrize("weight", [0.0, 1e308])
def test_weights_without_a_positive_finite_sum_have_no_levels(weight: float) -> None:
    no_levels(draws(N).double(), torch.full((N,), weight, dtype=torch.float64))


def test_refused() -> None:
    x = torch.zeros(16385)
    with pytest.raises(RuntimeError, match=r"float16 .* got float64 \(exact takes it, hist"):
        both(x.double(), 4, method="hist")
    with pytest.raises(RuntimeError, match="levels must be at most 256"):
        both(x.double(), 257)


def test_auto_is_exact_and_waits_for_nothing() -> None:
    x, w = draws(N).double(), weights(N)
    with PretendGpu() as gpu:
        plain = torchext.optimal_levels(x.to(GPU), 4)
        weighted = torchext.optimal_levels(x.to(GPU), 4, weight=w.to(GPU))
        assert gpu.syncs == 0 and plain.method == weighted.method == "exact"
        assert same_bits(torchext.optimal_levels(x, 4).cost, plain.cost.cpu())
        assert same_bits(torchext.optimal_levels(x, 4, weight=w).cost, weighted.cost.cpu())
