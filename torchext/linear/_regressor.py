"""Regression by SGD on low-bit data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from torchext.data import QuantizedDataset
from torchext.linear._base import BaseSGD
from torchext.linear._callbacks import Progress, with_callbacks
from torchext.linear._table import scores, validated
from torchext.linear._validate import has_partial_fit


class SGDRegressor(RegressorMixin, BaseSGD):  # type: ignore[misc]
    """Least squares and its penalised forms, trained by SGD on data of a few bits per value.

    .. math:: \\min_x \\frac{1}{2K} \\sum_k (a_k^T x - y_k)^2 + \\alpha R(x)

    over centred columns scaled to [-1, 1], every value of which is one b-bit code. With ``bits=2`` and
    the default anchor the objective typically ends within 0.1 % of the optimum on full-precision data.

    Args:
        loss: ``"squared_error"``: 1/2 (z - y)^2.
        penalty: ``"l2"`` alpha/2 ||x||^2, ``"l1"`` alpha ||x||_1, ``"elasticnet"`` the mixture with
            ``l1_ratio`` parts of l1, or None; on the scaled coefficients x.
        alpha: strength of the penalty.
        l1_ratio: share of l1 in ``"elasticnet"``.
        bits: bits per value, all random draws counted: 1 to 8, or 16; 32 trains on float32 rows by the
            same code; None is 4. For the solvers ``"halp"`` (8 or 16) and ``"svrg"`` (8, 16 or 32) None is 8,
            or 16 on a store of 16 or 32 bits.
        sampling: ``"auto"``, ``"nearest"``, ``"stochastic"``, ``"double"`` or ``"corrected"``.
        levels: of the columns: ``"auto"``, ``"optimal"``, ``"shared"``, ``"lloyd"``, ``"uniform"``,
            ``"symmetric"`` or an array (n, 2^bits); see :class:`torchext.data.Options`.
        anchor: ``"pilot"`` corrects the gradient exactly at a fit on a few thousand rows; an integer R
            moves the anchor R times more, each a pass over the full-precision rows; ``"none"``.
        theta: share of its noise that ``"corrected"`` takes off: ``"keff"``, ``"mp"`` or a number;
            0 also switches off the guard of ``"double"``.
        model_bits, residual_bits: bits of the model copy and of the residual in every step, 2 to 8, or 32
            for none; the model itself stays float32.
        gradient_bits: bits of the gradient, None for none.
        solver: ``"sgd"``; ``"exact"``: Cholesky on full-precision moments (squared losses, l2, arrays);
            ``"halp"``: low-precision steps around a float64 centre to the exact solution on the codes (l2);
            ``"svrg"``: the same with float32 steps.
        z_bits: bits of the displacement from the centre with ``"halp"``: 16 (None), or 8 (not with
            ``bits=16``), whose rounding noise costs more epochs than it saves time.
        mu: the displacement's range is the gradient's norm / mu with ``"halp"``; ``"auto"`` adapts it.
        batch_size: rows per step. None is 256, of which the integer kernels need a multiple of 64; with
            ``"halp"`` and ``"svrg"`` None is 1, one row as in the paper, and 32,768 is the most.
        max_iter: most epochs (of every anchor round); None is 30, more for small data (2,000 steps). With
            ``"halp"`` and ``"svrg"`` an epoch is a full pass and steps over 2 K random rows, and None is 100.
        tol: stop when the running loss fell by less than ``tol`` times the loss at x = 0 in
            ``n_iter_no_change`` epochs on end; None never stops early. With ``"halp"`` and ``"svrg"``: stop
            when the gradient norm is ``tol`` times that at x = 0.
        n_iter_no_change: see ``tol``.
        learning_rate: ``"auto"`` (constant with variance reduction, else linear), ``"constant"``,
            ``"linear"``, ``"epoch"``, ``"invscaling"``, ``"shift"``.
        eta0: first step size; None computes one that is safe without tuning.
        power_t: exponent of ``"invscaling"``.
        shift_every: epochs between two halvings of ``"shift"``.
        average: return the mean of the iterates of the second half (last epoch, when stopped before).
        variance_reduced: use the gradient in the form whose noise vanishes at the anchor; ``"auto"``: with an
            anchor.
        scale: units in which steps and penalty act: ``"max"`` columns in [-1, 1], ``"std"``, ``"none"``.
        copies: independent encodings with fresh draws, used in turn, an epoch each.
        layout: code layout of the store.
        warm_start: start from the present coefficients.
        early_stopping: watch the loss on ``validation_fraction`` of the rows, which are not trained on.
        validation_fraction: see ``early_stopping``.
        checkpoint: file that receives model and training state every ``checkpoint_every`` epochs and when
            interrupted.
        checkpoint_every: see ``checkpoint``.
        resume: go on from ``checkpoint`` if it exists; the result has the same bits as an uninterrupted run.
        device: where the epochs run: ``"cpu"``, or ``"cuda"`` / ``"cuda:1"`` for a GPU; the result has the
            same bits. Rows that fit there are encoded there, and a tensor that is there already is only read
            there (not with ``solver="exact"``, nor ``bits=32`` and ``"sgd"``). Codes that a GPU cannot hold
            are streamed to it, in batches of a multiple of 64 rows (128: layout ``"block"``), and ``average``
            may then move the last bit.
        n_jobs: threads, at most one a processor; None is 1, -1 all. The result does not depend on it.
        random_state: seed of every random bit.
        verbose: print a line per epoch.
        callbacks: callables that receive a :class:`Progress` after every epoch; True stops.

    Attributes:
        coef_, intercept_: in the units of X.
        n_iter_: epochs.
        loss_curve_: running objective per epoch, measured on the codes while training; with ``"halp"`` and
            ``"svrg"`` the exact objective on the codes after the epoch.
        grad_norm_curve_: with ``"halp"`` and ``"svrg"`` the gradient norm on the codes, before the first
            epoch and after each.
        sampling_: what ``"auto"`` chose; ``pilot_loss_`` the losses it compared.
        bits_per_value_, stored_bits_per_value_: nominal bits, and code bytes * 8 / values.
        n_clipped_: values outside the range of their column that were clamped.
        report_: a :class:`Report`, or a :class:`VrReport` with ``"halp"`` and ``"svrg"``.

    Determinism: class A for the integer path (same seed, same bits on every instruction set and thread
    count), up to the last bits of the pilot fit.

    Example:
        >>> import numpy as np
        >>> from torchext.linear import SGDRegressor
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(2000, 5))
        >>> y = X @ np.arange(5.0) + 1.0
        >>> model = SGDRegressor(bits=4, alpha=0.0, random_state=0).fit(X, y)
        >>> bool(model.score(X, y) > 0.999)
        True

    Source: Zhang et al., "ZipML", ICML 2017; anchor and corrected sampling are ours. ``"svrg"``: Johnson
    and Zhang, NIPS 2013; ``"halp"``: De Sa et al., "High-Accuracy Low-Precision Training", 2018.
    """

    _losses = ("squared_error",)

    def __init__(
        self,
        loss: str = "squared_error",
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

    def _loss_name(self) -> str:
        return "squared_error"

    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SGDRegressor:
        """Train on arrays, or on a :class:`torchext.QuantizedDataset`.

        Args:
            X: (K, n) dense floats (an array or a tensor), or a store (then ``y`` and ``sample_weight`` are
                None: it has them, and bits, sampling, levels and anchor are the store's). ``"halp"`` and
                ``"svrg"`` take stores of nearest rounding, and round their values to one grid of ``bits``
                bits.
            y: (K,) or (K, m).
            sample_weight: (K,) weights >= 0; only their ratios matter.
        """
        if isinstance(X, QuantizedDataset):
            self._fit_store(X, y, sample_weight)
            return self
        X, y = validated(self, X, y, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        self._fit_arrays(X, np.asarray(y, dtype=np.float64).reshape(len(X), -1), sample_weight)
        return self

    @available_if(has_partial_fit)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SGDRegressor:
        """One epoch over a further batch of rows, with column statistics and levels of the first one."""
        first = not hasattr(self, "coef_")
        X, y = validated(self, X, y, multi_output=True, y_numeric=True, reset=first)
        self._flat = y.ndim == 1
        self._partial(X, np.asarray(y, dtype=np.float64).reshape(len(X), -1), sample_weight)
        return self

    def _shaped(self, coef: np.ndarray, intercept: np.ndarray) -> dict[str, Any]:
        flat = getattr(self, "_flat", len(coef) == 1)
        return (
            {"coef_": coef[0], "intercept_": intercept[:1]}
            if flat
            else {"coef_": coef, "intercept_": intercept}
        )

    def predict(self, X: Any) -> np.ndarray:
        """(K,) or (K, m): X coef_^T + ``intercept_``, float64.

        Always an array in CPU memory; a tensor X on the GPU of ``device`` is multiplied there.
        """
        check_is_fitted(self)
        X = validated(self, X, "no_validation", reset=False)
        return scores(X, self.coef_, self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
