"""Scripts written for the HALP and SVRG optimizers of torchhalp run after their import is changed.

``from torchhalp.optim import HALP, SVRG`` becomes ``from torchext.compat.torchhalp import HALP, SVRG``.
The contract there: the optimizer holds the data loader; ``closure(data=..., target=...)`` zeroes nothing,
runs forward and backward on the batch it is given (by default the current one) and returns its mean loss;
``step(closure)`` re-centres by itself every T steps, at first in the first step.

What comes out is not the same to the last digit: torchhalp weights all batches of the full gradient
equally, also a smaller last one, decays the offset z in place of the weights, and leaves the full gradient
without decay. These are corrected here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from torchext import optim
from torchext.optim._center import CenterOptimizer

Batches = Iterable[tuple[Any, Any]]
BatchClosure = Callable[..., Any]


class _WithLoader(CenterOptimizer):
    """What torchhalp adds to an optimizer: it holds the loader, and re-centres by itself."""

    def _fresh(self) -> None:
        super()._fresh()
        #: All data; not saved: assign it again after unpickling.
        self.data_loader: Batches = ()

    def _parts(self, closure: BatchClosure) -> Iterator[tuple[Callable[[], Any], float]]:
        for data, target in self.data_loader:

            def part(data: Any = data, target: Any = target) -> Any:
                return closure(data, target)

            yield part, len(target)

    def step(self, closure: BatchClosure | None = None) -> Any:
        """One step; re-centres on the whole loader when it is due.

        Args:
            closure: ``closure(data=..., target=...)``: forward, backward, mean loss. Called with every
                batch of the loader at a re-centring, and twice without arguments.

        Returns:
            The loss of the current batch at the weights before the step.
        """
        if closure is None:
            return CenterOptimizer.step(self)
        if self.needs_recenter:
            self.recenter(self._parts(closure))

        def current() -> Any:
            self.zero_grad()
            return closure()

        return CenterOptimizer.step(self, current)  # not super(): hooks would run twice


def _check_inner(opt: Any) -> None:
    if opt is not torch.optim.SGD:
        raise ValueError(
            f"opt={getattr(opt, '__name__', opt)}: the adapter supports torch.optim.SGD only; "
            "use torchext.optim directly for anything else"
        )


class SVRG(_WithLoader, optim.SVRG):
    """:class:`torchext.optim.SVRG` with torchhalp's constructor.

    Args:
        params: parameters.
        lr: step size.
        T: batches from one centre to the next.
        data_loader: batches ``(data, target)`` over all data.
        weight_decay, momentum: as in SGD.
        opt: ``torch.optim.SGD``; nothing else is supported.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        T: int,
        data_loader: Batches,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        opt: Any = torch.optim.SGD,
    ) -> None:
        _check_inner(opt)
        optim.SVRG.__init__(self, params, lr, T, weight_decay=weight_decay, momentum=momentum)
        self.data_loader = data_loader


class HALP(_WithLoader, optim.HALP):
    """:class:`torchext.optim.HALP` with torchhalp's constructor; one spacing per tensor, as there.

    Args:
        params, lr, T, data_loader, weight_decay, momentum, opt: as in :class:`SVRG`.
        mu: the box around the centre has the half-width ||g|| / mu.
        bits: bits of an offset.
        biased: nearest rounding.
        unbiased: the reverse, where a script passes that; it wins over ``biased``.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        T: int,
        data_loader: Batches,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        opt: Any = torch.optim.SGD,
        mu: float = 0.1,
        bits: int = 8,
        biased: bool = False,
        unbiased: bool | None = None,
    ) -> None:
        _check_inner(opt)
        nearest = biased if unbiased is None else not unbiased
        optim.HALP.__init__(
            self,
            params,
            lr,
            T,
            mu=mu,
            bits=bits,
            rounding="nearest" if nearest else "stochastic",
            weight_decay=weight_decay,
            momentum=momentum,
        )
        self.data_loader = data_loader
