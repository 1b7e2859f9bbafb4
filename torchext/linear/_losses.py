"""Losses of a linear predictor, elementwise over all rows: what a full-batch solver evaluates.

Scores z are float32 (m, K), one row an output; weights float32 (K,) or None. Sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

#: torch splits a long sum among its threads; sums of this length it leaves whole.
_CHUNK = 1024


def row_sums(values: Tensor) -> Tensor:
    """float64 (m, 1) sums of the rows, the same bits for any number of torch's threads."""
    whole = values.shape[1] // _CHUNK * _CHUNK
    chunks = values[:, :whole].reshape(len(values), -1, _CHUNK).sum(-1, dtype=torch.float64)
    return (chunks.sum(1) + values[:, whole:].sum(1, dtype=torch.float64))[:, None]


def total(a: Tensor, b: Tensor, separable: bool) -> Tensor:
    """Sum of a * b over the rows: float64 (m, 1) of every output, or (1, 1) of all."""
    return _sum(a * b, separable)


def _small(moved: Tensor) -> bool:
    """Whether a change of slope is better formed by the midpoint rule than as a float32 difference."""
    return float(moved.abs().max()) < 0.01


def _sum(values: Tensor, separable: bool) -> Tensor:
    """Float64 sums over the rows: (m, 1) of every output, or (1, 1) of all."""
    each = row_sums(values)
    return each if separable else each.sum(dim=0, keepdim=True)


@dataclass(frozen=True)
class Squared:
    """(z - y)^2 / 2 of every output; y float32 (m, K). Outputs do not interact."""

    y: Tensor
    weight: Tensor | None
    name: ClassVar[str] = "squared"
    separable: ClassVar[bool] = True
    quadratic: ClassVar[bool] = True

    def slope(self, z: Tensor) -> Tensor:
        """Weighted derivative in z, (m, K)."""
        return _weighted(z - self.y, self.weight)

    def slope_change(self, z: Tensor, base: Tensor, moved: Tensor) -> Tensor:
        """slope(z + moved) - base, where base is slope(z)."""
        return _weighted(moved, self.weight)

    def curvature_along(self, z: Tensor, p: Tensor) -> Tensor:
        """Second derivative of the weighted sum of losses along p at z."""
        return _sum(_weighted(p * p, self.weight), True)


@dataclass(frozen=True)
class Logistic:
    """log(1 + exp(z)) - y z with y in {0, 1}, float32 (1, K)."""

    y: Tensor
    weight: Tensor | None
    name: ClassVar[str] = "logistic"
    separable: ClassVar[bool] = False
    quadratic: ClassVar[bool] = False

    def slope(self, z: Tensor) -> Tensor:
        """Weighted derivative in z, (1, K)."""
        return _weighted(torch.sigmoid(z).sub_(self.y), self.weight)

    def slope_change(self, z: Tensor, base: Tensor, moved: Tensor) -> Tensor:
        """slope(z + moved) - base, where base is slope(z)."""
        if not _small(moved):
            return self.slope(z + moved).sub_(base)
        chance = torch.sigmoid(z + 0.5 * moved)
        return _weighted((1 - chance).mul_(chance).mul_(moved), self.weight)

    def curvature_along(self, z: Tensor, p: Tensor) -> Tensor:
        """Second derivative of the weighted sum of losses along p at z."""
        chance = torch.sigmoid(z)
        return _sum(_weighted((1 - chance).mul_(chance).mul_(p).mul_(p), self.weight), False)


@dataclass(frozen=True)
class Softmax:
    """log sum_c exp(z_c) - z_y; y one-hot float32 (C, K)."""

    y: Tensor
    weight: Tensor | None
    name: ClassVar[str] = "softmax"
    separable: ClassVar[bool] = False
    quadratic: ClassVar[bool] = False

    def slope(self, z: Tensor) -> Tensor:
        """Weighted derivative in z, (C, K)."""
        return _weighted(torch.softmax(z, dim=0).sub_(self.y), self.weight)

    def slope_change(self, z: Tensor, base: Tensor, moved: Tensor) -> Tensor:
        """slope(z + moved) - base, where base is slope(z)."""
        if not _small(moved):
            return self.slope(z + moved).sub_(base)
        chance = torch.softmax(z + 0.5 * moved, dim=0)
        return _weighted(chance * (moved - (chance * moved).sum(0)), self.weight)

    def curvature_along(self, z: Tensor, p: Tensor) -> Tensor:
        """Second derivative of the weighted sum of losses along p at z."""
        chance = torch.softmax(z, dim=0)
        mean = (chance * p).sum(0)
        return _sum(_weighted(((chance * p * p).sum(0) - mean * mean)[None], self.weight), False)


GlmLoss = Squared | Logistic | Softmax


def _weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight
