"""The integer epoch of HALP in Python integers of any size, and problem P of its tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: name: codes of data, of z, then M, G, H and the random bits below z.
FORMATS = {
    "z8": (torch.int8, torch.int8, 127, 127, 32767, 8),
    "z16": (torch.int8, torch.int16, 32767, 32767, 2**23 - 1, 8),
    "x16": (torch.int16, torch.int16, 32767, 32767, 2**30 - 2**25, 16),
}


def problem_p(seed: int, noise: float = 10.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Codes (1000, 100) in [-127, 127], targets, spacing: least squares, 10 informative columns."""
    r = np.random.default_rng(seed)
    X = r.standard_normal((1000, 100))
    w = np.zeros(100)
    w[:10] = r.uniform(0.0, 100.0, 10)
    y = X @ w + noise * r.standard_normal(1000)
    dx = float(np.abs(X).max()) / 127
    return np.rint(X / dx).astype(np.int64), y, dx


def padded(codes: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Rows padded with zeros to a multiple of 64 columns."""
    rows, cols = codes.shape
    x = torch.zeros(rows, 64 * -(-cols // 64), dtype=dtype)
    x[:, :cols] = torch.from_numpy(codes).to(dtype)
    return x


def words(key: Tensor, draw: int, first: int, count: int, stream: int = 0) -> list[int]:
    """Words of elements [first, first + count) of a draw."""
    begin, end = first // 4, -(-(first + count) // 4)
    moved = key.clone()
    moved[1] += begin
    drawn = torch.ops.torchext._philox(moved, end - begin, stream, draw).tolist()
    return list(drawn[first - 4 * begin : first - 4 * begin + count])


def unit(word: int) -> float:
    return (word >> 8) * 2.0**-24


@dataclass
class Epoch:
    """Arguments of one epoch and its result."""

    codes: np.ndarray  # (K, n) integers
    form: str
    alpha_g: np.ndarray  # (C, n + 1)
    alpha: float
    l2: float
    dx: float
    dz: float
    steps: int
    refresh: int
    intercept: bool
    key: Tensor
    stream: int = 0
    batch: int = 1

    def replay(self, gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
        """z (C, n), the intercept's z (C,), clips of z and h, and the products of the rows used, x.z.

        ``gammas`` (steps * batch, C) are the coefficients the kernel used.
        """
        _, _, top, _, high, shift = FORMATS[self.form]
        data = 32767 if self.form == "x16" else 127
        outputs, n = len(self.alpha_g), self.codes.shape[1]
        pitch = 64 * -(-n // 64)
        stride = pitch + (64 if self.intercept else 0)
        grid = self.dz / 2**shift
        columns = [*range(n), *([pitch] if self.intercept else [])]
        z = [dict.fromkeys(columns, 0) for _ in range(outputs)]
        h: list[dict[int, int]] = [{} for _ in range(outputs)]
        clips = [0, 0]
        decay = self.alpha * self.l2 * 2**shift
        products = np.zeros((self.steps * self.batch, outputs), dtype=object)
        for t in range(self.steps):
            if t == 0 or (self.refresh > 0 and t % self.refresh == 0):
                number = t // self.refresh if self.refresh > 0 else 0
                for c in range(outputs):
                    drawn = words(self.key, 2, (number * outputs + c) * stride, stride, self.stream)
                    for j in columns:
                        target = self.alpha_g[c][n if j == pitch else j] / grid
                        if self.form == "z8" and self.batch == 1:
                            target = float(np.float32(target))
                        low = math.floor(target)
                        code = low + int(unit(drawn[j]) < target - low)
                        h[c][j] = max(-high, min(high, code))
                        clips[1] += h[c][j] != code
            several = range(t * self.batch, (t + 1) * self.batch)
            x = {}
            for i in several:
                row = (words(self.key, 4, i, 1, self.stream)[0] * len(self.codes)) >> 32
                x[i] = {j: data if j == pitch else int(self.codes[row, j]) for j in columns}
            low = math.floor(decay)
            c_t = low + int(unit(words(self.key, 3, t, 1, self.stream)[0]) < decay - low)
            for i in several:
                for c in range(outputs):
                    products[i, c] = sum(x[i][j] * z[c][j] for j in columns)
            for c in range(outputs):
                noise = words(self.key, 0, (t * outputs + c) * 2 * shift, 2 * shift, self.stream)
                per = 32 // shift
                for j in columns:
                    lane = j % 64
                    r = noise[lane // per] >> (shift * (lane % per)) & (2**shift - 1)
                    e = r - sum(int(gammas[i, c]) * x[i][j] for i in several)
                    decayed = 0 if j == pitch else c_t * z[c][j]
                    if self.form == "z8" and self.batch == 1:
                        e = _saturated(_saturated(e) - h[c][j])
                        e = _saturated(e - decayed) if decayed else e
                    else:
                        e = e - h[c][j] - decayed
                        assert -(2**31) <= e < 2**31
                    moved = z[c][j] + (e >> shift)
                    z[c][j] = max(-top, min(top, moved))
                    clips[0] += z[c][j] != moved
        whole = np.array([[z[c][j] for j in range(n)] for c in range(outputs)])
        ends = np.array([z[c].get(pitch, 0) for c in range(outputs)])
        return whole, ends, clips, products


def _saturated(e: int) -> int:
    return max(-32768, min(32767, e))
