"""The optimizers on a GPU: the bits of the CPU for the same gradients, graphs, streams, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lattice_model import Rule
from optim_problems import MAKERS, LeastSquares
from parity import same_bits
from test_cuda_emulation_optim import DTYPES, RULES, SIZES, STORES, halp, lattice, svrg
from torch import Tensor, nn

from torchext import _build
from torchext.optim import HALP, LPSGD

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]
OPS = torch.ops.torchext


def to(device: str, value: Any) -> Any:
    """Copies of the tensors in nested lists, on a device."""
    if isinstance(value, Tensor):
        return value.detach().clone().to(device)
    return [to(device, part) for part in value] if isinstance(value, list | tuple) else value


def check(op: Any, arguments: tuple[Any, ...]) -> None:
    theirs, ours = to("cpu", arguments), to("cuda", arguments)
    want, got = op(*theirs), op(*ours)
    assert want is None or same_bits(got.cpu(), want)
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, list) and a and isinstance(a[0], Tensor):
            assert all(same_bits(x.cpu(), y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", STORES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_as_the_cpu(dtype: torch.dtype, kind: torch.dtype) -> None:
    same_steps((*SIZES, 100_003), dtype, kind, RULES)


@pytest.mark.parametrize("kind", [torch.int8, torch.float32], ids=str)
def test_small_steps(kind: torch.dtype) -> None:
    """Under compute-sanitizer too."""
    same_steps((3, 1030), torch.float32, kind, RULES[:2])
    check(OPS.foreach_svrg_step_.default, svrg(lattice((3, 1030), kind=torch.float32), Rule()))


def same_steps(
    sizes: tuple[int, ...], dtype: torch.dtype, kind: torch.dtype, rules: Sequence[Rule]
) -> None:
    for rule in rules:
        lists = lattice(sizes, dtype, kind)
        check(OPS.foreach_halp_step_.default, halp(lists, rule.but(bits=STORES[kind])))
    plain = tuple(lists[name] for name in ("params", "z", "center", "delta"))
    check(OPS.foreach_halp_materialize_, plain)
    check(OPS.foreach_halp_commit_, plain)
    check(OPS.foreach_halp_encode_, (*plain[:2], plain[3], STORES[kind]))
    check(OPS._foreach_square_sums, (lists["full_grad"], lists["center"], 0.1))


def test_large_and_many_tensors() -> None:
    check(OPS.foreach_halp_step_.default, halp(lattice((5_000_001,)), RULES[1]))
    check(OPS.foreach_halp_step_.default, halp(lattice(tuple(range(100))), RULES[1]))
    check(OPS.foreach_svrg_step_.default, svrg(lattice((3_000_001, 5), kind=torch.float32), Rule()))


def test_tensors_elsewhere_are_named() -> None:
    arguments = to("cuda", halp(lattice((5,)), Rule()))
    for at, name in ((2, "center"), (4, "grad"), (16, "key")):
        wrong = list(arguments)
        wrong[at] = to("cpu", wrong[at])
        with pytest.raises(RuntimeError, match=f"{name} must be on the device of"):
            OPS.foreach_halp_step_(*wrong)


class Fixed:
    """Parameters whose gradients are given: the same on every device."""

    def __init__(self, device: str, sizes: tuple[int, ...] = (7, 2000, 1)) -> None:
        self.params = [nn.Parameter(torch.linspace(-1, 1, n).to(device)) for n in sizes]

    def closure(self, opt: Any, k: int) -> Any:
        def run() -> Tensor:
            opt.zero_grad()
            for j, p in enumerate(self.params):
                noise = torch.randn(p.numel(), generator=torch.Generator().manual_seed(31 * k + j))
                p.grad = (p.detach().cpu() * 0.5 + noise).to(p.device)
            return torch.zeros((), device=self.params[0].device)

        return run

    def train(self, opt: Any, steps: int, start: int = 0) -> None:
        for k in range(start, start + steps):
            if getattr(opt, "needs_recenter", False):
                opt.recenter([self.closure(opt, 1000 + k)])
            opt.step(self.closure(opt, k))


def same_state(a: Any, b: Any) -> bool:
    one, other = a.state_dict()["state"], b.state_dict()["state"]
    assert one.keys() == other.keys()
    return all(
        same_bits(x.cpu(), other[k][key].cpu()) if isinstance(x, Tensor) else x == other[k][key]
        for k, entries in one.items()
        for key, x in entries.items()
    )


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_optimizers_have_the_state_of_the_cpu(name: str, capturable: bool) -> None:
    made = []
    for device in ("cpu", "cuda"):
        problem = Fixed(device)
        opt = MAKERS[name](
            problem.params,
            seed=3,
            momentum=0.9,
            telemetry=True,
            weight_decay=0.1,
            capturable=capturable,
        )
        problem.train(opt, 11)
        made.append(opt)
    assert same_state(*made)
    assert made[1].state[problem.params[0]]["z"].is_cuda
    assert made[0].telemetry() == made[1].telemetry()


def test_a_checkpoint_of_the_cpu_continues_on_the_gpu() -> None:
    there, whole = Fixed("cpu"), Fixed("cpu")
    opt, reference = (HALP(p.params, 0.05, 4, seed=3, momentum=0.5) for p in (there, whole))
    there.train(opt, 6)
    whole.train(reference, 12)
    here = Fixed("cuda")
    new = HALP(here.params, 0.05, 4, seed=9)
    new.load_state_dict(copy.deepcopy(opt.state_dict()))
    here.train(new, 6, start=6)
    assert same_state(new, reference)


def test_groups_on_two_devices() -> None:
    made = []
    for devices in (("cpu", "cpu"), ("cuda", "cpu")):
        problem = Fixed("cpu", (50, 60))
        problem.params = [
            nn.Parameter(p.detach().to(d)) for p, d in zip(problem.params, devices, strict=True)
        ]
        opt = HALP([{"params": [p]} for p in problem.params], 0.05, 4, seed=3, telemetry=True)
        problem.train(opt, 6)
        made.append(opt)
    assert same_state(*made)


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_waits_for_no_device(name: str) -> None:
    problem = LeastSquares()
    problem.x, problem.y = problem.x.cuda(), problem.y.cuda()
    problem.w = nn.Parameter(problem.w.detach().cuda())
    options: dict[str, Any] = {} if name == "LPSGD" else {"preserve_rng": False}
    opt = MAKERS[name]([problem.w], seed=3, momentum=0.9, telemetry=True, **options)
    problem.train(opt, 2)
    rows = torch.tensor([1, 2], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        opt.step(problem.closure(opt, rows))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_step_is_the_step() -> None:
    """Rounding follows the counter on the device, the rate its tensor; re-centring keeps the graph valid."""
    weights = []
    for captured in (False, True):
        problem = LeastSquares()
        problem.x, problem.y = problem.x.cuda(), problem.y.cuda()
        problem.w = nn.Parameter(problem.w.detach().cuda())
        rate = torch.tensor(0.05, device="cuda")
        opt = HALP([problem.w], rate, 6, mu=2.0, seed=3, capturable=True, preserve_rng=False)
        rows = torch.tensor([1, 2, 3], device="cuda")
        closure = problem.closure(opt, rows)
        opt.recenter(problem.parts(opt))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            opt.step(closure)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                opt.step(closure)
        for k in range(11):
            if opt.needs_recenter:
                opt.recenter(problem.parts(opt))
            rate.fill_(0.05 / (1 + k))
            graph.replay() if captured else opt.step(closure)
        weights.append((problem.w.tolist(), opt.state_dict()["param_groups"][0]["global_step"]))
    assert weights[0] == weights[1] and weights[0][1] == 12


def test_another_stream() -> None:
    here, there = Fixed("cuda"), Fixed("cuda")
    first, second = (LPSGD(p.params, 0.05, delta=0.01, seed=3) for p in (here, there))
    here.train(first, 3)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        there.train(second, 3)
    side.synchronize()
    assert same_state(first, second)
