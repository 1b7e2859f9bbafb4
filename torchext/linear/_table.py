"""X as estimators take it: an array, or a tensor on the GPU that ``device`` names, which stays there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data
from torch import Tensor

from torchext.data.gpu_source import GpuSource
from torchext.data.sources import as_array
from torchext.linear import _device

#: Checked rows, float32 or float64: in CPU memory or on a GPU.
Table = np.ndarray | Tensor

_BLOCK = 1 << 26  # values that are float64 for a moment


def validated(estimator: Any, X: Any, y: Any, **how: Any) -> Any:
    """What sklearn's ``validate_data`` gives, without a copy of an X that is where the estimator works.

    Its checks then read a table of the same shape and no memory; NaN and infinities are sought on the GPU.
    """
    y = as_array(y) if isinstance(y, Tensor) else y
    on_gpu = isinstance(X, Tensor) and X.device.type != "cpu"
    # A model fitted on a GPU needs none to predict from an array.
    device = _device.resolve(estimator.device) if on_gpu else _device.CPU
    if device.type == "cpu":
        X = as_array(X) if isinstance(X, Tensor) else X
        return validate_data(estimator, X, y, dtype=[np.float64, np.float32], **how)
    if X.dim() != 2:
        return validate_data(estimator, np.empty(X.shape), y)  # which says what it expects
    source = GpuSource(X.to(device))
    seen = np.broadcast_to(np.zeros(1, source.dtype), X.shape)
    checks = how | {"ensure_all_finite": False}
    found = validate_data(estimator, seen, y, dtype=[np.float64, np.float32], **checks)
    if how.get("ensure_all_finite", True):
        source.check_finite()
    return (source.x, found[1]) if isinstance(found, tuple) else source.x


def checked_weights(sample_weight: Any, rows: int) -> np.ndarray | None:
    """Weights >= 0 with a positive sum, float64 (rows,); None if none were given."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Tensor):
        sample_weight = as_array(sample_weight)
    weight: np.ndarray = _check_sample_weight(
        sample_weight, np.empty((rows, 1)), dtype=np.float64, ensure_non_negative=True
    )
    if not weight.any():
        raise ValueError("sample_weight must have a positive sum, all are 0")
    return weight


def class_index(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Class labels, ascending, and the number of every row's: (C,) and int64 (K,).

    ValueError unless y is a column of labels of two classes at least.
    """
    y = column_or_1d(y)  # labels that came in blocks may be a column
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"a classifier needs at least 2 classes; got 1 class, {classes.tolist()[0]!r}"
        )
    return classes, np.searchsorted(classes, y)


def some_rows(X: Table, index: Any) -> Table:
    """Rows by position (integers) or by a slice, where X is."""
    if isinstance(X, Tensor) and not isinstance(index, slice):
        index = torch.from_numpy(index).to(X.device)
    rows: Table = X[index]
    return rows


def scores(X: Table, coef: Any, intercept: Any) -> np.ndarray:
    """float64 X coef^T + intercept; of a tensor it is multiplied where that is."""
    if isinstance(X, np.ndarray):
        found: np.ndarray = X @ np.asarray(coef).T + intercept
        return found
    w, offset = (
        torch.from_numpy(np.asarray(a, dtype=np.float64).T).to(X.device) for a in (coef, intercept)
    )
    step = max(1, _BLOCK // X.shape[1])
    parts = [X[at : at + step].double() @ w + offset for at in range(0, len(X), step)]
    return torch.cat(parts).cpu().numpy()
