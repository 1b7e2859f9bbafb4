"""Keys: where every random bit of the library comes from.

An op that rounds stochastically takes a *key*, an int64 tensor of shape ``(2,)`` holding
``(seed, offset)``. The same key gives the same bits on every instruction set, on CUDA and for any
number of threads; see ``docs/reproducibility.md``.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor

__all__ = [
    "STREAM_VERSION",
    "Purpose",
    "advance",
    "fold_in",
    "key",
    "key_from_seed",
    "key_on",
    "split",
]

#: Version of the random stream; any change of the bits is a major version of the library.
STREAM_VERSION = 1


class Purpose(enum.IntEnum):
    """What a derived key is for; folded in first, so that uses of one key stay independent."""

    WEIGHT = 1
    COMM = 2
    GRAD = 3
    DATA = 4
    MODEL = 5
    ACT = 6
    SAMPLER = 7
    TEST = 8


def key(
    generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """A fresh key drawn from torch's generator, so that ``torch.manual_seed`` governs it.

    Args:
        generator: where to draw from; None is the default generator of ``device``.
        device: device of the key. With a CPU generator and another device it is drawn on the CPU
            and copied.

    Returns:
        int64 tensor of shape (2,): a random seed and offset 0.
    """
    drawn_on = device if generator is None else generator.device
    made = torch.zeros(2, dtype=torch.int64, device=drawn_on)
    made[:1].random_(generator=generator)
    return made if device is None else made.to(device)


def key_from_seed(seed: int, device: torch.device | str | None = None) -> Tensor:
    """The key ``(seed mod 2**64, 0)``.

    Example:
        >>> key_from_seed(7).tolist()
        [7, 0]
    """
    bits = seed % 2**64
    return torch.tensor(
        [bits - 2**64 if bits >= 2**63 else bits, 0], dtype=torch.int64, device=device
    )


def key_on(key: Tensor, device: torch.device | str) -> Tensor:
    """The key on another device: itself where it is there already, else a copy.

    The copy is queued without waiting for the device. :func:`torchext.quantize` and its relatives
    pass their keys through this, so a key from :func:`key_from_seed` serves tensors anywhere. A loop
    over CUDA tensors does better to derive its keys on the device, and a CUDA graph must: a captured
    copy would read the same host memory in every replay, so torch refuses it.

    Example:
        >>> key = key_from_seed(7)
        >>> key_on(key, "cpu") is key
        True
    """
    return key.to(device, non_blocking=True)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    r"""Child key for ``data``; children of different data are independent of each other and the parent.

    .. math:: w = \mathrm{Philox}(\text{counter} = (\text{offset}, \text{data}, 2^{32}-1),
       \text{key} = \text{seed}), \quad \text{child} = (w_0 + 2^{32} w_1,\ 0)

    Draw number 2**32 - 1 is reserved for this, so a child never reuses words of its parent's draws.

    Args:
        key: int64 or uint64 (2,).
        data: integer in [0, 2**32), or an int64 tensor of one element on the key's device, of which
            the low 32 bits are used.

    Returns:
        int64 (2,): the child's seed and offset 0.

    Raises:
        RuntimeError: for a wrong key, or data out of range.

    Determinism: class A; the same bits everywhere.

    Example:
        >>> child = fold_in(key_from_seed(1), Purpose.DATA)
        >>> child[1].item()
        0

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    if isinstance(data, Tensor):
        child: Tensor = torch.ops.torchext.fold_in.Tensor(key, data)
        return child
    child = torch.ops.torchext.fold_in.default(key, int(data))
    return child


def split(key: Tensor, n: int) -> Tensor:
    r"""``n`` independent child keys.

    .. math:: \mathrm{split}(\text{key}, n)_j = \mathrm{fold\_in}(\text{key}, j), \quad j = 0 .. n - 1

    Args:
        key: int64 or uint64 (2,).
        n: how many, 0 <= n < 2**32.

    Returns:
        int64 (n, 2).

    Raises:
        RuntimeError: for a wrong key or n out of range.

    Determinism: class A; the same bits everywhere.

    Example:
        >>> split(key_from_seed(1), 3).shape
        torch.Size([3, 2])

    Source: as :func:`fold_in`.
    """
    children: Tensor = torch.ops.torchext.split(key, n)
    return children


def advance(key: Tensor, blocks: int) -> Tensor:
    """The key moved on by ``blocks`` Philox blocks (4 elements each)."""
    moved = key.clone()
    moved[1] += blocks
    return moved
