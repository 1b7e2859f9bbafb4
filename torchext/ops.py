"""Typed wrappers of the public ops; their docstrings are the reference documentation.

These take every argument explicitly, as ``torch.ops.torchext.*`` does. :func:`torchext.quantize`
and its relatives choose scales and keys and keep the pieces together.

Formats: ``scheme`` is ``"symmetric"`` (value ``q * scale``, code ``q + Q``, ``Q = 2**(bits-1) - 1``, the
code ``2Q + 1`` stands for NaN), ``"minmax"`` (value ``lo + step * code``) or ``"levels"`` (value
``scale * levels[code]``). One scale covers the whole tensor, or each index of ``dim``, or each
``bucket_size`` consecutive elements in row-major order. docs/numerics.md has the details.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "dequantize",
    "dequantize_draws",
    "fake_quantize",
    "optimal_levels",
    "pack_bits",
    "quantization_scale",
    "quantization_variance",
    "quantize",
    "quantize_draws",
    "rounding_error",
    "unpack_bits",
]

_ops: Any = torch.ops.torchext


def quantize(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None = None,
    bucket_size: int | None = None,
    rounding: str = "stochastic",
    key: Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Round values to codes and pack the codes.

    .. math:: t = x \cdot \mathrm{fl}(1/s), \quad q = \lfloor t \rfloor + [u < t - \lfloor t \rfloor], \quad
       \mathrm{E}\, q = t \text{ (to } 2^{-24}\text{) inside the grid}

    for ``symmetric``, ``minmax`` with ``x - lo`` for ``x``, saturating at the ends; ``nearest`` rounds
    half to even. ``levels``: with the levels ``L_i <= a <= L_{i+1}`` around ``a = x/s``, up if
    ``u < (a - L_i)/(L_{i+1} - L_i)``; ``nearest`` sends a tie to the lower level. u is the 24-bit
    uniform of element i (row-major), draw 0 of ``stream``.

    Args:
        x: float32, bfloat16, float16 (widened exactly) or float64 (rounded to float32), any shape and
            strides.
        scale: float32. ``symmetric``: spacing, (channels,) or () for one channel; ``minmax``:
            (channels, 2) of (lo, step); ``levels``: factor of the table, (channels,), or None for 1.
        levels: float32 (n,) or (channels, n), 2 <= n <= 2**bits, ascending; the last distinct entry may
            be repeated as padding.
        bits: 1..8 (``symmetric``: 2..8).
        scheme: ``"symmetric"``, ``"minmax"`` or ``"levels"``.
        dim: one scale per index of this dimension.
        bucket_size: one scale per so many consecutive elements; a multiple of 8.
        rounding: ``"stochastic"`` or ``"nearest"``.
        key: int64 (2,), needed for stochastic rounding.
        stream: 0 <= stream < 2**32.

    Returns:
        uint8 (ceil(numel * bits / 8),): a little-endian bit stream, code i at bits ``i*bits``...

    Raises:
        RuntimeError: for a wrong shape, dtype or range, and for NaN under ``minmax`` and ``levels``,
            which have no code for it. CUDA does not look at values: such NaN gets code 0, or under
            ``levels`` code ``n`` if that is below 2**bits, which decodes to NaN; a spacing that is
            negative or not finite, or a lower end that is not finite, counts every value of its channel
            as NaN; a table that does not ascend gives codes of the table without a meaning.

    Determinism: class A; same key, same bits on every instruction set, device and thread count.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 0.5, 9.0])
        >>> codes = quantize(x, torch.tensor([0.5]), None, 4, "symmetric", rounding="nearest")
        >>> unpack_bits(codes, 4, 4).tolist()
        [5, 7, 8, 14]

    Source: Zhang et al., ZipML (ICML 2017), section 2.
    """
    result: Tensor = _ops.quantize(
        x, scale, levels, bits, scheme, dim, bucket_size, rounding, key, stream
    )
    return result


def dequantize(
    codes: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    size: Sequence[int],
    bits: int,
    scheme: str,
    dim: int | None = None,
    bucket_size: int | None = None,
) -> Tensor:
    r"""Values of packed codes.

    .. math:: y = (c - Q)\,s, \quad y = \mathrm{fl}(lo + \mathrm{fl}(step\, c)), \quad y = s\, L_c

    A spacing below 2**-126 counts as 0. Codes no encoder writes (``2Q + 1``, or beyond the table) give
    NaN.

    Args:
        codes: uint8 (ceil(n * bits / 8),) from :func:`quantize`.
        scale, levels, bits, scheme, dim, bucket_size: as given to :func:`quantize`.
        size: shape of the result.

    Returns:
        float32 of shape ``size``, contiguous.

    Raises:
        RuntimeError: for a wrong shape, dtype or range. On CUDA, channels whose scale :func:`quantize`
            refuses on the CPU decode to NaN.

    Determinism: class A.

    Example:
        >>> codes = torch.tensor([0x75, 0xE8], dtype=torch.uint8)
        >>> dequantize(codes, torch.tensor([0.5]), None, [4], 4, "symmetric").tolist()
        [-1.0, 0.0, 0.5, 3.5]

    Source: as :func:`quantize`.
    """
    result: Tensor = _ops.dequantize(codes, scale, levels, size, bits, scheme, dim, bucket_size)
    return result


def fake_quantize(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None = None,
    bucket_size: int | None = None,
    rounding: str = "stochastic",
    key: Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Values rounded onto the grid, ``dequantize(quantize(x))`` in one pass.

    .. math:: y = \mathrm{dequantize}(\mathrm{quantize}(x)), \qquad
       \partial y / \partial x := [\text{x lies inside the grid}]

    The gradient is the straight-through rule: 1 where the grid covers x, 0 where x was clamped. NaN
    stays NaN in every scheme; Inf saturates.

    Args:
        x, scale, levels, bits, scheme, dim, bucket_size, rounding, key, stream: as for :func:`quantize`;
            no gradient flows to scale and levels.

    Returns:
        Shape and dtype of x, contiguous. bfloat16, float16 and float64 results are the float32 grid
        values cast at the end.

    Raises:
        RuntimeError: for a wrong shape, dtype or range. On CUDA, channels whose scale :func:`quantize`
            refuses on the CPU become NaN.

    Determinism: class A.

    Example:
        >>> x = torch.tensor([0.3, 0.9, 5.0], requires_grad=True)
        >>> y = fake_quantize(x, torch.tensor([1.0]), None, 3, "symmetric", rounding="nearest")
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.0, 1.0, 3.0], [1.0, 1.0, 0.0])

    Source: Bengio et al., straight-through estimator (arXiv 1308.3432).
    """
    result: Tensor = _ops.fake_quantize(
        x, scale, levels, bits, scheme, dim, bucket_size, rounding, key, stream
    )
    return result


def quantization_scale(
    x: Tensor, bits: int, scheme: str, dim: int | None = None, bucket_size: int | None = None
) -> Tensor:
    r"""The smallest grid that covers the values of every channel.

    .. math:: s = \max|x| / Q \quad\text{or}\quad lo = \min x,\; step = (\max x - lo)/(2^b - 1)

    ``step`` is raised by ulps until the top level reaches the maximum. Spacings below 2**-126 are
    stored as 0; a constant channel of ``minmax`` has step 0 and decodes exactly.

    Args:
        x: as for :func:`quantize`.
        bits: 1..8 (``symmetric``: 2..8).
        scheme: ``"symmetric"`` or ``"minmax"``.
        dim, bucket_size: as for :func:`quantize`.

    Returns:
        float32 (channels,), for ``minmax`` (channels, 2) of (lo, step); 0 for channels without values.

    Raises:
        RuntimeError: for NaN or Inf in x, naming the element, and for a range above 3.4e38. On CUDA
            such a channel has the scale NaN, which makes NaN of all that is decoded with it.

    Determinism: class A.

    Example:
        >>> quantization_scale(torch.tensor([[1.0, -7.0], [3.0, 3.5]]), 4, "symmetric", dim=0).tolist()
        [1.0, 0.5]

    Source: Alistarh et al., QSGD (NeurIPS 2017), with max in place of the 2-norm.
    """
    result: Tensor = _ops.quantization_scale(x, bits, scheme, dim, bucket_size)
    return result


def quantization_variance(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None = None,
    bucket_size: int | None = None,
) -> Tensor:
    r"""Exact variance that stochastic rounding adds, summed over all elements.

    .. math:: \sum_i s^2 f_i (1 - f_i) \quad\text{or}\quad \sum_i s^2 (L_{i+1} - a_i)(a_i - L_i)

    with f the fraction of t. Values that saturate do not vary and count 0.

    Args:
        x, scale, levels, bits, scheme, dim, bucket_size: as for :func:`quantize`.

    Returns:
        float64 (), summed in the fixed order of the library's tree sum; NaN if x holds NaN.

    Raises:
        RuntimeError: for a wrong shape, dtype or range. On CUDA a scale that :func:`quantize` refuses on
            the CPU gives NaN.

    Determinism: class A.

    Example:
        >>> quantization_variance(torch.tensor([0.5, 1.0]), torch.tensor([1.0]), None, 4, "symmetric").item()
        0.25

    Source: Zhang et al., ZipML (ICML 2017), section 3.
    """
    result: Tensor = _ops.quantization_variance(x, scale, levels, bits, scheme, dim, bucket_size)
    return result


def optimal_levels(
    x: Tensor,
    weight: Tensor | None,
    candidates: Tensor | None,
    levels: int,
    dim: int | None = None,
    bucket_size: int | None = None,
    objective: str = "stochastic",
    method: str = "exact",
    rtol: float = 0.0,
    level_dtype: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Levels of a table that minimise the error of rounding to it.

    .. math:: F(L) = \sum_i w_i\,(b_i - x_i)(x_i - a_i) \ \text{(stochastic)}, \qquad
       F(L) = \sum_i w_i \min_j (x_i - L_j)^2 \ \text{(nearest)}

    with the levels :math:`a_i \le x_i \le b_i` around a value; the smallest and the largest level of the
    first are those of the data. docs/levels.md has the algorithms and the proof.

    Args:
        x: float32, bfloat16, float16 (widened exactly) or float64, any shape and strides, finite.
        weight: float32 or float64 of the shape of ``x``, not negative, or None for 1. A value of
            weight 0 counts as absent: it does not extend the range.
        candidates: float (m,), finite, in any order: levels are chosen among these. For the stochastic
            objective they must reach from the smallest value to the largest. None: any number may be one.
        levels: number of levels s, 2..65536; 1 is allowed for ``"nearest"`` and for values that are all
            the same.
        dim: one table per index of this dimension, or None for one table.
        bucket_size: one table per so many consecutive values in row-major order; the last bucket may be
            shorter.
        objective: ``"stochastic"`` or ``"nearest"``.
        method: ``"exact"``; ``"hist"``, one pass over bins, approximate (float32 of more than 2**14 values
            is never sorted); ``"adaquant"``, greedy merging (stochastic only); ``"dnc"`` and ``"smawk"``,
            the whole dynamic programme, for comparison; ``"dp"``, the same in long double, for tests.
        rtol: 0 or a relative gap that ``"hist"`` must prove: it then uses as many bins as ``"exact"`` and
            opens those that may hold a level until it can. The other methods take no notice.
        level_dtype: ``"float16"``, ``"bfloat16"``, ``"float32"``, ``"float64"`` or ``""`` for that of x.
            The ends of the stochastic objective are rounded outward, so that no value is clamped, all
            other levels to nearest even; equal ones are merged.

    Returns:
        ``levels`` (s,) or (tables, s) in ``level_dtype``: ascending, the first ``count`` distinct, then
        copies of the last. ``count`` () or (tables,) int64. ``cost``, float64: F of the levels as
        returned. ``lower_bound``, float64: no table of s levels (of candidates) costs less.
        ``certified``, bool: before the levels were rounded to ``level_dtype`` the bound was within
        max(rtol, 1e-9) of the cost.

    Raises:
        RuntimeError: for a wrong shape, dtype or range, no value, values or weights that are not finite
            (the first is named), weights without a positive sum, candidates that do not cover the values,
            candidates with another method than ``"exact"``, a level beyond the range of ``level_dtype``,
            ``adaquant`` with nearest rounding, and ``dp`` above 20,000 values.

    Determinism: class A; the same bits for any order of the values (``hist`` of float64: up to rounding),
    on every instruction set and thread count. On CUDA, ``"exact"`` for tables of up to 16,384 values, and
    ``"exact"`` and ``"hist"`` for one table of any size have the levels and costs of the CPU, unless several
    sets of levels are optimal to rounding; ``"hist"`` with ``rtol`` has others, with the same proof. Values
    that are not finite, candidates that do not cover them and levels beyond the range of ``level_dtype``
    give NaN and count 0 there (docs/cuda.md).

    Example:
        >>> x = torch.tensor([0.0, 0.1, 0.2, 0.9, 1.0], dtype=torch.float64)
        >>> found, count, cost, _, certified = optimal_levels(x, None, None, 4)
        >>> found.tolist(), count.item(), round(cost.item(), 12), certified.item()
        ([0.0, 0.2, 0.9, 1.0], 4, 0.01, True)

    Source: Zhang et al., ZipML (ICML 2017), section 3 (the problem, ADAQUANT); docs/levels.md.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _ops.optimal_levels(
        x, weight, candidates, levels, dim, bucket_size, objective, method, rtol, level_dtype
    )
    return result


def rounding_error(
    x: Tensor,
    levels: Tensor,
    weight: Tensor | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
    rounding: str = "stochastic",
) -> tuple[Tensor, Tensor, Tensor]:
    r"""What rounding to given levels does to the values: the exact expectation, nothing is drawn.

    .. math:: \text{variance} = \sum_{L_1 \le x_i \le L_s} w_i\,(b_i - x_i)(x_i - a_i), \qquad
       \text{bias2} = \sum_{x_i \notin [L_1, L_s]} w_i\,(x_i - \mathrm{end}_i)^2

    for stochastic rounding, with the levels a and b around a value inside the table, and the end that a
    value beyond it is clamped to. Nearest rounding has variance 0 and
    :math:`\text{bias2} = \sum_i w_i \min_j (x_i - L_j)^2`.

    Args:
        x: float32, bfloat16, float16 (widened exactly) or float64, any shape and strides, finite.
        levels: float (s,) shared or (tables, s), s >= 1, finite, ascending; the last distinct level may be
            repeated as padding. Not rounded to the dtype of x.
        weight: float32 or float64 of the shape of ``x``, not negative, or None for 1.
        dim: sums per index of this dimension, or None.
        bucket_size: sums per so many consecutive values in row-major order; the last bucket may be shorter.
        rounding: ``"stochastic"`` or ``"nearest"``.

    Returns:
        ``variance`` and ``bias2``, float64, and ``clipped``, int64: how many values of positive weight lie
        beyond the table; () or (tables,). All are 0 without values.

    Raises:
        RuntimeError: for a wrong shape, dtype or range, and for values, levels or weights that are not
            finite (the first is named), negative weights, and levels that do not ascend. On CUDA the sums
            of such a group are NaN, its ``clipped`` is -1.

    Determinism: class A; the same bits for any order of the values, on every instruction set, device and
    thread count: terms are added without an order, and the sums are good to about 1e-15.

    Example:
        >>> x = torch.tensor([0.25, 1.5])
        >>> variance, bias2, clipped = rounding_error(x, torch.tensor([0.0, 0.5, 1.0]))
        >>> variance.item(), bias2.item(), clipped.item()
        (0.0625, 0.25, 1)

    Source: Zhang et al., ZipML (ICML 2017), section 3.
    """
    result: tuple[Tensor, Tensor, Tensor] = _ops.rounding_error(
        x, levels, weight, dim, bucket_size, rounding
    )
    return result


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    r"""Pack codes into a little-endian bit stream.

    .. math:: \text{code } i \text{ occupies bits } i b \,..\, i b + b - 1, \quad
       \text{bit } k \text{ is bit } k \bmod 8 \text{ of byte } \lfloor k/8 \rfloor

    Args:
        codes: uint8, any shape, each below ``2**bits``; read in row-major order.
        bits: 1..8.

    Returns:
        uint8 (ceil(numel * bits / 8),); unused bits of the last byte are 0.

    Raises:
        RuntimeError: for a code that does not fit; on CUDA it loses its high bits.

    Determinism: class A.

    Example:
        >>> pack_bits(torch.tensor([1, 2, 3, 4], dtype=torch.uint8), 4).tolist()
        [33, 67]

    Source: docs/numerics.md, packed codes.
    """
    result: Tensor = _ops.pack_bits(codes, bits)
    return result


def unpack_bits(packed: Tensor, n: int, bits: int) -> Tensor:
    r"""The codes of a packed bit stream.

    .. math:: c_i = \lfloor stream / 2^{ib} \rfloor \bmod 2^b

    Args:
        packed: uint8 (ceil(n * bits / 8),).
        n: number of codes.
        bits: 1..8.

    Returns:
        uint8 (n,).

    Raises:
        RuntimeError: if the number of bytes does not fit n and bits.

    Determinism: class A.

    Example:
        >>> unpack_bits(torch.tensor([33, 67], dtype=torch.uint8), 4, 4).tolist()
        [1, 2, 3, 4]

    Source: docs/numerics.md, packed codes.
    """
    result: Tensor = _ops.unpack_bits(packed, n, bits)
    return result


def quantize_draws(
    x: Tensor,
    levels: Tensor,
    draws: int,
    form: str,
    dim: int | None,
    key: Tensor,
    stream: int = 0,
) -> Tensor:
    r"""Several independent stochastic roundings of every value, stored as one code.

    .. math:: x \in [L_i, L_{i+1}]: \quad Q_d(x) = L_{i + [u_d < f]}, \quad
       f = (x - L_i)/(L_{i+1} - L_i), \quad d = 0 .. k-1

    The draws share the interval i, so k draws cost little more than one. With B bits for the interval
    the stored bits per value are ``B + k`` (form ``"bits"``: bit ``B + d`` is draw d), ``B +
    ceil(log2(k + 1))`` (``"count"``: how many draws went up) or ``B + 1.6`` (``"ternary"``, k = 2: five
    counts a byte, after the intervals).

    Args:
        x: as for :func:`quantize`.
        levels: float32 (n,) or (channels, n), ascending.
        draws: k, 1..8.
        form: ``"bits"``, ``"count"`` or ``"ternary"``.
        dim: dimension of the channels if levels has one table each, else None.
        key: int64 (2,); draw d uses Philox draw number d.
        stream: 0 <= stream < 2**32.

    Returns:
        uint8 codes, packed.

    Raises:
        RuntimeError: for NaN (on CUDA: the lowest level in every draw), and if interval and draws exceed
            8 bits.

    Determinism: class A.

    Example:
        >>> key = torch.tensor([1, 0])
        >>> levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
        >>> codes = quantize_draws(torch.tensor([0.5, 1.0]), levels, 2, "bits", None, key)
        >>> unpack_bits(codes, 2, 4).tolist()  # interval 1, both up; interval 3, both up
        [2, 15]

    Source: Zhang et al., ZipML (ICML 2017), section 2.2.
    """
    result: Tensor = _ops.quantize_draws(x, levels, draws, form, dim, key, stream)
    return result


def dequantize_draws(
    codes: Tensor,
    levels: Tensor,
    size: Sequence[int],
    draws: int,
    form: str,
    dim: int | None,
    draw: int,
    key: Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""One of the draws of :func:`quantize_draws`.

    .. math:: Q_d(x) = L_{i + b_d}

    Forms that keep only the number m of upward draws deal them out by coins of the *decoding* key:
    place d is up with probability (ups left)/(places left), so every arrangement is equally likely.
    The coins are needed: a fixed arrangement gives biased products of draws.

    Args:
        codes: uint8 from :func:`quantize_draws`.
        levels, draws, form, dim: as given there.
        size: shape of the result.
        draw: which draw, 0 <= draw < draws.
        key: int64 (2,), for forms ``"count"`` and ``"ternary"``; independent of the encoding key and the
            same for all draws of one decoding.
        stream: 0 <= stream < 2**32.

    Returns:
        float32 of shape ``size``.

    Raises:
        RuntimeError: for a wrong shape, dtype or range.

    Determinism: class A.

    Example:
        >>> codes = torch.tensor([0xF2], dtype=torch.uint8)
        >>> levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
        >>> dequantize_draws(codes, levels, [2], 2, "bits", None, 0).tolist()
        [0.5, 1.0]

    Source: Zhang et al., ZipML (ICML 2017), section 2.2.
    """
    result: Tensor = _ops.dequantize_draws(codes, levels, size, draws, form, dim, draw, key, stream)
    return result
