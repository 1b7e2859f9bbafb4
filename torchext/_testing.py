"""Hooks for tests; not part of the public API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

ISAS = ("ref", "avx2", "avx512")


def force_isa(name: str) -> bool:
    """Switch the CPU instruction set in this process; False if the processor lacks it."""
    return bool(torch.ops.torchext._force_isa(name))


@contextlib.contextmanager
def isa(name: str) -> Iterator[bool]:
    """Run a block on one instruction set; yields False (and changes nothing) if it is missing."""
    before = torch.ops.torchext._cpu_isa()
    try:
        yield force_isa(name)
    finally:
        force_isa(before)


def levels_work(
    x: torch.Tensor, levels: int, objective: str = "stochastic", method: str = "exact"
) -> dict[str, int]:
    """What optimal_levels of one table takes on any machine: interval costs or bounds evaluated (a
    double-double one counts 4), rounds of pruning, most blocks held at a time. ``smawk`` does not count."""
    found = torch.ops.torchext._levels_work(x, levels, objective, method)
    return dict(zip(("evaluations", "rounds", "blocks"), found.tolist(), strict=True))
