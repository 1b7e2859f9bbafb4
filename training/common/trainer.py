"""Epochs of mini-batches for every method, on one process or several under torchrun."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchext.optim import full_gradient_closures
from training.common.methods import Method, Settings, build
from training.common.runs import Row, RunError, rank

Batch = tuple[Tensor, Tensor]


class Examples(Protocol):
    """A finite set of examples."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor, noise: torch.Generator | None) -> Batch:
        """Inputs and targets of some rows; ``noise`` drives augmentation, None leaves it out."""


@dataclass(frozen=True)
class Schedule:
    """Lengths of a run: epochs, examples a step, steps from centre to centre as a share of an epoch."""

    epochs: int
    batch: int
    centre_every: float = 1.0
    #: epochs after which the step size falls to a tenth
    decay_at: tuple[int, ...] = ()


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over all targets; scores have one dimension more, the last."""
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def generator(*numbers: int) -> torch.Generator:
    """Random numbers that depend on a few non-negative integers only."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)


class Trainer:
    """Trains a model; a :class:`training.common.runs.Process`.

    The order of the examples and their augmentation depend on seed and epoch alone, so that all methods
    and any number of processes see the same batches.

    Args:
        model: on its device; wrapped for several processes here.
        examples: the training set.
        evaluate: figures of the model at the end of an epoch.
        method, settings, schedule, seed: what is trained how.
        augment: whether batches are augmented; the full gradient is an estimate then.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        evaluate: Callable[[nn.Module], Row],
        method: Method,
        settings: Settings,
        schedule: Schedule,
        seed: int,
        augment: bool = False,
    ) -> None:
        self.method, self.settings, self.schedule, self.seed = method, settings, schedule, seed
        self.examples, self.evaluate, self.augment = examples, evaluate, augment
        self.per_epoch = len(examples) // schedule.batch
        if self.per_epoch == 0 or schedule.batch % world_size():
            raise RunError(
                f"batch must be at most the {len(examples)} examples and a multiple of the "
                f"{world_size()} processes, got {schedule.batch}"
            )
        self.total_steps = schedule.epochs * self.per_epoch
        steps = max(1, round(schedule.centre_every * self.per_epoch))
        self.plain = model
        self.device = next(model.parameters()).device
        self.optimizer: Any = build(method, model.parameters(), settings, steps, seed)
        if hasattr(self.optimizer, "register_buffers"):
            self.optimizer.register_buffers(model.buffers())
        self.model = DistributedDataParallel(model) if dist.is_initialized() else model
        self.steps, self.gradients, self.seconds = 0, 0, 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.order = torch.empty(0, dtype=torch.int64)

    def advance(self) -> Row | None:
        """One step; after the last one of an epoch, its figures."""
        began = time.perf_counter()
        epoch, k = divmod(self.steps, self.per_epoch)
        if k == 0 or len(self.order) == 0:
            self.order = torch.randperm(len(self.examples), generator=generator(self.seed, epoch))
            self._set_lr(epoch)
        if getattr(self.optimizer, "needs_recenter", False):
            loader = self._batches(torch.arange(len(self.examples)).split(self.schedule.batch))
            parts = full_gradient_closures(self.model, cross_entropy, loader)
            self.optimizer.recenter(parts)
            self.gradients += len(self.examples)
        rows = self.order[k * self.schedule.batch : (k + 1) * self.schedule.batch]
        x, y = next(self._batches([rows]))

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        self.loss_sum += self.optimizer.step(closure).detach()
        self.steps += 1
        self.gradients += self.schedule.batch * self.method.gradients_per_step
        self.seconds += time.perf_counter() - began
        return self._row() if k + 1 == self.per_epoch else None

    def _batches(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """This process' share of every part; augmentation is that of the whole part."""
        for j, rows in enumerate(parts):
            noise = generator(self.seed, self.steps, j) if self.augment else None
            x, y = (t[rank() :: world_size()] for t in self.examples.batch(rows, noise))
            if len(y):
                yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def _set_lr(self, epoch: int) -> None:
        passed = sum(epoch >= e for e in self.schedule.decay_at)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * 0.1**passed

    def _row(self) -> Row:
        running = self.loss_sum / self.per_epoch
        if dist.is_initialized():
            dist.all_reduce(running)
        self.loss_sum.zero_()
        self.plain.eval()
        with torch.no_grad():
            found = self.evaluate(self.plain)
        self.plain.train()
        return {
            "epoch": self.steps // self.per_epoch,
            "step": self.steps,
            "gradient_epochs": self.gradients / len(self.examples),
            "running_loss": float(running) / world_size(),
            **found,
            "seconds": round(self.seconds, 3),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        return {
            "model": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "counters": (self.steps, self.gradients, self.seconds, self.loss_sum.item()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from :meth:`state_dict`."""
        self.plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.steps, self.gradients, self.seconds, loss_sum = state["counters"]
        self.loss_sum.fill_(loss_sum)
        epoch = self.steps // self.per_epoch
        self.order = torch.randperm(len(self.examples), generator=generator(self.seed, epoch))


@torch.no_grad()
def measure(model: nn.Module, examples: Examples, batch: int) -> tuple[float, float]:
    """Mean cross entropy and accuracy over all targets; processes share the work."""
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for rows in torch.arange(len(examples)).split(batch)[rank() :: world_size()]:
        x, y = (t.to(device) for t in examples.batch(rows, None))
        scores = model(x)
        sums[0] += cross_entropy(scores, y).double() * y.numel()
        sums[1] += (scores.argmax(-1) == y).sum()
        sums[2] += y.numel()
    if dist.is_initialized():
        dist.all_reduce(sums)
    loss, right, count = sums.tolist()
    return loss / count, right / count


@contextlib.contextmanager
@torch.no_grad()
def batch_norm_over(model: nn.Module, examples: Examples, batch: int) -> Iterator[None]:
    """Inside, the statistics of batch norm are averages over the examples at the present weights.

    The running averages of training follow the last few steps; on short runs what they add to a loss is
    larger than what the methods differ by.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    saved = [(m.momentum, [b.clone() for b in m.buffers()]) for m in layers]
    for m in layers:
        m.reset_running_stats()
        m.momentum = None  # plain average over the batches
        m.train()
    device = next(model.parameters()).device
    for rows in torch.arange(len(examples)).split(batch):
        model(examples.batch(rows, None)[0].to(device))
    for m in layers:
        m.eval()
    try:
        yield
    finally:
        for m, (momentum, buffers) in zip(layers, saved, strict=True):
            m.momentum = momentum
            for buffer, value in zip(m.buffers(), buffers, strict=True):
                buffer.copy_(value)
