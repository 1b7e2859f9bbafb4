"""The lattice step on one tensor in plain torch operations: ``foreach=False``, and what tests compare.

Line by line the formulas of docs/optimizers.md. torch has no fused multiply-add with a defined
result, so :func:`fma` builds one; everything gives the bits of the ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_STEP = 2.0**24


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b = high + low exactly."""
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def _two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a * b = high + low exactly, in float64, barring overflow and underflow."""

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = x * 134217729.0  # 2^27 + 1
        high = scaled - (scaled - x)
        return high, x - high

    high = a * b
    (a1, a2), (b1, b2) = split(a), split(b)
    return high, a2 * b2 - (((high - a1 * b1) - a2 * b1) - a1 * b2)


def _to_odd(high: Tensor, low: Tensor) -> Tensor:
    """high + low rounded to odd: a later rounding to fewer bits is then right."""
    bits = high.view(torch.int64)
    inexact = (low != 0) & (bits % 2 == 0) & torch.isfinite(high)
    toward = torch.where((low > 0) == (high > 0), 1, -1)
    return torch.where(inexact, bits + toward, bits).view(torch.float64)


def fma(a: Tensor | float, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c rounded once; float32 or float64, in the dtype of ``b``.

    Boldo and Melquiond, Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
    odd, IEEE Transactions on Computers 57(4), 2008.
    """
    x = torch.as_tensor(a, dtype=b.dtype).double().expand_as(b)
    y, z = b.double(), c.double()
    if b.dtype == torch.float32:  # the product of two float32 is exact
        total, low = _two_sum(x * y, z)
        return torch.where(torch.isfinite(total), _to_odd(total, low), total).float()
    u_high, u_low = _two_product(x, y)
    t_high, t_low = _two_sum(z, u_low)
    v_high, v_low = _two_sum(u_high, t_high)
    rest = _to_odd(*_two_sum(t_low, v_low))
    result = v_high + rest
    return torch.where(torch.isfinite(result), result, x * y + z)


def read_codes(z: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Codes as numbers, flat."""
    if z.dtype != torch.uint8:
        return z.reshape(-1).to(dtype)
    wide = z.to(torch.int16)
    q = torch.stack([wide & 15, wide >> 4], 1).reshape(-1)[:n]
    return torch.where(q > 7, q - 16, q).to(dtype)


def write_codes(q: Tensor, z: Tensor) -> None:
    """The reverse, in place."""
    if z.dtype != torch.uint8:
        z.copy_(q.view_as(z))
        return
    padded = torch.nn.functional.pad(q.to(torch.int16), (0, q.numel() % 2)) & 15
    z.copy_((padded[0::2] | padded[1::2] << 4).to(torch.uint8))


@dataclass(frozen=True)
class Rule:
    """What all tensors of a step share; ``bits`` None: real offsets (SVRG)."""

    weight_decay: float
    coef: float
    momentum: float
    dampening: float
    bits: int | None
    nearest: bool
    maximize: bool
    nesterov: bool
    decoupled: bool
    first_momentum: bool


def _uniforms(key: Tensor, n: int, stream: int, like: Tensor) -> Tensor:
    words: Tensor = torch.ops.torchext._philox(key.cpu(), (n + 3) // 4, stream, 0)[:n]
    return ((words >> 8).double() * 2.0**-24).to(like)


def step(s: Rule, lr: float, tensors: Sequence[Tensor | None], key: Tensor, stream: int) -> None:
    """One step on one tensor, ``tensors`` in the order of the ops; see :mod:`torchext.optim.ops`."""
    param, z, center, delta, grad, grad_center, full_grad, buf, stats = tensors
    assert param is not None and z is not None
    own = torch.float64 if param.dtype == torch.float64 else torch.float32

    def flat(t: Tensor | float | None) -> Tensor:
        return torch.as_tensor(0.0 if t is None else t, device=param.device).reshape(-1).to(own)

    def scalar(x: float) -> Tensor:
        return torch.tensor(x, dtype=own, device=param.device)

    n = param.numel()
    spacing = scalar(1.0) if delta is None else delta.reshape(())
    if not spacing >= torch.finfo(own).tiny:
        return
    q, c = read_codes(z, n, own), flat(center).expand(n)
    w, v = fma(spacing, q, c), flat(grad)
    if grad_center is not None and full_grad is not None:
        v = fma(-s.coef, flat(grad_center) - flat(full_grad), v)
    if s.maximize:
        v = -v
    if s.weight_decay and not s.decoupled:
        v = fma(s.weight_decay, w, v)
    if buf is not None:
        old = flat(buf)
        new = v if s.first_momentum else fma(s.momentum, old, scalar(1.0 - s.dampening) * v)
        v = fma(s.momentum, new, v) if s.nesterov else new
        buf.copy_(torch.where(torch.isfinite(new), new, old).view_as(buf))
    if s.weight_decay and s.decoupled:
        v = fma(s.weight_decay, w, v)
    if s.bits is None:
        new_q = fma(-lr, v, q)
        finite = torch.isfinite(new_q)
        new_q = torch.where(finite, new_q, q)
    else:
        t = -((scalar(lr) / spacing) * v)
        finite = torch.isfinite(t)
        t = torch.where(finite, t, 0.0).clamp(-LARGEST_STEP, LARGEST_STEP)
        low = t.floor()
        u = torch.full_like(t, 0.5) if s.nearest else _uniforms(key, n, stream, t)
        r = low + (u < t - low).to(own)
        new_q = (q + r).clamp(-(2 ** (s.bits - 1)), 2 ** (s.bits - 1) - 1)
        if stats is not None and n > 0:
            x = t.double()
            sums = [q + r != new_q, q == new_q, (r.double() - x) ** 2, x**2]
            stats[:4] += torch.stack([part.double().sum() for part in sums])
            stats[4] = new_q.abs().max()
    if stats is not None:
        stats[5] += (~finite).sum()
    write_codes(new_q, z)
    param.copy_(fma(spacing, new_q, c).view_as(param))
