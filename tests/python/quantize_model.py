"""Quantization in numpy, from the formulas of docs/numerics.md: IEEE float32, one operation at a time."""

from __future__ import annotations

import numpy as np
import stream_v1
from numpy.typing import NDArray

F32 = np.float32
Floats = NDArray[np.float32]
Codes = NDArray[np.int64]
SMALLEST = F32(2.0**-126)


def uniforms(n: int, seed: int, offset: int = 0, stream: int = 0, draw: int = 0) -> Floats:
    words = [stream_v1.word(seed, offset, i, stream, draw) for i in range(n)]
    return np.array([stream_v1.uniform(w) for w in words], dtype=F32)


def channel_of(shape: tuple[int, ...], dim: int | None, bucket: int | None) -> NDArray[np.int64]:
    """The channel of every element, in row-major order."""
    n = int(np.prod(shape))
    if bucket is not None:
        return np.arange(n) // bucket
    if dim is None:
        return np.zeros(n, dtype=np.int64)
    return np.broadcast_to(np.indices(shape)[dim], shape).reshape(-1)


def inverse(step: Floats) -> Floats:
    return np.where(step >= SMALLEST, F32(1) / np.where(step >= SMALLEST, step, F32(1)), F32(0))


def round_grid(t: Floats, u: Floats | None) -> Floats:
    if u is None:
        return np.rint(t)
    low = np.floor(t)
    return low + (u < t - low)


def encode_symmetric(x: Floats, step: Floats, bits: int, u: Floats | None) -> Codes:
    q = 2 ** (bits - 1) - 1
    rounded = round_grid(x * inverse(step), u)
    codes = (
        np.clip(np.nan_to_num(rounded, nan=0.0, posinf=q, neginf=-q), -q, q).astype(np.int64) + q
    )
    return np.where(np.isnan(rounded), 2 * q + 1, codes)


def encode_minmax(x: Floats, lo: Floats, step: Floats, bits: int, u: Floats | None) -> Codes:
    top = 2**bits - 1
    rounded = round_grid((x - lo) * inverse(step), u)
    return np.clip(np.nan_to_num(rounded, posinf=top, neginf=0), 0, top).astype(np.int64)


def encode_levels(x: Floats, levels: list[float], scale: Floats, u: Floats | None) -> Codes:
    """By the definition: count the levels below, then compare."""
    table = np.array(levels, dtype=F32)
    last = len(np.unique(table)) - 1
    codes = np.zeros(len(x), dtype=np.int64)
    if last == 0:
        return codes
    for k, (value, unit) in enumerate(zip(x, inverse(scale), strict=True)):
        if unit == 0:
            continue
        a = value * unit
        i = min(max(int(np.sum(table[: last + 1] <= a)) - 1, 0), last - 1)
        low, high = table[i], table[i + 1]
        up = a > (low + high) / F32(2) if u is None else u[k] < (a - low) / (high - low)
        codes[k] = i + bool(up)
    return codes


def decode_symmetric(codes: Codes, step: Floats, bits: int) -> Floats:
    q = 2 ** (bits - 1) - 1
    step = np.where(step >= SMALLEST, step, F32(0))
    return np.where(codes > 2 * q, F32(np.nan), (codes - q).astype(F32) * step + F32(0))


def decode_minmax(codes: Codes, lo: Floats, step: Floats) -> Floats:
    return codes.astype(F32) * np.where(step >= SMALLEST, step, F32(0)) + lo


def pack(codes: Codes, bits: int) -> list[int]:
    stream = sum(int(c) << (i * bits) for i, c in enumerate(codes))
    return list(stream.to_bytes((len(codes) * bits + 7) // 8, "little"))
