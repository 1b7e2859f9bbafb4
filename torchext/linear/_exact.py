"""Passes over the full-precision rows: exact loss and gradient, and the exact least-squares solver.

Rows are centred and scaled as the store does it, a = (X - mean)/scale, but in float64 throughout.
:class:`torchext.linear._products.ExactRows` makes the passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.data import sources
from torchext.data.sources import as_tensor
from torchext.linear._products import ExactRows
from torchext.linear._table import Table

_BLOCK = 1 << 20  # values a block


@dataclass(frozen=True)
class Source:
    """The full-precision data given to ``fit``, with the statistics that scale it.

    X may be on a GPU, where the exact passes then run.
    """

    X: Table
    y: Tensor
    weight: Tensor | None
    mean: Tensor
    scale: Tensor

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Scaled rows, targets and weights, float64, a block at a time."""
        X = sources.as_array(self.X)
        rows, cols = X.shape
        step = max(1, _BLOCK // max(1, cols))
        for first in range(0, rows, step):
            part = slice(first, min(rows, first + step))
            a = (as_tensor(X[part]).double() - self.mean) / self.scale
            y = self.y[part].double()
            w = (
                torch.ones(len(a), dtype=torch.float64)
                if self.weight is None
                else self.weight[part].double()
            )
            yield a, y, w


def slope(z: Tensor, y: Tensor, loss: str) -> Tensor:
    """l'(z, y) of the squared (z - y) or logistic (-y/(1 + exp(y z))) loss."""
    return z - y if loss == "squared_error" else -y * torch.sigmoid(-y * z)


def loss_and_gradient(
    source: Source, coef: Tensor, intercept: Tensor, loss: str
) -> tuple[float, Tensor, Tensor]:
    """One exact pass at ``coef`` (m, n) in scaled units: mean loss over rows and outputs, and gradients.

    Returns:
        the loss, its gradient (m, n) and the intercept's gradient (m,); means over the rows.
    """
    table = sources.from_arrays(source.X)
    rows = ExactRows(
        table, source.mean, source.scale, True,
        "squared" if loss == "squared_error" else "logistic", source.y.double().contiguous(),
        None if source.weight is None else source.weight.double().contiguous(),
        torch.get_num_threads(), device=table.device,
    )  # fmt: skip
    total, gradient, _ = rows.gradient(torch.cat([coef, intercept[:, None]], dim=1).double())
    count = source.X.shape[0]
    return total / (count * len(coef)), gradient[:, :-1] / count, gradient[:, -1] / count


def solve_least_squares(source: Source, penalty: Tensor) -> Tensor:
    """float64 (m, n): minimiser of mean (a.x - y)^2 / 2 + sum penalty_j x_j^2 / 2, by Cholesky.

    Directions without data (constant or dependent columns at penalty 0) get the smallest solution.
    """
    cols = source.X.shape[1]
    gram = torch.zeros(cols, cols, dtype=torch.float64)
    linear = torch.zeros(cols, source.y.shape[1], dtype=torch.float64)
    for a, y, w in source.blocks():
        gram += (a * w[:, None]).T @ a
        linear += (a * w[:, None]).T @ y
    rows = source.X.shape[0]
    gram, linear = gram / rows + torch.diag(penalty), linear / rows
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info) == 0 and float(factor.diagonal().min()) > 1e-7 * float(factor.diagonal().max()):
        return torch.cholesky_solve(linear, factor).T.contiguous()
    smallest: Tensor = torch.linalg.lstsq(gram, linear, driver="gelsd").solution
    return smallest.T.contiguous()
