"""The codec on a GPU: bits of the CPU in every format, graphs, streams, and tensors on two devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity import same_but_nan
from torch import Tensor

import torchext
from torchext import _build, _load, random

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]

KEY = random.key_from_seed(31)
SHAPES = [(0,), (1,), (5, 13), (37, 1000), (1 << 20,)]
CHANNELS = [(None, None), (0, None), (-1, None), (None, 64)]


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(5))
    return x.to(dtype)


def same(got: Tensor, want: Tensor) -> bool:
    assert got.is_cuda and got.dtype == want.dtype and got.shape == want.shape
    assert torch.equal(got.isnan().cpu(), want.isnan())
    return same_but_nan(got.cpu(), want)


def test_library_is_loaded() -> None:
    _load.require_cuda()


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_misaligned(offset: int) -> None:
    x, key = values(4100)[offset:], random.key_from_seed(18)
    ours, theirs = (torchext.quantize(t, 3, scale=0.1, key=key).codes for t in (x.cuda(), x))
    assert torch.equal(ours.cpu(), theirs)


def formats(bits: int) -> list[dict[str, Any]]:
    levels = torch.linspace(-2, 2, 2**bits) ** 3 / 2
    return [{"scheme": "symmetric"}, {"scheme": "minmax"}, {"levels": levels}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_same_bits_as_the_cpu(bits: int, shape: tuple[int, ...]) -> None:
    x = values(*shape)
    for dim, bucket in CHANNELS:
        for rounding in ("stochastic", "nearest"):
            for format in formats(bits):
                chosen = {**format, "dim": dim, "bucket_size": bucket, "rounding": rounding}
                on_cpu = torchext.quantize(x, bits, key=KEY, **chosen)
                on_gpu = torchext.quantize(x.cuda(), bits, key=KEY, **chosen)
                assert same(on_gpu.codes, on_cpu.codes)
                assert on_cpu.scale is None or same(on_gpu.scale, on_cpu.scale)  # type: ignore[arg-type]
                assert same(on_gpu.dequantize(), on_cpu.dequantize())
                assert same(on_gpu.unpack(), on_cpu.unpack())
                y = torchext.fake_quantize(x.cuda(), bits, key=KEY, **chosen)
                assert same(y, torchext.fake_quantize(x, bits, key=KEY, **chosen))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    x = values(3000, dtype=dtype)
    x[:5] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-42, 3e38]).to(dtype)
    for start in (0, 1):  # aligned and not
        y = torchext.fake_quantize(x.cuda()[start:], 4, scale=0.1, key=KEY)
        assert same(y, torchext.fake_quantize(x[start:], 4, scale=0.1, key=KEY))


def test_statistics_are_the_same_bits() -> None:
    x = values(3_000_001)
    for format in formats(4):
        got = torchext.quantization_variance(x.cuda(), 4, **format)
        assert same(got, torchext.quantization_variance(x, 4, **format))
    levels, weight = torch.linspace(-1, 1, 16), torch.rand(x.shape)
    for w in (None, weight):
        want = torchext.ops.rounding_error(x, levels, w, None, 1000)
        weights = None if w is None else w.cuda()
        got = torchext.ops.rounding_error(x.cuda(), levels.cuda(), weights, None, 1000)
        assert all(same(g, v) for g, v in zip(got, want, strict=True))


@pytest.mark.parametrize(("form", "draws"), [("bits", 3), ("count", 3), ("ternary", 2)])
def test_draws(form: str, draws: int) -> None:
    x, levels = values(4099), torch.linspace(-3, 3, 17)
    on_cpu = torchext.quantize_draws(x, levels, draws, form=form, key=KEY)
    on_gpu = torchext.quantize_draws(x.cuda(), levels, draws, form=form, key=KEY)
    assert same(on_gpu.codes, on_cpu.codes)
    for draw in range(draws):
        assert same(on_gpu.dequantize(draw), on_cpu.dequantize(draw))
        assert torch.equal(on_gpu.to("cpu").dequantize(draw), on_cpu.dequantize(draw))


def test_uniform_levels() -> None:
    x = values(40, 5)
    assert same(torchext.uniform_levels(x.cuda(), 9, dim=1), torchext.uniform_levels(x, 9, dim=1))


def test_keys() -> None:
    key = KEY.cuda()
    assert same(random.fold_in(key, 9), random.fold_in(KEY, 9))
    count = torch.tensor([2**33 + 9])
    assert same(random.fold_in(key, count.cuda()), random.fold_in(KEY, count))
    assert same(random.split(key, 1000), random.split(KEY, 1000))
    assert same(
        torch.ops.torchext._philox(key, 99, 3, 1), torch.ops.torchext._philox(KEY, 99, 3, 1)
    )


def test_gradients() -> None:
    x = values(500).cuda().requires_grad_()
    torchext.fake_quantize(x, 4, scale=0.1, key=KEY).sum().backward()
    want = values(500).requires_grad_()
    torchext.fake_quantize(want, 4, scale=0.1, key=KEY).sum().backward()
    assert x.grad is not None and want.grad is not None and same(x.grad, want.grad)


def every_op(x: Tensor, key: Tensor) -> list[Tensor]:
    """Every op of the codec once, without anything that the host must see."""
    q = torchext.quantize(x, 4, dim=0, key=key)
    draws = torchext.quantize_draws(x, torch.linspace(-3, 3, 9, device=x.device), 2, key=key)
    error = torchext.ops.rounding_error(x, torch.linspace(-1, 1, 5, device=x.device))
    pieces = [q.codes, q.dequantize(), q.unpack(), torchext.fake_quantize(x, 4, key=key)]
    pieces += [torchext.quantization_variance(x, 4), draws.dequantize(1), *error]
    return [*pieces, torchext.ops.pack_bits(q.unpack(), 4), random.split(key, 3)]


def test_a_graph_follows_the_key() -> None:
    x, key = values(40, 100).cuda(), KEY.cuda()
    every_op(x, key)  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = every_op(x, key)
    for seed in (1, 2):
        key.copy_(random.key_from_seed(seed))
        graph.replay()
        want = every_op(x.cpu(), key.cpu())
        assert all(same(g, w) for g, w in zip(out, want, strict=True))


def test_another_stream() -> None:
    x, key = values(1 << 20), KEY.cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        y = x.pin_memory().cuda(non_blocking=True)
        out = every_op(y.view(1024, 1024), key)
    stream.synchronize()
    want = every_op(x.view(1024, 1024), KEY)
    assert all(same(g, w) for g, w in zip(out, want, strict=True))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("scale", lambda x, s, k: (x, s.cpu(), None, 4, "symmetric", None, None, "stochastic", k)),
        ("key", lambda x, s, k: (x, s, None, 4, "symmetric", None, None, "stochastic", k.cpu())),
        (
            "levels",
            lambda x, s, k: (x, s, s.cpu().repeat(2), 4, "levels", None, None, "nearest", k),
        ),
    ],
)
def test_ops_want_one_device(name: str, call: Callable[..., tuple[Any, ...]]) -> None:
    x, scale = values(8).cuda(), torch.tensor([1.0]).cuda()
    with pytest.raises(
        RuntimeError, match=f"torchext::quantize: {name} must be on the device of x"
    ):
        torch.ops.torchext.quantize(*call(x, scale, KEY.cuda()))
