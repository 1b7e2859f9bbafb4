"""Labels of a store: what is stored, and what the loss sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data.errors import DataError
from torchext.data.sources import Source

Array = np.ndarray[Any, Any]
LOSSES = ("squared_error", "log_loss")
TASKS = ("auto", "regression", "classification")


@dataclass
class Targets:
    """Labels in source order.

    Attributes:
        stored: float32 [K, m], or int32 [K] class numbers.
        classes: the class labels, ascending; None for numbers.
        loss: ``"squared_error"`` or ``"log_loss"``.
        weight: float32 [K] or None.
        mean: float64 [m], weighted mean of the targets (class k against the rest: +-1).
    """

    stored: Tensor
    classes: list[Any] | None
    loss: str
    weight: Tensor | None
    mean: Tensor = field(init=False)

    def __post_init__(self) -> None:
        total = torch.zeros(self.outputs, dtype=torch.float64)
        mass = 0.0
        for first in range(0, len(self.stored), 1024):
            y = self.signs(slice(first, first + 1024)).numpy().astype(np.float64)
            if self.weight is not None:
                w = self.weight[first : first + 1024].numpy().astype(np.float64)
                y *= w[:, None]
                mass += float(w.sum())
            else:
                mass += float(len(y))
            total += torch.from_numpy(y.sum(axis=0))
        self.mean = total / mass if mass else total

    @property
    def outputs(self) -> int:
        """Number of targets m: one per column of y, one for two classes, C for C > 2 classes."""
        if self.classes is None:
            return int(self.stored.shape[1])
        return 1 if len(self.classes) <= 2 else len(self.classes)

    @property
    def task(self) -> str:
        """``"classification"`` or ``"regression"``."""
        return "regression" if self.classes is None else "classification"

    def signs(self, rows: slice | Tensor) -> Tensor:
        """float32 [R, m] of some rows: the numbers, or +1 for the class and -1 for the rest."""
        part = self.stored[rows]
        if self.classes is None:
            return part
        if len(self.classes) <= 2:
            return (2 * part - 1).to(torch.float32).reshape(-1, 1)
        of_class = part[:, None] == torch.arange(len(self.classes), dtype=torch.int32)
        return 2 * of_class.to(torch.float32) - 1

    def seen(self, rows: slice | Tensor) -> Tensor:
        """float32 [R, m] as the loss sees them: centred for squared errors."""
        y = self.signs(rows)
        return (y.double() - self.mean).to(torch.float32) if self.loss == "squared_error" else y

    def weights(self, rows: slice | Tensor) -> Tensor | None:
        """float32 [R] weights of these rows."""
        return None if self.weight is None else self.weight[rows]


def check_weight(source: Source) -> Tensor | None:
    """float32 [K] of valid sample weights."""
    if source.weight is None:
        return None
    weight = np.asarray(source.weight, dtype=np.float64).reshape(-1).astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{source.label}: {source.place(row)}, sample weight {weight[row]} is not a number >= 0"
        )
    if not weight.any():
        raise DataError(f"{source.label}: all sample weights are 0")
    return torch.from_numpy(weight)


def read_targets(source: Source, loss: str, task: str) -> Targets | None:
    """Labels of a source; None if it has none.

    ``task="auto"``: text and booleans are classes, and so is any 1-d y with ``loss="log_loss"``; numbers
    are a regression otherwise. With ``"log_loss"`` a 2-d y must hold -1 and +1, a column per output.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be squared_error or log_loss, got {loss!r}")
    if task not in TASKS:
        raise ValueError(f"task must be auto, regression or classification, got {task!r}")
    if source.y is None:
        return None
    weight = check_weight(source)
    y: Array = np.asarray(source.y)
    if y.ndim > 2:
        raise DataError(
            f"{source.label}: y must have one or two dimensions, got shape {tuple(y.shape)}"
        )
    if y.dtype.kind == "O":
        y = _plain(y)
    flat = y.ndim == 1 or y.shape[1] == 1
    signs = (
        loss == "log_loss"
        and y.ndim == 2
        and y.dtype.kind in "fiu"
        and bool((np.abs(y) == 1).all())
    )
    classes = (
        y.dtype.kind in "bUS" or task == "classification" or (loss == "log_loss" and not signs)
    )
    if classes and task == "regression":
        raise DataError(f"{source.label}: y has labels, not numbers; use task='classification'")
    if not classes:
        return Targets(_numbers(source, y), None, loss, weight)
    if not flat:
        raise DataError(
            f"{source.label}: class labels must be a single column, got shape {tuple(y.shape)}"
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        _numbers(source, y)
    found, index = np.unique(y.reshape(-1), return_inverse=True)
    if len(found) > 4096:
        raise DataError(f"{source.label}: y has {len(found)} classes, at most 4096 are supported")
    labels = [c.item() if isinstance(c, np.generic) else c for c in found]
    labels = [c.decode() if isinstance(c, bytes) else c for c in labels]
    return Targets(torch.from_numpy(index.reshape(-1).astype(np.int32)), labels, loss, weight)


def _plain(y: Array) -> Array:
    """Objects as numbers if all are, else as text."""
    try:
        return y.astype(np.float64)
    except (TypeError, ValueError):
        return y.astype(str)


def _numbers(source: Source, y: Array) -> Tensor:
    with np.errstate(over="ignore"):
        numbers = y.reshape(len(y), -1).astype(np.float32)
    if not np.isfinite(numbers).all():
        row, col = np.argwhere(~np.isfinite(numbers))[0]
        value = y.reshape(len(y), -1)[row, col]
        raise DataError(
            f"{source.label}: {source.place(int(row))}, target {col} is {value}, a finite float32 is needed"
        )
    return torch.from_numpy(np.ascontiguousarray(numbers))
