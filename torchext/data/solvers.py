"""Small solvers of the pilot: normal equations, conjugate gradients, Newton and L-BFGS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchext.data.lbfgs import Memory

#: ``loss, gradient = function(x)`` with x and gradient float64 [m, n].
Objective = Callable[[Tensor], tuple[float, Tensor]]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread, so that its rounding does not depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def solve_definite(gram: Tensor, right: Tensor) -> Tensor | None:
    """Solution of ``gram @ x = right`` by Cholesky; None if the matrix is not positive definite.

    Columns of zeros (constant features) get the solution 0 and do not count.
    """
    dead = gram.diagonal() == 0
    if bool(dead.any()):
        gram = gram.clone()
        gram.diagonal().masked_fill_(dead, 1.0)
        right = torch.where(dead[:, None], torch.zeros_like(right), right)
    factor, info = torch.linalg.cholesky_ex(gram)
    if int(info) != 0:
        return None
    solution: Tensor = torch.cholesky_solve(right, factor)
    return solution


def solve_semidefinite(gram: Tensor, right: Tensor) -> Tensor:
    """Least-norm solution where a positive semidefinite matrix is singular or nearly so."""
    factor, info = torch.linalg.cholesky_ex(gram)
    diagonal = factor.diagonal()
    if int(info) == 0 and float(diagonal.min()) > 1e-7 * float(diagonal.max()):
        solution: Tensor = torch.cholesky_solve(right, factor)
        return solution
    values, vectors = torch.linalg.eigh(gram)
    cut = float(values.max().clamp_min(0)) * len(values) * 1e-14
    inverse = torch.where(values > cut, 1.0 / values.clamp_min(1e-300), torch.zeros_like(values))
    least: Tensor = vectors @ (inverse[:, None] * (vectors.T @ right))
    return least


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, *, steps: int = 200, tol: float = 1e-6
) -> tuple[Tensor, bool]:
    """Solve ``A x = right`` for every column of ``right`` [n, m] at once.

    Args:
        product: A times its argument, which it may round in place: the rounded direction is followed.
        right: [n, m].
        steps: upper limit.
        tol: residual at the end, relative to the right-hand side.

    Returns:
        (x, definite): ``definite`` is False if a direction with ``p^T A p <= 0`` was met; its column
        keeps the x it had by then.
    """
    x = torch.zeros_like(right)
    residual = right.clone()
    direction = residual.clone()
    square = (residual * residual).sum(0)
    goal = square * tol**2
    definite = True
    for _ in range(steps):
        active = square > goal
        if not bool(active.any()):
            break
        image = product(direction)
        curvature = (direction * image).sum(0)
        if bool((active & (curvature <= 0)).any()):
            definite = False
            active &= curvature > 0
        safe = torch.where(curvature > 0, curvature, torch.ones_like(curvature))
        length = torch.where(active, square / safe, torch.zeros_like(square))
        x = x + length * direction
        residual = residual - length * image
        fresh = (residual * residual).sum(0)
        fresh = torch.where(active, fresh, torch.zeros_like(fresh))
        ratio = fresh / torch.where(square > 0, square, torch.ones_like(square))
        direction = residual + ratio * direction
        square = fresh
    return x, definite


def lbfgs(
    objective: Objective, start: Tensor, *, steps: int = 200, tol: float = 1e-2, memory: int = 10
) -> Tensor:
    """Minimise a smooth convex function until the gradient has shrunk to ``tol`` times its first norm."""
    x = start.clone()
    value, gradient = objective(x)
    goal = tol * float(gradient.norm())
    pairs, unit = Memory(memory, separable=False), torch.ones(())
    for _ in range(steps):
        if float(gradient.norm()) <= goal or goal == 0.0:
            break
        direction = pairs.direction(gradient, pairs.scaled(unit))
        slope = float((direction * gradient).sum())
        if slope >= 0:
            direction, slope = -gradient, -float((gradient * gradient).sum())
            pairs.clear()
        length = 1.0 if len(pairs) > 0 else min(1.0, 1.0 / max(float(gradient.abs().sum()), 1e-300))
        for _ in range(40):
            fresh_value, fresh = objective(x + length * direction)
            if fresh_value <= value + 1e-4 * length * slope:
                break
            length *= 0.5
        else:
            break
        step, change = length * direction, fresh - gradient
        pairs.add(step, change)
        x, value, gradient = x + step, fresh_value, fresh
    return x
