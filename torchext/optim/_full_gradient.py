"""The full gradient at the centre: a weighted sum over closures, and over ranks by one all-reduce."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchext.optim import _distributed as distributed
from torchext.optim._update import Member, own_dtype

WeightedClosure = Callable[[], Any] | tuple[Callable[[], Any], float]


class RecenterInfo(NamedTuple):
    """What :meth:`recenter` found at the new centre."""

    loss: float  #: mean loss over all samples, weight decay not included
    grad_norm: float  #: norm of the full gradient, weight decay included
    samples: float  #: total weight of the closures, over all ranks
    converged: bool  #: the gradient is zero: steps will do nothing


@dataclass
class Sums:
    """Weighted sums over closures; gradients in the order of the members."""

    grads: list[Tensor]
    loss: float
    weight: float


def accumulate(
    members: list[Member],
    closures: Iterable[WeightedClosure],
    evaluate: Callable[[Callable[[], Any]], Any],
) -> Sums:
    """Runs the closures; a missing gradient counts as zero."""
    local = [distributed.local(m.param) for m in members]
    sums = Sums(
        [torch.zeros(p.shape, dtype=own_dtype(p), device=p.device) for p in local], 0.0, 0.0
    )
    total_loss: Tensor | float = 0.0
    for item in closures:
        closure, weight = item if isinstance(item, tuple) else (item, 1.0)
        if not 0.0 <= weight < math.inf:
            raise ValueError(f"recenter: a closure has weight {weight}, expected 0 or more samples")
        for m in members:
            m.param.grad = None
        loss = evaluate(closure)
        total_loss = _add_loss(total_loss, loss, weight)
        sums.weight += weight
        totals, grads = [], []
        for m, total in zip(members, sums.grads, strict=True):
            grad = m.param.grad
            if grad is None:
                continue
            if grad.layout != torch.strided:
                raise RuntimeError("recenter: sparse gradients are not supported")
            totals.append(total)
            grads.append(distributed.local(grad).to(total.dtype))
        if totals:
            torch._foreach_add_(totals, grads, alpha=weight)
    sums.loss = float(total_loss)
    for m in members:
        m.param.grad = None
    return sums


def _add_loss(total: Tensor | float, loss: Any, weight: float) -> Tensor | float:
    """In float64, where the loss is: nobody waits for it."""
    if not isinstance(loss, Tensor):
        return total + weight * float(loss)
    if isinstance(total, Tensor):
        total = total.to(loss.device)
    return total + weight * loss.detach().reshape(()).double()


def reduce(members: list[Member], sums: Sums, group: Any) -> None:
    """Adds the sums of all ranks, one all-reduce for each dtype and device.

    The shards of a DTensor hold gradients that were reduced already; only loss and weight are added.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    sharded = []
    for m, total in zip(members, sums.grads, strict=True):
        if distributed.is_sharded(m.param):
            sharded.append(total.div_(sums.weight))
        else:
            kinds.setdefault((total.dtype, total.device), []).append(total)
    if not kinds:
        kinds[torch.float64, distributed.local(members[0].param).device] = []
    for (dtype, device), tensors in kinds.items():
        scalars = torch.tensor([sums.loss, sums.weight], dtype=dtype, device=device)
        distributed.all_reduce_flat([*tensors, scalars], group)
        loss, weight = scalars.tolist()
    sums.loss, sums.weight = loss, weight
    for total in sharded:
        total.mul_(weight)


def _unpack(batch: Any, device: torch.device | None) -> tuple[Any, Any]:
    x, y = batch
    if device is not None:
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
    return x, y


def full_gradient_closures(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    prepare: Callable[[Any], tuple[Any, Any]] | None = None,
) -> Iterator[tuple[Callable[[], Tensor], float]]:
    """One closure per batch of a loader, weighted by its number of samples, for ``recenter``.

    The mode of the model stays (train or eval); its buffers, such as batch-norm statistics, are as before
    once the last closure has run, or the loop is left early. A model wrapped in
    ``DistributedDataParallel`` runs under ``no_sync``: ``recenter`` adds the ranks up itself.

    Data augmentation and dropout make the full gradient an estimate. A loader with ``drop_last`` leaves
    samples out, and a distributed sampler that pads counts some twice; both bias it.

    Args:
        model: the model.
        loss_fn: ``loss_fn(model(x), y)``, the mean loss of a batch.
        loader: batches; ``len(y)`` is the number of samples of one.
        device: where to move ``x`` and ``y``; None leaves them.
        prepare: ``prepare(batch) -> (x, y)`` in place of unpacking and moving.

    Yields:
        (closure, samples).

    Example:
        >>> model, data = nn.Linear(2, 1), [(torch.ones(3, 2), torch.zeros(3, 1))]
        >>> pairs = list(full_gradient_closures(model, nn.functional.mse_loss, data))
        >>> pairs[0][1]
        3
    """
    target = None if device is None else torch.device(device)
    buffers = list(model.buffers())
    saved = [b.clone() for b in buffers]
    apart = model.no_sync if hasattr(model, "no_sync") else contextlib.nullcontext
    try:
        for batch in loader:
            x, y = prepare(batch) if prepare is not None else _unpack(batch, target)

            def closure(x: Any = x, y: Any = y) -> Tensor:
                with apart():  # type: ignore[operator]
                    loss = loss_fn(model(x), y)
                    loss.backward()  # type: ignore[no-untyped-call]
                return loss

            yield closure, len(y)
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, saved, strict=True):
                buffer.copy_(value)
