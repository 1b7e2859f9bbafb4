r"""Exact solutions by way of low-bit data: L-BFGS over the codes between exact gradients.

At an anchor :math:`x_0` one pass over the full-precision rows gives the exact gradient
:math:`g = \nabla F(x_0)` and the scores :math:`z_0`. The codes Q stand in for the rows only in what
comes next, the minimisation over the move d of

.. math:: \frac1W \sum_k v_k [l(z_{0k} + q_k^T d) - l'(z_{0k}) q_k^T d] + g^T d + \tfrac12 d^T P d,

whose gradient at d = 0 is exactly g, so that a fixed point of the whole iteration is the solution of the
full-precision problem. An anchor multiplies the error by about
:math:`\|I - G_Q^{-1} G\|`, with the Hessians G and G_Q of rows and codes; pairs of anchors correct G_Q as
L-BFGS corrects its diagonal, which helps where the codes are too coarse for the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchext.data.lbfgs import Memory
from torchext.linear._losses import GlmLoss, row_sums, total
from torchext.linear._products import CodeProducts, ExactRows

_PAIRS = 20  # of L-BFGS
_INNER = 0.03  # an anchor multiplies the error by about this with 4 bits: solving further is wasted
_STEPS = 300
_NEAR = 0.01  # of the first gradient norm: closer than that the loss is as good as quadratic
_FULL_STEPS = 1000


@dataclass(frozen=True)
class Point:
    """Objective, gradient (m, n + 1) and scores (m, K) on the full-precision rows at x."""

    x: Tensor
    value: float
    gradient: Tensor
    z: Tensor


@dataclass
class Solution:
    """Where the iteration ended.

    Attributes:
        x: float64 (m, n + 1), scaled units, intercept last.
        gradient_norm: norm of the exact gradient over that at the start, NaN without an exact pass.
        converged, fell_back: whether ``tol`` was reached; whether full precision had to finish.
        losses: objective (mean loss + penalty) at every exact pass.
        iterations: L-BFGS steps over the codes.
    """

    x: Tensor
    gradient_norm: float = math.nan
    converged: bool = False
    fell_back: bool = False
    losses: list[float] = field(default_factory=list)
    iterations: int = 0


class Anchored:
    """One problem: mean weighted loss + x^T P x / 2 over rows known exactly and as codes.

    Args:
        loss: the loss on scores in source order.
        codes, exact: the two forms of the rows; ``exact`` is None if there are only codes.
        penalty: float64 (1 or m, n + 1), the diagonal of P; 0 for the intercept.
        mass: sum of the weights.
        curvature: typical second derivative of the loss, for the diagonal start of L-BFGS.
        stored: a point and the exact gradient of the mean loss there, both float64 (m, n + 1); serves
            where ``exact`` is None.
    """

    def __init__(
        self,
        loss: GlmLoss,
        codes: CodeProducts,
        exact: ExactRows | None,
        penalty: Tensor,
        mass: float,
        curvature: float,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.stored = stored
        self.loss, self.codes, self.exact = loss, codes, exact
        self.penalty, self.mass = penalty, mass
        self.memory = Memory(_PAIRS, loss.separable)
        square = codes.store.moments[0]
        if not codes.intercept:
            square = square + codes.shift.square()
        data = torch.cat([square, torch.full((1,), float(codes.intercept), dtype=torch.float64)])
        hessian = curvature * data + penalty
        #: Inverse diagonal Hessian; 0 keeps what no row touches at 0.
        self.diagonal = torch.where(data > 0, 1.0 / hessian.clamp_min(1e-300), 0.0)

    def norm(self, gradient: Tensor) -> float:
        """Norm in which every column counts in units of its own curvature."""
        return math.sqrt(float(row_sums(gradient.square() * self.diagonal).sum()))

    def on_codes(self, z: Tensor, x: Tensor) -> Tensor:
        """Gradient at scores z, rows as decoded."""
        return self.codes.sum(self.loss.slope(z)) / self.mass + self.penalty * x

    def minimise(
        self, z: Tensor, gradient: Tensor, tol: float, steps: int, radius: float = math.inf
    ) -> tuple[Tensor, int]:
        """The move d that reduces the norm of the model's gradient to ``tol`` times that at d = 0.

        Every step costs two reads of the codes: along the direction everything follows from the scores.
        Stops where the scores have moved by more than ``radius`` (root mean square).
        """
        loss, memory = self.loss, self.memory
        base = loss.slope(z)
        d, now, moved = torch.zeros_like(gradient), gradient, torch.zeros_like(z)
        goal, count = tol * self.norm(gradient), 0
        while count < steps and self.norm(now) > goal:
            direction = memory.direction(now, memory.scaled(self.diagonal))
            score = self.codes.dot(direction)
            length = self._search(z, base, moved, score, direction, gradient + self.penalty * d)
            if length is None:
                break
            step = length * direction
            d, moved = d + step, moved.add_(length.float() * score)
            count += 1
            if _spread(moved) > radius:
                break
            change = loss.slope_change(z, base, moved)
            fresh = self.codes.sum(change) / self.mass + gradient + self.penalty * d
            memory.add(step, fresh - now)
            now = fresh
        return d, count

    def _search(
        self,
        z: Tensor,
        base: Tensor,
        moved: Tensor,
        score: Tensor,
        direction: Tensor,
        linear: Tensor,
    ) -> Tensor | None:
        """Step length by Newton's method on the scores, (m, 1) or (1, 1); None if none goes down.

        ``linear`` is the part of the gradient that is not a sum over the rows.
        """
        loss, dot = self.loss, Memory(0, self.loss.separable).dot
        flat, bent = dot(linear, direction), dot(self.penalty * direction, direction)
        length, steepest = torch.zeros_like(flat), 0.0
        for _ in range(1 if loss.quadratic else 12):
            ahead = moved + length.float() * score
            change = loss.slope_change(z, base, ahead)
            slope = total(change, score, loss.separable) / self.mass + flat + length * bent
            steepest = max(steepest, float(slope.abs().max()))
            if float(slope.abs().max()) <= 0.1 * steepest:
                break
            curvature = loss.curvature_along(z + ahead, score) / self.mass + bent
            move = torch.where(curvature > 0, slope / curvature.clamp_min(1e-300), 0.0)
            length = torch.maximum(length - move, 0.1 * length)
        if not bool((length > 0).any()) or not bool(torch.isfinite(length).all()):
            return None
        return length.clamp_min(0.0)

    def solve(self, zero: Tensor, start: Tensor | None, tol: float, most: int) -> Solution:
        """From ``start`` (None: from ``zero``) to ``tol`` times the gradient norm on the codes at ``zero``.

        Near the solution, pairs of past anchors correct the Hessian of the codes. An anchor that does not
        halve the norm turns on two digits a vector. Full precision finishes what ``most`` exact passes
        have not solved.
        """
        out = Solution(zero)
        z = self.codes.dot(zero)
        gradient = self.on_codes(z, zero)
        first = self.norm(gradient) or 1.0
        if start is None:
            out.x = zero + self._move(out, z, gradient)
        else:
            out.x = torch.where(self.diagonal > 0, start, 0.0)
        if self.exact is None:
            return self._from_stored(out) if self.stored is not None else out
        memory, last = Memory(_PAIRS, self.loss.separable), math.inf
        bent = self.loss.quadratic  # whether past anchors speak of the curvature here
        here = self._visit(out, out.x, first)
        while out.gradient_norm > tol:
            slow = out.gradient_norm > 0.5 * last
            if slow:
                self.codes.digits = 2
            bent = bent or slow or out.gradient_norm < _NEAR
            if not bent:
                memory.pairs.clear()
            last = out.gradient_norm
            after = self._anchored_step(out, here, memory, first, tol, most)
            if after is None:
                return self._full_precision(out, here, memory, first, tol)
            here = after
        out.converged = True
        return out

    def _from_stored(self, out: Solution) -> Solution:
        """One anchor without rows: the one whose exact gradient the store keeps."""
        assert self.stored is not None
        x, slope = self.stored
        self.codes.digits = 2
        z = self.codes.dot(x.clone())
        out.x = x + self._move(out, z, slope + self.penalty * x)
        return out

    def _visit(self, out: Solution, x: Tensor, first: float) -> Point:
        """An exact pass at x."""
        assert self.exact is not None
        total, gradient, z = self.exact.gradient(x)
        value = total / self.mass + 0.5 * float(row_sums(self.penalty * x * x).sum())
        point = Point(x, value, gradient / self.mass + self.penalty * x, z)
        out.losses.append(value)
        out.x, out.gradient_norm = x, self.norm(point.gradient) / first
        return point

    def _move(
        self, out: Solution, z: Tensor, linear: Tensor, tol: float = 0.0, radius: float = math.inf
    ) -> Tensor:
        """Minimise over the codes, not much further than ``tol`` asks."""
        d, count = self.minimise(z, linear, min(max(_INNER, tol), 0.5), _STEPS, radius)
        out.iterations += count
        return d

    def _anchored_step(
        self, out: Solution, here: Point, memory: Memory, first: float, tol: float, most: int
    ) -> Point | None:
        """The next anchor, below ``here``; None if there is none within ``most`` exact passes."""
        radius = 2.0 * max(1.0, _spread(here.z))

        def solve(q: Tensor) -> Tensor:
            return -self._move(out, here.z, q, 0.3 * tol / out.gradient_norm, radius)

        d = memory.direction(here.gradient, solve)
        slope = float((d * here.gradient).sum())
        if slope >= 0.0 and memory.pairs:
            memory.pairs.clear()
            d = -solve(here.gradient)
            slope = float((d * here.gradient).sum())
        length = 1.0
        while slope < 0.0 and len(out.losses) < most:
            there = self._visit(out, here.x + length * d, first)
            memory.add(there.x - here.x, there.gradient - here.gradient)
            if self._lower(there, here, length * slope):
                return there
            # The minimum of the parabola through both values and the slope.
            bent = 2.0 * (there.value - here.value - length * slope)
            length *= min(max(-length * slope / bent, 0.05), 0.5) if bent > 0.0 else 0.5
        self._back(out, here, first)
        return None

    def _back(self, out: Solution, here: Point, first: float) -> None:
        """No step went down: the solution so far is the point it started from."""
        out.x, out.gradient_norm = here.x, self.norm(here.gradient) / first

    def _lower(self, there: Point, here: Point, promised: float) -> bool:
        """Whether the objective fell as promised or, where it is level to rounding, the gradient did."""
        if there.value <= here.value + 1e-4 * promised:
            return True
        level = there.value <= here.value + 1e-11 * abs(here.value)
        return level and self.norm(there.gradient) < self.norm(here.gradient)

    def _full_precision(
        self, out: Solution, here: Point, memory: Memory, first: float, tol: float
    ) -> Solution:
        """L-BFGS with exact gradients: the way out where the codes are too coarse for the data."""
        out.fell_back = True
        for _ in range(_FULL_STEPS):
            d = memory.direction(here.gradient, memory.scaled(self.diagonal))
            slope = float((d * here.gradient).sum())
            if slope >= 0.0:
                memory.pairs.clear()
                d = -self.diagonal * here.gradient
                slope = float((d * here.gradient).sum())
            length, there = 1.0, here
            for _ in range(20):
                there = self._visit(out, here.x + length * d, first)
                if self._lower(there, here, length * slope):
                    break
                length *= 0.5
            else:
                self._back(out, here, first)
                break
            memory.add(there.x - here.x, there.gradient - here.gradient)
            here = there
            if out.gradient_norm <= tol:
                out.converged = True
                break
        return out


def _spread(z: Tensor) -> float:
    """Root mean square."""
    return math.sqrt(float(row_sums(z.square()).sum()) / z.numel())
