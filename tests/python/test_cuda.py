"""CUDA ops give the bytes of the CPU ops. What needs no GPU (the kernels' host twin) is in tests/cpp."""

from __future__ import annotations

import pytest
import torch

from torchext import _build, _load, random

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]

SIZES = [0, 1, 31, 32, 33, 129, 4097, 1 << 20]


def quantize(x: torch.Tensor, scale: float, bits: int, key: torch.Tensor) -> torch.Tensor:
    s = torch.tensor(scale, device=x.device)
    return torch.ops.torchext.quantize(
        x, s, None, bits, "symmetric", None, None, "stochastic", key.to(x.device), 5
    )


def values(n: int) -> torch.Tensor:
    x = torch.randn(n, generator=torch.Generator().manual_seed(n))
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-42, 3e38])
    x[: min(n, 6)] = special[: min(n, 6)]
    return x


def test_library_is_loaded() -> None:
    _load.require_cuda()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("n", SIZES)
def test_same_bytes_as_cpu(bits: int, n: int) -> None:
    x, key = values(n), random.key_from_seed(17)
    for scale in (0.25, 0.1, 0.0, 1e-40):
        assert torch.equal(
            quantize(x, scale, bits, key), quantize(x.cuda(), scale, bits, key).cpu()
        )


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_misaligned(offset: int) -> None:
    x, key = values(4097), random.key_from_seed(18)
    assert torch.equal(
        quantize(x[offset:], 0.1, 3, key), quantize(x.cuda()[offset:], 0.1, 3, key).cpu()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    x, key = values(1000).to(dtype), random.key_from_seed(19)
    assert torch.equal(quantize(x, 0.1, 4, key), quantize(x.cuda(), 0.1, 4, key).cpu())


def test_graph_follows_the_key() -> None:
    x = values(4096).cuda()
    key = random.key_from_seed(1).cuda()
    scale = torch.tensor(0.25, device="cuda")

    def op() -> torch.Tensor:
        return torch.ops.torchext.quantize(
            x, scale, None, 4, "symmetric", None, None, "stochastic", key
        )

    op()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = op()
    graph.replay()
    first = out.clone()
    graph.replay()
    assert torch.equal(out, first)
    key.copy_(random.key_from_seed(2))
    graph.replay()
    assert not torch.equal(out, first) and torch.equal(out, op())


def test_errors() -> None:
    x = values(8).cuda()
    with pytest.raises(RuntimeError, match="torchext::quantize: key must be on the device of x"):
        torch.ops.torchext.quantize(
            x, torch.tensor(1.0).cuda(), None, 4, "symmetric", None, None, "stochastic",
            random.key_from_seed(1),
        )  # fmt: skip
