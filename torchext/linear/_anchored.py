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
from torchext.linear._code_model import PAIRS, CodeModel
from torchext.linear._losses import Loss
from torchext.linear._products import CodeProducts, ExactRows

_STEPS = 300
_STEP_OF_TOL = 10.0  # relative length of the step still to go, at the end, over tol
_NEAR = 0.01  # of the first gradient norm: closer than that the loss is as good as quadratic
# The last step on the codes, which no exact pass checks: the part of the gradient norm that the anchor before
# may have left for it to be taken, the part that it leaves itself, and its steps at most.
_TRUSTED, _LAST, _LAST_STEPS = 0.1, 0.3, 5
_FULL_STEPS = 1000


@dataclass(frozen=True)
class Point:
    """Objective, gradient (m, n + 1) and scores (m, K) on the full-precision rows, in the store's order."""

    x: Tensor
    value: float
    gradient: Tensor
    z: Tensor


@dataclass
class Solution:
    """Where the iteration ended.

    Attributes:
        x: float64 (m, n + 1), scaled units, intercept last.
        gradient_norm: norm of the exact gradient over that at the start, at the last exact pass (x may be a
            step on the codes further); NaN without an exact pass.
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


class Anchored(CodeModel):
    """One problem over rows known exactly and as codes.

    Args:
        loss, codes, penalty, mass, curvature: see :class:`CodeModel`.
        exact: the rows, or None if there are only codes.
        stored: a point and the exact gradient of the mean loss there, both float64 (m, n + 1): the first
            anchor, and the only one where ``exact`` is None.
    """

    def __init__(
        self,
        loss: Loss,
        codes: CodeProducts,
        exact: ExactRows | None,
        penalty: Tensor,
        mass: float,
        curvature: float,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__(loss, codes, penalty, mass, curvature)
        self.exact = exact
        self.stored: tuple[Tensor, Tensor] | None = None
        if stored is not None:  # with the gradient of the whole objective
            x, slope = (t.to(codes.device) for t in stored)
            self.stored = x, slope + self.penalty * x

    def solve(self, zero: Tensor, start: Tensor | None, tol: float, most: int) -> Solution:
        """From ``start`` (None: from ``zero``) to ``tol`` times the gradient norm on the codes at ``zero``.

        Near the solution, pairs of past anchors correct the Hessian of the codes. An anchor that does not
        halve the norm turns on two digits a vector. Full precision finishes what ``most`` exact passes
        have not solved. The gradient that tells that ``tol`` is reached serves for one more step on the
        codes, if the one that led to it was taken whole and went well.
        """
        out = Solution(zero)
        z = self.codes.dot(zero)
        gradient = self.on_codes(z, zero)
        first = self.norm(gradient) or 1.0
        memory = Memory(PAIRS, self.loss.quadratic)
        last, near, whole = math.inf, False, True
        if start is not None:
            out.x = torch.where(self.diagonal > 0, start, 0.0)
        elif self.stored is not None:
            last = self.norm(self.stored[1]) / first
            out.x = self._from_stored(out, *self.stored)
        else:
            out.x = zero + self._move(out, z, gradient)
        if self.exact is None:
            return out
        here = self._visit(out, out.x, first)
        if start is None and self.stored is not None and self._near(last):
            memory.add(here.x - self.stored[0], here.gradient - self.stored[1])
        while not self._done(out, here, self.memory, tol):
            slow, last = out.gradient_norm > 0.5 * last, out.gradient_norm
            if slow:
                self.codes.digits = 2
            near, visits = near or slow or self._near(last), len(out.losses)
            after = self._anchored_step(out, here, memory, first, tol, most, near)
            if after is None:
                return self._full_precision(out, here, memory, first, tol)
            here, whole = after, len(out.losses) == visits + 1
            if not near:  # what a long step has seen is not the curvature here
                memory.clear()
        out.converged = True
        if whole and out.gradient_norm <= _TRUSTED * last < math.inf:
            # Without the pairs of anchors, which have led astray where no pass followed.
            g, radius = here.gradient, _radius(here.z)
            d = self._move(out, here.z, g, _LAST, radius, near, _LAST_STEPS)
            if float((d * g).sum()) < 0.0:
                out.x = here.x + d
        return out

    def _near(self, gradient_norm: float) -> bool:
        """Whether the loss is as good as quadratic from there to the solution."""
        return self.loss.quadratic or gradient_norm < _NEAR

    def _done(self, out: Solution, here: Point, memory: Memory, tol: float) -> bool:
        """Whether the gradient is small, and so is the step that ``memory`` would still take.

        On ill-conditioned data a small gradient alone leaves the coefficients open.
        """
        if out.gradient_norm > tol:
            return False
        left = memory.direction(here.gradient, memory.scaled(self.diagonal))[:, :-1]
        unit = torch.where(self.diagonal > 0, 1.0 / self.diagonal.clamp_min(1e-300), 0.0)[:, :-1]
        size = float((here.x[:, :-1].square() * unit).sum())
        return float((left.square() * unit).sum()) <= (_STEP_OF_TOL * tol) ** 2 * size

    def _from_stored(self, out: Solution, x: Tensor, gradient: Tensor) -> Tensor:
        """Minimise over the codes from the anchor whose exact gradient the store keeps."""
        if self.exact is None:  # the last digits come from here
            self.codes.digits = 2
        z = self.codes.dot(x.clone())
        return x + self._move(out, z, gradient)

    def _visit(self, out: Solution, x: Tensor, first: float) -> Point:
        """An exact pass at x."""
        assert self.exact is not None
        total, gradient, z = self.exact.gradient(x)
        value = total / self.mass + 0.5 * float((self.penalty * x * x).sum())
        point = Point(x, value, gradient / self.mass + self.penalty * x, self.codes.arrange(z))
        out.losses.append(value)
        out.x, out.gradient_norm = x, self.norm(point.gradient) / first
        return point

    def _move(
        self,
        out: Solution,
        z: Tensor,
        linear: Tensor,
        tol: float = 0.0,
        radius: float = math.inf,
        near: bool = False,
        steps: int = _STEPS,
    ) -> Tensor:
        """Minimise over the codes, not much further than ``tol`` asks."""
        d, count = self.minimise(z, linear, min(max(self.inner, tol), 0.5), steps, radius, near)
        out.iterations += count
        return d

    def _anchored_step(
        self,
        out: Solution,
        here: Point,
        memory: Memory,
        first: float,
        tol: float,
        most: int,
        near: bool,
    ) -> Point | None:
        """The next anchor, below ``here``; None if there is none within ``most`` exact passes."""
        radius = _radius(here.z)

        def solve(q: Tensor) -> Tensor:
            return -self._move(out, here.z, q, 0.3 * tol / out.gradient_norm, radius, near)

        d = memory.direction(here.gradient, solve)
        slope = float((d * here.gradient).sum())
        if slope >= 0.0 and len(memory) > 0:
            memory.clear()
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
                memory.clear()
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
                out.converged = out.gradient_norm <= tol
                break
            memory.add(there.x - here.x, there.gradient - here.gradient)
            here = there
            if self._done(out, here, memory, tol):
                out.converged = True
                break
        return out


def _radius(z: Tensor) -> float:
    """How far (root mean square) scores may move before codes and rows are compared again."""
    spread = float(torch.linalg.vector_norm(z, dtype=torch.float64)) / math.sqrt(z.numel())
    return 2.0 * max(1.0, spread)
