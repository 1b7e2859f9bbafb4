"""The training loop: epochs over the codes, step by step reproducible, interruptible anywhere.

An epoch is a few op calls of a fixed number of steps (a function of the shapes only), after each of
which the new state is committed as a whole. So Ctrl-C is obeyed within seconds on large data, the
state in memory is always usable, and a run resumed from it continues bit for bit.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.linear._device import CPU
from torchext.linear._epochs import Model, Steps, epochs_on
from torchext.linear._order import epoch_order, sampler_key
from torchext.linear._problem import Problem
from torchext.linear._schedule import Schedule
from torchext.linear._state import State

#: Values that one op call may visit; bounds the answer time to Ctrl-C, not the result.
CALL_VALUES = 1 << 31
MAX_HALVINGS = 10


class ConvergenceError(RuntimeError):
    """Training diverged even after the step size was halved ten times."""


@dataclass(frozen=True)
class Options:
    """What the loop needs to know beside the problem."""

    batch: int
    max_iter: int
    rounds: int
    tol: float
    n_iter_no_change: int
    l1: float
    l2: float
    average: bool
    model_bits: int
    residual_bits: int
    gradient_bits: int
    threads: int
    schedule: Schedule


class Trainer:
    """Runs a :class:`Problem` from a :class:`State` to the end; ``state`` is the last committed one."""

    def __init__(
        self,
        problem: Problem,
        options: Options,
        key: Tensor,
        state: State,
        valid_loss: Callable[[State], float] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.problem, self.options, self.key, self.state = problem, options, key, state
        self.epochs = epochs_on(device, problem, options, key)
        self.valid_loss, self.sampler = valid_loss, sampler_key(key)
        self.seconds: list[float] = []
        self.guards: list[str] = []
        self.batches = -(-problem.rows // options.batch)
        self.call_steps = max(1, CALL_VALUES // (options.batch * max(1, problem.cols)))

    def run_round(self, on_epoch: Callable[[State], bool]) -> None:
        """Epochs until ``max_iter``, convergence, or ``on_epoch`` returning True."""
        while not self.finished():
            self.run_epoch()
            if on_epoch(self.state) and not self.state.stop:
                self.state.stop = "callback"

    def run_epoch(self) -> None:
        """One epoch, repeated with a smaller step while the guard objects."""
        while True:
            began = time.perf_counter()
            if not self.state.open:
                self._begin_epoch()
            while self.state.done < self.batches:
                self._call()
            if self._close_epoch():
                self.seconds.append(time.perf_counter() - began)
                return

    def finished(self) -> bool:
        """Whether the present round is over."""
        return (
            bool(self.state.stop)
            or self.state.epoch - self.state.round_epoch >= self.options.max_iter
        )

    def next_round(self, problem: Problem) -> None:
        """Go on from the solution of this round with a new anchor."""
        new = self.state.copy()
        new.x, new.intercept = (t.float() for t in self.state.solution(self.options.average))
        new.x0, new.constant = problem.x0, problem.constant
        if problem.loss_at_anchor is not None:
            new.anchor_losses.append(problem.loss_at_anchor)
        new.round, new.round_epoch, new.stop = new.round + 1, new.epoch, ""
        new.best, new.lowest, new.stale, new.averaged = math.inf, math.inf, 0, 0
        new.safe_x, new.safe_intercept = new.x, new.intercept
        new.average = torch.zeros_like(new.average)
        self.problem, self.state = problem, new
        self.epochs = self.epochs.with_problem(problem)

    def _begin_epoch(self) -> None:
        """Mark the point the guard returns to; the average restarts until half of the round is done."""
        new = self.state.copy()
        if new.epoch - new.round_epoch <= self.options.max_iter // 2:
            new.average, new.averaged = torch.zeros_like(new.average), 0
        new.done, new.open = 0, True
        new.sums = torch.zeros_like(new.sums)
        new.start_x, new.start_intercept = new.x, new.intercept
        new.start_average, new.start_averaged = new.average, new.averaged
        self.state = new

    def _call(self) -> None:
        p, o, new = self.problem, self.options, self.state.copy()
        count = min(self.call_steps, self.batches - new.done)
        in_round = (new.epoch - new.round_epoch) * self.batches + new.done
        order = epoch_order(self.sampler, new.epoch, self.batches)[new.done : new.done + count]
        # the op writes into these three
        new.x, new.intercept, new.average = (t.clone() for t in (new.x, new.intercept, new.average))
        sums = self.epochs.run(
            0 if p.bits == 32 else new.epoch % p.codes.shape[0],
            Model(new.x, new.intercept, new.average),
            Steps(order, o.schedule.gammas(new.gamma0, in_round, count), new.steps),
        )
        if p.table.numel():  # double sampling sums the losses of both draws
            sums[:2] /= p.table.shape[1]
        new.sums = new.sums + sums
        new.averaged += count
        new.done += count
        new.steps += count
        self.state = new

    def _close_epoch(self) -> bool:
        """Check the guard, note the loss, decide whether to stop; False if the epoch is to be redone."""
        new = self.state.copy()
        loss, runaway = self._running_loss(new)
        largest = float(torch.linalg.vector_norm(new.x, math.inf))  # NaN where x has one
        if runaway or not math.isfinite(loss + largest):
            self._restore(new)
            return False
        new.losses.append(loss)
        if loss < new.lowest:
            new.lowest, new.safe_x, new.safe_intercept = (
                loss,
                new.start_x,
                new.start_intercept,
            )
        new.epoch, new.open = new.epoch + 1, False
        o = self.options
        watched = loss
        if self.valid_loss is not None:
            watched = self.valid_loss(new)
            new.valid_losses.append(watched)
        if o.tol > 0 and watched > new.best - o.tol * self.problem.loss_at_zero:
            new.stale += 1
            if new.stale >= o.n_iter_no_change:
                new.stop = "tol"
        else:
            new.stale = 0
        new.best = min(new.best, watched)
        self.state = new
        return True

    def _running_loss(self, new: State) -> tuple[float, bool]:
        """Objective over the epoch as seen on the codes, averaged over outputs, and the guard's verdict."""
        p, o = self.problem, self.options
        total, _, rows = (sum(per_output) for per_output in new.sums.tolist())
        data = total / rows
        limit = 4.0 * p.loss_at_zero
        runaway = data > limit
        penalty = 0.0
        if p.x0 is not None or p.shrink is not None or o.l1 > 0 or o.l2 > 0:
            mean = (new.average - new.start_average) / (new.averaged - new.start_averaged)
            data += self._moved_loss(mean)
            if p.variance_reduced and p.loss == "squared_error" and p.loss_at_anchor is not None:
                # L(x) = L(x0) + mu.d + mean (a.d)^2 / 2; the op returned the last term.
                data += p.loss_at_anchor
                runaway = total / rows > limit + 4.0 * p.loss_at_anchor
            x = mean[:, :-1]
            penalty = 0.5 * o.l2 * float((x * x).sum()) / p.outputs if o.l2 > 0 else 0.0
            penalty += o.l1 * float(x.abs().sum()) / p.outputs if o.l1 > 0 else 0.0
        if p.loss != "squared_error":
            # Codes may put rows that x0 separates on the wrong side: that is no divergence.
            runaway = bool(new.losses) and data > max(limit, 4.0 * new.losses[0])
        return data + penalty, runaway

    def _moved_loss(self, mean: Tensor) -> float:
        """What the anchor's correction and the shrinkage add to the loss at the mean iterate (m, n + 1)."""
        p, moved = self.problem, 0.0
        if p.x0 is not None and p.constant is not None:
            d = mean[:, : p.x0.shape[1]] - p.x0.double()
            if p.loss == "squared_error" or not p.variance_reduced:
                moved += float((p.constant.double() * d).sum())
        if p.shrink is not None:
            base = 0.0 if p.x0 is None else p.x0[:, : p.cols].double()
            moved -= 0.5 * float((p.shrink.double() * (mean[:, :-1] - base) ** 2).sum())
        return moved / p.outputs

    def _restore(self, new: State) -> None:
        """Divergence: back to where the best epoch so far began, with half the step."""
        if new.halvings >= MAX_HALVINGS:
            raise ConvergenceError(
                f"training diverged and halving the step size {MAX_HALVINGS} times did not help "
                f"(step {new.gamma0:.3g} in epoch {new.epoch}); use more bits, a larger alpha, or "
                'sampling="nearest"'
            )
        new.gamma0, new.halvings = new.gamma0 / 2, new.halvings + 1
        new.x, new.intercept = new.safe_x, new.safe_intercept
        new.start_x, new.start_intercept = new.x, new.intercept
        new.average, new.averaged = new.start_average, new.start_averaged
        new.sums = torch.zeros_like(new.sums)
        new.done = 0
        text = f"epoch {new.epoch}: running loss above 4 times that of x = 0, step halved to {new.gamma0:.3g}"
        self.guards.append(text)
        warnings.warn(text, stacklevel=4)
        self.state = new
