"""Every row of samples.py on a GPU: the bits of the CPU, in a CUDA graph and on any stream.

``make test-gpu`` runs this file under compute-sanitizer too.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from parity import same_bits, tensors
from samples import SAMPLES, Sample
from torch import Tensor

from torchext import _build

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]


def on(device: str, found: Any) -> Any:
    """The same arguments with every tensor on ``device``."""
    if isinstance(found, Tensor):
        return found.to(device, copy=True)
    return type(found)(on(device, f) for f in found) if isinstance(found, tuple | list) else found


class Call:
    """A row's op on the GPU beside the CPU."""

    def __init__(self, row: Sample, dtype: torch.dtype, shape: tuple[int, ...] = (5, 13)) -> None:
        self.op = row.op
        arguments = row.args(row.input(dtype, shape))
        mine = on("cpu", arguments)
        self.want = tensors(self.op(*mine)) + tensors(mine)
        self.arguments = on("cuda", arguments)
        self.before = copy.deepcopy(self.arguments)

    def __call__(self) -> Any:
        return self.op(*self.arguments)

    def reset(self) -> None:
        """Arguments that the op wrote become what they were, in place."""
        for now, then in zip(tensors(self.arguments), tensors(self.before), strict=True):
            now.copy_(then)

    def check(self, out: Any) -> None:
        got = tensors(out) + tensors(self.arguments)
        assert len(got) == len(self.want)
        assert all(same_bits(a, b) for a, b in zip(self.want, got, strict=True))


@pytest.mark.parametrize("shape", [(5, 13), (0,), (1,), (2, 3, 700), (4097,)], ids=str)
@pytest.mark.parametrize("row", SAMPLES, ids=str)
def test_same_bits_as_the_cpu(row: Sample, shape: tuple[int, ...]) -> None:
    """Results and every argument that the op writes."""
    if not row.elementwise and shape != (5, 13):
        pytest.skip("the row has a shape of its own")
    for dtype in row.dtypes:
        try:
            call = Call(row, dtype, shape)
        except RuntimeError:  # the CPU refuses the shape
            arguments = on("cuda", row.args(row.input(dtype, shape)))
            with pytest.raises(RuntimeError, match=f"torchext::{row.name}"):
                row.op(*arguments)
            continue
        call.check(call())


@pytest.mark.parametrize("row", SAMPLES, ids=str)
def test_graph(row: Sample) -> None:
    """Capture reads nothing back, and a replay gives the bits again."""
    call = Call(row, row.dtypes[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # sets up what is set up once
    torch.cuda.current_stream().wait_stream(side)
    call.reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    for _ in range(2):
        call.reset()
        for t in tensors(out):
            t.view(torch.uint8).fill_(0xA5) if t.dim() else t.zero_()
        graph.replay()
        torch.cuda.synchronize()
        call.check(out)


@pytest.mark.parametrize("row", SAMPLES, ids=str)
def test_stream(row: Sample) -> None:
    """The op waits for what its own stream does, and for no other."""
    call = Call(row, row.dtypes[0])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for t in tensors(call.arguments):
            t.zero_()
        torch.cuda._sleep(20_000_000)
        call.reset()
        out = call()
    stream.synchronize()
    call.check(out)
