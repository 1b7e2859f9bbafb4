"""Stream v1 in Python integers, written from the definition in docs/reproducibility.md, not from the C++."""

from __future__ import annotations

import math

MASK32 = 2**32 - 1
MASK64 = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10: ten rounds, the key raised by the Weyl constants between rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for number in range(10):
        if number:
            k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & MASK32
    return [c0, c1, c2, c3]


def word(seed: int, offset: int, element: int, stream: int = 0, draw: int = 0) -> int:
    """The random word of one logical element."""
    block = (offset + element // 4) & MASK64
    counter = (block & MASK32, block >> 32, stream, draw)
    return philox(counter, (seed & MASK32, seed >> 32))[element % 4]


def uniform(random_word: int) -> float:
    return (random_word >> 8) * 2.0**-24


def fold_in(seed: int, offset: int, data: int) -> tuple[int, int]:
    counter = (offset & MASK32, offset >> 32, data, MASK32)
    w = philox(counter, (seed & MASK32, seed >> 32))
    return w[0] | w[1] << 32, 0


def stochastic_code(t: float, u: float, clamp: int) -> int:
    low = math.floor(t)
    return max(-clamp, min(clamp, low + (u < t - low)))


def tree_sum(values: list[float]) -> float:
    """32 strided lanes and a butterfly per 1024 terms, then the same over the chunk sums."""
    if len(values) > 1024:
        return tree_sum([tree_sum(values[i : i + 1024]) for i in range(0, len(values), 1024)])
    lanes = [0.0] * 32
    for i, value in enumerate(values):
        lanes[i % 32] += value
    half = 16
    while half:
        for j in range(half):
            lanes[j] += lanes[j + half]
        half //= 2
    return lanes[0]
