"""From param groups to op calls: one call per step, param group, dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchext.optim import _reference, ops
from torchext.optim._distributed import local, shard_number

#: The key of a step on a device, for a shard of a parameter.
Keys = Callable[[torch.device, int | None], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A parameter, its number over all groups (which is its random stream), its group and state."""

    number: int
    param: Tensor
    group: dict[str, Any]
    states: dict[Tensor, dict[str, Any]]

    @property
    def state(self) -> dict[str, Any]:
        return self.states[self.param]

    @property
    def has_codes(self) -> bool:
        """Whether the parameter has its place on a lattice; reading makes no state."""
        return "z" in self.states.get(self.param, ())

    @property
    def name(self) -> str | int:
        names = self.group.get("param_names")
        if names is None:
            return self.number
        return str(names[next(k for k, p in enumerate(self.group["params"]) if p is self.param)])


def own_dtype(p: Tensor) -> torch.dtype:
    """The arithmetic of a parameter: centre, momentum and full gradient have this dtype."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def new_codes(p: Tensor, bits: int, storage: str) -> Tensor:
    """Codes that are all zero; two to a byte up to 4 bits."""
    p = local(p)
    if storage == "simulate":
        return torch.zeros(p.shape, dtype=torch.float32, device=p.device)
    if bits <= 4:
        return torch.zeros((p.numel() + 1) // 2, dtype=torch.uint8, device=p.device)
    kind = torch.int8 if bits <= 8 else torch.int16
    return torch.zeros(p.shape, dtype=kind, device=p.device)


def batches(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members that can share one op call."""
    found: dict[tuple[Any, ...], list[Member]] = {}
    for m in members:
        first = "momentum_buffer" not in m.state
        kind = (id(m.group), m.param.dtype, m.param.device, m.state.get("bits"), first)
        found.setdefault((*kind, shard_number(m.param)), []).append(m)
    yield from found.values()


def column(members: list[Member], key: str) -> list[Tensor]:
    """One entry of the state of every member, or nothing if they have none."""
    return [m.state[key] for m in members] if key in members[0].state else []


def weights(members: list[Member]) -> list[Tensor]:
    return [local(m.param).detach() for m in members]


def materialize(members: Iterable[Member], codes: str = "z", center: str = "center") -> None:
    """Writes the weights that centre and codes stand for into the parameters."""
    for batch in batches(members):
        ops.foreach_halp_materialize_(
            weights(batch), column(batch, codes), column(batch, center), column(batch, "delta")
        )


def commit(members: Iterable[Member]) -> None:
    """Moves the centres to the present weights."""
    for batch in batches(members):
        ops.foreach_halp_commit_(
            weights(batch), column(batch, "z"), column(batch, "center"), column(batch, "delta")
        )


def encode(members: Iterable[Member]) -> None:
    """Rounds the parameters to their lattices."""
    for batch in batches(members):
        ops.foreach_halp_encode_(
            weights(batch), column(batch, "z"), column(batch, "delta"), batch[0].state["bits"]
        )


class Lists(NamedTuple):
    """The tensors of a step, in the order of the ops; an empty list is "none"."""

    params: list[Tensor]
    z: list[Tensor]
    center: list[Tensor]
    delta: list[Tensor]
    grad: list[Tensor]
    grad_center: list[Tensor]
    full_grad: list[Tensor]
    buf: list[Tensor]
    stats: list[Tensor]


def _rule(m: Member, first_momentum: bool) -> _reference.Rule:
    group, bits = m.group, m.state.get("bits")
    return _reference.Rule(
        weight_decay=float(group["weight_decay"]),
        coef=float(group.get("svrg_coef", 1.0)),
        momentum=float(group["momentum"]),
        dampening=float(group["dampening"]),
        bits=bits,
        nearest=group.get("rounding") == "nearest",
        maximize=group["maximize"],
        nesterov=group["nesterov"],
        decoupled=group["decoupled_weight_decay"],
        first_momentum=first_momentum,
    )


def _flags(rule: _reference.Rule) -> int:
    on = (rule.nearest, rule.maximize, rule.nesterov, rule.decoupled, rule.first_momentum)
    bits = (ops.NEAREST, ops.MAXIMIZE, ops.NESTEROV, ops.DECOUPLED, ops.FIRST_MOMENTUM)
    return sum(bit for bit, wanted in zip(bits, on, strict=True) if wanted)


def _rate(m: Member, device: torch.device) -> float | Tensor:
    """The learning rate; a tensor stays one where reading it would be a wait, or a capture's end."""
    lr = m.group["lr"]
    if not isinstance(lr, Tensor) or not (m.group["capturable"] or lr.is_cuda):
        return float(lr)
    dtype = lr.dtype if lr.dtype == torch.float32 else torch.float64
    return lr.detach().to(device, dtype, non_blocking=True)


def step(members: Iterable[Member], grads_at_center: dict[int, Tensor], keys: Keys) -> None:
    """One step of every member, from ``param.grad`` and the gradients at the centre."""
    for batch in batches(members):
        _step_batch(batch, grads_at_center, keys)


def _step_batch(batch: list[Member], grads_at_center: dict[int, Tensor], keys: Keys) -> None:
    group, state = batch[0].group, batch[0].state
    rule = _rule(batch[0], "momentum_buffer" not in state)
    if group["momentum"] and rule.first_momentum:
        for m in batch:
            p = local(m.param)
            m.state["momentum_buffer"] = torch.zeros(p.shape, dtype=own_dtype(p), device=p.device)
    lists = Lists(
        weights(batch),
        column(batch, "z"),
        column(batch, "center"),
        column(batch, "delta"),
        [local_grad(m) for m in batch],
        _at_center(batch, grads_at_center) if "full_grad" in state else [],
        column(batch, "full_grad"),
        column(batch, "momentum_buffer") if group["momentum"] else [],
        column(batch, "stats"),
    )
    streams = [m.number for m in batch]
    device = lists.params[0].device
    scalars = (
        _rate(batch[0], device), rule.weight_decay, rule.coef, rule.momentum, rule.dampening,
    )  # fmt: skip
    if group["foreach"] is False:
        key = keys(device, shard_number(batch[0].param))
        for k, stream in enumerate(streams):
            one = [values[k] if values else None for values in lists]
            _reference.step(rule, float(group["lr"]), one, key, stream)
    elif rule.bits is None:
        params, z, center, _, *rest = lists
        grad, grad_center, full_grad, buf, stats = rest
        ops.foreach_svrg_step_(
            params, z, center, grad, grad_center, full_grad, buf, stats, *scalars, _flags(rule)
        )
    else:
        key = keys(device, shard_number(batch[0].param))
        ops.foreach_halp_step_(*lists, *scalars, rule.bits, _flags(rule), key, streams)


def _at_center(batch: list[Member], grads: dict[int, Tensor]) -> list[Tensor]:
    """Gradients at the centre; a missing one is zero."""
    found = (grads.get(m.number) for m in batch)
    return [
        torch.zeros_like(local(m.param)) if g is None else g
        for m, g in zip(batch, found, strict=True)
    ]


def code_values(z: Tensor, like: Tensor) -> Tensor:
    """Codes (or displacements) as numbers, in the shape and dtype of ``like``."""
    return _reference.read_codes(z, like.numel(), like.dtype).view_as(like)


def local_grad(m: Member) -> Tensor:
    grad = m.param.grad
    assert grad is not None
    return local(grad)
