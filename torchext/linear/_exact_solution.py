"""What Ridge and LogisticRegression share: from the data a user passes to the solved problem."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchext.data import QuantizedDataset, sources, streams
from torchext.data.builder import build
from torchext.data.options import Options
from torchext.data.sources import Source
from torchext.linear import _device, _table
from torchext.linear._anchored import Anchored, Solution
from torchext.linear._losses import Loss
from torchext.linear._products import CodeProducts, ExactRows, torch_threads
from torchext.linear._validate import threads_of

#: Levels need not be perfect where anchors correct what they leave.
_LEVEL_ROWS = 1 << 14


@dataclass(frozen=True)
class Targets:
    """What the loss compares with.

    Attributes:
        loss: the loss on scores in source order.
        exact: float64 (K, m), signs, or (K, 1) class numbers, as the exact passes take them.
        start: float64 (m,), the intercepts to start from (0 without one).
        curvature: typical second derivative of the loss.
        labels: the targets as a store keeps them, in source order: float32 (K, m), or int32 (K,) class
            numbers.
    """

    loss: Loss
    exact: Tensor
    start: Tensor
    curvature: float
    labels: Tensor


class ExactModel(BaseEstimator):  # type: ignore[misc]
    """Anchored L-BFGS for an L2-penalised linear model; not for direct use."""

    fit_intercept: bool
    bits: int
    levels: Any
    tol: float
    max_anchors: int
    device: Any
    n_jobs: int | None
    random_state: Any
    verbose: int
    coef_: Any
    intercept_: Any
    n_iter_: Any

    def _check(self) -> None:
        """ValueError for a parameter outside its documented values."""
        if isinstance(self.bits, bool) or self.bits not in range(1, 9):
            raise ValueError(f"bits must be 1 to 8, got {self.bits!r}")
        if not self.tol > 0:
            raise ValueError(f"tol must be positive, got {self.tol!r}")
        if isinstance(self.max_anchors, bool) or int(self.max_anchors) < 1:
            raise ValueError(f"max_anchors must be an integer >= 1, got {self.max_anchors!r}")

        _device.resolve(self.device)

    def _threads(self) -> int:
        return torch.get_num_threads() if self.n_jobs is None else threads_of(self.n_jobs)

    def _read(self, X: Any, y: Any, **how: Any) -> tuple[Source, Any]:
        """The rows as a source that can be read again and again, and the targets."""
        if callable(X) or isinstance(X, (str, Path)):
            if callable(X):
                source = streams.from_iter(X, None, self._options())
                if y is None:
                    y = source.y
            else:
                source = sources.from_arrays(X, y)
                y = source.y
            if y is None:
                raise ValueError("fit needs targets: pass y, or let the blocks be (X, y)")
            y = np.asarray(y)
            self.n_features_in_ = source.cols
            return source, y
        # The encoder checks every value and names the place of a bad one: no second check here.
        X, y = _table.validated(self, X, y, ensure_all_finite=False, **how)
        return sources.from_arrays(X), y

    def _options(self) -> Options:
        state = 0 if self.random_state is None else self.random_state
        return Options(
            bits=int(self.bits), sampling="nearest", levels=self.levels, anchor="none", shuffle=False,
            random_state=state if not isinstance(state, np.integer) else int(state),
            level_rows=_LEVEL_ROWS,
        )  # fmt: skip

    def _codes(
        self, source: Source | None, store: QuantizedDataset | None
    ) -> tuple[Source | None, QuantizedDataset, float | None]:
        """The given store, checked against the rows if there are any, or a new one and its seconds.

        And the rows, which are encoded on the GPU of the solver if they fit there, and stay.
        """
        if store is not None and source is None:
            return source, store, None
        assert source is not None
        if store is not None:
            if (store.rows, store.cols) != (source.rows, source.cols):
                raise ValueError(
                    f"store must hold the same rows as X: it has shape ({store.rows}, {store.cols}), "
                    f"X has ({source.rows}, {source.cols})"
                )
            return source, _usable(store), None
        began, options = time.perf_counter(), self._options()
        source = _device.source_to_encode(source, options, _device.resolve(self.device))
        with torch_threads(self._threads()):
            return source, build(source.table(), options), time.perf_counter() - began

    def _given(self, store: QuantizedDataset, *others: Any) -> QuantizedDataset:
        """A data set that is fitted alone: no other argument may come with it."""
        if any(other is not None for other in others):
            raise ValueError(
                "a QuantizedDataset holds its own targets and weights; call fit(dataset) alone"
            )
        self.n_features_in_ = store.cols
        if store.feature_names:
            self.feature_names_in_ = np.asarray(store.feature_names, dtype=object)
        return _usable(store)

    def _weight(self, source: Source, sample_weight: Any) -> Tensor | None:
        """float64 (K,) weights >= 0 with a positive sum, or None."""
        if sample_weight is None:
            sample_weight = source.weight
        weight = _table.checked_weights(sample_weight, source.rows)
        return None if weight is None else torch.from_numpy(weight)

    def _solve(
        self,
        source: Source | None,
        store: QuantizedDataset,
        targets: Targets,
        weight: Tensor | None,
        penalty: Tensor,
        start: Tensor | None,
        seconds_encoding: float | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (m, n) and intercepts (m,) in the units of the data; sets the attributes.

        Args:
            penalty: float64 (1 or m,), lambda of sum of losses + lambda/2 ||coef||^2.
            start: float64 (m, n + 1) coefficients and intercepts to start from, or None.
        """
        began = time.perf_counter()
        threads, device = self._threads(), _device.resolve(self.device)
        codes = CodeProducts(store, self.fit_intercept, threads, device=device)
        exact = None
        if source is not None:
            exact = ExactRows(
                source, store.mean, store.scale, self.fit_intercept, targets.loss.name, targets.exact, weight,
                threads, device=device,
            )  # fmt: skip
        mass = float(store.rows) if weight is None else float(weight.sum())
        diagonal = penalty.reshape(-1, 1) / mass / store.scale.square()
        loss = targets.loss.to(device).arranged(codes.order)
        problem = Anchored(
            loss, codes, exact, torch.nn.functional.pad(diagonal, (0, 1)), mass,
            targets.curvature,
            _stored_anchor(store, targets, weight, codes.order) if self.fit_intercept else None,
        )  # fmt: skip
        zero = torch.zeros(len(targets.start), store.cols + 1, dtype=torch.float64)
        zero[:, -1] = targets.start
        zero, start = zero.to(device), _device.moved(start, device)
        with torch_threads(1):
            found = problem.solve(zero, start, float(self.tol), int(self.max_anchors))
        self._tell(store, codes, exact, found, seconds_encoding, time.perf_counter() - began)
        x = found.x.cpu()
        coef = x[:, :-1] / store.scale
        intercept = x[:, -1] - coef @ store.mean
        return coef.numpy(), intercept.numpy() if self.fit_intercept else np.zeros(len(coef))

    def _scaled(self, coef: Any, intercept: Any, store: QuantizedDataset) -> Tensor:
        """Coefficients and intercepts of an earlier fit in the units of the solver."""
        coef = torch.from_numpy(np.asarray(coef, dtype=np.float64).reshape(-1, store.cols))
        base = torch.from_numpy(np.asarray(intercept, dtype=np.float64).reshape(-1, 1))
        if self.fit_intercept:
            base = base + coef @ store.mean[:, None]
        return torch.cat([coef * store.scale, base.expand(len(coef), 1)], dim=1)

    def _tell(
        self,
        store: QuantizedDataset,
        codes: CodeProducts,
        exact: ExactRows | None,
        found: Solution,
        seconds_encoding: float | None,
        seconds: float,
    ) -> None:
        self.n_anchors_ = 0 if exact is None else exact.passes
        self.n_code_passes_ = codes.passes
        self.n_iter_ = found.iterations
        self.grad_norm_ = found.gradient_norm
        self.fell_back_ = found.fell_back
        self.loss_curve_ = list(found.losses)
        self.bits_per_value_ = store.bits
        self.stored_bits_per_value_ = store.stored_bits
        self.report_ = {
            "bits_per_value": store.bits,
            "stored_bits_per_value": store.stored_bits,
            "levels": store.level_kind,
            "bytes_of_codes": store.codes[0].nbytes,
            "bytes_of_float32": 4 * store.rows * store.cols,
            "full_precision_passes": self.n_anchors_,
            "code_passes": self.n_code_passes_,
            "iterations": self.n_iter_,
            "gradient_norm": self.grad_norm_,
            "fell_back": self.fell_back_,
            "seconds_encoding": seconds_encoding,
            "seconds_solving": seconds,
        }
        if exact is None:
            warnings.warn(
                "fitted on codes alone: without the full-precision rows the solution is that of the "
                "rounded data (corrected by the store's anchor, if it has one for this loss); call "
                "fit(X, y, store=...) for the exact one",
                stacklevel=5,
            )
        elif not found.converged:
            warnings.warn(
                f"not converged: the gradient norm is {found.gradient_norm:.1e} of its start after "
                f"{exact.passes} full-precision passes, tol is {self.tol:g}; scale the columns, use more "
                "bits, a stronger penalty or a larger tol",
                ConvergenceWarning,
                stacklevel=5,
            )
        if self.verbose:
            how = "full precision finished" if found.fell_back else "anchored"
            print(
                f"{type(self).__name__}: {how}, gradient {found.gradient_norm:.1e}, "
                f"{self.n_anchors_} full-precision and {self.n_code_passes_} code passes"
            )

    def _scores(self, X: Any) -> np.ndarray:
        """(K, m): X coef_^T + intercept_."""
        check_is_fitted(self)
        X = _table.validated(self, X, "no_validation", reset=False)
        coef = np.asarray(self.coef_).reshape(-1, X.shape[1])
        return _table.scores(X, coef, np.asarray(self.intercept_).reshape(-1))


def _usable(store: QuantizedDataset) -> QuantizedDataset:
    """The store, if the full-pass kernels can read it."""
    if store.bits > 8 or store.sampling == "double":
        raise ValueError(
            f"store must hold one draw of 1 to 8 bits per value, got {store.bits} bits, sampling "
            f"{store.sampling!r}"
        )
    return store


def _stored_anchor(
    store: QuantizedDataset, targets: Targets, weight: Tensor | None, order: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Point and gradient of the mean loss in the solver's units, if the store has them for this problem.

    ``order``: the place in the source of every row of the store, None where that is the same.
    """
    kinds = {"squared": "squared_error", "logistic": "log_loss"}
    if store.anchor is None or kinds.get(targets.loss.name) != store.loss:
        return None
    if len(targets.loss.y) != store.anchor.shape[2]:  # classes against the rest are another problem
        return None
    kept_and_given: tuple[tuple[Tensor | None, Tensor | None], ...]
    kept_and_given = ((store.y, targets.labels), (store.weight, weight))
    for kept, given in kept_and_given:
        if kept is None and given is None:
            continue
        if kept is None or given is None:
            return None
        given = given.to(kept.dtype)
        arranged = given if order is None else given[order.cpu()]
        if not torch.equal(kept.cpu(), arranged.reshape(kept.shape)):
            return None
    point, gradient = store.anchor[0].T.double(), store.anchor[1].T.double()
    ends = torch.zeros(2, len(point), dtype=torch.float64)
    if store.anchor_intercept is not None:
        ends = store.anchor_intercept[:2].double()
    return (
        torch.cat([point, ends[0][:, None]], dim=1),
        torch.cat([gradient, ends[1][:, None]], dim=1),
    )
