"""Inside torch: compiled graphs equal eager runs bit for bit, and gradients follow the stated rule."""

from __future__ import annotations

from typing import Any

import pytest
import samples
import torch
from samples import FLOATS, SAMPLES, Sample
from torch import Tensor

import torchext
from torchext import ops

KEY = samples.KEY


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_every_op_compiles_without_a_graph_break(sample: Sample) -> None:
    """Results, and what ops write in place, are those of the op itself."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: sample.op(*a), fullgraph=True, backend="aot_eager")
    results = []
    for run in (compiled, sample.op):
        arguments = sample.args(samples.sample_input(sample, sample.dtypes[0]))
        results.append(tensors_of((run(*arguments), arguments)))
    assert results[0] and len(results[0]) == len(results[1])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(value, (tuple, list)):
        return [t for part in value for t in tensors_of(part)]
    return [value] if isinstance(value, Tensor) else []


@pytest.mark.slow
def test_inductor_runs_the_public_functions() -> None:
    """A layer with fake-quantized weights: forward, backward and packed codes in one graph."""

    def layer(x: Tensor, w: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        near = torchext.fake_quantize(w, 4, dim=0, key=torchext.random.fold_in(key, 1))
        q = torchext.quantize(x * 2, 3, scheme="minmax", key=key)
        return (torch.tanh(x @ near.t())).sum(), q.codes, q.dequantize() + 1

    def run(function: Any) -> list[Tensor]:
        w = torch.linspace(-1, 1, 48).view(6, 8).requires_grad_()
        x = torch.linspace(-2, 2, 40).view(5, 8)
        loss, codes, values = function(x, w, KEY)
        loss.backward()
        assert w.grad is not None
        return [codes, values, loss.detach(), w.grad]

    torch._dynamo.reset()
    eager, compiled = run(layer), run(torch.compile(layer, fullgraph=True))
    assert torch.equal(eager[0], compiled[0]) and torch.equal(eager[1], compiled[1])
    # The sum and tanh are torch's own and may be fused.
    torch.testing.assert_close(compiled[2:], eager[2:])


def test_one_graph_serves_all_keys_and_shapes() -> None:
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounter()

    @torch.compile(fullgraph=True, backend=graphs, dynamic=True)
    def rounded(x: Tensor, key: Tensor) -> Tensor:
        return torchext.fake_quantize(x, 4, key=key)

    for n, seed in ((64, 1), (130, 2), (257, 3)):
        x, key = torch.linspace(-1, 1, n), torchext.random.key_from_seed(seed)
        assert torch.equal(rounded(x, key), torchext.fake_quantize(x, 4, key=key))
    assert graphs.frame_count == 1


GROUPS = [(None, None), (0, None), (1, None), (-1, None), (None, 16)]


def fixed_format(scheme: str, dim: int | None, bucket: int | None) -> tuple[Any, Any, int]:
    """Scales, levels and bits for a (6, 10) tensor; ends well inside the values' range."""
    channels = 4 if bucket else {None: 1, 0: 6, 1: 10, -1: 10}[dim]
    steps = 0.2 + 0.01 * torch.arange(channels)
    if scheme == "symmetric":
        return steps, None, 3
    if scheme == "minmax":
        return torch.stack([-0.9 + 0.02 * torch.arange(channels), steps], 1), None, 3
    return steps * 4, torch.tensor([-0.8, 0.1, 0.5, 1.1]), 2


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("dim", "bucket"), GROUPS)
@pytest.mark.parametrize("scheme", ["symmetric", "minmax", "levels"])
def test_straight_through_gradient(
    scheme: str, dim: int | None, bucket: int | None, dtype: torch.dtype
) -> None:
    """1 between the channel's lowest and highest decoded value, 0 outside, times what comes back."""
    scale, levels, bits = fixed_format(scheme, dim, bucket)
    x = torch.linspace(-2, 2, 60).view(6, 10).to(dtype).requires_grad_()
    y = ops.fake_quantize(x, scale, levels, bits, scheme, dim, bucket, "stochastic", KEY)
    weight = torch.linspace(1, 2, 60).view(6, 10).to(dtype)
    (y * weight).sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype

    top = {"symmetric": 6, "minmax": 7, "levels": 3}[scheme]

    def end(code: int) -> Tensor:
        codes = ops.pack_bits(torch.full((60,), code, dtype=torch.uint8), bits)
        return ops.dequantize(codes, scale, levels, [6, 10], bits, scheme, dim, bucket)

    inside = (x.float() >= end(0)) & (x.float() <= end(top))
    assert 10 < int(inside.sum()) < 50
    assert torch.equal(x.grad, weight * inside)


def test_gradient_of_special_values() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, 3.0], requires_grad=True)
    ops.fake_quantize(x, torch.tensor([1.0]), None, 3, "symmetric", key=KEY).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 0, 0, 1, 1]


def test_no_gradient_leaks_into_codes() -> None:
    x = torch.linspace(-1, 1, 10, requires_grad=True)
    q = torchext.quantize(x, 4, key=KEY)
    assert not q.codes.requires_grad and q.scale is not None and not q.scale.requires_grad
    assert not q.dequantize().requires_grad
