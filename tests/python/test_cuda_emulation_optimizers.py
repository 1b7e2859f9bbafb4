"""The optimizers through the CUDA kernels in emulation, and steps that wait for no device."""

from __future__ import annotations

import copy
import math
from typing import Any

import emulation
import numpy as np
import pytest
import torch
from optim_problems import CENTERED, CORRECTED, MAKERS, LeastSquares
from test_cuda_emulation import has_emulated_kernel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchext import random
from torchext.optim import HALP, LPSGD, SVRG, BitCentredSGD
from torchext.optim import _capture as capture

emulation.load()
OPS = (
    "foreach_halp_step_", "foreach_svrg_step_", "foreach_halp_materialize_", "foreach_halp_commit_",
    "foreach_halp_encode_", "_foreach_square_sums",
)  # fmt: skip


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and from then on the optimizers run the CUDA kernels."""

    def redirect() -> None:
        for name in (*OPS, *(["fold_in"] if has_emulated_kernel("fold_in.Tensor") else [])):
            monkeypatch.setattr(
                torch.ops.torchext, name, getattr(torch.ops.torchext_emulated, name)
            )

    yield redirect


def state_of(opt: Any) -> dict[str, Any]:
    """Everything the optimizer keeps, as bytes where it is a tensor."""
    saved = opt.state_dict()
    return {
        f"{k}.{key}": value.reshape(-1).view(torch.uint8).tolist() if isinstance(value, Tensor) else value
        for k, entries in saved["state"].items()
        for key, value in entries.items()
    } | {key: saved["param_groups"][0][key] for key in ("t", "epoch", "global_step")}  # fmt: skip


def trained(make: Any, steps: int = 11, **options: Any) -> tuple[Any, LeastSquares]:
    problem = LeastSquares()
    opt = make([problem.w], seed=5, **options)
    problem.train(opt, steps)
    return opt, problem


OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "telemetry": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("name", MAKERS)
def test_optimizers_have_the_state_of_the_cpu(
    name: str, options: dict[str, Any], kernels: Any
) -> None:
    want = state_of(trained(MAKERS[name], **options)[0])
    kernels()
    assert state_of(trained(MAKERS[name], **options)[0]) == want


@pytest.mark.parametrize("option", ["II", "mean"])
def test_options_of_the_next_centre(option: str, kernels: Any) -> None:
    want = state_of(trained(MAKERS["HALP"], option=option, mu="auto")[0])
    kernels()
    assert state_of(trained(MAKERS["HALP"], option=option, mu="auto")[0]) == want


def problem_p(**options: Any) -> tuple[list[float], list[float]]:
    """Three epochs of 100 single-example steps on 100 noisy weights: gradient norms, and the weights."""
    r = np.random.default_rng(0)
    x0, w = r.standard_normal((1000, 100)), np.zeros(100)
    w[:10] = r.uniform(0.0, 100.0, 10)
    y = torch.tensor(x0 @ w + 10.0 * r.standard_normal(1000))
    step = np.abs(x0).max() / 127
    x = torch.tensor(step * np.rint(x0 / step))
    p, order, norms = (
        nn.Parameter(torch.zeros(100, dtype=torch.float64)),
        r.integers(0, 1000, 300),
        [],
    )
    opt = HALP([p], 1e-3, 100, seed=3, **options)
    everything = slice(None)
    for row in order:

        def closure(rows: Any) -> Tensor:
            opt.zero_grad()
            loss: Tensor = ((x[rows] @ p - y[rows]) ** 2).mean() / 2
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        if opt.needs_recenter:
            norms.append(opt.recenter([lambda: closure(everything)]).grad_norm)
        opt.step(lambda row=row: closure([int(row)]))
    return norms, p.tolist()


def test_problem_p(kernels: Any) -> None:
    want = problem_p()
    kernels()
    assert problem_p() == want
    assert want[0][2] < 0.9 * want[0][0]


# ---- capturable: the step number lives on the device


@pytest.mark.parametrize("name", MAKERS)
def test_capturable_changes_no_bit(name: str, kernels: Any) -> None:
    want = state_of(trained(MAKERS[name], momentum=0.9, telemetry=True)[0])
    for rate in (0.05, torch.tensor(0.05, dtype=torch.float64)):
        got = trained(MAKERS[name], lr=rate, momentum=0.9, telemetry=True, capturable=True)[0]
        assert state_of(got) == want
    kernels()
    got = trained(MAKERS[name], lr=rate, momentum=0.9, telemetry=True, capturable=True)[0]
    assert state_of(got) == want


class NoReads(TorchDispatchMode):
    """Counts, or forbids, reads of a number from a tensor: on a GPU the host would wait for each."""

    def __init__(self, allowed: bool = False) -> None:
        super().__init__()
        self.allowed, self.reads = allowed, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            self.reads += 1
            assert self.allowed, "the host reads a tensor"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_a_step_reads_no_tensor(name: str, capturable: bool) -> None:
    problem = LeastSquares()
    rate = torch.tensor(0.05) if capturable else 0.05
    opt = MAKERS[name](
        [problem.w], lr=rate, seed=5, momentum=0.9, telemetry=True, capturable=capturable
    )
    problem.train(opt, 2)
    closure = problem.closure(opt, problem.order[0])
    with NoReads():
        opt.step(closure)


@pytest.mark.parametrize("name", CENTERED)
def test_recentring_reads_as_often_for_many_tensors_as_for_few(name: str) -> None:
    reads = []
    for count in (2, 20):
        params = [nn.Parameter(torch.ones(3) + k) for k in range(count)]
        opt = MAKERS[name](params, seed=1, telemetry=True)

        def closure(params: Any = params, opt: Any = opt) -> Tensor:
            opt.zero_grad()
            loss = torch.stack([(p**2).sum() for p in params]).sum()
            loss.backward()
            return loss

        for _ in range(2):
            with NoReads(allowed=True) as mode:
                opt.recenter([closure, closure])
            opt.step(closure)
        reads.append(mode.reads)
    assert reads[0] == reads[1] <= 2


def test_replays_advance_the_counters() -> None:
    """A replay of a captured step moves the device's counter only; whoever asks sees it."""
    opt, problem = trained(MAKERS["HALP"], steps=1, T=4, telemetry=True, capturable=True)
    for _ in range(2):
        opt._device_steps.advance()
    assert not opt.needs_recenter and opt.param_groups[0]["t"] == 3
    opt._device_steps.advance()
    saved = opt.state_dict()["param_groups"][0]
    assert (saved["t"], saved["global_step"]) == (4, 4) and opt.needs_recenter
    assert opt.telemetry()[0]["steps"] == 4
    assert copy.deepcopy(opt).param_groups[0]["global_step"] == 4
    opt.recenter(problem.parts(opt))
    assert opt.param_groups[0]["t"] == 0 and opt.param_groups[0]["global_step"] == 4


def test_a_device_that_joins_late_counts_from_where_the_others_are() -> None:
    steps, parent = capture.DeviceSteps(), random.key_from_seed(3)
    steps.start(torch.device("cpu"), 5, parent)
    steps.advance()
    steps.start(torch.device("cpu", 0), 5, parent)
    for device in (torch.device("cpu"), torch.device("cpu", 0)):
        assert torch.equal(steps.key(device), random.fold_in(parent, 6))
    steps.advance()
    assert steps.now() == 7 and torch.equal(steps.key(device), random.fold_in(parent, 7))


@pytest.mark.parametrize("name", CENTERED)
def test_recentring_keeps_the_memory_of_the_state(name: str) -> None:
    """What a captured step reads and writes stays where it is."""
    problem = LeastSquares()
    opt = MAKERS[name]([problem.w], seed=5, momentum=0.9, telemetry=True, capturable=True)
    problem.train(opt, 2)
    before = {k: v.data_ptr() for k, v in opt.state[problem.w].items() if isinstance(v, Tensor)}
    assert {"z", "momentum_buffer", "stats"} <= before.keys()
    opt.recenter(problem.parts(opt))
    problem.train(opt, 1)
    after = {k: v.data_ptr() for k, v in opt.state[problem.w].items() if isinstance(v, Tensor)}
    assert {k: after[k] for k in before if k != "z_center"} == {
        k: at for k, at in before.items() if k != "z_center"
    }


def test_state_goes_from_plain_to_capturable_and_back() -> None:
    whole = state_of(trained(MAKERS["HALP"], steps=9)[0])
    opt, problem = trained(MAKERS["HALP"], steps=3)
    for capturable in (True, False, True):
        weights = problem.w.detach().clone()
        other = LeastSquares()
        other.w.data.copy_(weights)
        new = MAKERS["HALP"]([other.w], seed=1, capturable=capturable)
        new.load_state_dict(copy.deepcopy(opt.state_dict()))
        assert new.param_groups[0]["capturable"] is capturable
        other.train(new, 2, start=new.param_groups[0]["global_step"])
        opt, problem = new, other
    assert state_of(opt) == whole


def test_a_rate_on_the_device_follows_its_schedule() -> None:
    weights = []
    for capturable in (False, True):
        problem, rate = LeastSquares(), torch.tensor(0.05)
        opt = SVRG([problem.w], rate if capturable else rate.item(), 4, capturable=capturable)
        schedule = torch.optim.lr_scheduler.StepLR(opt, 2, gamma=0.5)
        for k in range(6):
            problem.train(opt, 1, start=k)
            schedule.step()
        weights.append(problem.w.tolist())
    assert weights[0] == weights[1] and opt.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05 / 8)


def test_captures_that_cannot_be_right_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "capturing", lambda members: True)
    problem = LeastSquares()
    closure = problem.closure(None, [0])
    opt = LPSGD([problem.w], 0.1, delta=0.01)
    with pytest.raises(RuntimeError, match=r"LPSGD.step\(\) in a CUDA graph needs capturable=True"):
        opt.step(closure)
    opt = LPSGD([problem.w], 0.1, delta=0.01, capturable=True)
    with pytest.raises(RuntimeError, match=r"LPSGD.step\(\): run one step before the capture"):
        opt.step(closure)
    monkeypatch.undo()
    opt, problem = trained(MAKERS["LPSGD"], steps=1, capturable=True)
    opt.param_groups[0]["lr"] = torch.zeros((), device="meta")
    monkeypatch.setattr(capture, "capturing", lambda members: True)
    with pytest.raises(RuntimeError, match="needs a tensor lr on cpu, got meta"):
        opt.step(problem.closure(opt, [0]))
    monkeypatch.undo()
    for name in CORRECTED:
        opt, problem = trained(MAKERS[name], steps=1, capturable=True)
        monkeypatch.setattr(capture, "capturing", lambda members: True)
        with pytest.raises(RuntimeError, match="needs preserve_rng=False"):
            opt.step(problem.closure(opt, [0]))
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: SVRG(p, 0.1, 1, capturable=True, option="II"), "option='II'"),
        (lambda p: SVRG(p, 0.1, 1, capturable=True, option="mean"), "option='mean'"),
        (lambda p: SVRG(p, 0.1, 1, capturable=True, loopless=True), "loopless=True"),
        (lambda p: SVRG(p, 0.1, 1, capturable=True, reset_momentum=True), "reset_momentum=True"),
        (lambda p: LPSGD(p, 0.1, delta=1.0, capturable=True, foreach=False), "foreach=False"),
        (
            lambda p: LPSGD(p, 0.1, delta=1.0, capturable=True, error_if_nonfinite=True),
            "error_if_nonfinite=True",
        ),
        (
            lambda p: BitCentredSGD(p, 0.1, 1, mu=1.0, capturable=True, anchor="running"),
            "anchor='running'",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_does_not_go_with_capturable(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"capturable=True does not go with {text}"):
        make([nn.Parameter(torch.zeros(1))])


def test_groups_are_capturable_together() -> None:
    p = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    with pytest.raises(ValueError, match="as for the whole optimizer"):
        SVRG([{"params": p[:1]}, {"params": p[1:], "capturable": True}], 0.1, 1)


def test_weights_of_the_lattice_are_read_once(kernels: Any) -> None:
    """NaN is found before the encoding, by one read for all parameters."""
    params = [nn.Parameter(torch.ones(3) + k) for k in range(5)]
    opt = LPSGD(params, 0.1, delta="absmax", seed=1)
    for p in params:
        p.grad = torch.ones(3)
    with NoReads(allowed=True) as mode:
        opt.step()
    assert mode.reads == 0 and not math.isnan(params[0].sum().item())
    params[3].data[1] = math.nan
    kernels()
    with pytest.raises(ValueError, match="parameter 3 holds NaN, which has no place on a lattice"):
        LPSGD(params, 0.1, delta=0.5).step()
