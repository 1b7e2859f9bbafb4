"""Limited-memory BFGS: what the last steps say about the inverse Hessian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Memory:
    """Pairs (step s, change y of the gradient), newest last, and the two-loop recursion over them.

    Args:
        size: pairs kept.
        separable: whether the rows of x are independent problems, each with its own inner products.
    """

    def __init__(self, size: int, separable: bool) -> None:
        self.size, self.separable = size, separable
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products, (m, 1) by row or (1, 1) of all."""
        each = (a * b).sum(dim=1, keepdim=True)
        return each if self.separable else each.sum(dim=0, keepdim=True)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Keep a pair; one without curvature counts as nothing known about its rows."""
        curvature = self.dot(step, change)
        good = curvature > 1e-12 * self.dot(change, change).clamp_min(1e-300)
        if bool(good.any()):
            inverse = torch.where(good, 1.0 / curvature, torch.zeros_like(curvature))
            self.pairs = [*self.pairs, (step, change, inverse)][-self.size :]

    def direction(self, gradient: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """-H gradient, where ``solve`` applies the estimate of the inverse Hessian without memory."""
        q = gradient.clone()
        weights: list[Tensor] = []
        for step, change, inverse in reversed(self.pairs):
            weight = self.dot(step, q) * inverse
            weights.append(weight)
            q -= weight * change
        q = solve(q)
        for (step, change, inverse), weight in zip(self.pairs, reversed(weights), strict=True):
            q += (weight - self.dot(change, q) * inverse) * step
        return -q

    def scaled(self, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
        """The diagonal times the scale that fits the newest pair: a start for the recursion."""
        if not self.pairs:
            return lambda q: diagonal * q
        _, change, inverse = self.pairs[-1]
        bent = self.dot(change, diagonal * change) * inverse
        scale = torch.where(bent > 0, 1.0 / bent.clamp_min(1e-300), torch.ones_like(bent))
        return lambda q: scale * diagonal * q
