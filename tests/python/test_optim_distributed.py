"""Several processes on gloo: plain reduction, DistributedDataParallel and fully sharded parameters."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from optim_problems import CENTERED, MAKERS, LeastSquares
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from torchext.optim import HALP, SVRG, full_gradient_closures

pytestmark = pytest.mark.dist


WORLD = 3


def run(rank: int, store: str) -> None:
    """All checks in three processes, then in two of them: one start is what takes time."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    try:
        pair, mesh = dist.new_group([0, 1]), DeviceMesh("cpu", [0, 1])
        check_reduction(rank, WORLD, dist.group.WORLD)
        check_ddp(rank, WORLD, dist.group.WORLD)
        if rank < 2:
            check_reduction(rank, 2, pair)
            check_ddp(rank, 2, pair)
            check_fsdp(rank, 2, pair, mesh)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_two_and_three_processes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (f"file://{folder}/store",), nprocs=WORLD)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Sizes of the all-reduces that are asked for."""
    sizes: list[int] = []
    original = dist.all_reduce

    def all_reduce(tensor: Tensor, *a: Any, **k: Any) -> Any:
        sizes.append(tensor.numel())
        return original(tensor, *a, **k)

    dist.all_reduce = all_reduce
    try:
        yield sizes
    finally:
        dist.all_reduce = original


def same_everywhere(t: Tensor, group: Any) -> bool:
    found = [torch.empty_like(t) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, t, group=group)
    return all(torch.equal(f, t) for f in found)


def check_reduction(rank: int, world: int, group: Any) -> None:
    """Ranks hold different numbers of samples and different user seeds; the centre is the same."""
    bounds = [0, 20, 27, 32] if world == 3 else [0, 20, 32]
    mine = torch.arange(bounds[rank], bounds[rank + 1])
    for name in CENTERED:
        p, whole = LeastSquares(), LeastSquares()
        opt = MAKERS[name]([p.w], seed=100 + rank, momentum=0.5, process_group=group)
        alone = MAKERS[name]([whole.w], seed=100, momentum=0.5, sync=False)
        with counted() as sizes:
            info = opt.recenter((p.closure(opt, r), len(r)) for r in mine.split(8))
        assert sizes == [6 + 2], sizes
        expected = alone.recenter(whole.parts(alone))
        assert info.samples == 32
        assert abs(info.grad_norm / expected.grad_norm - 1) < 1e-5
        assert opt.param_groups[0]["seed"] == 100
        for k in range(6):  # the same batch everywhere stands for an averaged gradient
            for problem, each in ((p, opt), (whole, alone)):
                each.step(problem.closure(each, problem.order[k]))
        assert same_everywhere(p.w.detach(), group)
        assert same_everywhere(opt.state[p.w]["z"].float(), group)
        torch.testing.assert_close(p.w, whole.w, rtol=0.05, atol=0.05)


def counting_hook(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations itself
    """The usual average, noted down."""
    sizes, group = state
    sizes.append(bucket.buffer().numel())
    mean = bucket.buffer() / dist.get_world_size(group)
    return (
        dist.all_reduce(mean, group=group, async_op=True).get_future().then(lambda f: f.value()[0])
    )


def check_ddp(rank: int, world: int, group: Any) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(24, 6), torch.randn(24, 1)
    share = 24 // world
    mine = slice(rank * share, (rank + 1) * share)
    for view in (False, True):
        for make in (
            lambda w, **o: SVRG(w, 0.05, 4, **o),
            lambda w, **o: HALP(w, 0.05, 4, mu=2.0, momentum=0.5, **o),
        ):
            torch.manual_seed(7)
            model, twin = nn.Linear(6, 1), nn.Linear(6, 1)
            twin.load_state_dict(model.state_dict())
            ddp = DistributedDataParallel(model, process_group=group, gradient_as_bucket_view=view)
            torch.manual_seed(rank)  # another seed on every rank
            opt = make(ddp.parameters(), process_group=group)  # type: ignore[no-untyped-call]
            other = make(twin.parameters(), sync=False)  # type: ignore[no-untyped-call]
            reductions: list[int] = []
            ddp.register_comm_hook((reductions, group), counting_hook)
            for k in range(8):
                if opt.needs_recenter:
                    reductions.clear()
                    batches = [(x[mine], y[mine])]
                    info = opt.recenter(
                        full_gradient_closures(ddp, nn.functional.mse_loss, batches)
                    )
                    assert not reductions and info.samples == 24
                    other.recenter(full_gradient_closures(twin, nn.functional.mse_loss, [(x, y)]))

                def closure(net: nn.Module, o: Any, a: Tensor, b: Tensor) -> Any:
                    def run() -> Tensor:
                        o.zero_grad()
                        loss = nn.functional.mse_loss(net(a), b)
                        loss.backward()  # type: ignore[no-untyped-call]
                        return loss

                    return run

                reductions.clear()
                local = slice(rank * share + k % 2, rank * share + k % 2 + 4)
                opt.step(closure(ddp, opt, x[local], y[local]))
                assert len(reductions) == 2  # one for each of the two passes
                rows = torch.cat([torch.arange(4) + r * share + k % 2 for r in range(world)])
                other.step(closure(twin, other, x[rows], y[rows]))
            for p, q in zip(model.parameters(), twin.parameters(), strict=True):
                assert same_everywhere(p.detach(), group)
                if isinstance(opt, SVRG):
                    torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def check_fsdp(rank: int, world: int, group: Any, mesh: DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    x, y = torch.randn(24, 6), torch.randn(24, 3)
    share = slice(rank * 24 // world, (rank + 1) * 24 // world)
    finals = []
    for make in (
        lambda w, **o: SVRG(w, 0.1, 4, weight_decay=0.01, **o),
        lambda w, **o: HALP(w, 0.1, 4, mu0=1.0, bits=16, seed=3 + rank, weight_decay=0.01, **o),
    ):
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        fully_shard(model, mesh=mesh)
        opt = make(model.parameters(), process_group=group)  # type: ignore[no-untyped-call]
        losses = []

        def closure(model: nn.Module = model, opt: Any = opt) -> Tensor:
            opt.zero_grad()
            loss = nn.functional.mse_loss(model(x[share]), y[share])
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(12):
            if opt.needs_recenter:
                losses.append(opt.recenter([(closure, 24 // world)]).loss)
            opt.step(closure)
        assert losses[0] > losses[1] > losses[2]
        finals.append([p.full_tensor().detach() for p in model.parameters()])  # type: ignore[attr-defined]
        for p in model.parameters():  # every rank chose the same spacing
            if "delta" in opt.state[p]:
                assert same_everywhere(opt.state[p]["delta"].reshape(1), group)
        state = opt.state_dict()
        opt.load_state_dict(state)
        after = [p.full_tensor().detach() for p in model.parameters()]  # type: ignore[attr-defined]
        assert all(torch.equal(a, b) for a, b in zip(finals[-1], after, strict=True))
    torch.manual_seed(7)
    twin = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    alone = SVRG(twin.parameters(), 0.1, 4, weight_decay=0.01, sync=False)

    def whole() -> Tensor:
        alone.zero_grad()
        loss = nn.functional.mse_loss(twin(x), y)
        loss.backward()
        return loss

    for _ in range(12):
        if alone.needs_recenter:
            alone.recenter([whole])
        alone.step(whole)
    for a, b, c in zip(finals[0], finals[1], twin.parameters(), strict=True):
        torch.testing.assert_close(a, c.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(b, c.detach(), rtol=0.02, atol=0.005)


def test_insisting_on_other_processes_needs_them() -> None:
    p = LeastSquares()
    opt = SVRG([p.w], 0.1, 4, sync=True)
    with pytest.raises(RuntimeError, match=r"sync=True needs torch.distributed.init_process_group"):
        opt.recenter(p.parts(opt))
