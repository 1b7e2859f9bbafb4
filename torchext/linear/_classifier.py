"""Classification by SGD on low-bit data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from torchext.data import QuantizedDataset
from torchext.data.sources import as_array
from torchext.linear._base import BaseSGD
from torchext.linear._callbacks import Progress, with_callbacks
from torchext.linear._table import class_index, scores, validated
from torchext.linear._validate import VARIANCE_REDUCED, has_partial_fit


class SGDClassifier(ClassifierMixin, BaseSGD):  # type: ignore[misc]
    """Linear classifiers on data of a few bits per value: LS-SVM or logistic, one against the rest.

    Labels are +-1 per class; all classes are trained in one run that reads every code once.
    ``decision_function`` is the linear score; ``predict_proba`` (log_loss) its logistic, normalised
    over the classes when there are more than two.

    Args:
        loss: ``"squared"``: least squares on labels +-1 (LS-SVM); ``"log_loss"``: logistic, nearest codes;
            for more than two classes softmax with the solvers ``"halp"`` and ``"svrg"``.
        class_weight: dict, ``"balanced"`` or None; None where ``fit`` gets a data set.

    All other parameters, the attributes and the determinism are those of :class:`SGDRegressor`; ``classes_``
    holds the labels.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from torchext.linear import SGDClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = SGDClassifier("log_loss", bits=4, random_state=0).fit(X, y)
        >>> bool(model.score(X, y) > 0.9)
        True

    Source: Zhang et al., "ZipML", ICML 2017; the anchor is ours.
    """

    _losses = ("squared", "log_loss")

    def __init__(
        self,
        loss: str = "squared",
        *,
        penalty: str | None = "l2",
        alpha: float = 1e-4,
        l1_ratio: float = 0.15,
        bits: int | None = None,
        sampling: str = "auto",
        levels: Any = "auto",
        anchor: str | int = "pilot",
        theta: float | str = "keff",
        model_bits: int = 8,
        residual_bits: int = 8,
        gradient_bits: int | None = None,
        solver: str = "sgd",
        z_bits: int | None = None,
        mu: float | str = "auto",
        batch_size: int | None = None,
        max_iter: int | None = None,
        tol: float | None = 1e-5,
        n_iter_no_change: int = 5,
        learning_rate: str = "auto",
        eta0: float | None = None,
        power_t: float = 0.25,
        shift_every: int = 5,
        average: bool = True,
        variance_reduced: bool | str = "auto",
        scale: str = "max",
        copies: int = 1,
        layout: str = "auto",
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 1,
        resume: bool = False,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        callbacks: Sequence[Callable[[Progress], bool | None]] | None = None,
        class_weight: Any = None,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.bits = bits
        self.sampling = sampling
        self.levels = levels
        self.anchor = anchor
        self.theta = theta
        self.model_bits = model_bits
        self.residual_bits = residual_bits
        self.gradient_bits = gradient_bits
        self.solver = solver
        self.z_bits = z_bits
        self.mu = mu
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.shift_every = shift_every
        self.average = average
        self.variance_reduced = variance_reduced
        self.scale = scale
        self.copies = copies
        self.layout = layout
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.resume = resume
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.callbacks = callbacks
        self.class_weight = class_weight

    def _loss_name(self) -> str:
        return "squared_error" if self.loss == "squared" else "log_loss"

    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SGDClassifier:
        """Train on arrays, or on a :class:`torchext.QuantizedDataset` made with ``loss`` and class labels.

        Args:
            X: (K, n) dense floats (an array or a tensor), or a store (then ``y`` and ``sample_weight`` are
                None).
            y: (K,) class labels.
            sample_weight: (K,) weights >= 0; only their ratios matter.
        """
        if isinstance(X, QuantizedDataset):
            if X.classes is None:
                raise ValueError(
                    "the data set holds numbers, not classes; encode it for classification"
                )
            if self.class_weight is not None:
                raise ValueError(
                    f"class_weight must be None to fit a data set, got {self.class_weight!r}: its "
                    "weights and anchor were fixed when it was encoded; pass sample_weight to "
                    "QuantizedDataset.from_arrays"
                )
            self.classes_ = np.asarray(X.classes)
            self._fit_store(X, y, sample_weight)
            return self
        X, y = validated(self, X, y)
        check_classification_targets(y)
        self.classes_, index = class_index(y)
        self._fit_arrays(X, self._signs(index), self._weights(index, sample_weight), index)
        return self

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SGDClassifier:
        """One epoch over a further batch of rows, with column statistics and levels of the first one.

        Args:
            X, y: the batch.
            classes: all class labels; required in the first call.
            sample_weight: (K,) weights >= 0.
        """
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit; pass a dict of weights"
            )
        X, y = validated(self, X, y, reset=first)
        if first:
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, "
                f"was: {self.classes_!r}"
            )
        encoder = LabelEncoder()
        encoder.classes_ = self.classes_
        index = encoder.transform(y)
        self._partial(X, self._signs(index), self._weights(index, sample_weight))
        return self

    def _signs(self, index: np.ndarray) -> np.ndarray:
        """(K, m) +-1: one column for two classes, else one a class."""
        if len(self.classes_) == 2:
            return (2.0 * index - 1.0).reshape(-1, 1)
        signs: np.ndarray = 2.0 * (index[:, None] == np.arange(len(self.classes_))) - 1.0
        return signs

    def _weights(self, index: np.ndarray, sample_weight: Any) -> Any:
        """Sample weights times class weights; None if there are neither."""
        if self.class_weight is None:
            return sample_weight
        each = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[index]
        )[index]
        return (
            each
            if sample_weight is None
            else each * np.asarray(as_array(sample_weight), dtype=np.float64)
        )

    def _shaped(self, coef: np.ndarray, intercept: np.ndarray) -> dict[str, Any]:
        return {"coef_": coef, "intercept_": intercept}

    def decision_function(self, X: Any) -> np.ndarray:
        """(K,) for two classes, else (K, classes): X coef_^T + ``intercept_``, float64.

        Always an array in CPU memory; a tensor X on the GPU of ``device`` is multiplied there.
        """
        check_is_fitted(self)
        X = validated(self, X, "no_validation", reset=False)
        z = scores(X, self.coef_, self.intercept_)
        return z[:, 0] if z.shape[1] == 1 else z

    def predict(self, X: Any) -> np.ndarray:
        """(K,) class labels."""
        z = self.decision_function(X)
        index = (z > 0).astype(np.intp) if z.ndim == 1 else z.argmax(axis=1)
        labels: np.ndarray = self.classes_[index]
        return labels

    @available_if(lambda self: self.loss == "log_loss")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """(K, classes): logistic of the scores, normalised over one-against-the-rest outputs.

        With the solvers ``"halp"`` and ``"svrg"``, which train all classes together, their softmax.
        """
        z = torch.from_numpy(np.asarray(self.decision_function(X), dtype=np.float64))
        if z.ndim == 2 and self.solver in VARIANCE_REDUCED:
            return torch.softmax(z, dim=1).numpy()
        p = torch.sigmoid(z)
        if z.ndim == 1:
            return torch.stack([1 - p, p], dim=1).numpy()
        total = p.sum(1, keepdim=True)
        return torch.where(total > 0, p / total.clamp_min(1e-300), 1.0 / p.shape[1]).numpy()
