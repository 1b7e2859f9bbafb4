"""Optimal quantization levels of a tensor, with a certificate, and the error of given ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchext import ops

__all__ = ["OptimalLevels", "RoundingError", "optimal_levels", "rounding_error"]

_EXACT = 2**24  # values of a table up to which ``auto`` is exact
_BLOCK_CUDA = 2**14  # values of a table that a block of threads holds, for any number of levels,
_LEVELS_CUDA = 256  # and most exact levels of one table of more
_DTYPES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
}


class OptimalLevels(NamedTuple):
    """What :func:`optimal_levels` found; one entry per table where ``dim`` or ``bucket_size`` was given.

    :func:`torchext.quantize` and its relatives take it as ``levels``.

    Attributes:
        levels: (s,) or (tables, s) in ``level_dtype`` or the dtype of x, ascending; the first ``count`` are
            distinct, the rest copies of the last.
        count: int64, distinct levels: fewer than s where the data has fewer distinct values, or where the
            dtype of the levels made some equal.
        cost: float64, the objective at these levels, as stored: a sum over all values, not a mean.
        lower_bound: float64, no s levels cost less.
        certified: bool, cost - lower_bound <= max(rtol, 1e-9) cost, before levels were rounded to their
            dtype.
        method: the method that ran.
        objective: the kind of rounding that they are optimal for.
    """

    levels: Tensor
    count: Tensor  # type: ignore[assignment]  # in place of tuple.count
    cost: Tensor
    lower_bound: Tensor
    certified: Tensor
    method: str
    objective: str


class RoundingError(NamedTuple):
    """What :func:`rounding_error` measured; one entry per table where ``dim`` or ``bucket_size`` was given.

    Attributes:
        variance: float64, the variance of stochastic rounding, summed; 0 for nearest rounding.
        bias2: float64, sum of squared errors that no averaging removes.
        clipped: int64, how many values of positive weight lie beyond the levels.
    """

    variance: Tensor
    bias2: Tensor
    clipped: Tensor


def _count(levels: int | None, bits: int | None) -> int:
    if (levels is None) == (bits is None):
        raise ValueError(
            f"levels or bits must be given, and not both, got levels={levels} and bits={bits}"
        )
    if bits is None:
        assert levels is not None
        return levels
    if not 1 <= bits <= 16:
        raise ValueError(f"bits must be in [1, 16], got {bits}")
    return int(2**bits)


def _largest_table(x: Tensor, dim: int | None, bucket_size: int | None) -> int:
    """Values of the largest table; arguments that are wrong are refused by the op."""
    if bucket_size is not None:
        return min(bucket_size, x.numel())
    if dim is None or not -x.ndim <= dim < x.ndim:
        return x.numel()
    return x.numel() // max(1, x.shape[dim])


def optimal_levels(
    x: Tensor,
    levels: int | None = None,
    *,
    bits: int | None = None,
    method: str = "auto",
    objective: str = "stochastic",
    weight: Tensor | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
    candidates: Tensor | None = None,
    rtol: float = 0.0,
    level_dtype: torch.dtype | None = None,
) -> OptimalLevels:
    r"""The s levels that add the least error when values are rounded to them.

    ``objective="stochastic"`` minimises the variance of unbiased rounding, ``"nearest"`` the squared error
    of rounding to the nearest level (optimal 1-D k-means, the Lloyd-Max optimum):

    .. math:: \sum_i w_i\,(b_i - x_i)(x_i - a_i), \qquad \sum_i w_i \min_j (x_i - L_j)^2

    where :math:`a_i \le x_i \le b_i` are the levels around a value. Levels of the one are not optimal for
    the other. A million float32 values take about ten milliseconds for 16 levels.

    Args:
        x: float32, bfloat16, float16 or float64, any shape and strides, finite.
        levels: number of levels s, 2..65536 (1 for ``"nearest"`` and for values that are all the same).
        bits: in place of ``levels``: ``2**bits`` of them, one per code.
        method: ``"auto"`` is ``"exact"`` up to 2**24 values a table and beyond that ``"hist"`` with ``rtol``
            raised to 1e-3; on CUDA with ``rtol`` as it is, and above 2**14 values ``"exact"`` for at most
            256 levels (of float64 values however many). See :func:`torchext.ops.optimal_levels` for all
            of them.
        objective: ``"stochastic"`` or ``"nearest"``.
        weight: not negative, of the shape of ``x``; a value of weight 0 counts as absent.
        dim: one table per index of this dimension.
        bucket_size: one table per so many consecutive values in row-major order, the last one short.
        candidates: 1-D, the values that may be levels, for instance the codes of a device; they must reach
            from the smallest value to the largest for ``"stochastic"``. None: any number.
        rtol: relative gap between cost and bound that ``"hist"`` must reach, opening bins as needed; 0 takes
            the gap that one pass gives. Exact methods always reach 1e-9.
        level_dtype: dtype of the levels; None: that of ``x``. The ends are rounded outward, so that
            stochastic rounding stays unbiased, and the cost is that of the rounded levels.

    Returns:
        :class:`OptimalLevels`. Not differentiable.

    Raises:
        ValueError: unless exactly one of ``levels`` and ``bits`` is given, for ``bits`` outside 1..16, and
            for another ``level_dtype``.
        RuntimeError: as :func:`torchext.ops.optimal_levels`.

    Determinism: class A; the same bits for any order of the values, on every instruction set and any
    number of threads. docs/cuda.md says what CUDA tensors may be asked for.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 1.0, 3.0, 4.0, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0])
        >>> found = optimal_levels(x, bits=2)
        >>> found.levels.tolist(), found.cost.item(), found.certified.item()
        ([0.0, 10.0, 21.0, 36.0], 164.0, True)
        >>> optimal_levels(x, 4, candidates=torch.arange(0, 41, 8.0)).levels.tolist()
        [0.0, 8.0, 24.0, 40.0]
        >>> round(optimal_levels(x, 2, objective="nearest").cost.item(), 4)  # 5930/21
        282.381

    Source: the problem is that of ZipML (ICML 2017), section 3; the solver is this project's.
    """
    count = _count(levels, bits)
    if level_dtype is not None and level_dtype not in _DTYPES:
        raise ValueError(
            f"level_dtype must be float16, bfloat16, float32 or float64, got {level_dtype}"
        )
    if method == "auto":
        method, size = "exact", _largest_table(x, dim, bucket_size)
        if x.is_cuda:
            few = count <= _LEVELS_CUDA
            large = few and (size <= _EXACT or x.dtype == torch.float64)
            binned = size > _BLOCK_CUDA and not large and candidates is None
            method = "hist" if binned else "exact"
        elif candidates is None and size > _EXACT:
            method, rtol = "hist", max(rtol, 1e-3)
    found = ops.optimal_levels(
        x.detach(),
        weight,
        candidates,
        count,
        dim,
        bucket_size,
        objective,
        method,
        rtol,
        "" if level_dtype is None else _DTYPES[level_dtype],
    )
    return OptimalLevels(*found, method, objective)


def rounding_error(
    x: Tensor,
    levels: Tensor | OptimalLevels,
    *,
    rounding: str = "stochastic",
    weight: Tensor | None = None,
    dim: int | None = None,
    bucket_size: int | None = None,
) -> RoundingError:
    r"""What rounding to given levels does to the values: the exact expectation, nothing is drawn.

    .. math:: \text{variance} = \sum_{L_1 \le x_i \le L_s} w_i\,(b_i - x_i)(x_i - a_i), \qquad
       \text{bias2} = \sum_{x_i \notin [L_1, L_s]} w_i\,(x_i - \mathrm{end}_i)^2

    Stochastic rounding is unbiased inside the table and clamps beyond it. Nearest rounding has variance 0
    and :math:`\text{bias2} = \sum_i w_i \min_j (x_i - L_j)^2`. Take the levels that decoders use: those
    of a table in half precision, not the ones that it was made from.

    Args:
        x: float32, bfloat16, float16 or float64, any shape and strides, finite.
        levels: ascending, (s,) shared or (tables, s), s >= 1, of any floating dtype; the last distinct level
            may be repeated as padding. Or what :func:`optimal_levels` returned.
        rounding: ``"stochastic"`` or ``"nearest"``.
        weight: not negative, of the shape of ``x``.
        dim: sums per index of this dimension.
        bucket_size: sums per so many consecutive values in row-major order, the last bucket short.

    Returns:
        :class:`RoundingError`.

    Raises:
        RuntimeError: as :func:`torchext.ops.rounding_error`.

    Determinism: class A; the same bits for any order of the values, on every instruction set and any
    number of threads.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.25, 0.5, 1.5])
        >>> error = rounding_error(x, torch.tensor([0.0, 1.0]))
        >>> error.variance.item(), error.bias2.item(), error.clipped.item()  # 3/16 + 1/4, 1/2 squared
        (0.4375, 0.25, 1)

    Source: Zhang et al., ZipML (ICML 2017), section 3.
    """
    table = levels.levels if isinstance(levels, OptimalLevels) else levels
    found = ops.rounding_error(x.detach(), table.detach(), weight, dim, bucket_size, rounding)
    return RoundingError(*found)
