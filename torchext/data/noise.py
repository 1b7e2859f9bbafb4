"""How much of the measured noise may be subtracted: shrinkage and guard without eigenvalues."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rows(noise: Tensor, rows: int) -> Tensor:
    r"""float64 [n]: rows that carry a column's noise, :math:`K_j = (\sum_k v_{kj})^2 / \sum_k v_{kj}^2`.

    Args:
        noise: float64 [3, n]: mean (q - a)^2, mean v, mean v^2.
        rows: K. A column without noise gets 0.
    """
    v, square = noise[1], noise[2]
    return torch.where(square > 0, rows * v * v / square.clamp_min(1e-300), torch.zeros_like(v))


def shrinkage(noise: Tensor, rows: int, cols: int, kind: str | float = "keff") -> Tensor:
    r"""float64 [n]: the part theta of the noise that corrected estimators subtract from the Gram diagonal.

    .. math:: \theta_j = \max(0, \sqrt{1 - r_j} - \sqrt{r_j})^2, \qquad r_j = \min(1, n/K_j)

    Args:
        noise: float64 [3, n] of a store.
        rows, cols: K and n.
        kind: ``"keff"``: K_j = :func:`effective_rows`, positive definite in every run so far; ``"mp"``:
            K_j = K; or a number, used for all columns.
    """
    if not isinstance(kind, str):
        return torch.full((cols,), float(kind), dtype=torch.float64)
    if kind == "keff":
        carriers = effective_rows(noise, rows)
    elif kind == "mp":
        carriers = torch.full((cols,), float(rows), dtype=torch.float64)
    else:
        raise ValueError(f"theta must be 'keff', 'mp' or a number, got {kind!r}")
    share = (cols / carriers.clamp_min(1e-300)).clamp_max(1.0)
    theta = (torch.sqrt(1 - share) - torch.sqrt(share)).clamp_min(0.0) ** 2
    return torch.where(noise[1] > 0, theta, torch.zeros_like(theta))


def double_guard(noise: Tensor, rows: int, cols: int) -> Tensor:
    r"""float64 [n]: the diagonal ridge :math:`v_j(\sqrt{2n/K_j} + n/(2K_j))` of fixed double sampling."""
    carriers = effective_rows(noise, rows)
    ridge = noise[1] * (
        torch.sqrt(2 * cols / carriers.clamp_min(1e-300)) + cols / (2 * carriers.clamp_min(1e-300))
    )
    return torch.where(carriers > 0, ridge, torch.zeros_like(ridge))
