"""From the data a user passes to a store, for both SGD estimators."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from torchext.data import Options, QuantizedDataset
from torchext.data.builder import build
from torchext.data.sources import as_array, as_tensor, from_arrays
from torchext.linear import _device, _exact, _problem
from torchext.linear._callbacks import CallbackSupportMixin
from torchext.linear._exact import Source
from torchext.linear._order import permutation
from torchext.linear._run import RunMixin
from torchext.linear._stream import Stream, batch_of
from torchext.linear._table import Table, checked_weights, some_rows
from torchext.linear._validate import VARIANCE_REDUCED, check_params
from torchext.linear._vr_run import fit_variance_reduced
from torchext.random import Purpose, fold_in, key_from_seed


class BaseSGD(RunMixin, CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """What SGDRegressor and SGDClassifier share; not for direct use."""

    _losses: tuple[str, ...] = ()

    def _seed(self) -> int:
        """The seed of this fit: ``random_state`` itself if it is an integer, else drawn from it."""
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _fit_store(self, store: QuantizedDataset, y: Any, sample_weight: Any) -> None:
        """Train on a store, which brings its own labels and weights."""
        check_params(self)
        if y is not None or sample_weight is not None:
            raise ValueError(
                "a QuantizedDataset holds its own labels and weights; call fit(dataset) alone"
            )
        device = _device.resolve(self.device)
        if store.device.type != "cpu" and store.device != device:
            raise ValueError(
                f"the data set is on {store.device} and device={self.device!r}; "
                f'use device="{store.device}", or dataset.to("cpu")'
            )
        if self.solver == "exact":
            raise ValueError('solver="exact" needs the full-precision rows; fit on arrays')
        centred = self.solver in VARIANCE_REDUCED
        if centred and store.sampling != "nearest":
            raise ValueError(
                f'solver="{self.solver}" needs a data set with sampling="nearest", got {store.sampling!r}; '
                "encode it so"
            )
        if self.early_stopping:
            raise ValueError("early_stopping needs full-precision rows to watch; fit on arrays")
        anchored = store.loss is not None and store.anchor is not None and not centred
        if anchored and store.loss != self._loss_name():
            raise ValueError(
                f"the data set was anchored for loss {store.loss!r}; encode it with this loss"
            )
        self.n_features_in_ = store.cols
        if store.feature_names:
            self.feature_names_in_ = np.asarray(store.feature_names, dtype=object)
        if centred:
            y = _problem.targets(store, "log_loss").double().numpy()  # as they are, classes as +-1
            weight = None if store.weight is None else store.weight.double().numpy()
            index = None if store.y is None or store.classes is None else store.y.numpy()
            fit_variance_reduced(self, store, y, weight, index)
            return
        key = store.key if self.random_state is None else key_from_seed(self._seed())
        self._train(store, None, key, None, None)

    def _fit_arrays(
        self, X: Table, y: np.ndarray, sample_weight: Any, index: np.ndarray | None = None
    ) -> None:
        """Encode, then train; ``y`` is (K, m) numbers, ``index`` the class of every row."""
        check_params(self)
        weight = checked_weights(sample_weight, len(X))
        if weight is not None:
            weight = weight / weight.mean()
        if hasattr(self, "_stream"):
            del self._stream
        if self.solver == "exact":
            self._solve_exactly(X, y, weight)
            return
        if self.solver in VARIANCE_REDUCED:
            fit_variance_reduced(self, X, y, weight, index)
            return
        seed = self._seed()
        key = key_from_seed(seed)
        valid: tuple[Table, np.ndarray, np.ndarray | None] | None = None
        if self.early_stopping:
            order = permutation(fold_in(key, Purpose.SAMPLER), len(X), stream=2).numpy()
            held = max(1, round(self.validation_fraction * len(X)))
            if held >= len(X):
                raise ValueError(f"early_stopping needs at least 2 rows, got {len(X)}")
            out, keep = np.sort(order[:held]), np.sort(order[held:])
            valid = (some_rows(X, out), y[out], None if weight is None else weight[out])
            X, y, weight = some_rows(X, keep), y[keep], None if weight is None else weight[keep]
        began = time.perf_counter()
        options = Options(
            bits=self.bits or 4, sampling=self.sampling, levels=self.levels,
            anchor="none" if self.anchor == "none" else "pilot", loss=self._loss_name(),
            alpha=self._penalties()[1], copies=self.copies, layout=self.layout,
            shuffle=True, random_state=seed,
        )  # fmt: skip
        device = _device.resolve(self.device)
        store = build(_device.source_to_encode(from_arrays(X, y, weight), options, device), options)
        seconds = time.perf_counter() - began
        self._train(
            store,
            self._source(store, X, y, weight),
            key,
            valid and self._source(store, *valid),
            seconds,
        )

    def _source(
        self, store: QuantizedDataset, X: Table, y: np.ndarray, weight: np.ndarray | None
    ) -> Source:
        """The rows with the targets that the loss sees: centred for squares."""
        targets = as_tensor(y)
        if self._loss_name() == "squared_error":
            targets = targets - store.y_mean.double().reshape(1, -1)
        w = None if weight is None else as_tensor(weight)
        return Source(X, targets, w, store.mean.double(), store.scale.double())

    def _solve_exactly(self, X: Table, y: np.ndarray, weight: np.ndarray | None) -> None:
        """solver="exact": normal equations in float64 on the full-precision rows, on the CPU."""
        X = as_array(X)
        l1, l2 = self._penalties()
        if self._loss_name() != "squared_error" or l1 > 0 or X.shape[1] > 4096:
            raise ValueError(
                'solver="exact" takes squared losses, penalty "l2" and up to 4096 columns'
            )
        if weight is not None:  # rows without weight are not there, not even for the scale
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
            weight = weight / weight.mean()
        w = np.ones(len(X)) if weight is None else weight
        mean = np.average(X, axis=0, weights=w).astype(np.float64)
        scale = np.abs(X - mean).max(axis=0).astype(np.float64)
        if self.scale == "std":
            scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
        scale = np.ones_like(mean) if self.scale == "none" else np.where(scale > 0, scale, 1.0)
        y_mean = np.average(y, axis=0, weights=w)
        source = Source(
            X, torch.from_numpy(y - y_mean), None if weight is None else as_tensor(weight),
            torch.from_numpy(mean), torch.from_numpy(scale),
        )  # fmt: skip
        x = _exact.solve_least_squares(
            source, torch.full((X.shape[1],), l2, dtype=torch.float64)
        ).numpy()
        coef = x / scale
        for name, value in self._shaped(coef, y_mean - coef @ mean).items():
            setattr(self, name, value)
        self.n_iter_, self.loss_curve_, self.sampling_ = 1, [], "none"

    def _partial(self, X: Table, y: np.ndarray, sample_weight: Any) -> None:
        """One epoch over a batch of a stream."""
        check_params(self)
        rows, targets, weight = batch_of(self, X, y, checked_weights(sample_weight, len(X)))
        if not hasattr(self, "_stream"):
            self._stream = Stream.start(self, rows, targets)
        stream = self._stream
        stream.train(self, stream.problem(self._loss_name(), rows, targets, weight))
        x, intercept = stream.state.solution(False)
        coef = x * stream.unit / stream.scale
        offset = intercept + stream.y_mean - coef @ stream.mean
        for name, value in self._shaped(coef.numpy(), offset.numpy()).items():
            setattr(self, name, value)
        self.n_iter_, self.t_ = stream.state.epoch, float(stream.state.steps + 1)
        self.loss_curve_ = list(stream.state.losses)
        self.n_clipped_, self.bits_per_value_ = stream.clipped, stream.bits
        self.sampling_ = "nearest" if self.sampling == "auto" else self.sampling
