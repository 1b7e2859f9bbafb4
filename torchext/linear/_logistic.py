"""Logistic regression, exact, by way of low-bit data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from torchext.data import QuantizedDataset
from torchext.linear._exact_solution import ExactModel, Targets
from torchext.linear._losses import Loss
from torchext.linear._table import class_index


class LogisticRegression(ClassifierMixin, ExactModel):  # type: ignore[misc]
    r"""Logistic regression with an L2 penalty: scikit-learn's objective, solved over low-bit codes.

    .. math:: \min_w C \sum_k v_k \, l(x_k, y_k) + \tfrac12 \|w\|^2

    with :math:`l = \log(1 + \exp(-y_k (x_k^T w + b)))` for two classes and the multinomial (softmax) loss for
    more, where all classes share each read of the codes. The method is that of :class:`Ridge`.

    Args:
        C: inverse strength of the penalty, > 0; ``numpy.inf``: no penalty.
        fit_intercept: whether intercepts are fitted (they are not penalised) or 0.
        class_weight: dict, ``"balanced"`` or None: factors of the sample weights.
        warm_start: whether ``fit`` starts from the present coefficients.
        bits, levels, tol, max_anchors, device, n_jobs, random_state, verbose: as for :class:`Ridge`.

    Attributes:
        classes_: class labels, ascending.
        coef_: (1, n) for two classes, else (C, n).
        intercept_: (1,) or (C,).
        n_iter_: (1,) L-BFGS iterations. The others are those of :class:`Ridge`.

    Raises:
        ValueError: a parameter or the data is invalid; bad values are named by row and column.

    Determinism: class B: same bits on every instruction set and for any number of threads of a machine.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from torchext.linear import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(C=1.0, bits=4).fit(X, y)
        >>> bool(model.score(X, y) > 0.95), model.fell_back_
        (True, False)

    Source: this project (docs: linear models, anchoring).
    """

    classes_: Any

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        class_weight: Any = None,
        warm_start: bool = False,
        bits: int = 4,
        levels: Any = "auto",
        tol: float = 1e-6,
        max_anchors: int = 20,
        device: Any = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.bits = bits
        self.levels = levels
        self.tol = tol
        self.max_anchors = max_anchors
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        store: QuantizedDataset | None = None,
    ) -> LogisticRegression:
        """Solve for the rows X and class labels y; see :meth:`Ridge.fit` for what X and ``store`` may be.

        Args:
            X: (K, n) dense numbers (an array or a tensor), a ``.npy`` path, a function returning blocks, or a
                data set.
            y: (K,) class labels.
            sample_weight: (K,) weights >= 0.
            store: codes of the same rows, made earlier.
        """
        self._check()
        if not self.C > 0:
            raise ValueError(f"C must be positive, got {self.C!r}")
        if isinstance(X, QuantizedDataset):
            self._given(X, y, sample_weight, store)
            return self._fit(None, _labels(X), X.weight, X)
        source, y = self._read(X, y)
        if y.dtype.kind not in "biu":  # integers are classes, whatever their number
            check_classification_targets(y)
        return self._fit(source, y, self._weight(source, sample_weight), store)

    def _fit(
        self, source: Any, y: Any, weight: Any, store: QuantizedDataset | None
    ) -> LogisticRegression:
        classes, index = class_index(y)
        weight = None if weight is None else torch.as_tensor(weight).double()
        if self.class_weight is not None:
            each = torch.from_numpy(
                compute_class_weight(self.class_weight, classes=classes, y=classes[index])[index]
            )
            weight = each if weight is None else weight * each
        source, found, seconds = self._codes(source, store)
        old = None
        if self.warm_start and hasattr(self, "coef_") and np.array_equal(self.classes_, classes):
            old = self._scaled(self.coef_, self.intercept_, found)
        self.classes_ = classes
        penalty = torch.tensor(
            [0.0 if np.isinf(self.C) else 1.0 / float(self.C)], dtype=torch.float64
        )
        targets = _targets(torch.from_numpy(index), len(classes), weight, self.fit_intercept)
        self.coef_, self.intercept_ = self._solve(
            source, found, targets, weight, penalty, old, seconds
        )
        if len(classes) > 2:  # softmax leaves the mean open; the penalty wants it to be 0
            self.coef_ = self.coef_ - self.coef_.mean(axis=0)
            self.intercept_ = self.intercept_ - self.intercept_.mean()
        self.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """(K,) for two classes, else (K, classes): X coef_^T + ``intercept_``, float64.

        Always an array in CPU memory; a tensor X on the GPU of ``device`` is multiplied there.
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """(K,) class labels."""
        z = self.decision_function(X)
        index = (z > 0).astype(np.intp) if z.ndim == 1 else z.argmax(axis=1)
        labels: np.ndarray = self.classes_[index]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """(K, classes) probabilities."""
        z = torch.from_numpy(np.asarray(self.decision_function(X), dtype=np.float64))
        if z.ndim == 1:
            p = torch.sigmoid(z)
            return torch.stack([1 - p, p], dim=1).numpy()
        return torch.softmax(z, dim=1).numpy()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """(K, classes) logarithms of the probabilities, exact where they underflow."""
        z = torch.from_numpy(np.asarray(self.decision_function(X), dtype=np.float64))
        if z.ndim == 1:
            z = torch.stack([torch.zeros_like(z), z], dim=1)
        return torch.log_softmax(z, dim=1).numpy()


def _targets(index: torch.Tensor, count: int, weight: Any, intercept: bool) -> Targets:
    """Loss, class numbers and the intercepts that fit the class frequencies."""
    light = None if weight is None else weight.float()
    share = torch.bincount(index, weight, count).double()
    share /= share.sum()
    if count == 2:
        exact = (2.0 * index - 1.0).double().reshape(-1, 1)
        start = torch.log(share[1:] / share[:1])
        curvature = float(share.prod())
    else:
        exact = index.double().reshape(-1, 1)
        start = torch.log(share)
        curvature = float((share * (1.0 - share)).mean())
    loss = Loss("logistic" if count == 2 else "softmax", exact.T.float().contiguous(), light)
    start = start.clamp(-20.0, 20.0) if intercept else torch.zeros_like(start)
    return Targets(loss, exact, start, max(curvature, 1e-3), index.int())


def _labels(store: QuantizedDataset) -> np.ndarray:
    """Class labels of a store in the order of the source."""
    if store.y is None or store.classes is None:
        raise ValueError("the data set holds numbers, not classes; encode it for classification")
    index = torch.empty(store.rows, dtype=torch.int64)
    index[store.row_id()] = store.y.reshape(-1).long()
    labels: np.ndarray = np.asarray(store.classes)[index.numpy()]
    return labels
