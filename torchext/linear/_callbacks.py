"""Progress: plain callables, and scikit-learn's callback objects where it has them (>= 1.9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback import with_callbacks as _managed
except ImportError:  # scikit-learn < 1.9
    _managed = None

    class CallbackSupportMixin:  # type: ignore[no-redef,unused-ignore]
        """Stand-in: this scikit-learn has no callbacks."""


def with_callbacks(method: F) -> F:
    """Decorates ``fit``: scikit-learn's callbacks are torn down however it ends."""
    managed: F = method if _managed is None else _managed(method)
    return managed


__all__ = ["CallbackSupportMixin", "FitContext", "Progress", "with_callbacks"]


@dataclass(frozen=True)
class Progress:
    """What a callable in ``callbacks=`` receives after every epoch; returning True stops training.

    Attributes:
        epoch: epochs done, over all rounds.
        max_iter: most epochs of one round.
        round: 0 before the first further anchor pass.
        loss: running objective of the epoch, measured on the codes.
        seconds: time of the epoch.
    """

    epoch: int
    max_iter: int
    round: int
    loss: float
    seconds: float


class FitContext:
    """Tells scikit-learn's callbacks about the fit and its epochs; does nothing without callbacks."""

    def __init__(self, estimator: Any, epochs: int) -> None:
        self.estimator = estimator
        self.root: Any = None
        if hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx"):
            self.root = estimator._init_callback_context(max_subtasks=epochs)
            self.root.call_on_fit_task_begin(estimator=estimator)

    def epoch(self, coefficients: Callable[[], dict[str, Any]]) -> bool:
        """One epoch is over; True if a callback wants to stop."""
        if self.root is None:
            return False
        task = self.root.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self.estimator)
        return bool(
            task.call_on_fit_task_end(
                estimator=self.estimator, reconstruction_attributes=coefficients()
            )
        )

    def close(self) -> None:
        """The fit is over."""
        if self.root is not None:
            self.root.call_on_fit_task_end(estimator=self.estimator)
