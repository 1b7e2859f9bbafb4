"""The CUDA ops give the bits of the CPU ops, in emulation, on every row of samples.py."""

from __future__ import annotations

import copy

import emulation
import pytest
import torch
from parity import same_bits, tensors
from samples import SAMPLES, Sample

emulation.load()


def has_emulated_kernel(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"torchext_emulated::{name}", "CPU"))


ROWS = [
    s
    for s in SAMPLES
    if has_emulated_kernel(s.name if s.overload == "default" else f"{s.name}.{s.overload}")
]


@pytest.mark.parametrize("shape", [(5, 13), (0,), (1,), (2, 3, 700)], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_same_bits_as_the_cpu(row: Sample, shape: tuple[int, ...]) -> None:
    """Results and every argument that the op writes."""
    if not row.elementwise and shape != (5, 13):
        pytest.skip("the row has a shape of its own")
    emulated = getattr(getattr(torch.ops.torchext_emulated, row.name), row.overload)
    for dtype in row.dtypes:
        ours, theirs = (row.args(row.input(dtype, shape)) for _ in range(2))
        ours, theirs = copy.deepcopy(ours), copy.deepcopy(theirs)
        try:
            want = tensors(row.op(*theirs)) + tensors(theirs)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match=str(error).split(":")[0]):
                emulated(*ours)
            continue
        got = tensors(emulated(*ours)) + tensors(ours)
        assert len(got) == len(want)
        assert all(same_bits(a, b) for a, b in zip(got, want, strict=True)), dtype
