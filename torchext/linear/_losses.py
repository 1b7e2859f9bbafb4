"""Losses of a linear predictor over all rows, as a full-batch solver asks for them.

Scores are float32 (m, K), one row an output, sums float64. The kernels give the same bits on every
instruction set and for any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.linear import _device


@dataclass(frozen=True)
class Loss:
    r"""Weighted sum over the rows of one of

    - ``"squared"``: :math:`(z - y)^2 / 2` of every output; the outputs do not interact;
    - ``"logistic"``: :math:`\log(1 + e^{-y z})`, y = +-1;
    - ``"softmax"``: :math:`\log \sum_c e^{z_c} - z_y`, y a class number.

    Attributes:
        name: one of the above.
        y: float32 (m, K), or (1, K) class numbers.
        weight: float32 (K,) or None.
    """

    name: str
    y: Tensor
    weight: Tensor | None

    def to(self, device: torch.device) -> Loss:
        """The same sum with its tensors on another device."""
        return Loss(self.name, self.y.to(device), _device.moved(self.weight, device))

    def arranged(self, order: Tensor | None) -> Loss:
        """The same sum over the rows in another order."""
        if order is None:
            return self
        weight = None if self.weight is None else self.weight[order]
        return Loss(self.name, self.y[:, order].contiguous(), weight)

    @property
    def quadratic(self) -> bool:
        """Whether the loss is its own second-order model, and every output a problem of its own."""
        return self.name == "squared"

    @property
    def diagonal(self) -> bool:
        """Whether :meth:`curvature` knows the second derivatives: one output that is logistic."""
        return self.name == "logistic" and len(self.y) == 1

    def curvature(self, z: Tensor) -> Tensor:
        """Weighted second derivative (K,) of the logistic loss at z (1, K), from its slope there.

        v p (1 - p) with p = |slope| / v: products only, the same bits on every instruction set.
        """
        p = self.slope(z)[0][0].abs_()
        if self.weight is None:
            return p * (1.0 - p)
        return p * (1.0 - p / self.weight.clamp_min(1e-30)).clamp_min_(0.0)

    def slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted derivative in z, (m, K), and its sums (m, 1)."""
        out = torch.empty_like(z, memory_format=torch.contiguous_format)
        return out, self._terms(z, None, None, None, out)[:, 2:3]

    def change(self, z: Tensor, moved: Tensor, out: Tensor) -> tuple[Tensor, float]:
        """Writes slope(z + moved) - slope(z) into ``out``; its sums (m, 1) and the sum of moved^2."""
        sums = self._terms(z, moved, None, None, out)
        return sums[:, 2:3], float(sums[:, 3].sum())

    def along(
        self, z: Tensor, moved: Tensor, score: Tensor, length: Tensor
    ) -> tuple[Tensor, Tensor]:
        """At z + moved + length * score: slope, less that at z, and curvature along ``score``."""
        sums = self._terms(z, moved, score, length.float().expand(len(z), 1)[:, 0].contiguous())
        return sums[:, 0].sum(), sums[:, 1].sum()

    def _terms(
        self,
        z: Tensor,
        moved: Tensor | None,
        score: Tensor | None,
        length: Tensor | None,
        out: Tensor | None = None,
    ) -> Tensor:
        terms: Tensor = torch.ops.torchext._loss_terms(
            z, self.y, self.weight, moved, score, length, self.name, out
        )
        return terms
