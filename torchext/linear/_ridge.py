"""Ridge regression, exact, by way of low-bit data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin

from torchext.data import QuantizedDataset
from torchext.linear._exact_solution import ExactModel, Targets
from torchext.linear._losses import Loss


class Ridge(MultiOutputMixin, RegressorMixin, ExactModel):  # type: ignore[misc]
    r"""Linear least squares with an L2 penalty: scikit-learn's objective, solved over low-bit codes.

    .. math:: \min_w \sum_k v_k (x_k^T w + b - y_k)^2 + \alpha \|w\|^2

    The rows are encoded once at ``bits`` per value. L-BFGS then works on the codes, and a pass over the
    full-precision rows every few iterations makes its gradient exact at that point (an *anchor*), so that
    the result is the solution for the rows, not for the codes. It stops when the exact gradient is small.

    Args:
        alpha: strength of the penalty, >= 0; or one value per target.
        fit_intercept: whether b is fitted (it is not penalised) or 0.
        bits: bits per value, 1 to 8: 2^bits levels per column, nearest rounding.
        levels: ``"auto"`` (optimal per column up to 5 bits), ``"optimal"``, ``"shared"``, ``"lloyd"``,
            ``"uniform"``, or an array (n, 2^bits) of scaled values.
        tol: stop when the norm of the exact gradient, every column in units of its own curvature, is
            ``tol`` times that at w = 0. Where the step before has cut it to a tenth, a last one on the codes
            follows, which no pass checks.
        max_anchors: full-precision passes after which plain L-BFGS on the rows takes over (reported by
            ``fell_back_``); few bits on nearly dependent columns need that.
        device: where the solver runs: ``"cpu"``, or ``"cuda"`` / ``"cuda:1"`` for a GPU. Rows that fit there,
            with their codes, are moved and encoded there once; a tensor that is there already stays. The
            codes have the bits of the CPU, the solution agrees to rounding.
        n_jobs: threads; None: torch's number, -1: all processors.
        random_state: chooses the rows from which levels are computed; None is 0.
        verbose: 1 prints what happened.

    Attributes:
        coef_: (n,) or (m, n) in the units of the data.
        intercept_: number or (m,).
        n_anchors_, n_code_passes_, n_iter_: reads of the rows, reads of the codes, L-BFGS iterations.
        grad_norm_: exact gradient norm at the last full-precision pass, over the first.
        fell_back_: whether full precision had to finish.
        loss_curve_: mean loss + penalty, with the factor 1/2, at every full-precision pass.
        bits_per_value_, stored_bits_per_value_, report_: bits, bytes and seconds.

    Raises:
        ValueError: a parameter or the data is invalid; bad values are named by row and column.

    Determinism: class B: same bits on every instruction set and for any number of threads of a machine.

    Example:
        >>> import numpy as np
        >>> from torchext.linear import Ridge
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(2000, 5))
        >>> y = X @ np.arange(5.0) + 3.0 + 0.1 * rng.normal(size=2000)
        >>> model = Ridge(alpha=1.0, bits=2).fit(X, y)
        >>> exact = np.linalg.solve((X - X.mean(0)).T @ (X - X.mean(0)) + np.eye(5), (X - X.mean(0)).T @ y)
        >>> bool(np.abs(model.coef_ - exact).max() < 1e-5)
        True

    Source: this project (docs: linear models, anchoring); levels: S. Lloyd, "Least squares quantization
    in PCM", 1982.
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        bits: int = 4,
        levels: Any = "auto",
        tol: float = 1e-6,
        max_anchors: int = 20,
        device: Any = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
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
    ) -> Ridge:
        """Solve for the rows X and targets y.

        Args:
            X: (K, n) dense numbers, an array or a tensor; the path of a ``.npy`` file, which is mapped; or a
                function that returns an iterable of blocks ``(X, y)`` or ``(X, y, weight)``, which are
                spilled to a temporary file. A :class:`torchext.QuantizedDataset` alone gives the solution of
                its codes, with a warning.
            y: (K,) or (K, m) targets.
            sample_weight: (K,) weights >= 0.
            store: codes of the same rows, made earlier (for other targets or penalties, say): saves encoding.
        """
        self._check()
        if isinstance(X, QuantizedDataset):
            self._given(X, y, sample_weight, store)
            return self._fit(None, _numbers(X), X.weight, X)
        source, y = self._read(X, y, multi_output=True, y_numeric=True)
        return self._fit(source, y, self._weight(source, sample_weight), store)

    def _fit(self, source: Any, y: Any, weight: Any, store: QuantizedDataset | None) -> Ridge:
        flat = np.ndim(y) == 1
        target = torch.from_numpy(np.array(y, dtype=np.float64).reshape(len(y), -1))
        if not bool(torch.isfinite(target).all()):
            raise ValueError("y contains NaN or infinity; targets must be finite")
        alpha = torch.as_tensor(np.asarray(self.alpha, dtype=np.float64)).reshape(-1)
        if not bool((alpha >= 0).all()) or len(alpha) not in (1, target.shape[1]):
            raise ValueError(
                f"alpha must be a number >= 0 or one per target ({target.shape[1]}), got {self.alpha!r}"
            )
        source, found, seconds = self._codes(source, store)
        weight = None if weight is None else torch.as_tensor(weight).double()
        mean = torch.zeros(target.shape[1], dtype=torch.float64)
        if self.fit_intercept:
            mean = (
                target.mean(0)
                if weight is None
                else (target * weight[:, None]).sum(0) / weight.sum()
            )
        centred = (target - mean).contiguous()
        loss = Loss(
            "squared",
            centred.T.float().contiguous(),
            None if weight is None else weight.float(),
        )
        targets = Targets(loss, centred, torch.zeros_like(mean), 1.0, target.float())
        coef, intercept = self._solve(source, found, targets, weight, alpha, None, seconds)
        intercept = intercept + mean.numpy() if self.fit_intercept else intercept
        self.coef_ = coef[0] if flat else coef
        self.intercept_ = float(intercept[0]) if flat else intercept
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(K,) or (K, m): X coef_^T + ``intercept_``, float64.

        Always an array in CPU memory; a tensor X on the GPU of ``device`` is multiplied there.
        """
        scores = self._scores(X)
        return scores[:, 0] if np.ndim(self.coef_) == 1 else scores


def _numbers(store: QuantizedDataset) -> np.ndarray:
    """Targets of a store in the order of the source."""
    if store.y is None or store.classes is not None:
        raise ValueError("the data set has no numbers to predict; encode it with numeric targets")
    y = torch.empty_like(store.y)
    y[store.row_id()] = store.y
    numbers: np.ndarray = (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).numpy()
    return numbers
