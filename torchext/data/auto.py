"""``sampling="auto"``: encode the pilot both ways, solve both, keep the better one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.data import solvers
from torchext.data._levels import Codebook
from torchext.data.coded import CodedRows
from torchext.data.noise import shrinkage
from torchext.data.pilot import EXACT_COLS, Pilot

#: Corrected must be this much better on the pilot, whose noise is larger than the store's.
MARGIN = 0.995
#: Losses below this share of the loss at x = 0 are rounding errors: both are exact fits.
EXACT_FIT = 1e-12


@dataclass(frozen=True)
class Comparison:
    """Losses of x = 0 and of both fixed points on the exact pilot rows, mean over outputs.

    ``corrected`` is None if its Gram matrix is indefinite.
    """

    rows: int
    zero: float
    nearest: float
    corrected: float | None

    @property
    def choice(self) -> str:
        """``"corrected"`` or ``"nearest"``."""
        if self.corrected is None or self.nearest <= EXACT_FIT * self.zero:
            return "nearest"
        return "corrected" if self.corrected <= MARGIN * self.nearest else "nearest"


def compare(
    pilot: Pilot, nearest: Codebook, stochastic: Codebook, key: Tensor, alpha: float = 0.0
) -> Comparison:
    """Both fixed points from the pilot's codes, made with the final codebooks and keys.

    Cholesky up to 512 columns, beyond at most 200 conjugate-gradient steps whose products read the codes.
    """
    flat, drawn = CodedRows.encode(pilot, [nearest, stochastic], key)
    with solvers.one_thread():
        x, _ = _fixed_point(flat, flat.new_diagonal(alpha))
        extra = drawn.new_diagonal(alpha)
        extra -= shrinkage(drawn.noise, pilot.sample.count, pilot.cols) * drawn.noise[0]
        y, definite = _fixed_point(drawn, extra)
        losses = exact_losses(pilot, [torch.zeros_like(x), x, *([y] if definite else [])], alpha)
    return Comparison(pilot.sample.count, losses[0], losses[1], losses[2] if definite else None)


def _fixed_point(rows: CodedRows, extra: Tensor) -> tuple[Tensor, bool]:
    """Solution [n, m] of the decoded normal equations with ``extra`` [n] on the diagonal.

    And whether they are positive definite, as far as the solver saw.
    """
    if len(extra) > EXACT_COLS:
        return solvers.conjugate_gradients(
            lambda x: rows.product(x) + extra[:, None] * x, rows.right, tol=1e-5
        )
    matrix = rows.gram()
    matrix.diagonal().add_(extra)
    x = solvers.solve_definite(matrix, rows.right)
    return (solvers.solve_semidefinite(matrix, rows.right), False) if x is None else (x, True)


def exact_losses(pilot: Pilot, solutions: list[Tensor], alpha: float) -> list[float]:
    """F(x) = mean (a.x - y)^2 + alpha ||x||^2 on unquantised pilot rows, mean over outputs; x is [n, m]."""
    stacked = torch.cat(solutions, dim=1)
    total, mass = torch.zeros(stacked.shape[1], dtype=torch.float64), 0.0
    for block in pilot.blocks():
        residual = block.a.double() @ stacked - block.y.repeat(1, len(solutions))
        total += block.weigh(residual.square()).sum(0)
        mass += block.mass
    each = total / (mass or 1.0) + alpha * stacked.square().sum(0)
    return [float(part.mean()) for part in each.chunk(len(solutions))]
