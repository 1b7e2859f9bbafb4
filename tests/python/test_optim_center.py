"""Re-centring, the two passes of a step, options of the next centre, telemetry and automatic mu."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from optim_problems import CENTERED, CORRECTED, MAKERS, LeastSquares
from torch import nn

from torchext.optim import HALP, SVRG, _spacing, full_gradient_closures
from torchext.optim._options import Run
from torchext.optim._update import Member


@pytest.mark.parametrize("name", MAKERS)
def test_closure_is_called_at_the_centre_and_at_the_weights(name: str) -> None:
    p = LeastSquares()
    opt = MAKERS[name]([p.w], seed=1, T=3)
    address = p.w.data_ptr()
    for k in range(7):
        if getattr(opt, "needs_recenter", False):
            opt.recenter(p.parts(opt))
            center = p.w.detach().clone()
        before, seen = p.w.detach().clone(), []

        def closure(k: int = k, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            seen.append(p.w.detach().clone())
            return p.closure(opt, p.order[k])()

        loss = opt.step(closure)
        if name in CORRECTED:
            assert len(seen) == 2 and torch.equal(seen[0], center)
        else:
            assert len(seen) == 1
        if k > 0 or name != "LPSGD":
            assert torch.equal(seen[-1], before)
        value = ((p.x[p.order[k]] @ seen[-1] - p.y[p.order[k]]) ** 2).mean() / 2
        assert loss.item() == pytest.approx(value.item())
        assert p.w.data_ptr() == address and p.w.grad is not None


@pytest.mark.parametrize("name", CORRECTED)
def test_a_step_without_a_closure_is_the_same_step(name: str) -> None:
    weights = []
    for bare in (False, True):
        p = LeastSquares()
        opt = MAKERS[name]([p.w], seed=1)
        for k in range(10):
            if opt.needs_recenter:
                opt.recenter(p.parts(opt))
            closure = p.closure(opt, p.order[k])
            if bare:
                with opt.at_centre():
                    closure()
                closure()
                assert opt.step() is None
            else:
                opt.step(closure)
        weights.append(p.w.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("preserve", [True, False])
def test_both_passes_draw_the_same_random_numbers(preserve: bool) -> None:
    p = LeastSquares()
    opt = SVRG([p.w], 0.05, 4, preserve_rng=preserve)
    opt.recenter(p.parts(opt))
    draws = []

    def closure() -> torch.Tensor:
        draws.append(torch.rand(3))
        return p.closure(opt, [0, 1])()

    for _ in range(2):
        opt.step(closure)
    assert torch.equal(draws[0], draws[1]) is preserve
    assert not torch.equal(draws[1], draws[2])


def test_batch_norm_moves_once_a_step_and_not_at_all_in_a_recentring() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    data = [(torch.randn(8, 6), torch.randn(8, 1)) for _ in range(3)]
    opt = HALP(model.parameters(), 0.05, 3, mu=2.0, seed=1)
    opt.register_buffers(model.buffers())
    single = nn.BatchNorm1d(4)
    for x, y in data:
        if opt.needs_recenter:
            before = [b.clone() for b in model.buffers()]
            pairs = full_gradient_closures(model, nn.functional.mse_loss, data)
            assert opt.recenter(pairs).samples == 24
            assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
            assert model.training
        with torch.no_grad():
            single(model[0](x))

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            opt.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
    ours, once = dict(model[1].named_buffers()), dict(single.named_buffers())
    assert ours["num_batches_tracked"].item() == 3
    for key in once:
        torch.testing.assert_close(ours[key], once[key])


def test_leaving_the_closures_early_restores_buffers() -> None:
    model = nn.BatchNorm1d(2)
    data = [(torch.randn(4, 2), torch.zeros(4, 2))] * 3
    before = [b.clone() for b in model.buffers()]
    pairs = full_gradient_closures(model, nn.functional.mse_loss, data)
    next(pairs)[0]()
    assert not torch.equal(before[0], model.running_mean)  # type: ignore[arg-type]
    pairs.close()
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_an_error_in_a_closure_leaves_the_weights_where_they_were() -> None:
    p = LeastSquares()
    opt = HALP([p.w], 0.05, 9, mu=2.0, seed=1)
    p.train(opt, 3)
    before, state = p.w.detach().clone(), torch.get_rng_state()

    def broken() -> torch.Tensor:
        torch.rand(1)
        raise KeyError("data")

    with pytest.raises(KeyError):
        opt.step(broken)
    assert torch.equal(p.w, before) and torch.equal(torch.get_rng_state(), state)
    p.train(opt, 3, 3)


@pytest.mark.parametrize("name", CENTERED)
def test_the_full_gradient_does_not_depend_on_the_batches(name: str) -> None:
    found = []
    for size in (32, 8, 5, 1):  # 5 leaves a last batch of 2
        p = LeastSquares(dtype=torch.float64)
        opt = MAKERS[name]([p.w], seed=1)
        info = opt.recenter(p.parts(opt, size))
        assert info.samples == 32 and not info.converged
        p.train(opt, 3)
        found.append((info.loss, info.grad_norm, p.w.detach().clone()))
    for loss, norm, w in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-12)
        assert norm == pytest.approx(found[0][1], rel=1e-12)
        torch.testing.assert_close(w, found[0][2], rtol=1e-12, atol=1e-12)


def test_bare_closures_and_weights_that_cannot_be() -> None:
    p = LeastSquares(dtype=torch.float64)
    opt = SVRG([p.w], 0.05, 4)
    halves = [p.closure(opt, torch.arange(16)), p.closure(opt, torch.arange(16, 32))]
    assert opt.recenter(halves).samples == 2
    whole = opt.state[p.w]["full_grad"].clone()
    opt.recenter(p.parts(opt))
    torch.testing.assert_close(opt.state[p.w]["full_grad"], whole)
    for pairs, text in (([], "no samples"), ([(halves[0], 0)], "no samples")):
        with pytest.raises(ValueError, match=text):
            opt.recenter(pairs)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected 0 or more samples"):
            opt.recenter([(halves[0], weight)])
    with pytest.raises(TypeError, match="the closure must return the loss"):
        opt.recenter([lambda: None])
    opt.recenter([(halves[0], 0), (halves[1], 16)])  # an empty part is legal


def test_missing_gradients_count_as_zero() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    opt = SVRG([a, b], 0.1, 9)

    def closure(use_b: bool) -> Any:
        def run() -> torch.Tensor:
            opt.zero_grad()
            loss = (a + b).sum() if use_b else a.sum()
            loss.backward()
            return loss

        return run

    opt.recenter([closure(True), closure(False)])
    assert opt.state[b]["full_grad"].item() == 0.5
    opt.step(closure(False))  # no gradient: b is left alone, as torch does
    assert b.item() == 1.0 and a.item() == pytest.approx(0.9)
    calls = []

    def only_later() -> torch.Tensor:
        calls.append(0)
        return closure(len(calls) == 2)()  # type: ignore[no-any-return]

    opt.step(only_later)  # none at the centre: v = g - 0 + full
    assert b.item() == pytest.approx(1.0 - 0.1 * 1.5)


def test_option_two_commits_a_random_iterate_of_the_epoch() -> None:
    picks = set()
    for name in CORRECTED:
        for seed in range(8):
            p = LeastSquares()
            opt = MAKERS[name]([p.w], seed=seed, T=4, option="II")
            opt.recenter(p.parts(opt))
            iterates = []
            for k in range(4):
                iterates.append(p.w.detach().clone())
                opt.step(p.closure(opt, p.order[k]))
            pick = opt.param_groups[0]["pick"]
            picks.add(pick)
            opt.recenter(p.parts(opt))
            torch.testing.assert_close(p.w.detach(), iterates[pick], rtol=1e-6, atol=1e-6)
    assert picks == {0, 1, 2, 3}
    p = LeastSquares()
    opt = HALP([p.w], 0.05, 1000, mu=2.0, option="II", seed=1)
    p.train(opt, 2)
    last = p.w.detach().clone()
    opt.recenter(p.parts(opt))  # before the drawn step: the last iterate
    assert torch.equal(p.w, last)


def test_option_mean_commits_the_mean_of_the_iterates() -> None:
    for name in ("SVRG", "HALP", "BitCentredSGD"):
        p = LeastSquares(dtype=torch.float64)
        opt = MAKERS[name]([p.w], seed=2, T=5, option="mean")
        opt.recenter(p.parts(opt))
        iterates = []
        for k in range(5):
            iterates.append(p.w.detach().clone())
            opt.step(p.closure(opt, p.order[k]))
        opt.recenter(p.parts(opt))
        torch.testing.assert_close(p.w.detach(), torch.stack(iterates).mean(0))


def test_loopless_recentres_by_a_coin_of_the_step() -> None:
    steps = []
    for _ in range(2):
        p = LeastSquares()
        opt = SVRG([p.w], 0.01, 5, loopless=True, seed=3)
        steps.append([])
        for k in range(300):
            if opt.needs_recenter:
                opt.recenter(p.parts(opt, 32))
                steps[-1].append(k)
                assert not opt.needs_recenter
            opt.step(p.closure(opt, p.order[k]))
    assert steps[0] == steps[1] and steps[0][0] == 0
    gaps = [b - a for a, b in zip(steps[0], steps[0][1:], strict=False)]
    assert 3.0 < sum(gaps) / len(gaps) < 8.0 and len(set(gaps)) > 4


def test_momentum_lives_on_unless_it_is_reset() -> None:
    for reset in (False, True):
        p = LeastSquares()
        opt = HALP([p.w], 0.05, 3, mu=2.0, momentum=0.9, reset_momentum=reset, seed=1)
        p.train(opt, 3)
        opt.recenter(p.parts(opt))
        assert ("momentum_buffer" in opt.state[p.w]) is not reset
        p.train(opt, 3, 3)


def test_a_wrapper_around_the_pass_at_the_centre() -> None:
    import contextlib

    p, entered = LeastSquares(), []

    @contextlib.contextmanager
    def context() -> Any:
        entered.append(1)
        yield

    opt = SVRG([p.w], 0.05, 4)
    opt.centre_context = context
    opt.recenter(p.parts(opt))
    opt.step(p.closure(opt, [0]))
    assert entered == [1]


def test_views_of_gradients_are_copied() -> None:
    """Buckets of a reducer stay where they are: their gradient is copied, not taken."""
    bucket = torch.zeros(6)
    p = LeastSquares()
    opt = SVRG([p.w], 0.05, 4)
    opt.recenter(p.parts(opt))

    def closure() -> torch.Tensor:
        loss = p.loss([0, 1])
        (grad,) = torch.autograd.grad(loss, [p.w])
        p.w.grad = bucket.view(6)
        bucket.copy_(grad)
        return loss

    opt.step(closure)  # at the centre both gradients are equal: v is the full gradient
    torch.testing.assert_close(p.w.detach(), -0.05 * opt.state[p.w]["full_grad"])


def test_telemetry_counts() -> None:
    p = LeastSquares(n=64)
    for mu, clipped in ((0.5, False), (500.0, True)):
        p.w.data.zero_()
        opt = HALP([p.w], 0.05, 40, mu=mu, telemetry=True, seed=1)
        p.train(opt, 40)
        t = opt.telemetry()[0]
        assert t["steps"] == 40 and t["mu"] == mu and t["nonfinite"] == 0
        assert t["radius"] == pytest.approx(t["grad_norm"] / mu, rel=1e-6)
        assert (t["clip_rate"] > 0.3) is clipped and t["peak"] <= 128 / 127
        assert 0.0 < t["noise_ratio"] and 0.0 <= t["zero_rate"] <= 1.0 and t["loss"] > 0
        state = opt.state[p.w]
        assert t["peak"] == state["z"].abs().max().item() / 127 or clipped
    nothing = SVRG([p.w], 0.05, 4, telemetry=True)
    assert nothing.telemetry() == {}
    norms = []
    for _ in range(2):
        norm = nothing.recenter(p.parts(nothing)).grad_norm
        assert nothing.telemetry()[0]["grad_norm"] == pytest.approx(norm)
        norms.append(norm)
        nothing.step(p.closure(nothing, p.order[0]))
    assert norms[0] != norms[1]
    with pytest.raises(RuntimeError, match="needs telemetry=True"):
        SVRG([p.w], 0.05, 4).telemetry()


@pytest.mark.parametrize(
    ("norm", "clip_rate", "offset", "bits", "expected"),
    [
        (21.0, 0.0, 0.5, 8, 12.0),  # the gradient doubled: noise won
        (5.0, 2e-3, 0.5, 8, 0.75),  # much clipping
        (5.0, 5e-5, 0.5, 8, 2.0),  # some
        (5.0, 5e-6, 0.5, 8, 3.0),  # a little: keep
        (5.0, 0.0, 2.0, 8, 2.5),  # none: a box of twice the largest offset
        (5.0, 0.0, 2.0, 12, 0.75),  # of eight times with many bits, within a quarter
        (5.0, 0.0, 0.1, 8, 6.0),  # and twice
    ],
)
def test_the_automatic_rule(
    norm: float, clip_rate: float, offset: float, bits: int, expected: float
) -> None:
    state = {"mu": 3.0, "grad_norm": 10.0, "bits": bits, "z": torch.zeros(1)}
    p = nn.Parameter(torch.zeros(1))
    m = Member(0, p, {"lr": 0.1, "t": 7}, {p: state})
    assert _spacing._next_mu(m, norm, Run(T=10), (clip_rate, offset)) == pytest.approx(expected)


def test_the_automatic_start() -> None:
    for mu0, expected in ((None, 10 / (0.05 * 40)), (1.5, 1.5)):
        p = LeastSquares()
        opt = HALP([p.w], 0.05, 40, mu0=mu0)
        opt.recenter(p.parts(opt))
        assert opt.state[p.w]["mu"] == pytest.approx(expected)
        assert opt.telemetry()[0]["steps"] == 0
