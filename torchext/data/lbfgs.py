r"""Limited-memory BFGS: what the last steps say about the inverse Hessian.

The two-loop recursion over pairs :math:`(s_i, y_i)`, oldest first, is two triangular systems. With the
rows of S and Y the steps and changes, R the upper triangle of :math:`S Y^T` and :math:`H_0` the estimate
without memory,

.. math:: R a = S g,\quad r = H_0 (g - Y^T a),\quad R^T c = \mathrm{diag}(R)\, a - Y r,\quad H g = r + S^T c,

a fixed number of operations whatever the number of pairs: on a GPU their launches are what counts.
Source: R. H. Byrd, J. Nocedal, R. B. Schnabel, "Representations of quasi-Newton matrices and their use in
limited memory methods", 1994.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad


class Memory:
    """Pairs (step s, change y of the gradient), newest last, and the inverse Hessian they give.

    Its length is the number of pairs.

    Args:
        size: pairs kept.
        separable: whether the rows of x are independent problems, each with its own inner products.
    """

    def __init__(self, size: int, separable: bool) -> None:
        self.size, self.separable = size, separable
        self.clear()

    def clear(self) -> None:
        """Forget all pairs."""
        # Of every problem: (problems, pairs, n) vectors and the triangle R of their products.
        self._steps: Tensor | None = None
        self._changes: Tensor | None = None
        self._triangle: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self._steps is None else self._steps.shape[1]

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products, (m, 1) by row or (1, 1) of all."""
        each = (a * b).sum(dim=1, keepdim=True)
        return each if self.separable else each.sum(dim=0, keepdim=True)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Keep a pair; one without curvature counts as nothing known about its rows."""
        curvature = self.dot(step, change)
        good = curvature > 1e-12 * self.dot(change, change).clamp_min(1e-300)
        if not bool(good.any()):
            return
        s = self._vector(torch.where(good, step, 0.0)).mT
        y = self._vector(torch.where(good, change, 0.0))
        if self._steps is None or self._changes is None or self._triangle is None:
            self._steps, self._changes, self._triangle = s, y.mT, s @ y
            return
        old = 1 if len(self) == self.size else 0
        self._steps = torch.cat([self._steps[:, old:], s], dim=1)
        self._changes = torch.cat([self._changes[:, old:], y.mT], dim=1)
        above = pad(self._triangle[:, old:, old:], (0, 0, 0, 1))
        self._triangle = torch.cat([above, self._steps @ y], dim=2)

    def direction(self, gradient: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """-H gradient, where ``solve`` applies the estimate of the inverse Hessian without memory."""
        if self._steps is None or self._changes is None or self._triangle is None:
            return -solve(gradient)
        curvature = self._triangle.diagonal(dim1=1, dim2=2).unsqueeze(2)
        none = torch.where(curvature > 0, 0.0, 1.0)  # where the pair is 0, so are its products
        triangle = self._triangle + torch.diag_embed(none[:, :, 0])
        g = self._vector(gradient)
        a = torch.linalg.solve_triangular(triangle, self._steps @ g, upper=True)
        start = solve((g - self._changes.mT @ a).reshape(gradient.shape))
        right = curvature * a - self._changes @ self._vector(start)
        c = torch.linalg.solve_triangular(triangle.mT, right, upper=False)
        moved: Tensor = start + (self._steps.mT @ c).reshape(gradient.shape)
        return -moved

    def scaled(self, diagonal: Tensor) -> Callable[[Tensor], Tensor]:
        """The diagonal times the scale that fits the newest pair: a start for the recursion."""
        if self._changes is None or self._triangle is None:
            return lambda q: diagonal * q
        change = self._changes[:, -1].reshape(-1, diagonal.shape[-1] if diagonal.dim() else 1)
        bent, curvature = self.dot(change, diagonal * change), self._triangle[:, -1, -1:]
        scale = torch.where(bent > 0, curvature / bent.clamp_min(1e-300), torch.ones_like(bent))
        return lambda q: scale * diagonal * q

    def _vector(self, x: Tensor) -> Tensor:
        """(m, n) as a column of every problem: (m, n, 1) if separable, else (1, m n, 1)."""
        return x.reshape(len(x) if self.separable else 1, -1, 1)
