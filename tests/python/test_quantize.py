"""Codes and values bit for bit: against the numpy model, across instruction sets and threads."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import quantize_model as model
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchext
from torchext import _testing, ops

SEED = 0x0123456789ABCDEF
KEY = torchext.random.key_from_seed(SEED)
SPECIALS = [0.0, -0.0, 1e-40, -1e-40, 1e-30, -1e-30, 1e30, -1e30, math.inf, -math.inf, 8388608.5]
VECTORS = Path(__file__).parent.parent / "vectors"


def values(n: int, nan: bool = False) -> torch.Tensor:
    x = torch.tensor([((i * 7919) % 4001 - 2000) / 700 for i in range(n)])
    for k, special in enumerate(SPECIALS + ([math.nan] if nan else [])):
        if 3 * k + 1 < n:
            x[3 * k + 1] = special
    return x


def test_golden_stochastic_codes() -> None:
    x = torch.tensor([((37 * i) % 64 - 32) / 16 for i in range(20)])
    codes = ops.quantize(x, torch.tensor([0.25]), None, 4, "symmetric", key=KEY, stream=3)
    expected = [-7, 1, -5, 3, -3, 6, 0, -7, 2, -5, 4, -2, 7, 0, -7, 2, -4, 5, -1, 7]
    assert (ops.unpack_bits(codes, 20, 4).int() - 7).tolist() == expected


def test_golden_file() -> None:
    """Packed bytes of every scheme and width, written from the model, not from the library."""
    cases = json.loads((VECTORS / "quantize_v1.json").read_text())["cases"]
    assert len(cases) >= 40
    for case in cases:
        x = torch.tensor(case["x"])
        scale = None if case["scale"] is None else torch.tensor(case["scale"])
        levels = None if case["levels"] is None else torch.tensor(case["levels"])
        key = torchext.random.key_from_seed(SEED) if case["rounding"] == "stochastic" else None
        codes = ops.quantize(
            x, scale, levels, case["bits"], case["scheme"], None, None, case["rounding"], key, 5
        )
        assert bytes(codes.tolist()).hex() == case["codes"], case


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_equals_the_model(bits: int, stochastic: bool) -> None:
    n = 150
    x = values(n, nan=True)
    u = model.uniforms(n, SEED, stream=2) if stochastic else None
    for dim, bucket, channels in ((None, None, 1), (0, None, 6), (1, None, 25), (None, 40, 4)):
        step = torch.tensor([2.7 / 2 ** (bits - 1) * (1 + c / 7) for c in range(channels)])
        step[0] = 1e-39 if channels == 25 else step[0]
        shaped = x.view(6, 25)
        rounding = "stochastic" if stochastic else "nearest"
        codes = ops.quantize(shaped, step, None, bits, "symmetric", dim, bucket, rounding, KEY, 2)
        wide = step.numpy()[model.channel_of((6, 25), dim, bucket)]
        with np.errstate(invalid="ignore", over="ignore"):
            expected = model.encode_symmetric(x.numpy(), wide, bits, u)
        assert codes.tolist() == model.pack(expected, bits)
        decoded = ops.dequantize(codes, step, None, [6, 25], bits, "symmetric", dim, bucket)
        assert decoded.numpy().tobytes() == model.decode_symmetric(expected, wide, bits).tobytes()
        trip = ops.fake_quantize(
            shaped, step, None, bits, "symmetric", dim, bucket, rounding, KEY, 2
        )
        assert trip.numpy().tobytes() == decoded.numpy().tobytes()


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("bits", range(1, 9))
def test_minmax_equals_the_model(bits: int, stochastic: bool) -> None:
    n = 150
    x = values(n)
    u = model.uniforms(n, SEED) if stochastic else None
    rounding = "stochastic" if stochastic else "nearest"
    for dim, bucket, channels in ((None, None, 1), (1, None, 25), (None, 40, 4)):
        scale = torch.tensor(
            [[-2.8 + 0.01 * c, 5.5 / 2**bits * (1 + c / 9)] for c in range(channels)]
        )
        codes = ops.quantize(x.view(6, 25), scale, None, bits, "minmax", dim, bucket, rounding, KEY)
        wide = scale.numpy()[model.channel_of((6, 25), dim, bucket)]
        with np.errstate(invalid="ignore", over="ignore"):
            expected = model.encode_minmax(x.numpy(), wide[:, 0], wide[:, 1], bits, u)
        assert codes.tolist() == model.pack(expected, bits)
        decoded = (
            ops.dequantize(codes, scale, None, [n], bits, "minmax", None, bucket)
            if dim is None
            else None
        )
        if decoded is not None:
            assert (
                decoded.numpy().tobytes()
                == model.decode_minmax(expected, wide[:, 0], wide[:, 1]).tobytes()
            )


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4, 7, 15, 16, 17, 100, 256])
def test_levels_equal_the_model(count: int, stochastic: bool) -> None:
    n = 140
    x = values(n)
    u = model.uniforms(n, SEED) if stochastic else None
    bits = max(1, (count - 1).bit_length())
    table = torch.tensor([-2.6 + 5.1 * (i / (count - 1)) ** 1.5 for i in range(count)])
    padded = table.clone()
    padded[-(count // 3) :] = padded[-(count // 3) - 1] if count > 3 else padded[-1]
    rounding = "stochastic" if stochastic else "nearest"
    for levels in (table, padded):
        for scale in (None, torch.tensor([1.3])):
            codes = ops.quantize(x, scale, levels, bits, "levels", None, None, rounding, KEY)
            wide = np.full(n, 1.0 if scale is None else 1.3, dtype=np.float32)
            with np.errstate(invalid="ignore", over="ignore"):
                expected = model.encode_levels(x.numpy(), levels.tolist(), wide, u)
            assert codes.tolist() == model.pack(expected, bits)
            decoded = ops.dequantize(codes, scale, levels, [n], bits, "levels")
            assert torch.equal(decoded, levels[torch.tensor(expected)] * torch.tensor(wide) + 0.0)


@pytest.mark.parametrize("dim", [0, 1])
def test_one_table_per_channel(dim: int) -> None:
    x = values(40 * 70).view(40, 70)
    tables = torch.stack([torch.linspace(-2 - c / 50, 2 + c / 99, 11) for c in range(x.shape[dim])])
    codes = ops.quantize(x, None, tables, 4, "levels", dim, None, "stochastic", KEY)
    got = ops.unpack_bits(codes, x.numel(), 4).view(x.shape)
    uniform = ops.fake_quantize(x, None, tables, 4, "levels", dim, None, "stochastic", KEY)
    for c in (0, 1, x.shape[dim] - 1):
        column = torch.zeros_like(x)
        column.copy_(x.select(dim, c).unsqueeze(dim))
        alone = ops.quantize(column, None, tables[c], 4, "levels", None, None, "stochastic", KEY)
        alone_codes = ops.unpack_bits(alone, x.numel(), 4).view(x.shape).select(dim, c)
        assert torch.equal(got.select(dim, c), alone_codes)
        assert torch.equal(uniform.select(dim, c), tables[c][alone_codes.long()])


FORMATS = [("symmetric", b) for b in (2, 3, 5, 8)] + [("minmax", b) for b in (1, 4, 6, 7)]
FORMATS += [("levels", b) for b in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
@pytest.mark.parametrize(("scheme", "bits"), FORMATS)
def test_instruction_sets_agree(isa: str, scheme: str, bits: int) -> None:
    levels = torch.linspace(-2.5, 2.5, 2**bits) ** 3 / 6 if scheme == "levels" else None
    memory = values(132, nan=scheme == "symmetric")

    def run(start: int, n: int, rounding: str) -> list[bytes]:
        x = memory[start : start + n]
        if scheme == "minmax":
            scale: torch.Tensor | None = torch.tensor([[-2.5, 5.0 / (2**bits - 1)]])
        else:
            scale = None if scheme == "levels" else torch.tensor([2.5 / (2 ** (bits - 1) - 1)])
        codes = ops.quantize(x, scale, levels, bits, scheme, None, None, rounding, KEY, 11)
        back = ops.dequantize(codes, scale, levels, [n], bits, scheme)
        trip = ops.fake_quantize(x, scale, levels, bits, scheme, None, None, rounding, KEY, 11)
        plain = ops.unpack_bits(codes, n, bits)
        return [t.numpy().tobytes() for t in (codes, back, trip, plain, ops.pack_bits(plain, bits))]

    cases = [
        (start, n, r)
        for n in range(130)
        for start in (0, 1 + n % 3)
        for r in ("stochastic", "nearest")
    ]
    with _testing.isa("ref"):
        expected = [run(start, n, r) for start, n, r in cases]
    with _testing.isa(isa) as present:
        if not present:
            pytest.skip(f"this processor lacks {isa}")
        for case, want in zip(cases, expected, strict=True):
            assert run(*case) == want, case


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=4),
    bits=st.integers(2, 8),
    scheme=st.sampled_from(["symmetric", "minmax"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    layout=st.sampled_from(["plain", "transposed", "expanded", "strided"]),
    grouping=st.sampled_from(["tensor", "dim", "bucket"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_round_trip_stays_within_one_step(
    shape: list[int],
    bits: int,
    scheme: str,
    dtype: torch.dtype,
    layout: str,
    grouping: str,
    seed: int,
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed % 1000)).to(dtype)
    if layout == "transposed" and x.dim() >= 2:
        x = x.transpose(0, -1)
    if layout == "expanded":
        x = x.unsqueeze(0).expand(3, *x.shape)
    if layout == "strided" and x.dim() >= 1:
        x = x[::2]
    dim = x.dim() - 1 if grouping == "dim" and x.dim() else None
    bucket = 16 if grouping == "bucket" else None
    key = torchext.random.key_from_seed(seed)
    q = torchext.quantize(x, bits, scheme=scheme, dim=dim, bucket_size=bucket, key=key)
    assert q.codes.numel() == math.ceil(x.numel() * bits / 8)
    y = q.dequantize(torch.float32)
    assert y.shape == x.shape and q.dequantize().dtype == dtype
    assert q.scale is not None
    steps = (q.scale[:, 1] if scheme == "minmax" else q.scale).numpy()
    wide = steps[model.channel_of(tuple(x.shape), dim, bucket)].reshape(x.shape)
    error = (y - x.float()).abs().numpy()
    assert (error <= wide * (1 + 1e-5) + 1e-7).all()
    trip = torchext.fake_quantize(x, bits, scheme=scheme, dim=dim, bucket_size=bucket, key=key)
    assert torch.equal(trip, y.to(dtype))
    assert torch.equal(torchext.quantize(y, bits, scheme=scheme, dim=dim, bucket_size=bucket, scale=q.scale,
                                         rounding="nearest").codes, q.codes)  # fmt: skip


@pytest.mark.parametrize("bits", range(2, 9))
def test_power_of_two_grids_are_idempotent(bits: int) -> None:
    q = 2 ** (bits - 1) - 1
    x = torch.arange(-q, q + 1, dtype=torch.float32) * 0.125
    for seed in range(20):
        out = torchext.fake_quantize(x, bits, scale=0.125, key=torchext.random.key_from_seed(seed))
        assert torch.equal(out, x)


@pytest.mark.parametrize("scheme", ["symmetric", "minmax"])
def test_scales_cover_the_values(scheme: str) -> None:
    x = values(9 * 16).view(9, 16).nan_to_num(0.0, 1.0, -1.0)
    x[:, 3], x[:, 4], x[0] = 1.5, 0.0, 1e-41
    for bits, (dim, bucket) in [
        (b, g) for b in (2, 4, 8) for g in ((None, None), (0, None), (1, None), (None, 24))
    ]:
        scale = ops.quantization_scale(x, bits, scheme, dim, bucket)
        channel = model.channel_of((9, 16), dim, bucket)
        flat = x.reshape(-1).numpy()
        for c in range(channel.max() + 1):
            part = flat[channel == c]
            if scheme == "symmetric":
                step = np.float32(np.abs(part).max()) / np.float32(2 ** (bits - 1) - 1)
                assert scale[c].item() == (step if step >= 2.0**-126 else 0.0)
            else:
                lo, step = scale[c].tolist()
                assert lo == part.min() and not math.copysign(1, lo) < 0 <= lo
                exact = Fraction(float(part.max())) - Fraction(float(part.min()))
                if step == 0:
                    assert exact < Fraction(2) ** -120
                else:
                    top = np.float32(lo) + np.float32(2**bits - 1) * np.float32(step)
                    assert top >= part.max()
                    assert step <= float(exact / (2**bits - 1)) * (1 + 2.0**-20) + 2e-7 * abs(lo)


@pytest.mark.parametrize("scheme", ["symmetric", "minmax", "levels"])
def test_variance_equals_the_formula(scheme: str) -> None:
    x = torch.tensor([-3.0, -1.0, -0.3, 0.0, 0.2, 0.5, 0.9, 1.0, 4.0])
    levels = torch.tensor([-1.0, 0.0, 0.5, 1.0]) if scheme == "levels" else None
    scale = {
        "symmetric": torch.tensor([0.5]),
        "minmax": torch.tensor([[-1.0, 0.5]]),
        "levels": None,
    }[scheme]
    bits = 2 if scheme == "levels" else 3
    grid = {
        "symmetric": [k * 0.5 for k in range(-3, 4)],
        "minmax": [-1 + k * 0.5 for k in range(8)],
    }
    points = [Fraction(v) for v in (grid.get(scheme) or [-1.0, 0.0, 0.5, 1.0])]
    expected = Fraction(0)
    for v in (Fraction(v) for v in x.tolist()):
        below, above = [p for p in points if p <= v], [p for p in points if p >= v]
        if below and above:
            expected += (above[0] - v) * (v - below[-1])
    got = ops.quantization_variance(x, scale, levels, bits, scheme)
    assert got.item() == pytest.approx(float(expected), rel=1e-6)
    assert ops.quantization_variance(torch.tensor([math.nan]), scale, levels, bits, scheme).isnan()


def test_published_rounding_examples() -> None:
    unit = torch.tensor([0.0, 1.0])
    assert torchext.quantization_variance(
        torch.tensor([0.3]), 1, levels=unit
    ).item() == pytest.approx(0.21, rel=1e-6)
    thirds = torch.tensor([0, 1 / 3, 2 / 3, 1])
    assert torchext.quantization_variance(
        torch.tensor([0.5]), 2, levels=thirds
    ).item() == pytest.approx(1 / 36, rel=1e-6)
    on_level = torchext.quantization_variance(thirds, 2, levels=thirds)
    assert on_level.item() == 0


@pytest.mark.parametrize(
    ("bits", "codes", "expected"),
    [
        (4, [0, 6, 7, 8, 14, 10, 4, 7], "6087ae74"),
        (3, [0, 2, 3, 4, 6, 5, 1, 3], "d0e866"),
        (2, [0, 1, 2, 1, 2, 2, 0, 1], "644a"),
        (8, [0, 126, 127, 128, 254, 132, 122, 127], "007e7f80fe847a7f"),
        (5, [0, 31, 1, 2, 3, 4, 5, 30], "e0073148f1"),
    ],
)
def test_published_packings(bits: int, codes: list[int], expected: str) -> None:
    packed = ops.pack_bits(torch.tensor(codes, dtype=torch.uint8), bits)
    assert bytes(packed.tolist()).hex() == expected
