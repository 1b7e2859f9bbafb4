"""Checks of constructor parameters, once, with the sentence that names the fix."""

from __future__ import annotations

import inspect
import math
import numbers
import os
from typing import Any

from torchext.linear import _device
from torchext.linear._schedule import SCHEDULES

_CHOICES: dict[str, tuple[Any, ...]] = {
    "penalty": ("l2", "l1", "elasticnet", None),
    "sampling": ("auto", "nearest", "stochastic", "double", "corrected"),
    "learning_rate": SCHEDULES,
    "scale": ("max", "std", "none"),
    "solver": ("sgd", "exact", "halp", "svrg"),
}


#: Solvers with a float64 centre, and what has no meaning for them.
VARIANCE_REDUCED = ("halp", "svrg")
MOST_BATCH = 32768  # the integer sums of their steps hold as many rows
_SGD_ONLY = (
    "sampling", "levels", "anchor", "theta", "model_bits", "residual_bits", "gradient_bits",
    "power_t", "shift_every", "average", "variance_reduced", "copies", "layout", "early_stopping",
    "validation_fraction",
)  # fmt: skip


def check_params(estimator: Any) -> None:
    """ValueError for a parameter outside its documented values."""
    for name, allowed in _CHOICES.items():
        value = getattr(estimator, name)
        if value not in allowed:
            raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}")
    _device.resolve(estimator.device)
    if estimator.loss not in estimator._losses:
        raise ValueError(f"loss must be one of {list(estimator._losses)}, got {estimator.loss!r}")
    if estimator.loss == "log_loss" and estimator.sampling in ("corrected", "double"):
        raise ValueError(
            f'loss "log_loss" needs sampling "nearest" or "auto", got {estimator.sampling!r}'
        )
    if estimator.batch_size is not None:
        _integer(estimator, "batch_size", 1)
    if estimator.solver in VARIANCE_REDUCED:
        _check_variance_reduced(estimator)
    _own_only(estimator, "z_bits", "halp")
    _own_only(estimator, "mu", "halp")
    if estimator.max_iter is not None:
        _integer(estimator, "max_iter", 1)
    _integer(estimator, "n_iter_no_change", 1)
    _integer(estimator, "copies", 1)
    _integer(estimator, "checkpoint_every", 1)
    _integer(estimator, "shift_every", 1)
    bits = estimator.bits
    if bits is not None and bits not in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32):
        raise ValueError(f"bits must be 1 to 8, 16, or 32 (no codes), got {bits!r}")
    for name in ("model_bits", "residual_bits"):
        if getattr(estimator, name) not in (2, 3, 4, 5, 6, 7, 8, 32):
            raise ValueError(
                f"{name} must be 2 to 8, or 32 for no rounding, got {getattr(estimator, name)!r}"
            )
    if estimator.gradient_bits not in (None, 2, 3, 4, 5, 6, 7, 8):
        raise ValueError(f"gradient_bits must be None or 2 to 8, got {estimator.gradient_bits!r}")
    anchor = estimator.anchor
    if anchor not in ("pilot", "none") and (isinstance(anchor, (bool, str)) or int(anchor) < 1):
        raise ValueError(
            f'anchor must be "pilot", "none" or a number of further passes >= 1, got {anchor!r}'
        )
    if not estimator.alpha >= 0:
        raise ValueError(f"alpha must be >= 0, got {estimator.alpha!r}")
    if not 0 <= estimator.l1_ratio <= 1:
        raise ValueError(f"l1_ratio must be in [0, 1], got {estimator.l1_ratio!r}")
    if estimator.eta0 is not None and not estimator.eta0 > 0:
        raise ValueError(
            f"eta0 must be positive or None for the automatic step, got {estimator.eta0!r}"
        )
    if not 0 < estimator.validation_fraction < 1:
        raise ValueError(
            f"validation_fraction must be in (0, 1), got {estimator.validation_fraction!r}"
        )


def has_partial_fit(estimator: Any) -> bool:
    """Whether batches of a stream can be trained on: a centre needs all the data."""
    return estimator.solver not in VARIANCE_REDUCED


def _own_only(estimator: Any, name: str, solver: str) -> None:
    """ValueError unless ``name`` has its default, or the solver is the one that reads it."""
    value = getattr(estimator, name)
    default = inspect.signature(type(estimator)).parameters[name].default
    if estimator.solver != solver and (type(value), value) != (type(default), default):
        raise ValueError(
            f'{name} does not apply to solver="{estimator.solver}", leave it at {default!r}; got {value!r}'
        )


def _check_variance_reduced(estimator: Any) -> None:
    for name in _SGD_ONLY:
        _own_only(estimator, name, "sgd")
    solver = estimator.solver
    widths = (8, 16) if solver == "halp" else (8, 16, 32)
    if estimator.bits not in (None, *widths):
        raise ValueError(
            f'bits must be one of {widths} with solver="{solver}", got {estimator.bits!r}'
        )
    if estimator.penalty not in ("l2", None):
        raise ValueError(
            f'penalty must be "l2" or None with solver="{solver}", got {estimator.penalty!r}'
        )
    if estimator.learning_rate not in ("auto", "constant"):
        raise ValueError(
            f'learning_rate must be "auto" or "constant" with solver="{solver}", got '
            f"{estimator.learning_rate!r}"
        )
    if estimator._batch() > MOST_BATCH:
        raise ValueError(
            f'batch_size must be at most {MOST_BATCH} with solver="{solver}", got {estimator.batch_size!r}'
        )
    if solver == "halp":
        if estimator.z_bits not in ((None, 8, 16) if estimator.bits != 16 else (None, 16)):
            raise ValueError(
                f"z_bits must be 8 or 16, and 16 with bits=16; got {estimator.z_bits!r}"
            )
        mu = estimator.mu
        if mu != "auto" and (isinstance(mu, (str, bool)) or not 0 < float(mu) < math.inf):
            raise ValueError(f'mu must be "auto" or a positive number, got {mu!r}')


def _integer(estimator: Any, name: str, least: int) -> None:
    value = getattr(estimator, name)
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or int(value) != value or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def threads_of(n_jobs: int | None) -> int:
    """Threads for ``n_jobs``: None is 1, -1 all processors of this process, -2 all but one, and so on.

    Never more than the process may run on: threads without a processor only make the others wait.
    """
    if n_jobs is None:
        return 1
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; use None for one thread, -1 for all")
    processors = len(os.sched_getaffinity(0))
    if n_jobs > 0:
        return min(int(n_jobs), processors)
    return max(1, processors + 1 + int(n_jobs))
