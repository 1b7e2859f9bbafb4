"""The spacing of a moving lattice from the gradient at its centre, and the automatic choice of mu."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchext.optim import _telemetry as telemetry
from torchext.optim._distributed import over_shards
from torchext.optim._options import Run
from torchext.optim._update import Member, own_dtype


def square_norms(members: list[Member], grads: list[Tensor]) -> list[float]:
    """:math:`\\|g + \\lambda\\tilde w\\|^2` of every member, summed by a fixed tree in float64."""
    out: list[float] = []
    for m, g in zip(members, grads, strict=True):
        decay = m.group["weight_decay"] * (-1.0 if m.group["maximize"] else 1.0)
        center = [m.state["center"]] if decay and "center" in m.state else []
        total = torch.ops.torchext._foreach_square_sums([g], center, decay)
        out.append(over_shards(m.param, total).item())
    return out


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
    pooled = _pool(members) if run.scope == "global" else None
    for m, norm in zip(members, norms, strict=True):
        top = 2 ** (m.state["bits"] - 1) - 1
        mu = m.group["mu"]
        if mu == "auto":
            mu = _next_mu(m, norm, run, pooled or _pool([m]))
        m.state["mu"], m.state["grad_norm"] = mu, norm
        delta = torch.tensor(norm / (mu * top), dtype=own_dtype(m.param))
        m.state["delta"] = delta.to(m.param.device)


def _pool(members: list[Member]) -> tuple[float, float]:
    """Clip rate, and largest offset, of the epoch that ends, over the members of one scope."""
    clipped = updates = offset = 0.0
    for m in members:
        if "stats" in m.state:
            stats = m.state["stats"]
            clipped += over_shards(m.param, stats[telemetry.CLIPPED].clone()).item()
            updates += m.group["t"] * m.param.numel()
            peak = over_shards(m.param, stats[telemetry.PEAK].clone(), largest=True).item()
            offset = max(offset, max(peak, 1.0) * m.state["delta"].item())
    return clipped / max(updates, 1.0), offset


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
