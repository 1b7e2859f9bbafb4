"""One training run of an estimator: from a store to fitted attributes and a report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data import QuantizedDataset
from torchext.data.order import Sample
from torchext.linear import _device, _exact, _problem
from torchext.linear._callbacks import FitContext, Progress
from torchext.linear._checkpoint import fingerprint, load_state, save_checkpoint
from torchext.linear._exact import Source
from torchext.linear._problem import Problem
from torchext.linear._report import Report, auto_reason, draws_text, penalty_text
from torchext.linear._schedule import Schedule, StepBound, automatic_step, sample_rows
from torchext.linear._state import State
from torchext.linear._trainer import Options, Trainer
from torchext.linear._validate import VARIANCE_REDUCED, threads_of

#: Steps a run makes at least when max_iter is None.
MIN_STEPS = 2000


class RunMixin:
    """Training and reporting; the estimators add parameters, data and the shape of the result."""

    loss: str
    penalty: str | None
    alpha: float
    l1_ratio: float
    bits: int | None
    sampling: str
    levels: Any
    anchor: str | int
    theta: float | str
    model_bits: int
    residual_bits: int
    gradient_bits: int | None
    solver: str
    z_bits: int | None
    mu: float | str
    batch_size: int | None
    max_iter: int | None
    tol: float | None
    n_iter_no_change: int
    learning_rate: str
    eta0: float | None
    power_t: float
    shift_every: int
    average: bool
    variance_reduced: bool | str
    scale: str
    copies: int
    layout: str
    warm_start: bool
    early_stopping: bool
    validation_fraction: float
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int
    resume: bool
    device: str
    n_jobs: int | None
    random_state: Any
    verbose: int
    callbacks: Sequence[Callable[[Progress], bool | None]] | None
    coef_: Any
    intercept_: Any
    report_: Report

    def _loss_name(self) -> str:
        """Loss of the kernels: ``"squared_error"`` or ``"log_loss"``."""
        raise NotImplementedError

    def _shaped(self, coef: Any, intercept: Any) -> dict[str, Any]:
        """coef_ and intercept_ from (m, n) and (m,) arrays."""
        raise NotImplementedError

    def _batch(self) -> int:
        """Rows per step."""
        few = 1 if self.solver in VARIANCE_REDUCED else 256
        return few if self.batch_size is None else int(self.batch_size)

    def _penalties(self) -> tuple[float, float]:
        """(l1, l2) on the scaled coefficients."""
        share = {"l2": 0.0, "l1": 1.0, "elasticnet": float(self.l1_ratio), None: 0.0}[self.penalty]
        alpha = 0.0 if self.penalty is None else float(self.alpha)
        return alpha * share, alpha * (1.0 - share)

    def _step_bound(self, problem: Problem, key: Tensor, l2: float, shuffled: bool) -> StepBound:
        """Automatic step from 16 random rows per column, 4,096 at least, in at most 64 MiB.

        Half of the ceiling; three quarters for the variance-reduced gradient: its noise vanishes with x - x0.
        """
        count = sample_rows(problem.cols)
        index = torch.arange(min(count, problem.rows))
        if count < problem.rows and not shuffled:
            index = Sample(key, problem.rows, count).indices()
        return automatic_step(
            problem.decode(index),
            None if problem.weight is None else problem.weight[index],
            l2,
            min(self._batch(), problem.rows),
            problem.curvature,
            intercept=problem.fit_intercept,
            share=1.5 if problem.variance_reduced else 1.0,
        )

    def _options(self, problem: Problem, epochs: int | None = None) -> Options:
        batches = -(-problem.rows // self._batch())
        if epochs is None:
            epochs = (
                int(self.max_iter)
                if self.max_iter is not None
                else max(30, -(-MIN_STEPS // batches))
            )
        kind = self.learning_rate
        if kind == "auto":
            kind = "constant" if problem.variance_reduced else "linear"
        l1, l2 = self._penalties()
        rounds = self.anchor if isinstance(self.anchor, int) else 0
        tol = 0.0 if self.tol is None or self.tol == -math.inf else float(self.tol)
        return Options(
            batch=self._batch(),
            max_iter=epochs,
            rounds=rounds,
            tol=tol / 100
            if rounds
            else tol,  # an anchor removes two digits: solve to better than that
            n_iter_no_change=int(self.n_iter_no_change),
            l1=l1,
            l2=l2,
            average=bool(self.average),
            model_bits=int(self.model_bits),
            residual_bits=int(self.residual_bits),
            gradient_bits=int(self.gradient_bits or 0),
            threads=threads_of(self.n_jobs),
            schedule=Schedule(
                kind, batches, batches * epochs, float(self.power_t), int(self.shift_every)
            ),
        )

    def _train(
        self,
        store: QuantizedDataset,
        source: Source | None,
        key: Tensor,
        valid: Source | None,
        encoding: float | None,
    ) -> None:
        """Build the problem, run all rounds, publish the result (also when interrupted)."""
        problem = _problem.build(
            store,
            loss=self._loss_name(),
            theta=self.theta,
            scale=self.scale,
            variance_reduced=self.variance_reduced,
        )
        options = self._options(problem)
        if options.rounds and source is None:
            raise ValueError(
                f"anchor={options.rounds} needs further passes over the full-precision rows; "
                'fit on arrays, or use anchor="pilot"'
            )
        bound = self._step_bound(problem, key, options.l2, store.shuffled)
        state = self._start(
            problem, store, float(self.eta0) if self.eta0 is not None else bound.step
        )
        mark = fingerprint(self, store, key)
        if self.checkpoint is not None and self.resume:
            found = load_state(self, mark, State.from_tensors)
            if found is not None:
                state, problem = found, _problem.resume(problem, found)
        valid_loss = (
            None
            if valid is None
            else (lambda s: self._exact_loss(valid, problem, s, options.average))
        )
        device = _device.resolve(self.device)
        trainer = Trainer(problem, options, key, state, valid_loss, device)
        self._facts = self._known(store, problem, options, encoding, key)
        context = FitContext(self, options.max_iter * (1 + options.rounds))

        def on_epoch(current: State) -> bool:
            if self.checkpoint is not None and current.epoch % int(self.checkpoint_every) == 0:
                save_checkpoint(self, trainer, mark)
            loss, seconds = current.losses[-1], trainer.seconds[-1]
            if self.verbose:
                print(f"epoch {current.epoch}: loss {loss:.6g}, {seconds:.3g} s")
            info = Progress(current.epoch, options.max_iter, current.round, loss, seconds)
            asked = [bool(callback(info)) for callback in self.callbacks or ()]
            return context.epoch(lambda: self._attributes(trainer)) or any(asked)

        try:
            trainer.run_round(on_epoch)
            while trainer.state.round < options.rounds:
                trainer.next_round(self._reanchored(trainer, source))
                trainer.run_round(on_epoch)
        finally:  # an interrupted fit leaves its last committed state, in memory and in the checkpoint
            self._publish(trainer)
            if self.checkpoint is not None:
                save_checkpoint(self, trainer, mark)
        context.close()

    def _start(self, problem: Problem, store: QuantizedDataset, gamma0: float) -> State:
        """Zero, the anchor, or (warm start) the present coefficients."""
        x = torch.zeros(problem.outputs, problem.cols)
        intercept = torch.zeros(problem.outputs)
        if self.warm_start and hasattr(self, "coef_"):
            coef = torch.from_numpy(
                np.asarray(self.coef_, dtype=np.float64).reshape(problem.outputs, -1)
            )
            x = (coef * store.scale.double() / problem.unit).float()
            if problem.fit_intercept:
                base = torch.from_numpy(np.asarray(self.intercept_, dtype=np.float64).reshape(-1))
                intercept = (base + coef @ store.mean.double()).float()
        elif problem.x0 is not None:
            x, intercept = (t.clone() for t in problem.split(problem.x0))
        return State.start(x.contiguous(), intercept, gamma0)

    def _reanchored(self, trainer: Trainer, source: Source | None) -> Problem:
        """The problem with its anchor at the present solution: one exact pass (and one over the codes)."""
        assert source is not None
        x, intercept = (t.float() for t in trainer.state.solution(trainer.options.average))
        return _problem.reanchor(trainer.problem, source, x.contiguous(), intercept.contiguous())

    def _exact_loss(self, source: Source, problem: Problem, state: State, average: bool) -> float:
        x, intercept = state.solution(average)
        return _exact.loss_and_gradient(source, x * problem.unit, intercept, problem.loss)[0]

    # -- results ---------------------------------------------------------------------------------

    def _known(
        self,
        store: QuantizedDataset,
        problem: Problem,
        options: Options,
        encoding: float | None,
        key: Tensor,
    ) -> dict[str, Any]:
        """The part of the report that is known before training; sets the attributes that depend on it."""
        self.sampling_ = store.sampling
        self.pilot_loss_ = dict(store.pilot or {})
        self.n_clipped_ = int(store.n_clipped_)
        self.bits_per_value_ = store.bits
        self.stored_bits_per_value_ = store.stored_bits
        self._mean, self._scale, self._y_mean = (
            store.mean.double(),
            store.scale.double(),
            torch.zeros(1),
        )
        if not problem.fit_intercept:
            self._y_mean = store.y_mean.double().reshape(-1)
        codes = store.codes if store.bits == 32 else store.codes[0]
        return {
            "bits_per_value": store.bits,
            "stored_bits_per_value": float(store.stored_bits),
            "bytes_per_epoch": codes.numel() * codes.element_size(),
            "float32_bytes_per_epoch": 4 * store.rows * store.cols,
            "seconds_encoding": encoding,
            "sampling": store.sampling,
            "auto": auto_reason(store, self.sampling),
            "levels": store.level_kind,
            "draws": draws_text(store, problem),
            "layout": store.layout,
            "anchor": "none" if problem.x0 is None else str(self.anchor),
            "pilot_loss": self.pilot_loss_,
            "loss_at_zero": problem.loss_at_zero,
            "loss_at_anchor": problem.loss_at_anchor,
            "penalty": penalty_text(options.l1, options.l2),
            "batch_size": options.batch,
            "schedule": options.schedule.kind,
            "model_bits": options.model_bits,
            "residual_bits": options.residual_bits,
            "gradient_bits": options.gradient_bits,
            "key": (int(key[0]), int(key[1])),
            "guards": problem.guards,
        }

    def _coefficients(self, trainer: Trainer) -> tuple[Tensor, Tensor]:
        """float64 coefficients (m, n) and intercepts (m,) in the units of the data."""
        x, intercept = trainer.state.solution(trainer.options.average)
        coef = x * trainer.problem.unit / self._scale
        # Exactly rounded sums: no last bit depends on the processor's matrix product.
        shift = [math.fsum(row.tolist()) for row in coef * self._mean]
        return coef, intercept + self._y_mean - torch.tensor(shift, dtype=torch.float64)

    def _attributes(self, trainer: Trainer) -> dict[str, Any]:
        coef, intercept = self._coefficients(trainer)
        return self._shaped(coef.numpy(), intercept.numpy())

    def _publish(self, trainer: Trainer) -> None:
        """Set the fitted attributes from the last committed state."""
        state = trainer.state
        for name, value in self._attributes(trainer).items():
            setattr(self, name, value)
        self.n_iter_ = max(1, state.epoch)
        self.t_ = float(state.steps + 1)
        self.loss_curve_ = list(state.losses)
        self.validation_loss_curve_ = list(state.valid_losses)
        facts = self._facts
        self.report_ = Report(
            **{**facts, "guards": (*facts["guards"], *trainer.guards)},
            epochs=state.epoch,
            steps=state.steps,
            seconds_per_epoch=float(np.median(trainer.seconds)) if trainer.seconds else math.nan,
            anchor_losses=tuple(state.anchor_losses),
            full_precision_passes=state.round,
            step_size=state.gamma0,
            stopped={"": "max_iter", "tol": "no improvement", "callback": "by a callback"}[
                state.stop
            ],
        )
