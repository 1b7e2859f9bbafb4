"""Several processes: one seed for all, one all-reduce for a full gradient, shards of DTensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def active(sync: bool | str, group: Any) -> bool:
    """Whether to talk to other processes; ``sync=True`` insists on it."""
    ready = dist.is_available() and dist.is_initialized()
    if sync is True and not ready:
        raise RuntimeError("sync=True needs torch.distributed.init_process_group() first")
    return bool(sync) and ready and dist.get_world_size(group) > 1


def agree(seed: int, group: Any, device: torch.device) -> int:
    """Rank 0's seed, on every rank."""
    backend = dist.get_backend(group)
    value = torch.tensor([seed], dtype=torch.int64, device=device if backend == "nccl" else "cpu")
    dist.broadcast(value, src=dist.get_global_rank(group, 0) if group else 0, group=group)
    return int(value.item())


def all_reduce_flat(tensors: list[Tensor], group: Any) -> None:
    """Sums tensors of one dtype and device over the ranks in one all-reduce, in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat, group=group)
    parts = torch.split(flat, [t.numel() for t in tensors])
    for t, part in zip(tensors, parts, strict=True):
        t.copy_(part.view_as(t))


def local(t: Tensor) -> Tensor:
    """This rank's part of a DTensor; any other tensor itself."""
    return t.to_local() if hasattr(t, "to_local") else t


def _shard_dims(p: Tensor) -> list[int]:
    if not hasattr(p, "placements"):
        return []
    return [d for d, placement in enumerate(p.placements) if placement.is_shard()]


def is_sharded(p: Tensor) -> bool:
    return bool(_shard_dims(p))


def shard_number(p: Tensor) -> int | None:
    """Which shard this rank holds, equal on all replicas of it; None where there are no shards."""
    dims = _shard_dims(p)
    if not dims:
        return None
    mesh, number = p.device_mesh, 0  # type: ignore[attr-defined]
    for d in dims:
        number = number * mesh.size(d) + mesh.get_coordinate()[d]
    return number


def over_shards(p: Tensor, values: Tensor, largest: bool = False) -> Tensor:
    """Adds up (or takes the largest of), in place, what every rank computed on its shard of ``p``."""
    for d in _shard_dims(p):
        op = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        dist.all_reduce(values, op, group=p.device_mesh.get_group(d))  # type: ignore[attr-defined]
    return values
