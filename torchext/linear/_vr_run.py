"""``fit`` with ``solver="halp"`` or ``"svrg"``: from arrays or a store to fitted attributes and a report."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data import QuantizedDataset
from torchext.linear import _device
from torchext.linear._callbacks import FitContext, Progress
from torchext.linear._checkpoint import load_state, mark_of, write_checkpoint
from torchext.linear._grid_rows import GridRows, grid_rows, store_rows
from torchext.linear._report import VrReport, penalty_text
from torchext.linear._schedule import few_digits, largest_curvature, sample_rows
from torchext.linear._table import Table, some_rows
from torchext.linear._validate import threads_of
from torchext.linear._variance_reduced import (
    CURVATURE,
    MIN_ROWS,
    VarianceReduced,
    VrOptions,
    VrState,
)
from torchext.random import key_from_seed

#: Epochs when max_iter is None.
EPOCHS = 100


def fit_variance_reduced(
    estimator: Any,
    X: Table | QuantizedDataset,
    y: np.ndarray,
    weight: np.ndarray | None,
    index: np.ndarray | None,
) -> None:
    """Encode, run, publish (also when interrupted).

    Args:
        estimator: an SGD estimator with checked parameters.
        X: (K, n) rows, or a store of K rows.
        y: (K, m) targets or signs.
        weight: (K,) weights or None.
        index: (K,) class numbers, or None for numbers.
    """
    keep = slice(None) if weight is None else np.flatnonzero(weight > 0)
    if weight is not None:  # rows without weight are not there, not even for the scale
        y, weight = y[keep], weight[keep]
        index = None if index is None else index[keep]
        weight = weight / weight.mean()
    squared = estimator._loss_name() == "squared_error"
    uncentred = (X.scale_kind if isinstance(X, QuantizedDataset) else estimator.scale) == "none"
    wide = isinstance(X, QuantizedDataset) and X.bits > 8 and estimator.z_bits != 8
    bits = int(estimator.bits or (16 if wide else 8))
    how: dict[str, Any] = {
        "bits": bits,
        "scale": estimator.scale,
        "intercept": uncentred or not squared,
        "as_float": estimator.solver == "svrg",
    }
    key, device = key_from_seed(estimator._seed()), _device.resolve(estimator.device)
    began = time.perf_counter()
    if isinstance(X, QuantizedDataset):
        data = store_rows(X, torch.arange(X.rows)[keep], weight, device, **how)
        key = X.key if estimator.random_state is None else key
    else:
        data = grid_rows(some_rows(X, keep), weight, device, **how)
    seconds = time.perf_counter() - began
    run = _Run.of(estimator, data, y, weight, index, how["intercept"], bits, key, seconds)
    run.start()
    context = FitContext(estimator, run.options.max_iter)

    def on_epoch(current: VrState) -> bool:
        if (
            estimator.checkpoint is not None
            and current.epoch % int(estimator.checkpoint_every) == 0
        ):
            run.save(current)
        loss, seconds = current.losses[-1], current.seconds[-1]
        if estimator.verbose:
            share = current.norms[-1] / max(current.norm0, 1e-300)
            print(f"epoch {current.epoch}: loss {loss:.6g}, gradient {share:.2g}, {seconds:.3g} s")
        info = Progress(current.epoch, run.options.max_iter, 0, loss, seconds)
        asked = [bool(callback(info)) for callback in estimator.callbacks or ()]
        return context.epoch(lambda: run.attributes(current)) or any(asked)

    try:
        run.solver.run(on_epoch)
    finally:  # an interrupted fit leaves its last whole epoch, in memory and in the checkpoint
        run.publish(run.solver.state)
        if estimator.checkpoint is not None:
            run.save(run.solver.state)
    context.close()


@dataclass
class _Run:
    """One fit: the estimator, its data and its solver."""

    estimator: Any
    data: GridRows
    bits: int
    y_mean: Tensor
    solver: VarianceReduced
    key: Tensor
    encoding: float
    mark: dict[str, Any]

    @property
    def options(self) -> VrOptions:
        return self.solver.options

    @staticmethod
    def of(
        estimator: Any,
        data: GridRows,
        y: np.ndarray,
        weight: np.ndarray | None,
        index: np.ndarray | None,
        intercept: bool,
        bits: int,
        key: Tensor,
        seconds: float,
    ) -> _Run:
        squared = estimator._loss_name() == "squared_error"
        loss = "squared" if squared else "logistic" if y.shape[1] == 1 else "softmax"
        y_mean = torch.zeros(y.shape[1], dtype=torch.float64)
        targets = torch.from_numpy(np.array(y, dtype=np.float64))
        if squared:
            y_mean = torch.from_numpy(np.asarray(np.average(y, axis=0, weights=weight)))
            targets -= y_mean
        elif loss == "softmax":
            targets = torch.from_numpy(np.asarray(index)).double().reshape(-1, 1)
        weights = None if weight is None else torch.from_numpy(weight)
        options = _options(estimator, data, weights, loss, intercept, bits)
        digest = 0
        for part in (data.mean, data.scale, targets, data.x[: 1 + (1 << 20) // data.x.shape[1]]):
            digest = zlib.crc32(part.contiguous().cpu().numpy().tobytes(), digest)
        mark = mark_of(estimator, key, [len(data.x), data.cols, f"{digest:08x}"])
        solver = VarianceReduced(data, targets.contiguous(), weights, options, key)
        return _Run(estimator, data, bits, y_mean, solver, key, seconds, mark)

    def start(self) -> None:
        """From the checkpoint, the present coefficients (warm start), or 0."""
        e = self.estimator
        if e.checkpoint is not None and e.resume:
            found = load_state(e, self.mark, VrState.from_tensors)
            if found is not None:
                self.solver.state = found
                return
        outputs = len(self.y_mean) if self.options.loss != "softmax" else len(e.classes_)
        w = torch.zeros(outputs, self.data.cols + 1, dtype=torch.float64)
        if e.warm_start and hasattr(e, "coef_"):
            coef = torch.from_numpy(np.asarray(e.coef_, dtype=np.float64).reshape(outputs, -1))
            base = torch.from_numpy(np.asarray(e.intercept_, dtype=np.float64).reshape(-1))
            w[:, :-1] = coef * self.data.scale
            if self.options.intercept:
                offset = base - self.y_mean + coef @ self.data.mean
                w[:, -1] = offset / self.data.unit
        self.solver.start(w, None if e.mu == "auto" else float(e.mu))

    def coefficients(self, state: VrState) -> tuple[Tensor, Tensor]:
        """float64 coefficients (m, n) and intercepts (m,) in the units of the data."""
        coef = state.w[:, :-1] / self.data.scale
        shift = [math.fsum(row.tolist()) for row in coef * self.data.mean]
        offset = state.w[:, -1] * self.data.unit + self.y_mean
        return coef, offset - torch.tensor(shift, dtype=torch.float64)

    def attributes(self, state: VrState) -> dict[str, Any]:
        coef, intercept = self.coefficients(state)
        shaped: dict[str, Any] = self.estimator._shaped(coef.numpy(), intercept.numpy())
        return shaped

    def save(self, state: VrState) -> None:
        write_checkpoint(self.estimator, self.coefficients(state), state.to_tensors(), self.mark)

    def publish(self, state: VrState) -> None:
        """Set the fitted attributes."""
        e, o, data = self.estimator, self.options, self.data
        for name, value in self.attributes(state).items():
            setattr(e, name, value)
        rows, pitch = data.x.shape
        e.n_iter_, e.t_ = max(1, state.epoch), float(state.epoch * o.steps + 1)
        e.loss_curve_ = list(state.losses) or [state.loss0]
        e.grad_norm_curve_ = list(state.norms)
        e.sampling_, e.pilot_loss_, e.n_clipped_ = "nearest", {}, 0
        e.bits_per_value_ = self.bits
        e.stored_bits_per_value_ = 8.0 * data.x.element_size() * pitch / data.cols
        reads = rows + o.steps * o.batch
        last = state.norms[-1] if state.norms else math.nan
        e.report_ = VrReport(
            solver=e.solver,
            bits_per_value=self.bits,
            stored_bits_per_value=e.stored_bits_per_value_,
            z_bits=o.z_bits,
            bytes_per_epoch=reads * pitch * data.x.element_size(),
            float32_bytes_per_epoch=4 * reads * data.cols,
            seconds_per_epoch=float(np.median(state.seconds)) if state.seconds else math.nan,
            seconds_encoding=self.encoding,
            epochs=state.epoch,
            steps_per_epoch=o.steps,
            batch_size=o.batch,
            step_size=o.step,
            mu=None if o.z_bits == 32 else state.mu,
            clip_rate=float(np.mean(state.clip_rates)) if state.clip_rates else 0.0,
            restores=state.restores,
            gradient_norm=last / max(state.norm0, 1e-300),
            loss_at_zero=state.loss0,
            penalty=penalty_text(0.0, o.l2),
            key=(int(self.key[0]), int(self.key[1])),
            stopped={"": "max_iter", "tol": "gradient below tol", "zero": "gradient is 0"}.get(
                state.stop, "by a callback"
            ),
        )


def _options(
    estimator: Any, data: GridRows, weight: Tensor | None, loss: str, intercept: bool, bits: int
) -> VrOptions:
    """Step 0.2 over the largest curvature unless ``eta0`` is given."""
    l2, rows = estimator._penalties()[1], max(2 * len(data.x), MIN_ROWS)
    batch = min(estimator._batch(), rows)
    z_bits = int(estimator.z_bits or 16) if estimator.solver == "halp" else 32
    limit = 1.0 / 128 if bits == 16 and z_bits == 16 else 0.5  # of step * l2, for the integer sums
    if estimator.eta0 is not None:
        step = float(estimator.eta0)
        if z_bits < 32 and step * l2 >= limit:
            raise ValueError(f"eta0 * alpha must be below {limit}, got {step * l2:.3g}")
    else:
        bound = data.bound if batch == 1 else batch_bound(data, weight, intercept, batch)
        step = 0.2 / max(CURVATURE[loss] * bound + l2, 1e-300)
        step = step if batch == 1 else few_digits(step)  # products of matrices depend on threads
        if z_bits < 32 and step * l2 >= limit:
            step = 0.9 * limit / l2
    tol = estimator.tol
    return VrOptions(
        loss=loss,
        l2=l2,
        intercept=intercept,
        step=step,
        steps=-(-rows // batch),
        batch=batch,
        z_bits=z_bits,
        auto_mu=z_bits < 32 and estimator.mu == "auto",
        max_iter=EPOCHS if estimator.max_iter is None else int(estimator.max_iter),
        tol=0.0 if tol is None or tol == -math.inf else float(tol),
        threads=threads_of(estimator.n_jobs),
    )


def batch_bound(data: GridRows, weight: Tensor | None, intercept: bool, batch: int) -> float:
    """Bound of the second moment of a batch's gradient, between the curvature of the mean and of a row.

    E |mean_i a_i a_i^T z|^2 <= ((1 - 1/B) lmax + R / B) z^T H z, R the largest squared norm of a row, H
    the mean of a a^T and lmax its largest eigenvalue, here that of rows evenly spread.
    """
    rows = len(data.x)
    count = min(rows, sample_rows(data.cols))
    index = torch.arange(count) * rows // count
    sample = data.rows[index.to(data.x.device)].cpu().float() * data.dx
    light = torch.ones(count) if weight is None else weight[index].float()
    lmax = largest_curvature(sample, light, data.unit if intercept else 0.0)
    return (1.0 - 1.0 / batch) * lmax + data.bound / batch
