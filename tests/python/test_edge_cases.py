"""The library's rules for awkward inputs, over every public op that takes values."""

from __future__ import annotations

import itertools
import math

import pytest
import samples
import torch
from samples import FLOATS, SAMPLES, Sample
from torch import Tensor
from torch.testing._internal.optests import opcheck

PAIRS = [pytest.param(s, d, id=f"{s}-{str(d)[6:]}") for s in SAMPLES for d in s.dtypes]
VALUES = [s for s in SAMPLES if s.elementwise]
VALUE_PAIRS = [pytest.param(s, d, id=f"{s}-{str(d)[6:]}") for s in VALUES for d in s.dtypes]
FLOAT_SAMPLES = [s for s in VALUES if s.dtypes == FLOATS]
GRID_OPS = [s for s in SAMPLES if s.name == "fake_quantize"]
EXACT_SHAPE = {"fake_quantize"}
SUMS = {"quantization_variance", "rounding_error"}  # 0 without values
NEEDS_VALUES = {"optimal_levels"}


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bits: NaN equals NaN, -0 differs from +0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize(("sample", "dtype"), PAIRS)
def test_opcheck(sample: Sample, dtype: torch.dtype) -> None:
    opcheck(sample.op, sample.args(samples.sample_input(sample, dtype)))


@pytest.mark.parametrize(("sample", "dtype"), VALUE_PAIRS)
def test_empty(sample: Sample, dtype: torch.dtype) -> None:
    if sample.name in NEEDS_VALUES and sample.variant != "buckets":  # no value, no bucket
        with pytest.raises(RuntimeError, match=f"torchext::{sample.name}: x must hold"):
            sample.call(sample.input(dtype, (0, 3)))
        return
    out = sample.call(sample.input(dtype, (0, 3)))
    if sample.name in EXACT_SHAPE:
        assert out.shape == (0, 3)
    elif sample.name in SUMS:
        assert not out.any()
    elif sample.name == "quantization_scale":
        assert torch.isfinite(out).all() and not out.any()
    else:
        assert out.numel() == 0


@pytest.mark.parametrize(("sample", "dtype"), VALUE_PAIRS)
def test_zero_dimensions(sample: Sample, dtype: torch.dtype) -> None:
    x = sample.input(dtype, (1,))
    out = sample.call(x.reshape(()))
    expected = sample.call(x)
    assert same(out.reshape(expected.shape), expected)
    if sample.name in EXACT_SHAPE:
        assert out.shape == ()


@pytest.mark.parametrize(("sample", "dtype"), VALUE_PAIRS)
def test_strides_do_not_matter(sample: Sample, dtype: torch.dtype) -> None:
    square = sample.input(dtype, (6, 10))
    image = sample.input(dtype, (2, 3, 4, 5)).to(memory_format=torch.channels_last)
    for x in (square.t(), square[::2, 1::3], square[:1].expand(4, 10), image):
        before = x.clone()
        assert same(sample.call(x), sample.call(x.contiguous()))
        assert torch.equal(x, before)


@pytest.mark.parametrize(("sample", "dtype"), VALUE_PAIRS)
def test_misaligned(sample: Sample, dtype: torch.dtype) -> None:
    for shift, n in itertools.product((1, 2, 3), (1, 63, 64, 65, 200)):
        base = sample.input(dtype, (n + shift,))
        assert same(sample.call(base[shift:]), sample.call(base[shift:].clone()))


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_outputs_are_fresh(sample: Sample) -> None:
    x = samples.sample_input(sample, sample.dtypes[0])
    out = sample.call(x)
    assert out.is_contiguous()
    assert out.numel() == 0 or out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_threads_do_not_matter(sample: Sample) -> None:
    dtype = sample.dtypes[0]
    if dtype in (torch.int64, torch.uint64):
        x = sample.input(dtype)
    else:
        x = sample.input(dtype, (70_000,))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(sample.call(x))
    finally:
        torch.set_num_threads(before)
    assert same(results[0], results[1]) and same(results[0], results[2])


@pytest.mark.parametrize("sample", FLOAT_SAMPLES, ids=str)
def test_nan_never_becomes_a_value(sample: Sample) -> None:
    """Float outputs propagate NaN; codes use the reserved one or the op says which element."""
    x = sample.input(torch.float32, (70,))
    x[66] = math.nan
    try:
        out = sample.call(x)
    except RuntimeError as error:
        text = str(error)
        assert text.startswith(f"torchext::{sample.name}: ") and "nan" in text and "66" in text
        return
    if sample.name == "quantize":  # the symmetric grid has a code for it
        scale = torch.tensor([0.35])
        out = torch.ops.torchext.dequantize(out, scale, None, [70], 4, "symmetric", None, None)
        assert out[66].isnan() and out[:66].isfinite().all()
    elif sample.name == "fake_quantize":
        assert out[66].isnan() and out[:66].isfinite().all()
    else:
        assert out.isnan().any()


@pytest.mark.parametrize("sample", GRID_OPS, ids=str)
def test_infinity_saturates(sample: Sample) -> None:
    x = sample.input(torch.float32, (66,))
    x[64], x[65] = math.inf, -math.inf
    out = sample.call(x)
    big = x.clone()
    big[64], big[65] = 1e6, -1e6
    assert same(out, sample.call(big)) and out.isfinite().all()
    assert out[64] == out.max() and out[65] == out.min()


@pytest.mark.parametrize("sample", GRID_OPS, ids=str)
def test_zeros_have_no_sign(sample: Sample) -> None:
    minus = sample.call(torch.full((70,), -0.0))
    plus = sample.call(torch.zeros(70))
    assert same(minus, plus)
    zeros = plus[plus == 0]
    assert not torch.signbit(zeros).any()


@pytest.mark.parametrize("scale", [0.0, 1e-40])
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_a_scale_that_counts_as_zero(scale: float, rounding: str) -> None:
    x = torch.linspace(-3, 3, 70)
    key = samples.KEY if rounding == "stochastic" else None
    out = torch.ops.torchext.fake_quantize(
        x, torch.tensor([scale]), None, 4, "symmetric", None, None, rounding, key
    )
    assert same(out, torch.zeros(70))


@pytest.mark.parametrize("sample", GRID_OPS, ids=str)
def test_subnormal_inputs_are_honoured(sample: Sample) -> None:
    x = torch.full((66,), 1e-42)
    out = sample.call(x)
    assert out.isfinite().all()


@pytest.mark.slow
def test_more_than_two_to_31_elements() -> None:
    n = 2**31 + 65
    codes = torch.zeros(n, dtype=torch.uint8)
    codes[-1] = 1
    codes[2**31] = 1
    packed = torch.ops.torchext.pack_bits(codes, 1)
    del codes
    assert packed.numel() == (n + 7) // 8
    assert (
        packed.sum().item() == 1 + 1 and packed[2**31 // 8].item() == 1 and packed[-1].item() == 1
    )
    out = torch.ops.torchext.unpack_bits(packed, n, 1)
    assert out[-1].item() == 1 and out[2**31].item() == 1 and out[2**31 - 1].item() == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_wrong_dtype_is_named(sample: Sample) -> None:
    """Every op refuses complex input in its own words: no file name, no C++ type."""
    x = torch.zeros(2, dtype=torch.complex64)
    with pytest.raises(RuntimeError) as caught:
        sample.call(x)
    text = str(caught.value)
    assert (
        text.startswith(f"torchext::{sample.name}: ") and " must be " in text and ", got " in text
    )
    assert ".cpp" not in text and ".h:" not in text
