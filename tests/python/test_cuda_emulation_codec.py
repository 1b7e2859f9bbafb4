"""The codec on CUDA, in emulation: formats, channels, dtypes, strides, ends, and values the CPU refuses."""

from __future__ import annotations

import itertools
from typing import Any

import emulation
import pytest
import torch
from parity import same_but_nan
from torch import Tensor

import torchext
from torchext import _load, ops, quantization, random

emulation.load()

cpu: Any = torch.ops.torchext
gpu: Any = torch.ops.torchext_emulated

KEY = random.key_from_seed(2026)
NAN, INF = float("nan"), float("inf")
# Tiles have 1024 elements, a lane's turn 4, a packed unit of a lane 32.
SIZES = (1, 3, 31, 33, 1023, 1024, 2077)


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))
    return x.to(dtype)


def same(got: Any, want: Any) -> bool:
    if isinstance(want, tuple):
        return all(same(g, w) for g, w in zip(got, want, strict=True))
    assert got.dtype == want.dtype and got.shape == want.shape
    return same_but_nan(got, want)


def table(x: Tensor, count: int) -> Tensor:
    return torch.linspace(-2, 2, count) ** 3 / 4


def formats(x: Tensor, bits: int, dim: int | None, bucket: int | None) -> list[tuple[Any, ...]]:
    """(scale, levels, bits, scheme, dim, bucket_size) of every scheme, scales from the data."""
    made: list[tuple[Any, ...]] = [
        (cpu.quantization_scale(x, bits, "minmax", dim, bucket), None, bits, "minmax", dim, bucket)
    ]
    if bits > 1:
        scale = cpu.quantization_scale(x, bits, "symmetric", dim, bucket)
        made.append((scale, None, bits, "symmetric", dim, bucket))
    channels = made[0][0].shape[0]
    levels = table(x, 2**bits)
    made.append((None, levels, bits, "levels", dim, bucket))
    made.append((torch.linspace(0.5, 2, channels), levels, bits, "levels", dim, bucket))
    own = levels * torch.linspace(0.5, 2, channels)[:, None]
    if bits > 1:
        own[:, -1] = own[:, -2]  # padding
    made.append((None, own, bits, "levels", dim, bucket))
    return made


def check_codec(x: Tensor, format: tuple[Any, ...]) -> None:
    for rounding, key in (("stochastic", KEY), ("nearest", None)):
        codes = cpu.quantize(x, *format, rounding, key, 3)
        assert same(gpu.quantize(x, *format, rounding, key, 3), codes), (format, rounding)
        values = (*format[:2], list(x.shape), *format[2:])
        assert same(gpu.dequantize(codes, *values), cpu.dequantize(codes, *values)), format
        want = cpu.fake_quantize(x, *format, rounding, key, 3)
        assert same(gpu.fake_quantize(x, *format, rounding, key, 3), want), (format, rounding)
    assert same(gpu.quantization_variance(x, *format), cpu.quantization_variance(x, *format))


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_width_and_scheme(bits: int) -> None:
    for format in formats(values(1061), bits, None, None):
        check_codec(values(1061), format)


@pytest.mark.parametrize("n", SIZES)
def test_ragged_ends(n: int) -> None:
    for bits in (3, 8):
        for format in formats(values(n), bits, None, None)[:3]:
            check_codec(values(n), format)


@pytest.mark.parametrize(
    ("shape", "dim", "bucket"),
    [
        ((5, 300), 0, None),  # runs that are not a multiple of anything
        ((3, 1100), 0, None),  # a tile of one channel
        ((150, 7), 1, None),
        ((2, 1500), 1, None),  # more channels than a tile has elements
        ((6, 5, 40), 1, None),  # channels come back after a turn
        ((6, 40, 8), 1, None),
        ((300, 2, 2), -1, None),
        ((1333,), None, 8),
        ((1333,), None, 64),
        ((2500,), None, 2048),
        ((40, 3), 1, None),
        ((1, 9), 0, None),
        ((9, 0), 0, None),
        ((0,), None, 8),
    ],
    ids=str,
)
def test_channels(shape: tuple[int, ...], dim: int | None, bucket: int | None) -> None:
    x = values(*shape)
    for format in formats(x, 4, dim, bucket):
        check_codec(x, format)
    for scheme in ("symmetric", "minmax"):
        for dtype in (torch.float32, torch.bfloat16):
            arguments = (x.to(dtype), 5, scheme, dim, bucket)
            assert same(gpu.quantization_scale(*arguments), cpu.quantization_scale(*arguments))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    x = values(1100, dtype=dtype)
    x[:6] = torch.tensor([NAN, INF, -INF, -0.0, 1e-42, 3e38]).to(dtype)
    format = (torch.tensor([0.1]), None, 4, "symmetric", None, None)
    check_codec_with_nan(x, format)
    for format in formats(x[6:], 4, None, None):
        check_codec(x[6:], format)


def check_codec_with_nan(x: Tensor, format: tuple[Any, ...]) -> None:
    for rounding, key in (("stochastic", KEY), ("nearest", None)):
        codes = cpu.quantize(x, *format, rounding, key, 3)
        assert same(gpu.quantize(x, *format, rounding, key, 3), codes)
        want = cpu.fake_quantize(x, *format, rounding, key, 3)
        assert same(gpu.fake_quantize(x, *format, rounding, key, 3), want)


def test_awkward_values_and_scales() -> None:
    x = values(100)
    x[:7] = torch.tensor([NAN, INF, -INF, -0.0, 1e-42, 3e38, -1e-30])
    for step in (0.25, 0.1, 0.0, 1e-40):
        check_codec_with_nan(x, (torch.tensor([step]), None, 4, "symmetric", None, None))
    finite = x.clone()
    finite[0] = 0.5
    for step in (0.25, 0.0, 1e-40):
        pair = torch.tensor([[-0.0, step]])
        want_error = step < 1e-38  # infinity has no code where the spacing counts as 0
        probe = finite[3:] if want_error else finite
        check_codec(probe, (pair, None, 4, "minmax", None, None))
        levels = torch.tensor([-1.0, 0.5, 2.0, 2.0])
        check_codec(probe, (torch.tensor([step]), levels, 2, "levels", None, None))
    constant = torch.full((40,), 0.7)
    check_codec(constant, (None, torch.tensor([0.7, 0.7]), 1, "levels", None, None))
    check_codec(constant, (torch.tensor([[0.7, 0.0]]), None, 3, "minmax", None, None))


def test_strides_and_alignment() -> None:
    x = values(50, 60)
    for y in (x.t(), x[1:, 3:], x.reshape(-1)[1:], x[::2], x[0].expand(20, 60)):
        check_codec(y, (torch.tensor([0.3]), None, 4, "symmetric", None, None))
    codes = torch.cat([torch.zeros(1, dtype=torch.uint8), cpu.pack_bits(byte_codes(1100, 3), 3)])
    arguments = (torch.tensor([0.5]), None, [1100], 3, "symmetric", None, None)
    assert same(gpu.dequantize(codes[1:], *arguments), cpu.dequantize(codes[1:], *arguments))
    assert same(gpu.unpack_bits(codes[1:], 1100, 3), byte_codes(1100, 3))


def byte_codes(n: int, bits: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 2**bits, (n,), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_streams(bits: int) -> None:
    for n in (0, *SIZES):
        codes = byte_codes(n, bits)
        packed = cpu.pack_bits(codes, bits)
        assert same(gpu.pack_bits(codes, bits), packed)
        assert same(gpu.unpack_bits(packed, n, bits), codes)
        assert same(gpu.pack_bits(torch.cat([codes[:1], codes])[1:], bits), packed)  # misaligned


def test_every_code_decodes() -> None:
    """Also codes that no encoder writes."""
    codes = torch.arange(256, dtype=torch.uint8)
    for scheme, scale, levels in (
        ("symmetric", torch.tensor([0.3]), None),
        ("minmax", torch.tensor([[-1.0, 0.3]]), None),
        ("levels", None, torch.linspace(-1, 1, 200)),
    ):
        arguments = (scale, levels, [256], 8, scheme, None, None)
        assert same(gpu.dequantize(codes, *arguments), cpu.dequantize(codes, *arguments))


@pytest.mark.parametrize(
    ("form", "draws", "count"),
    [("bits", 2, 5), ("bits", 4, 16), ("count", 3, 9), ("count", 8, 17), ("ternary", 2, 33),
     ("ternary", 2, 2), ("bits", 1, 2)],
)  # fmt: skip
def test_draws(form: str, draws: int, count: int) -> None:
    for shape, dim in (((1029,), None), ((7, 31), 0), ((64, 5), 1), ((0,), None), ((3,), None)):
        x = values(*shape)
        levels = table(x, count)
        if dim is not None:
            levels = levels * torch.linspace(0.5, 2, x.shape[dim])[:, None]
        for dtype in (torch.float32, torch.bfloat16):
            codes = cpu.quantize_draws(x.to(dtype), levels, draws, form, dim, KEY, 3)
            assert same(gpu.quantize_draws(x.to(dtype), levels, draws, form, dim, KEY, 3), codes)
        for draw in range(draws):
            arguments = (levels, list(shape), draws, form, dim, draw, KEY, 5)
            want = cpu.dequantize_draws(codes, *arguments)
            assert same(gpu.dequantize_draws(codes, *arguments), want)


def test_keys() -> None:
    for key in (KEY, KEY.view(torch.uint64), torch.tensor([-1, -1])):
        for data in (0, 1, 2**32 - 1):
            assert same(gpu.fold_in(key, data), cpu.fold_in(key, data))
        many = torch.tensor([2**40 + 7])
        assert same(gpu.fold_in.Tensor(key, many), cpu.fold_in.Tensor(key, many))
        for n in (0, 1, 300):
            assert same(gpu.split(key, n), cpu.split(key, n))
            assert same(gpu._philox(key, n, 7, 2), cpu._philox(key, n, 7, 2))


def test_long_sums() -> None:
    """More than one level of the tree of chunks."""
    x = values(1024 * 9 + 5)
    for format in formats(x, 4, None, None)[:3]:
        assert same(gpu.quantization_variance(x, *format), cpu.quantization_variance(x, *format))
    assert same(
        gpu.quantization_scale(x, 4, "minmax", None, None),
        cpu.quantization_scale(x, 4, "minmax", None, None),
    )


ERRORS = [
    ((2100,), None, None),
    ((5, 300), 0, None),
    ((64, 9), 1, None),
    ((1500,), None, 7),
    ((1500,), None, 256),
    ((4, 0), 0, None),
    ((0,), None, None),
]


@pytest.mark.parametrize(("shape", "dim", "bucket"), ERRORS, ids=str)
def test_rounding_error(shape: tuple[int, ...], dim: int | None, bucket: int | None) -> None:
    x = values(*shape).double()
    groups = cpu.rounding_error(x, torch.zeros(1), None, dim, bucket, "nearest")[0].numel()
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    shared, single = torch.linspace(-1, 1.5, 9), torch.tensor([0.25, 0.25])
    own = shared * torch.linspace(0.5, 2, max(1, groups))[:groups, None]
    tables = (shared, single, own) if dim is not None or bucket is not None else (shared, single)
    for levels, (w, factor), rounding in itertools.product(
        tables, ((None, 1.0), (None, 1e200), (weight, 1e-200)), ("stochastic", "nearest")
    ):
        arguments = (levels.double() * factor, w, dim, bucket, rounding)
        want = cpu.rounding_error(x * factor, *arguments)
        assert same(gpu.rounding_error(x * factor, *arguments), want)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        arguments = (shared.to(dtype), None, dim, bucket, "stochastic")
        want = cpu.rounding_error(x.to(dtype), *arguments)
        assert same(gpu.rounding_error(x.to(dtype), *arguments), want)


def test_sums_of_very_different_terms() -> None:
    x = torch.tensor([1e-12, 3e7, -2.5, 1e-30, 0.0, 1e15] * 50, dtype=torch.float64)
    levels = torch.tensor([-1.0, 0.0, 1.0])
    want = cpu.rounding_error(x, levels, None, None, 60, "stochastic")
    assert same(gpu.rounding_error(x, levels, None, None, 60, "stochastic"), want)


# What the CPU refuses after looking at values has a documented result.


def test_values_without_a_code() -> None:
    x = torch.tensor([0.45, NAN, 0.1])
    levels = torch.tensor([0.0, 0.5, 1.0])
    codes = gpu.quantize(x, None, levels, 2, "levels", None, None, "nearest", None)
    decoded = gpu.dequantize(codes, None, levels, [3], 2, "levels", None, None)
    assert decoded.isnan().tolist() == [False, True, False]
    full = torch.tensor([0.0, 0.3, 0.5, 1.0])
    codes = gpu.quantize(x, None, full, 2, "levels", None, None, "nearest", None)
    assert gpu.unpack_bits(codes, 3, 2).tolist() == [2, 0, 0]
    pair = torch.tensor([[-1.0, 0.5]])
    codes = gpu.quantize(x, pair, None, 2, "minmax", None, None, "nearest", None)
    assert gpu.unpack_bits(codes, 3, 2).tolist() == [3, 0, 2]
    for rounding, key in (("nearest", None), ("stochastic", KEY)):
        y = gpu.fake_quantize(x, pair, None, 2, "minmax", None, None, rounding, key)
        assert y.isnan().tolist() == [False, True, False]
    codes = gpu.quantize_draws(x, full, 2, "bits", None, KEY)
    assert gpu.unpack_bits(codes, 3, 4)[1] == 0


@pytest.mark.parametrize("bad", [-1.0, NAN, INF])
def test_scales_that_the_cpu_refuses_make_nan(bad: float) -> None:
    x = values(2, 20)
    scale = torch.tensor([bad, 0.5])
    y = gpu.fake_quantize(x, scale, None, 4, "symmetric", 0, None, "nearest", None)
    assert y[0].isnan().all() and not y[1].isnan().any()
    codes = gpu.quantize(x, scale, None, 4, "symmetric", 0, None, "nearest", None)
    assert (gpu.unpack_bits(codes, 40, 4)[:20] == 15).all()
    assert gpu.dequantize(codes, scale, None, [2, 20], 4, "symmetric", 0, None)[0].isnan().all()
    assert gpu.quantization_variance(x, scale, None, 4, "symmetric", 0, None).isnan()
    for pair in ([bad, 0.5], [0.0, bad]):
        if pair == [-1.0, 0.5]:
            continue  # a lower end may be negative
        both = torch.tensor([pair, [0.0, 0.5]])
        y = gpu.fake_quantize(x, both, None, 4, "minmax", 0, None, "nearest", None)
        assert y[0].isnan().all() and not y[1].isnan().any()


def test_scales_of_values_that_are_not_finite_are_nan() -> None:
    x = values(4, 30)
    x[0, 3], x[1, 5] = NAN, -INF
    want = cpu.quantization_scale(x[2:], 4, "symmetric", 0, None)
    scale = gpu.quantization_scale(x, 4, "symmetric", 0, None)
    assert scale.isnan().tolist() == [True, True, False, False] and torch.equal(scale[2:], want)
    pairs = gpu.quantization_scale(x, 4, "minmax", 0, None)
    assert pairs.isnan().tolist() == [[True] * 2, [True] * 2, [False] * 2, [False] * 2]
    wide = torch.tensor([-3e38, 3e38])
    assert gpu.quantization_scale(wide, 4, "minmax", None, None).isnan().all()


def test_codes_beyond_the_width_lose_their_high_bits() -> None:
    codes = torch.tensor([1, 18, 255], dtype=torch.uint8)
    assert gpu.unpack_bits(gpu.pack_bits(codes, 4), 3, 4).tolist() == [1, 2, 15]


def test_errors_of_groups_that_the_cpu_refuses_are_nan() -> None:
    x, weight, levels = values(6, 40), torch.ones(6, 40), torch.linspace(-1, 1, 5)
    want = cpu.rounding_error(x, levels, weight, 0, None, "stochastic")
    bad_x, bad_weight, bad_levels = x.clone(), weight.clone(), levels.repeat(6, 1)
    bad_x[0, 1], bad_x[1, 2] = NAN, INF
    bad_weight[2, 3] = -1.0
    bad_levels[3, 2], bad_levels[4, 1] = NAN, 9.0
    got = gpu.rounding_error(bad_x, bad_levels, bad_weight, 0, None, "stochastic")
    assert got[0].isnan().tolist() == got[1].isnan().tolist() == [True] * 5 + [False]
    assert got[2].tolist() == [-1] * 5 + [want[2][5].item()]
    assert got[0][5] == want[0][5] and got[1][5] == want[1][5]
    shared = gpu.rounding_error(x, torch.tensor([1.0, 0.0, 2.0]), None, 0, None, "nearest")
    assert shared[0].isnan().all() and shared[2].eq(-1).all()


def test_the_python_api_on_the_cuda_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Default scales, draws and what decodes them, as on a GPU."""

    def results() -> list[Tensor]:
        x = values(12, 50)
        q = torchext.quantize(x, 4, dim=0, key=KEY)
        draws = torchext.quantize_draws(x, torch.linspace(-3, 3, 9), 2, form="ternary", key=KEY)
        assert q.scale is not None
        rounded = torchext.fake_quantize(x, 3, scheme="minmax", bucket_size=8, key=KEY)
        variance = torchext.quantization_variance(x, 4, dim=0)
        error = torchext.rounding_error(x, torch.linspace(-1, 1, 5))
        return [q.codes, q.scale, q.dequantize(), q.unpack(), rounded, variance, draws.codes,
                draws.dequantize(1), *error]  # fmt: skip

    want = results()
    monkeypatch.setattr(ops, "_ops", gpu)
    assert all(same(g, w) for g, w in zip(results(), want, strict=True))


def test_keys_follow_the_tensor() -> None:
    assert random.key_on(KEY, "cpu") is KEY
    x = torch.empty(4, device="meta")
    key = quantization._key(x, "stochastic", KEY)
    assert key is not None and key.device == x.device
    assert torchext.quantize(x, 4, scale=0.5, key=KEY).codes.device == x.device


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses import FakeTensorMode

    monkeypatch.setattr(_load, "cuda_error", ImportError("torchext: cannot load _C_cuda"))
    with FakeTensorMode():
        x = torch.empty(4, device="cuda")
        for call in (torchext.quantize, torchext.fake_quantize, torchext.quantization_variance):
            with pytest.raises(ImportError, match="cannot load _C_cuda"):
                call(x, 4)
        with pytest.raises(ImportError, match="cannot load _C_cuda"):
            torchext.quantize_draws(x, torch.empty(5))


ARGUMENTS = (torch.tensor([0.5]), None, 4, "symmetric", None, None, "stochastic", KEY)


@pytest.mark.parametrize(
    ("position", "wrong"),
    [
        (0, None),
        (0, torch.tensor([0.5, 0.5])),
        (0, torch.tensor([0.5]).double()),
        (1, torch.zeros(4)),
        (2, 9),
        (2, 1),
        (3, "linear"),
        (4, 3),
        (5, 9),
        (6, "up"),
        (7, None),
        (7, torch.zeros(3, dtype=torch.int64)),
    ],
    ids=str,
)
def test_the_same_errors_as_on_the_cpu(position: int, wrong: object) -> None:
    arguments = (*ARGUMENTS[:position], wrong, *ARGUMENTS[position + 1 :])
    with pytest.raises(RuntimeError) as expected:
        cpu.quantize(values(16), *arguments)
    with pytest.raises(RuntimeError) as found:
        gpu.quantize(values(16), *arguments)
    assert str(found.value) == str(expected.value)
