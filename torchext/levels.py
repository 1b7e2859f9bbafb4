"""Optimal quantization levels of a tensor, with a certificate."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from torchext import ops

__all__ = ["OptimalLevels", "optimal_levels"]

_EXACT = 2**24  # values of a table up to which ``auto`` is exact


class OptimalLevels(NamedTuple):
    """What :func:`optimal_levels` found; one entry per table where ``dim`` was given.

    Attributes:
        levels: (s,) or (tables, s), ascending; the last distinct level is repeated if the data has fewer
            than s distinct values. float64 for float64 values, else float32.
        cost: float64, the objective at these levels: a sum over all values, not a mean.
        lower_bound: float64, no s levels cost less.
        certified: bool, cost - lower_bound <= 1e-9 cost.
        method: the method that ran.
    """

    levels: Tensor
    cost: Tensor
    lower_bound: Tensor
    certified: Tensor
    method: str


def optimal_levels(
    x: Tensor,
    levels: int,
    *,
    objective: str = "stochastic",
    method: str = "auto",
    weight: Tensor | None = None,
    dim: int | None = None,
) -> OptimalLevels:
    r"""The s levels that add the least error when values are rounded to them.

    ``objective="stochastic"`` minimises the variance of unbiased rounding, ``"nearest"`` the squared error
    of rounding to the nearest level (optimal 1-D k-means, the Lloyd-Max optimum):

    .. math:: \sum_i w_i\,(b_i - x_i)(x_i - a_i), \qquad \sum_i w_i \min_j (x_i - L_j)^2

    where :math:`a_i \le x_i \le b_i` are the levels around a value. Levels of the one are not optimal for
    the other. A million float32 values take about ten milliseconds for 16 levels.

    Args:
        x: float32, bfloat16, float16 or float64, any shape and strides, finite.
        levels: number of levels, 2..65536 (nearest: 1..65536). ``2**b`` for b-bit codes.
        objective: ``"stochastic"`` or ``"nearest"``.
        method: ``"auto"`` is ``"exact"`` up to 2**24 values a table and ``"hist"`` beyond; see
            :func:`torchext.ops.optimal_levels` for all of them.
        weight: not negative, of the shape of ``x``; a value of weight 0 counts as absent.
        dim: one table per index of this dimension. For buckets of b values: ``x.view(-1, b)``, ``dim=0``.

    Returns:
        :class:`OptimalLevels`. Not differentiable.

    Raises:
        RuntimeError: as :func:`torchext.ops.optimal_levels`.

    Determinism: class A; the same bits for any order of the values, on every instruction set and any
    number of threads.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 1.0, 3.0, 4.0, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0])
        >>> found = optimal_levels(x, 4)
        >>> found.levels.tolist(), found.cost.item(), found.certified.item()
        ([0.0, 10.0, 21.0, 36.0], 164.0, True)
        >>> round(optimal_levels(x, 2, objective="nearest").cost.item(), 6)  # 5930/21
        282.380952

    Source: the problem is that of ZipML (ICML 2017), section 3; the solver is this project's.
    """
    if method == "auto":
        tables = (
            x.shape[dim] if dim is not None and -x.ndim <= dim < x.ndim else 1
        )  # else refused below
        method = "exact" if x.numel() <= _EXACT * max(1, tables) else "hist"
    found = ops.optimal_levels(x.detach(), weight, levels, dim, objective, method)
    return OptimalLevels(*found, method)
