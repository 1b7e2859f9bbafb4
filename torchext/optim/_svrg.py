"""SVRG: variance reduction in full precision."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch

from torchext.optim._center import CenterOptimizer
from torchext.optim._options import CenterOptions
from torchext.optim._update import Member


class SVRG(CenterOptimizer):
    r"""Stochastic variance-reduced gradient, on a displacement from the centre.

    .. math:: z \leftarrow z - \eta\,(\nabla f_i(\tilde w + z) - \kappa(\nabla f_i(\tilde w)
       - \nabla f(\tilde w))), \quad w = \tilde w + z

    Keeping z in full precision, and not w, lets float32 reach gradient norms that updates of w cannot.

    Args:
        params: parameters or param groups, as in torch.
        lr: step size :math:`\eta`.
        T: steps from one centre to the next; twice the number of batches is a good start for convex
            problems, half to one epoch for deep nets.
        options: see :mod:`torchext.optim`.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([4.0]))
        >>> opt = SVRG([w], lr=0.5, T=4)
        >>> def closure():
        ...     opt.zero_grad()
        ...     loss = (w**2).sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> opt.recenter([closure]).grad_norm
        4.0
        >>> opt.step(closure).item(), w.item()
        (8.0, 2.0)

    Source: Johnson and Zhang, Accelerating stochastic gradient descent using predictive variance
    reduction, NIPS 2013; the coefficient :math:`\kappa` (``svrg_coef``): Yin et al., A Coefficient Makes SVRG
    Effective, ICLR 2025; ``loopless``: Kovalev et al., Don't Jump Through Hoops and Remove Those Loops, 2019.
    """

    _corrected: ClassVar[bool] = True

    def __init__(self, params: Any, lr: Any, T: int, **options: Unpack[CenterOptions]) -> None:
        super().__init__(params, {"lr": lr}, {"T": T}, options)

    def _start(self, m: Member) -> None:
        super()._start(m)
        m.state["z"] = torch.zeros_like(m.state["center"])
