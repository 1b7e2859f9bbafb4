"""What the sums of a step mean."""

from __future__ import annotations

import math

import torch

from torchext.optim import _transfer as transfer
from torchext.optim._distributed import local
from torchext.optim._update import Member

#: Entries of the sums of a tensor, as the step ops fill them.
CLIPPED, STILL, NOISE, MOVED, PEAK, SKIPPED = range(6)


def new_stats(m: Member) -> torch.Tensor:
    return torch.zeros(6, dtype=torch.float64, device=m.param.device)


def of(members: list[Member]) -> dict[str | int, dict[str, float]]:
    """The numbers of every member, by its name; rates of no update at all are 0."""
    stats = transfer.read([m.state["stats"] for m in members])
    deltas = transfer.read([m.state.get("delta", m.state["stats"][:1]) for m in members])
    triples = zip(members, stats, deltas, strict=True)
    return {m.name: _numbers(m, s, delta) for m, s, (delta,) in triples}


def _numbers(m: Member, s: list[float], delta: float) -> dict[str, float]:
    steps = m.group["t"]
    updates = max(steps * local(m.param).numel(), 1)
    out: dict[str, float] = {"steps": steps, "nonfinite": int(s[SKIPPED])}
    out |= {key: m.state[key] for key in ("grad_norm", "loss", "mu") if key in m.state}
    if "bits" not in m.state:
        return out
    top = 2 ** (m.state["bits"] - 1) - 1
    return out | {
        "delta": delta,
        "radius": delta * top,
        "clip_rate": s[CLIPPED] / updates,
        "peak": s[PEAK] / top,
        "noise_ratio": math.sqrt(s[NOISE] / s[MOVED]) if s[MOVED] else 0.0,
        "zero_rate": s[STILL] / updates,
    }
