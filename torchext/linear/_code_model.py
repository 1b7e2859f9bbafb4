r"""Minimisation over the codes: the inner problem of the exact solvers.

L-BFGS whose directions are rounded to what the integer products multiply with, and then followed exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchext.data.lbfgs import Memory
from torchext.linear._losses import Loss
from torchext.linear._products import CodeProducts, torch_threads

PAIRS = 20  # of L-BFGS


class CodeModel:
    """Mean weighted loss + x^T P x / 2 over the codes, around a point whose gradient is given.

    Args:
        loss: the loss on scores in the order of the store.
        codes: the rows.
        penalty: float64 (1 or m, n + 1), the diagonal of P; 0 for the intercept.
        mass: sum of the weights.
        curvature: typical second derivative of the loss, for the diagonal start of L-BFGS.
    """

    def __init__(
        self, loss: Loss, codes: CodeProducts, penalty: Tensor, mass: float, curvature: float
    ) -> None:
        self.loss, self.codes = loss, codes
        self.penalty, self.mass = penalty.to(codes.device), mass
        self.memory = Memory(PAIRS, loss.quadratic)
        square = codes.store.moments[0]
        if not codes.intercept:
            square = square + codes.shift.cpu().square()
        data = torch.cat([square, torch.full((1,), float(codes.intercept), dtype=torch.float64)])
        hessian = curvature * data + penalty
        share = codes.store.noise[0] / codes.store.moments[0].clamp_min(1e-300)
        #: An anchor multiplies the error by about the share of the noise: solving much further is wasted.
        self.inner = min(
            max(3.0 * float(share[data[:-1] > 0].sum()) / codes.store.cols, 0.01), 0.05
        )
        #: Inverse diagonal Hessian; 0 keeps what no row touches at 0.
        self.diagonal = torch.where(data > 0, 1.0 / hessian.clamp_min(1e-300), 0.0).to(codes.device)

    def norm(self, gradient: Tensor) -> float:
        """Norm in which every column counts in units of its own curvature."""
        return math.sqrt(float((gradient.square() * self.diagonal).sum()))

    def on_codes(self, z: Tensor, x: Tensor) -> Tensor:
        """Gradient at scores z, rows as decoded."""
        with torch_threads(self.codes.threads):
            slope, mass = self.loss.slope(z)
        return self.codes.sum(slope, mass) / self.mass + self.penalty * x

    def minimise(
        self,
        z: Tensor,
        gradient: Tensor,
        tol: float,
        steps: int,
        radius: float = math.inf,
        near: bool = False,
    ) -> tuple[Tensor, int]:
        """The move d that reduces the norm of the model's gradient to ``tol`` times that at d = 0.

        A step of a quadratic loss costs one read of the codes, of another loss two: along the direction
        everything follows from the scores. There it stops where the scores have moved by more than
        ``radius`` (root mean square). ``near``: the move is so short that the Hessian at z will do (one
        Newton step), where the loss has a diagonal one.
        """
        if self.loss.quadratic:
            return self._minimise_quadratic(gradient, tol, steps, self.loss.weight)
        if near and self.loss.diagonal:
            return self._minimise_quadratic(gradient, tol, steps, self.loss.curvature(z))
        loss, memory = self.loss, self.memory
        d, now = torch.zeros_like(gradient), gradient
        moved, change = torch.zeros_like(z), torch.empty_like(z)
        goal, count = tol * self.norm(gradient), 0
        while count < steps and self.norm(now) > goal:
            direction = memory.direction(now, memory.scaled(self.diagonal))
            score = self.codes.dot(direction)
            length = self._search(z, moved, score, direction, gradient + self.penalty * d)
            if length is None:
                break
            step = length * direction
            d, moved = d + step, moved.add_(score, alpha=float(length))
            count += 1
            with torch_threads(self.codes.threads):
                mass, square = loss.change(z, moved, change)
            if square > radius**2 * moved.numel():
                break
            fresh = self.codes.sum(change, mass) / self.mass + gradient + self.penalty * d
            memory.add(step, fresh - now)
            now = fresh
        return d, count

    def _minimise_quadratic(
        self, gradient: Tensor, tol: float, steps: int, weight: Tensor | None
    ) -> tuple[Tensor, int]:
        """The same for a constant Hessian with row weights; separable outputs have their own step lengths."""
        memory = self.memory
        d, now = torch.zeros_like(gradient), gradient
        goal, count = tol * self.norm(gradient), 0
        while count < steps and self.norm(now) > goal:
            direction = memory.direction(now, memory.scaled(self.diagonal))
            image = self.codes.gram(direction, weight) / self.mass  # rounds direction
            image += self.penalty * direction
            bent = memory.dot(direction, image)
            length = -memory.dot(now, direction) / bent.clamp_min(1e-300)
            length = torch.where(bent > 0, length, 0.0).clamp_min(0.0)
            if not bool((length > 0).any()) or not bool(torch.isfinite(length).all()):
                break
            step, change = length * direction, length * image
            d, now = d + step, now + change
            memory.add(step, change)
            count += 1
        return d, count

    def _search(
        self, z: Tensor, moved: Tensor, score: Tensor, direction: Tensor, linear: Tensor
    ) -> Tensor | None:
        """Step length (1, 1) by Newton's method on the scores; None if none goes down.

        ``linear`` is the part of the gradient that is not a sum over the rows.
        """
        flat, bent = (linear * direction).sum(), (self.penalty * direction * direction).sum()
        length, steepest = direction.new_zeros(1, 1), 0.0
        for _ in range(12):
            with torch_threads(self.codes.threads):
                slope, curvature = self.loss.along(z, moved, score, length)
            slope = slope / self.mass + flat + length * bent
            steepest = max(steepest, abs(float(slope)))
            if abs(float(slope)) <= 0.1 * steepest:
                break
            curvature = curvature / self.mass + bent
            if float(curvature) > 0:
                length = torch.maximum(length - slope / curvature, 0.1 * length)
        return length if 0 < float(length) < math.inf else None
