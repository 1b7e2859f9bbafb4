"""The spacing of a moving lattice from the gradient at its centre, and the automatic choice of mu."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from torchext.optim import _telemetry as telemetry
from torchext.optim import _transfer as transfer
from torchext.optim._distributed import over_shards
from torchext.optim._options import Run
from torchext.optim._update import Member


def square_norms(members: list[Member], grads: list[Tensor]) -> list[float]:
    """:math:`\\|g + \\lambda\\tilde w\\|^2` of every member, summed by a fixed tree in float64."""
    kinds: dict[tuple[torch.device, float], list[int]] = {}
    for k, (m, g) in enumerate(zip(members, grads, strict=True)):
        decay = m.group["weight_decay"] * (-1.0 if m.group["maximize"] else 1.0)
        decay = decay if "center" in m.state else 0.0
        kinds.setdefault((g.device, decay), []).append(k)
    out: dict[int, Tensor] = {}
    for (_, decay), places in kinds.items():
        center = [members[k].state["center"] for k in places] if decay else []
        totals = torch.ops.torchext._foreach_square_sums([grads[k] for k in places], center, decay)
        for k, total in zip(places, totals.unbind(), strict=True):
            out[k] = over_shards(members[k].param, total)
    return [value for (value,) in transfer.read([out[k] for k in range(len(members))])]


def total_norm(squares: list[float]) -> float:
    """Added one by one, so that every implementation gets the same bits."""
    total = 0.0
    for square in squares:
        total += square
    return math.sqrt(total)


def set_spacings(members: list[Member], squares: list[float], run: Run) -> None:
    """delta = ||g|| / (mu (2^(bits-1) - 1)) for every member, by the scope of the optimizer.

    With one spacing per tensor, a tensor's norm counts as at least ``delta_floor`` times its share of
    the whole, so that a tensor whose gradient is zero now is not frozen for an epoch.
    """
    total = total_norm(squares)
    size = sum(m.param.numel() for m in members)
    norms = [total] * len(members)
    if run.scope == "tensor":
        norms = [
            max(math.sqrt(square), run.delta_floor * total * math.sqrt(m.param.numel() / size))
            for m, square in zip(members, squares, strict=True)
        ]
    epochs = _epochs(members)
    pooled = _pool(epochs) if run.scope == "global" else None
    deltas = []
    for m, norm, epoch in zip(members, norms, epochs, strict=True):
        top = 2 ** (m.state["bits"] - 1) - 1
        mu = m.group["mu"]
        if mu == "auto":
            mu = _next_mu(m, norm, run, pooled or _pool([epoch]))
        m.state["mu"], m.state["grad_norm"] = mu, norm
        deltas.append(norm / (mu * top))
    transfer.write([m.state["delta"] for m in members], deltas)


class Epoch(NamedTuple):
    """What an epoch did to a member: saturated updates of how many, and the largest offset."""

    clipped: float
    updates: float
    offset: float


def _epochs(members: list[Member]) -> list[Epoch]:
    counted = [m for m in members if "stats" in m.state]
    tensors = []
    for m in counted:
        stats = m.state["stats"]
        tensors += [
            over_shards(m.param, stats[telemetry.CLIPPED].clone()),
            over_shards(m.param, stats[telemetry.PEAK].clone(), largest=True),
            m.state["delta"],
        ]
    values = iter(transfer.read(tensors))
    found = {}
    for m in counted:
        (clipped,), (peak,), (delta,) = next(values), next(values), next(values)
        updates = m.group["t"] * m.param.numel()
        found[m.number] = Epoch(clipped, updates, max(peak, 1.0) * delta)
    return [found.get(m.number, Epoch(0.0, 0.0, 0.0)) for m in members]


def _pool(epochs: list[Epoch]) -> tuple[float, float]:
    """Clip rate, and largest offset, over the members of one scope."""
    clipped, updates = sum(e.clipped for e in epochs), sum(e.updates for e in epochs)
    return clipped / max(updates, 1.0), max(e.offset for e in epochs)


def _next_mu(m: Member, norm: float, run: Run, epoch: tuple[float, float]) -> float:
    """Larger after noise won, smaller after clipping, else towards a box twice (8 times) the offset."""
    if "mu" not in m.state:
        lr = float(m.group["lr"]) or float(m.group.get("initial_lr", 1.0))
        return run.mu0 or 10.0 / (lr * run.T)
    mu, before, (clip_rate, offset) = m.state["mu"], m.state["grad_norm"], epoch
    if m.group["t"] == 0 or before == 0.0:
        return float(mu)
    if norm > 2 * before:
        return float(4 * mu)
    if clip_rate > 1e-3:
        return float(mu / 4)
    if clip_rate > 1e-5:
        return float(mu / 1.5)
    if clip_rate > 0 or offset == 0.0:
        return float(mu)
    room = 2.0 if m.state["bits"] < 12 else 8.0
    return float(min(max(before / (room * offset), mu / 4), 2 * mu))
