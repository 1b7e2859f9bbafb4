"""The pilot: a few thousand random rows that find the anchor x0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.data import draws, solvers
from torchext.data.order import Sample
from torchext.data.sources import Source
from torchext.data.spill import scratch
from torchext.data.targets import Targets

EXACT_COLS = 512  # up to here systems are solved exactly in float64
GRAM_COLS = 2048  # up to here an n x n matrix is formed


def pilot_size(rows: int, cols: int) -> int:
    """S, the rows on which ``sampling="auto"`` compares: 16 per column, more where that is cheap."""
    return min(rows, max(4096, 16 * cols, 2**34 // cols**2), max(4096, 2**27 // cols))


def anchor_size(rows: int, cols: int) -> int:
    """S0, the rows on which the anchor is fitted."""
    return min(rows, max(4096, 16 * cols))


@dataclass(frozen=True)
class Block:
    """Some pilot rows: positions, scaled values [R, n] float32, targets [R, m] float64, weights [R]."""

    rows: draws.RowIndex
    a: Tensor
    y: Tensor
    weight: Tensor | None

    def weigh(self, values: Tensor) -> Tensor:
        """Rows of ``values`` times their weights."""
        return values if self.weight is None else values * self.weight[:, None].to(values.dtype)

    @property
    def mass(self) -> float:
        """Sum of the weights."""
        return float(len(self.a)) if self.weight is None else float(self.weight.sum())


@dataclass(frozen=True)
class Pilot:
    """Pilot rows of a source with labels; iterates in ascending row order, the same blocks every time."""

    source: Source
    targets: Targets
    mean: Tensor
    scale: Tensor
    sample: Sample
    folder: str | None = None

    @property
    def cols(self) -> int:
        """Number of features."""
        return self.source.cols

    def blocks(self) -> Iterator[Block]:
        """Blocks of about 2^18 values."""
        for rows in self.sample.blocks(max(64, 2**18 // self.cols)):
            index = torch.from_numpy(rows)
            weight = self.targets.weights(index)
            a = draws.scaled(self.source.take(rows), self.mean, self.scale)
            yield Block(
                rows,
                a,
                self.targets.seen(index).double(),
                None if weight is None else weight.double(),
            )


class Rows:
    """Decoded or exact pilot rows kept as float32, in a mapped temporary file when there are many."""

    def __init__(self, pilot: Pilot, decode: Decoder | None = None) -> None:
        self.matrix = scratch((pilot.sample.count, pilot.cols), torch.float32, pilot.folder)
        self.y = torch.empty(pilot.sample.count, pilot.targets.outputs, dtype=torch.float64)
        self.weight: Tensor | None = None
        if pilot.targets.weight is not None:
            self.weight = torch.empty(pilot.sample.count, dtype=torch.float64)
        at = 0
        for block in pilot.blocks():
            end = at + len(block.a)
            self.matrix[at:end] = block.a if decode is None else decode(block)
            self.y[at:end] = block.y
            if self.weight is not None and block.weight is not None:
                self.weight[at:end] = block.weight
            at = end
        self.mass = float(at) if self.weight is None else float(self.weight.sum())
        self._size = max(64, 2**18 // pilot.cols)

    def parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """(values, targets, weights) in blocks that fit the cache."""
        for at in range(0, len(self.matrix), self._size):
            part = slice(at, at + self._size)
            yield (
                self.matrix[part],
                self.y[part],
                None if self.weight is None else self.weight[part, None],
            )

    def product(self, x: Tensor) -> Tensor:
        """Gram times x [n, m], float32 products summed in float64."""
        out = torch.zeros_like(x)
        x32 = x.float()
        for values, _, weight in self.parts():
            z = values @ x32
            out += (values.T @ (z if weight is None else z * weight.float())).double()
        return out / self.mass

    def right(self) -> Tensor:
        """mean q y, float64 [n, m]."""
        out = torch.zeros(self.matrix.shape[1], self.y.shape[1], dtype=torch.float64)
        for values, y, weight in self.parts():
            out += (values.T @ (y if weight is None else y * weight).float()).double()
        return out / self.mass


class Decoder:
    """What a block decodes to; subclasses also keep sums of its noise."""

    def __call__(self, block: Block) -> Tensor:
        """float32 [R, n]."""
        return block.a


def gram(pilot: Pilot, decode: Decoder) -> tuple[Tensor, Tensor]:
    """Mean of q q^T, float64 [n, n], and of q y, [n, m]; products are float32 for wide data."""
    cols = pilot.cols
    total = torch.zeros(cols, cols, dtype=torch.float64)
    right = torch.zeros(cols, pilot.targets.outputs, dtype=torch.float64)
    mass = 0.0
    kind = torch.float64 if cols <= EXACT_COLS else torch.float32
    for block in pilot.blocks():
        q = decode(block).to(kind)
        total += block.weigh(q).T @ q
        right += (block.weigh(q).T @ block.y.to(kind)).double()
        mass += block.mass
    return total.div_(mass or 1.0), right.div_(mass or 1.0)


def fit_squares(pilot: Pilot, alpha: float) -> Tensor:
    """x0 float64 [n, m]: least squares with ridge alpha; wide data to a relative gradient of 1e-2."""
    with solvers.one_thread():
        if pilot.cols <= EXACT_COLS:
            matrix, right = gram(pilot, Decoder())
            matrix.diagonal().add_(alpha)
            return solvers.solve_semidefinite(matrix, right)
        rows = Rows(pilot)
        return solvers.conjugate_gradients(
            lambda x: rows.product(x) + alpha * x, rows.right(), tol=1e-2
        )[0]


def fit_logistic(pilot: Pilot, alpha: float) -> tuple[Tensor, Tensor]:
    """x0 float64 [n, m] and intercepts [m] of the mean logistic loss + alpha/2 ||x||^2.

    Newton steps up to 512 columns, else L-BFGS to a relative gradient of 1e-2.
    """
    with solvers.one_thread():
        rows = Rows(pilot)
        start = torch.zeros(pilot.targets.outputs, pilot.cols + 1, dtype=torch.float64)
        if pilot.cols <= EXACT_COLS:
            x = torch.cat([_newton(rows, alpha, k) for k in range(len(start))])
        else:
            x = solvers.lbfgs(lambda v: logistic_loss(rows, v, alpha), start, tol=1e-2)
    return x[:, :-1].T.contiguous(), x[:, -1].contiguous()


def logistic_loss(rows: Rows, x: Tensor, alpha: float) -> tuple[float, Tensor]:
    """Loss summed over outputs and its gradient; x float64 [m, n+1], intercepts last."""
    loss, gradient = 0.0, torch.zeros_like(x)
    w32 = x[:, :-1].T.float()
    for values, y, weight in rows.parts():
        margin = y * ((values @ w32).double() + x[:, -1])
        losses, slope = torch.nn.functional.softplus(-margin), -y * torch.sigmoid(-margin)
        if weight is not None:
            losses, slope = losses * weight, slope * weight
        loss += float(losses.sum())
        gradient[:, :-1] += (slope.T.float() @ values).double()
        gradient[:, -1] += slope.sum(0)
    gradient /= rows.mass
    gradient[:, :-1] += alpha * x[:, :-1]
    return loss / rows.mass + alpha / 2 * float(x[:, :-1].square().sum()), gradient


def _newton(rows: Rows, alpha: float, output: int, steps: int = 30) -> Tensor:
    """[1, n+1] of one output. On separable data without a ridge it stops while the fit is still finite."""
    cols = rows.matrix.shape[1]
    x = torch.zeros(cols + 1, dtype=torch.float64)
    ridge = torch.full((cols + 1,), alpha, dtype=torch.float64)
    ridge[-1] = 0.0
    first = 0.0
    for step in range(steps):
        hessian = torch.zeros(cols + 1, cols + 1, dtype=torch.float64)
        gradient = torch.zeros(cols + 1, dtype=torch.float64)
        for values, y, weight in rows.parts():
            full = torch.cat(
                [values.double(), torch.ones(len(values), 1, dtype=torch.float64)], dim=1
            )
            sign = y[:, output]
            chance = torch.sigmoid(-sign * (full @ x))
            w = torch.ones_like(chance) if weight is None else weight[:, 0]
            gradient -= full.T @ (w * sign * chance)
            hessian += full.T @ (full * (w * chance * (1 - chance))[:, None])
        gradient, hessian = gradient / rows.mass + ridge * x, hessian / rows.mass
        norm = float(gradient.norm())
        first = norm if step == 0 else first
        if norm <= 1e-8 * first:
            break
        hessian.diagonal().add_(ridge + 1e-9)
        move = solvers.solve_semidefinite(hessian, gradient[:, None])[:, 0]
        x = x - move * min(1.0, 5.0 / max(float(move.norm()), 1e-300))
        if float(x.norm()) > 1e4:
            break
    return x[None]
