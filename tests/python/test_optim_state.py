"""Saving, loading, copying and scheduling: an interrupted run continues to the bit."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import optim_problems as problems
import pytest
import torch
from optim_problems import MAKERS, LeastSquares
from torch import nn

from torchext.optim import HALP, LPSGD, SVRG, BitCentredSGD

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MAKERS),
    *((name, {"momentum": 0.9, "weight_decay": 0.01}) for name in MAKERS),
    ("HALP", {"option": "II"}),
    ("HALP", {"option": "mean"}),
    ("SVRG", {"option": "mean"}),
    ("LPSVRG", {"option": "II"}),
    ("HALP", {"loopless": True}),
    ("HALP", {"mu": "auto"}),
    ("HALP", {"mu": "auto", "scope": "global"}),
    ("HALP", {"bits": 3, "mu": 8.0}),
    ("HALP", {"storage": "simulate"}),
    ("HALP", {"anchor_dtype": torch.bfloat16}),
    ("BitCentredSGD", {"anchor": "running"}),
]
IDS = [f"{name}-{options}" for name, options in VARIANTS]


class Saved:
    """A problem with its optimizer, saved to bytes and loaded into fresh objects."""

    def __init__(self, name: str, options: dict[str, Any], dtype: torch.dtype = torch.float32):
        self.name, self.options, self.dtype = name, options, dtype
        self.problem = LeastSquares(dtype=dtype)
        self.opt = MAKERS[name]([self.problem.w], seed=8, **options)

    def fresh(self) -> Saved:
        """As a new process would start; another seed, which loading replaces."""
        other = Saved(self.name, {**self.options}, self.dtype)
        other.opt = MAKERS[self.name]([other.problem.w], seed=99, **self.options)
        return other

    def dump(self) -> bytes:
        file = io.BytesIO()
        torch.save({"w": self.problem.w.detach(), "opt": self.opt.state_dict()}, file)
        return file.getvalue()

    def load(self, data: bytes) -> None:
        saved = torch.load(io.BytesIO(data), weights_only=True)
        with torch.no_grad():
            self.problem.w.copy_(saved["w"])
        self.opt.load_state_dict(saved["opt"])

    def train(self, steps: int, start: int = 0) -> None:
        running = self.options.get("anchor") == "running"
        for k in range(start, start + steps):
            if getattr(self.opt, "needs_recenter", False):
                first = self.opt.param_groups[0]["epoch"] == 0
                parts = self.problem.parts(self.opt)
                self.opt.recenter(None if running and not first else parts)
            self.opt.step(self.problem.closure(self.opt, self.problem.order[k]))


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_resuming_in_mid_epoch_is_exact(name: str, options: dict[str, Any]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        whole = Saved(name, options, dtype)
        whole.train(6)
        data = whole.dump()
        whole.train(13, 6)
        other = whole.fresh()
        other.load(data)
        other.train(13, 6)
        assert torch.equal(whole.problem.w, other.problem.w)
        ours, theirs = whole.opt.state[whole.problem.w], other.opt.state[other.problem.w]
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key
            else:
                assert value == theirs[key]
        groups = (
            {k: v for k, v in o.param_groups[0].items() if k != "params"}
            for o in (whole.opt, other.opt)
        )
        assert next(groups) == next(groups)


@pytest.mark.parametrize("name", MAKERS)
def test_loading_again_or_before_the_first_step_changes_nothing(name: str) -> None:
    new = Saved(name, {})
    assert len(new.opt.state) == 0
    new.opt.load_state_dict(new.opt.state_dict())
    assert len(new.opt.state) == 0
    new.train(5)
    w = new.problem.w.detach().clone()
    new.opt.load_state_dict(new.opt.state_dict())
    assert torch.equal(w, new.problem.w)
    twin = Saved(name, {})
    twin.train(5)
    for run in (new, twin):
        run.train(5, 5)
    assert torch.equal(new.problem.w, twin.problem.w)


def test_weights_come_from_the_state() -> None:
    """Loading rewrites the parameters, whatever they were."""
    run = Saved("HALP", {})
    run.train(6)
    other = run.fresh()
    other.opt.load_state_dict(copy.deepcopy(run.opt.state_dict()))
    assert torch.equal(other.problem.w, run.problem.w)


def test_codes_keep_their_dtype_and_nothing_is_shared() -> None:
    run = Saved("HALP", {"bits": 4, "mu": 8.0})
    run.train(6)
    saved = run.opt.state_dict()
    other = run.fresh()
    other.opt.load_state_dict(saved)
    z, kept = other.opt.state[other.problem.w]["z"], saved["state"][0]["z"]
    assert z.dtype == torch.uint8 and z.data_ptr() != kept.data_ptr()


@pytest.mark.parametrize("name", MAKERS)
def test_pickle_and_deepcopy(name: str) -> None:
    for copier in (copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))):
        run = Saved(name, {"momentum": 0.5})
        run.train(6)
        problem, opt = copier((run.problem, run.opt))
        assert opt.param_groups[0]["params"][0] is problem.w
        twin = Saved(name, {"momentum": 0.5})
        twin.problem, twin.opt = problem, opt
        for each in (run, twin):
            each.train(8, 6)
        assert torch.equal(run.problem.w, problem.w)


def test_pickles_hold_no_data_and_no_model() -> None:
    model = nn.Linear(6, 1)
    opt = SVRG(model.parameters(), 0.1, 4)
    opt.register_buffers(model.buffers())
    opt.centre_context = lambda: None  # a lambda cannot be pickled
    state = opt.__getstate__()
    assert set(state) == {"defaults", "state", "param_groups", "_run"}
    pickle.loads(pickle.dumps(opt))


@pytest.mark.parametrize("name", MAKERS)
def test_schedulers(name: str) -> None:
    """The learning rate is read at each step; nothing of it is baked in."""
    p = LeastSquares()
    opt = MAKERS[name]([p.w], seed=1, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 3, 0.1)
    rates = []
    for k in range(9):
        if getattr(opt, "needs_recenter", False):
            opt.recenter(p.parts(opt))
        opt.step(p.closure(opt, p.order[k]))
        rates.append(opt.param_groups[0]["lr"])
        schedule.step()
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)
    tensor_rate = MAKERS[name]([p.w], lr=torch.tensor(0.1))
    p.train(tensor_rate, 2)


def test_learning_rate_changes_in_mid_epoch() -> None:
    p, q = LeastSquares(dtype=torch.float64), LeastSquares(dtype=torch.float64)
    ours, plain = SVRG([p.w], 0.1, 10, svrg_coef=0.0), torch.optim.SGD([q.w], 0.1)
    ours.recenter(p.parts(ours))
    for k in range(6):
        for problem, opt in ((p, ours), (q, plain)):
            opt.param_groups[0]["lr"] = 0.1 / (k + 1)
            opt.step(problem.closure(opt, problem.order[k]))
    torch.testing.assert_close(p.w, q.w, rtol=1e-12, atol=1e-12)


def test_groups_added_in_mid_epoch_wait_for_the_next_centre() -> None:
    p = LeastSquares()
    extra = nn.Parameter(torch.zeros(2))
    opt = HALP([p.w], 0.05, 8, mu=2.0, seed=1)
    p.train(opt, 3)
    opt.add_param_group({"params": [extra], "lr": 0.5})
    assert opt.param_groups[1]["global_step"] == 3 and opt.needs_recenter
    with pytest.raises(RuntimeError, match="no centre yet"):
        opt.step(p.closure(opt, [0]))

    def closure() -> torch.Tensor:
        loss = p.closure(opt, torch.arange(32))() + ((extra - 1.0) ** 2).sum()
        ((extra - 1.0) ** 2).sum().backward()
        return loss

    opt.recenter([closure])
    opt.step(closure)
    assert extra.abs().sum() > 0
    simple = LPSGD([p.w], 0.05, delta=0.01)
    p.train(simple, 1)
    simple.add_param_group({"params": extra})
    simple.step(p.closure(simple, [0]))


def test_a_parameter_unfrozen_in_mid_epoch_says_so() -> None:
    p = LeastSquares()
    late = nn.Parameter(torch.zeros(2), requires_grad=False)
    opt = HALP([p.w, late], 0.05, 8, mu=2.0)
    p.train(opt, 2)
    late.requires_grad_(True)
    before = p.w.detach().clone()

    def closure() -> torch.Tensor:
        loss = p.closure(opt, [0])()
        late.grad = torch.ones(2)
        return loss

    with pytest.raises(RuntimeError, match="no centre yet"):
        opt.step(closure)
    assert torch.equal(p.w, before)


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    run = Saved("HALP", {})
    run.train(6)
    w, saved = run.problem.w.detach().clone(), run.opt.state_dict()
    other = LeastSquares(d=7)
    opt = HALP([other.w], 0.05, 4, mu=2.0)
    cases = [
        (opt, saved, "of parameter 0 has 6 elements, expected 7"),
        (SVRG([run.problem.w], 0.1, 4), saved, "the state was saved by HALP"),
        (run.opt, torch.optim.SGD([run.problem.w], 0.1).state_dict(), "saved by another optimizer"),
    ]
    newer = copy.deepcopy(saved)
    newer["param_groups"][0]["stream_version"] = 2
    cases.append((run.opt, newer, "random stream 2, this version has 1"))
    for target, state, text in cases:
        with pytest.raises(ValueError, match=text):
            target.load_state_dict(state)
    assert torch.equal(w, run.problem.w) and not other.w.any()
    twins = HALP([{"params": [other.w]}, {"params": [nn.Parameter(torch.zeros(1))]}], 0.1, 4)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        twins.load_state_dict(saved)


def test_bits_come_from_the_saved_state() -> None:
    run = Saved("HALP", {"bits": 4, "mu": 8.0})
    run.train(6)
    other = HALP([nn.Parameter(torch.zeros(6))], 0.05, 4, mu=2.0, bits=8)
    other.load_state_dict(run.opt.state_dict())
    assert other.param_groups[0]["bits"] == 4


def test_seeds() -> None:
    def weights(**options: Any) -> torch.Tensor:
        p = LeastSquares()
        p.train(MAKERS["HALP"]([p.w], **options), 6)
        return p.w.detach()

    assert torch.equal(weights(seed=3), weights(seed=3))
    assert not torch.equal(weights(seed=3), weights(seed=4))
    torch.manual_seed(5)
    a = weights()
    torch.manual_seed(5)
    assert torch.equal(weights(), a) and not torch.equal(weights(), a)
    weights(seed=2**64 - 1), weights(seed=0)


def test_hooks_and_names() -> None:
    p = LeastSquares()
    opt = HALP([("weight", p.w)], 0.05, 4, mu=2.0, telemetry=True)
    calls = []
    opt.register_step_pre_hook(lambda *a: calls.append("pre"))
    opt.register_step_post_hook(lambda *a: calls.append("post"))
    p.train(opt, 2)
    assert calls == ["pre", "post"] * 2 and list(opt.telemetry()) == ["weight"]


def test_running_anchor_needs_closures_once() -> None:
    p = LeastSquares()
    opt = BitCentredSGD([p.w], 0.05, 4, mu=2.0, anchor="running", seed=1)
    with pytest.raises(TypeError, match="needs closures"):
        opt.recenter()
    opt.recenter(p.parts(opt))
    grads = []
    for k in range(4):
        opt.step(p.closure(opt, p.order[k]))
        grads.append(p.w.grad.clone())
    info = opt.recenter()
    assert info.grad_norm == pytest.approx(torch.stack(grads).mean(0).norm().item(), rel=1e-6)
    p.closure(opt, p.order[5])()
    assert opt.step() is None


def test_compiled_closures() -> None:
    losses = []
    for compiled in (False, True):
        torch._dynamo.reset()
        p = LeastSquares()
        loss_of = torch.compile(p.loss, backend="aot_eager", fullgraph=True) if compiled else p.loss
        opt = HALP([p.w], 0.05, 4, mu=2.0, seed=6)

        def closure(rows: torch.Tensor, opt: Any = opt, loss_of: Any = loss_of) -> Any:
            def run() -> torch.Tensor:
                opt.zero_grad()
                loss: torch.Tensor = loss_of(rows)
                loss.backward()
                return loss

            return run

        address = p.w.data_ptr()
        rows = [torch.tensor(r) for r in problems.LeastSquares().order[:10]]
        for r in rows:
            if opt.needs_recenter:
                opt.recenter([closure(r)])
            losses.append(opt.step(closure(r)).item())
        assert p.w.data_ptr() == address
    assert losses[:10] == losses[10:]
