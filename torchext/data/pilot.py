"""The pilot: a few thousand random rows that find the anchor x0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchext.data import solvers
from torchext.data._encode import scale_rows
from torchext.data.order import Sample
from torchext.data.sources import Source
from torchext.data.spill import scratch
from torchext.data.targets import Targets

EXACT_COLS = 512  # up to here an n x n matrix is formed and the system solved exactly in float64

_FRESH = 4096  # rows outside the pilot that tell by how much a logistic one overshoots

_MEMBERS = 1 << 18  # rows of the source whose membership is decided at a time

_ROWS_IN_MEMORY = 64 << 20  # bytes; the pages of a new file cost more than reading it


def pilot_size(rows: int, cols: int) -> int:
    """S, the rows on which ``sampling="auto"`` compares: 16 per column, more where that is cheap."""
    return min(rows, max(4096, 16 * cols, 2**34 // cols**2), max(4096, 2**27 // cols))


def anchor_size(rows: int, cols: int) -> int:
    """S0, the rows on which the anchor is fitted."""
    return min(rows, max(4096, 16 * cols))


@dataclass(frozen=True)
class Block:
    """Some pilot rows: scaled values [R, n] float32, targets [R, m] and weights [R] float64."""

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

    def blocks(self, out: Tensor | None = None) -> Iterator[Block]:
        """Blocks of about 2^18 values; with ``out`` [S, n] the values are written there."""
        at = 0
        for rows in self.sample.blocks(self._block_rows):
            to = None if out is None else out[at : at + len(rows)]
            at += len(rows)
            yield self._block(rows, to)

    def fresh(self, count: int) -> Iterator[Block]:
        """Up to ``count`` rows outside the sample."""
        larger = Sample(self.sample.key, self.sample.rows, self.sample.count + count)
        for first in range(0, larger.rows, _MEMBERS):
            size = min(_MEMBERS, larger.rows - first)
            rows = np.setdiff1d(
                larger.members(first, size), self.sample.members(first, size), assume_unique=True
            )
            for at in range(0, len(rows), self._block_rows):
                yield self._block(rows[at : at + self._block_rows], None)

    @property
    def _block_rows(self) -> int:
        return max(64, 2**18 // self.cols)

    def _block(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]], out: Tensor | None) -> Block:
        index, whole = torch.from_numpy(rows), self.source.whole()
        if whole is None or whole.device.type != "cpu" or whole.stride(1) != 1:  # copied otherwise
            a = scale_rows(self.source.take(rows), self.mean, self.scale, out=out)
        else:
            a = scale_rows(whole, self.mean, self.scale, rows=index, out=out)
        weight = self.targets.weights(index)
        return Block(
            a, self.targets.seen(index).double(), None if weight is None else weight.double()
        )


class Rows:
    """Exact pilot rows kept as float32, in a mapped temporary file above 64 MiB."""

    def __init__(self, pilot: Pilot) -> None:
        shape = (pilot.sample.count, pilot.cols)
        self.matrix = scratch(shape, torch.float32, pilot.folder, _ROWS_IN_MEMORY + 1)
        self.y = torch.empty(pilot.sample.count, pilot.targets.outputs, dtype=torch.float64)
        self.weight: Tensor | None = None
        if pilot.targets.weight is not None:
            self.weight = torch.empty(pilot.sample.count, dtype=torch.float64)
        at = 0
        for block in pilot.blocks(self.matrix):
            end = at + len(block.a)
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


def gram(pilot: Pilot) -> tuple[Tensor, Tensor]:
    """Mean of a a^T, float64 [n, n], and of a y, [n, m]."""
    total = torch.zeros(pilot.cols, pilot.cols, dtype=torch.float64)
    right = torch.zeros(pilot.cols, pilot.targets.outputs, dtype=torch.float64)
    mass = 0.0
    for block in pilot.blocks():
        a = block.a.double()
        weighted = block.weigh(a).T
        total += weighted @ a
        right += weighted @ block.y
        mass += block.mass
    return total.div_(mass or 1.0), right.div_(mass or 1.0)


def fit_squares(pilot: Pilot, alpha: float) -> Tensor:
    """x0 float64 [n, m]: least squares with ridge alpha; wide data to a relative gradient of 1e-2."""
    with solvers.one_thread():
        if pilot.cols <= EXACT_COLS:
            matrix, right = gram(pilot)
            matrix.diagonal().add_(alpha)
            return solvers.solve_semidefinite(matrix, right)
        rows = Rows(pilot)
        return solvers.conjugate_gradients(
            lambda x: rows.product(x) + alpha * x, rows.right(), tol=1e-2
        )[0]


def fit_logistic(pilot: Pilot, alpha: float) -> tuple[Tensor, Tensor]:
    """x0 float64 [n, m] and intercepts [m] of the mean logistic loss + alpha/2 ||x||^2.

    Newton steps up to 512 columns, else L-BFGS to a relative gradient of 1e-2. With few rows a column the
    fitted scores are too large by a factor, which other rows take back.
    """
    with solvers.one_thread():
        rows = Rows(pilot)
        start = torch.zeros(pilot.targets.outputs, pilot.cols + 1, dtype=torch.float64)
        if pilot.cols <= EXACT_COLS:
            x = torch.cat([_newton(rows, alpha, k) for k in range(len(start))])
        else:
            x = solvers.lbfgs(lambda v: logistic_loss(rows, v, alpha), start, tol=1e-2)
        x *= _shrinkage(list(pilot.fresh(_FRESH)), x)
    return x[:, :-1].T.contiguous(), x[:, -1].contiguous()


def _shrinkage(fresh: list[Block], x: Tensor, steps: int = 30) -> Tensor:
    """[m, 1]: the factor in [0, 1] on the scores of each output with the least loss on other rows."""
    margins = [b.y * ((b.a @ x[:, :-1].T.float()).double() + x[:, -1]) for b in fresh]
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
    for step in range(steps):
        factor = high if step == 0 else 0.5 * (low + high)
        slope = torch.zeros_like(low)
        for block, margin in zip(fresh, margins, strict=True):
            slope -= block.weigh(margin * torch.sigmoid(-factor * margin)).sum(0)
        low = torch.where(slope <= 0, factor, low)
        high = torch.where(slope <= 0, high, factor)
    return low[:, None]


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
