"""The optimizers against torch.optim.SGD, against numpy, against each other, and their errors."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optim_problems as problems
import pytest
import torch
from optim_problems import CENTERED, MAKERS, LeastSquares
from torch import nn

from torchext.optim import HALP, LPSGD, SVRG

SGD_OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1},
    {"weight_decay": 0.1, "maximize": True},
]


def test_halp_is_its_formula() -> None:
    """Codes and spacings of 60 steps equal a numpy implementation with the same random words."""
    for bits, mu, storage in ((8, 1.5, "codes"), (4, 4.0, "codes"), (16, 1.5, "simulate")):
        p = LeastSquares(dtype=torch.float64, seed=bits)
        opt = HALP([p.w], 0.1, 12, mu=mu, bits=bits, seed=11, storage=storage)
        deltas = []
        for k in range(60):
            if opt.needs_recenter:
                opt.recenter(p.parts(opt, 32))
                deltas.append(opt.state[p.w]["delta"].item())
            opt.step(p.closure(opt, p.order[k]))
        center, q, expected = problems.halp_in_numpy(
            p.x.numpy(), p.y.numpy(), p.order[:60], 0.1, mu, bits, 12, 11
        )
        np.testing.assert_allclose(deltas, expected, rtol=1e-10)
        state = opt.state[p.w]
        np.testing.assert_allclose(state["center"], center, rtol=1e-10)
        if bits > 4:
            assert state["z"].tolist() == q.tolist()
        np.testing.assert_allclose(p.w.detach(), center + expected[-1] * q, rtol=1e-9)


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_svrg_without_correction_is_sgd(options: dict[str, Any]) -> None:
    p, plain = (LeastSquares(dtype=torch.float64) for _ in "ab")
    opt = SVRG([p.w], 0.05, 5, svrg_coef=0.0, **options)
    other = torch.optim.SGD([plain.w], 0.05, **options)
    for k in range(20):
        if opt.needs_recenter:
            opt.recenter(p.parts(opt))
        opt.step(p.closure(opt, p.order[k]))
        other.step(plain.closure(other, plain.order[k]))
    torch.testing.assert_close(p.w, plain.w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_svrg_with_one_full_step_per_centre_is_sgd(options: dict[str, Any]) -> None:
    p, plain = (LeastSquares(dtype=torch.float64) for _ in "ab")
    opt = SVRG([p.w], 0.05, 1, **options)
    other = torch.optim.SGD([plain.w], 0.05, **options)
    rows = torch.arange(32)
    for _ in range(10):
        opt.recenter([p.closure(opt, rows)])
        opt.step(p.closure(opt, rows))
        other.step(plain.closure(other, rows))
    torch.testing.assert_close(p.w, plain.w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", SGD_OPTIONS, ids=str)
def test_many_bits_are_full_precision(options: dict[str, Any]) -> None:
    """HALP at 24 bits follows SVRG, with coefficient 0 SGD: offsets within 1e-4 after an epoch."""
    for coef in (1.0, 0.0):
        p, q = (LeastSquares(dtype=torch.float64) for _ in "ab")
        more = {"svrg_coef": coef, **options}
        fine = HALP([p.w], 0.01, 50, mu=1.0, bits=24, storage="simulate", seed=1, **more)
        real = SVRG([q.w], 0.01, 50, **more)
        for problem, opt in ((p, fine), (q, real)):
            opt.recenter(problem.parts(opt))
            for k in range(50):
                opt.step(problem.closure(opt, problem.order[k]))
        error = (p.w - q.w).norm() / q.w.norm()
        assert error < 1e-4, error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", MAKERS)
def test_plain_torch_path_gives_the_same_bits(name: str, dtype: torch.dtype) -> None:
    options = [
        {},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "telemetry": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True, "momentum": 0.5},
    ]
    for more in options:
        runs = []
        for foreach in (None, False):
            p = LeastSquares(dtype=dtype)
            opt = MAKERS[name]([p.w], seed=5, foreach=foreach, **more)
            p.train(opt, 10)
            runs.append((p.w.detach().clone(), opt.state[p.w]["z"].clone()))
            if more.get("telemetry"):
                runs[-1] = (*runs[-1], torch.tensor(list(opt.telemetry()[0].values())))  # type: ignore[assignment]
        for ours, oracle in zip(*runs, strict=True):
            torch.testing.assert_close(ours, oracle, rtol=0 if ours.dim() else 1e-12, atol=0)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "SVRG"])
def test_storage_does_not_change_the_weights(name: str) -> None:
    weights = []
    for storage in ("codes", "simulate"):
        p = LeastSquares()
        p.train(MAKERS[name]([p.w], seed=5, storage=storage), 10)
        weights.append(p.w.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_halp_with_weight_decay_finds_the_ridge_solution(bits: int, decoupled: bool) -> None:
    """Two groups with different decay, float64, relative 1e-8: the decay acts on the true weights."""
    p = LeastSquares(n=64, dtype=torch.float64)
    parts = [nn.Parameter(torch.zeros(2).double()), nn.Parameter(torch.zeros(4).double())]
    decay = [0.5, 0.05]
    groups = [{"params": [w], "weight_decay": c} for w, c in zip(parts, decay, strict=True)]
    opt = HALP(groups, 0.1, 128, mu=1.0, bits=bits, seed=2, decoupled_weight_decay=decoupled)

    def closure(rows: Any) -> Any:
        def run() -> Any:
            opt.zero_grad()
            loss = ((p.x[rows] @ torch.cat(parts) - p.y[rows]) ** 2).mean() / 2
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        return run

    everything = torch.arange(64)
    for _ in range(45):
        info = opt.recenter([closure(everything)])
        if info.grad_norm < 1e-11:
            break
        for rows in np.random.default_rng(opt.param_groups[0]["epoch"]).integers(0, 64, (128, 8)):
            opt.step(closure(rows))
    ridge = torch.diag(torch.tensor([decay[0]] * 2 + [decay[1]] * 4).double())
    solution = torch.linalg.solve(p.x.T @ p.x / 64 + ridge, p.x.T @ p.y / 64)
    error = (torch.cat(parts).detach() - solution).norm() / solution.norm()
    assert error < 1e-8, error


def test_the_coefficient_scales_the_correction() -> None:
    p = LeastSquares(dtype=torch.float64)
    opt = SVRG([p.w], 0.1, 9, svrg_coef=0.25)
    full = torch.arange(32)
    opt.recenter([p.closure(opt, full)])
    g = opt.state[p.w]["full_grad"].clone()
    opt.step(p.closure(opt, p.order[0]))  # at the centre: v = g_i - c (g_i - g)
    w = p.w.detach()
    p.w.grad = None
    start = LeastSquares(dtype=torch.float64)
    start.loss(start.order[0]).backward()
    torch.testing.assert_close(w, -0.1 * (0.75 * start.w.grad + 0.25 * g))


@pytest.mark.parametrize("name", MAKERS)
def test_groups_have_their_own_settings_and_bits_do_not_depend_on_grouping(name: str) -> None:
    def build(grouped: bool) -> list[torch.Tensor]:
        p = LeastSquares(d=7)
        ws = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(4))]
        groups = [{"params": [ws[0]]}, {"params": [ws[1]]}] if grouped else ws
        opt = MAKERS[name](groups, seed=9)

        def closure(rows: Any) -> Any:
            def run() -> Any:
                opt.zero_grad()
                loss = ((p.x[rows] @ torch.cat(ws) - p.y[rows]) ** 2).mean() / 2
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            return run

        for k in range(10):
            if getattr(opt, "needs_recenter", False):
                opt.recenter([closure(torch.arange(32))])
            opt.step(closure(p.order[k]))
        return [w.detach().clone() for w in ws]

    for a, b in zip(build(True), build(False), strict=True):
        assert torch.equal(a, b)


def test_group_settings_differ() -> None:
    a, b = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    groups = [{"params": [a], "bits": 4, "mu": 8.0, "lr": 0.1}, {"params": [b], "bits": 12}]
    opt = HALP(groups, 0.2, 3, mu=1.0, seed=1)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (a**2).sum() / 2 + (b**2).sum() / 2
        loss.backward()
        return loss

    opt.recenter([closure])
    assert opt.state[a]["z"].dtype == torch.uint8 and opt.state[b]["z"].dtype == torch.int16
    assert opt.state[a]["delta"].item() == pytest.approx(5**0.5 / (8 * 7))
    assert opt.state[b]["delta"].item() == pytest.approx(5**0.5 / 2047)
    opt.step(closure)
    opt.param_groups[0]["bits"] = 8  # takes effect at the next centre
    opt.step(closure)
    assert opt.state[a]["z"].dtype == torch.uint8
    opt.recenter([closure])
    assert opt.state[a]["z"].dtype == torch.int8
    opt.step(closure)


def test_one_spacing_for_the_whole_model() -> None:
    a, b = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([0.0, 4.0]))
    opt = HALP([a, b], 0.1, 3, mu=2.0, scope="global")

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (a**2).sum() / 2 + (b**2).sum() / 2
        loss.backward()
        return loss

    assert opt.recenter([closure]).grad_norm == 5.0
    assert opt.state[a]["delta"] == opt.state[b]["delta"] == torch.tensor(5.0 / (2 * 127))


def test_a_tensor_whose_gradient_is_zero_is_not_frozen() -> None:
    """A zero-initialised branch: its spacing comes from its share of the whole gradient."""
    a, b = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([0.0]))
    opt = HALP([a, b], 0.5, 10, mu=2.0, seed=3)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (a + b * (a - 1.0) ** 2 * 100).sum()
        loss.backward()
        return loss

    opt.recenter([closure])
    assert opt.state[b]["delta"].item() == pytest.approx(1e-3 * 0.5**0.5 / (2 * 127))
    for _ in range(3):
        opt.step(closure)
    assert b.item() != 0.0 and torch.isfinite(b).all()


@pytest.mark.parametrize("name", CENTERED)
def test_a_zero_gradient_is_convergence(name: str) -> None:
    w = nn.Parameter(torch.zeros(3))
    opt = MAKERS[name]([w], svrg_coef=0.5)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (w**2).sum() / 2 + 7.0
        loss.backward()
        return loss

    info = opt.recenter([closure])
    assert info.converged and info.grad_norm == 0.0
    for _ in range(3):
        assert opt.step(closure).item() == 7.0
    assert w.tolist() == [0, 0, 0]


def test_nearest_rounding_never_moves_and_warns() -> None:
    p = LeastSquares(dtype=torch.float64)
    with pytest.warns(UserWarning, match="nearest"):
        opt = HALP([p.w], 1e-3, 50, mu=3.0, rounding="nearest")
    p.train(opt, 100)
    assert not p.w.any()


def test_lp_weights_start_on_the_lattice() -> None:
    w = nn.Parameter(torch.tensor([0.26, -0.9, 5.0]))
    zero = nn.Parameter(torch.zeros(2))
    opt = LPSGD([w, zero], 0.1, delta="absmax", bits=4)
    w.grad, zero.grad = torch.zeros(3), torch.zeros(2)
    opt.step()
    step = 5.0 / 7
    torch.testing.assert_close(w.detach(), torch.tensor([0.0, -step, 5.0]))
    assert opt.state[zero]["delta"] == opt.state[w]["delta"]
    opt = LPSGD([nn.Parameter(torch.zeros(2))], 0.1, delta="absmax")
    with pytest.raises(ValueError, match="not all zero"):
        opt.step()
    opt = LPSGD([nn.Parameter(torch.tensor([math.nan]))], 0.1, delta=0.1)
    with pytest.raises(ValueError, match="holds NaN"):
        opt.step()


def test_a_changed_spacing_rounds_anew() -> None:
    w = nn.Parameter(torch.tensor([0.26]))
    opt = LPSGD([w], 0.1, delta=0.25, bits=8)
    w.grad = torch.zeros(1)
    opt.step()
    opt.param_groups[0]["delta"] = 0.1
    opt.step()
    assert w.item() == pytest.approx(0.2) and opt.state[w]["z"].item() == 2


@pytest.mark.parametrize("name", MAKERS)
def test_unusual_parameters(name: str) -> None:
    """No gradient, frozen, empty, one element, not contiguous: nothing breaks, nothing else moves."""
    used = nn.Parameter(torch.ones(4, 3).t())
    unused, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(0))
    frozen, single = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(()))
    opt = MAKERS[name]([used, unused, empty, frozen, single], seed=4)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (used**2).sum() + empty.sum() + (frozen * single).sum() + single**2
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(6):
            if getattr(opt, "needs_recenter", False):
                opt.recenter([closure])
            opt.step(closure)
    assert used.stride() == (1, 3) and not torch.equal(used, torch.ones(3, 4))
    torch.testing.assert_close(unused.detach(), torch.ones(2))
    assert torch.equal(frozen, torch.ones(2)) and frozen not in opt.state
    assert single.item() != 1.0


def test_bfloat16_parameters_have_a_float32_centre() -> None:
    p = LeastSquares(dtype=torch.bfloat16)
    opt = HALP([p.w], 0.05, 8, mu=2.0, seed=1, momentum=0.5)
    p.train(opt, 20)
    state = opt.state[p.w]
    kinds = {k: v.dtype for k, v in state.items() if isinstance(v, torch.Tensor)}
    assert kinds["center"] == kinds["full_grad"] == kinds["momentum_buffer"] == torch.float32
    exact = state["center"] + state["delta"] * state["z"]
    assert torch.equal(p.w, exact.bfloat16()) and not torch.equal(p.w.float(), exact)


def test_a_bfloat16_anchor_halves_its_memory() -> None:
    p, q = LeastSquares(), LeastSquares()
    ours = HALP([p.w], 0.05, 8, mu=2.0, seed=1, anchor_dtype=torch.bfloat16)
    full = HALP([q.w], 0.05, 8, mu=2.0, seed=1)
    p.train(ours, 60), q.train(full, 60)
    assert ours.state[p.w]["full_grad"].dtype == torch.bfloat16
    assert ours.recenter(p.parts(ours)).grad_norm < 2 * full.recenter(q.parts(full)).grad_norm + 0.1


@pytest.mark.parametrize(
    ("bits", "anchor", "most"), [(8, None, 21), (8, torch.bfloat16, 19), (4, None, 20.5)]
)
def test_memory_per_parameter(bits: int, anchor: torch.dtype | None, most: float) -> None:
    """Parameter, gradient, and the state that stays, in bytes per float32 weight; the rest is transient."""
    n = 4096
    w = nn.Parameter(torch.zeros(n))
    opt = HALP([w], 0.1, 4, mu=2.0, bits=bits, anchor_dtype=anchor)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = ((w - 1.0) ** 2).sum()
        loss.backward()
        return loss

    opt.recenter([closure])
    opt.step(closure)
    held = [w, w.grad, *(v for v in opt.state[w].values() if isinstance(v, torch.Tensor))]
    steady = sum(t.untyped_storage().nbytes() for t in held) / n  # type: ignore[union-attr]
    at_centre = 4.0  # the gradient of the first pass, until the step
    assert steady + at_centre <= most + 0.01
