"""``sampling="auto"``: encode the pilot both ways, solve both, keep the better one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchext.data import draws, solvers
from torchext.data._levels import Codebook
from torchext.data.noise import shrinkage
from torchext.data.pilot import EXACT_COLS, GRAM_COLS, Block, Decoder, Pilot, Rows, gram

MARGIN = (
    0.995  # corrected must be this much better on the pilot, whose noise is larger than the store's
)


class Nearest(Decoder):
    """Decodes to the nearest levels."""

    def __init__(self, book: Codebook) -> None:
        self.book = book

    def __call__(self, block: Block) -> Tensor:
        return draws.cells(block.a, self.book).nearest()


@dataclass
class Stochastic(Decoder):
    """Decodes to the draws of the store, copy 0, and sums the noise."""

    book: Codebook
    key: Tensor
    cols: int
    mass: float = 0.0
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(3, self.cols, dtype=torch.float64)

    def __call__(self, block: Block) -> Tensor:
        cells = draws.cells(block.a, self.book)
        q = cells.stochastic(draws.uniforms(self.key, block.rows, self.cols))
        v = cells.variance()
        for at, values in enumerate(((q.double() - block.a.double()).square(), v, v.square())):
            self.sums[at] += block.weigh(values).sum(0)
        self.mass += block.mass
        return q

    @property
    def noise(self) -> Tensor:
        """float64 [3, n]: mean (q - a)^2, mean v, mean v^2 over the rows so far."""
        return self.sums / (self.mass or 1.0)


@dataclass(frozen=True)
class Comparison:
    """Losses of both fixed points on the exact pilot rows, mean over outputs; None: indefinite Gram."""

    rows: int
    nearest: float
    corrected: float | None

    @property
    def choice(self) -> str:
        """``"corrected"`` or ``"nearest"``."""
        better = self.corrected is not None and self.corrected <= MARGIN * self.nearest
        return "corrected" if better else "nearest"


def compare(
    pilot: Pilot, nearest: Codebook, stochastic: Codebook, key: Tensor, alpha: float = 0.0
) -> Comparison:
    """Both fixed points from the pilot's codes, made with the final codebooks and keys.

    Cholesky up to 512 columns, conjugate gradients (at most 200 steps) beyond; up to 2,048 columns on
    the Gram matrix, else on decoded rows in a temporary file.
    """
    with solvers.one_thread():
        flat, _ = _fixed_point(pilot, Nearest(nearest), alpha)
        drawn = Stochastic(stochastic, key, pilot.cols)
        corrected, definite = _fixed_point(pilot, drawn, alpha)
        return Comparison(
            rows=pilot.sample.count,
            nearest=exact_loss(pilot, flat, alpha),
            corrected=exact_loss(pilot, corrected, alpha) if definite else None,
        )


def _fixed_point(pilot: Pilot, decode: Nearest | Stochastic, alpha: float) -> tuple[Tensor, bool]:
    """Solution [n, m] of the decoded normal equations, noise subtracted for draws."""

    def diagonal() -> Tensor:
        """What is added to the Gram diagonal; needs a complete pass over the draws."""
        extra = torch.full((pilot.cols,), alpha, dtype=torch.float64)
        if isinstance(decode, Stochastic):
            noise = decode.noise
            extra -= shrinkage(noise, pilot.sample.count, pilot.cols) * noise[0]
        return extra

    if pilot.cols > GRAM_COLS:
        rows = Rows(pilot, decode)
        extra = diagonal()[:, None]
        return solvers.conjugate_gradients(
            lambda x: rows.product(x) + extra * x, rows.right(), tol=1e-4
        )
    matrix, right = gram(pilot, decode)
    extra = diagonal()
    matrix.diagonal().add_(extra)
    if pilot.cols > EXACT_COLS:
        return solvers.conjugate_gradients(lambda x: matrix @ x, right, tol=1e-5)
    x = solvers.solve_definite(matrix, right)
    if x is not None:
        return x, True
    return solvers.solve_semidefinite(matrix, right), isinstance(decode, Nearest)


def exact_loss(pilot: Pilot, x: Tensor, alpha: float) -> float:
    """F(x) = mean (a.x - y)^2 + alpha ||x||^2 on unquantised pilot rows, mean over outputs."""
    total, mass = 0.0, 0.0
    for block in pilot.blocks():
        residual = block.a.double() @ x - block.y
        total += float(block.weigh(residual.square()).sum())
        mass += block.mass
    return (total / (mass or 1.0) + alpha * float(x.square().sum())) / x.shape[1]
