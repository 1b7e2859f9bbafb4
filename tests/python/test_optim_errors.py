"""What the optimizers refuse, in which words, and that no weight moves then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from optim_problems import CENTERED, CORRECTED, MAKERS, LeastSquares
from torch import nn

from torchext.optim import HALP, LPSGD, LPSVRG, SVRG, BitCentredSGD

ERRORS = [
    (lambda p: HALP(p, -1, 1), "Invalid learning rate: -1"),
    (lambda p: HALP(p, 0.0, 1), "Invalid learning rate: 0.0"),
    (lambda p: HALP(p, math.nan, 1), "Invalid learning rate: nan"),
    (lambda p: HALP(p, torch.ones(2), 1), "Tensor lr must be 1-element"),
    (lambda p: HALP(p, 0.1, 0), "Invalid T: 0"),
    (lambda p: HALP(p, 0.1, 1.5), "Invalid T: 1.5"),
    (lambda p: HALP(p, 0.1, 1, mu=0.0), "Invalid mu: 0.0"),
    (lambda p: HALP(p, 0.1, 1, mu="x"), "Invalid mu: x"),
    (lambda p: HALP(p, 0.1, 1, mu0=-1.0), "Invalid mu0: -1.0"),
    (lambda p: HALP(p, 0.1, 1, mu="auto", bits=4), "mu='auto' needs 8 bits or more, got 4"),
    (lambda p: HALP(p, 0.1, 1, bits=17), "Invalid bits: 17, expected 2 to 16 for storage='codes'"),
    (lambda p: HALP(p, 0.1, 1, bits=1), "Invalid bits: 1"),
    (
        lambda p: HALP(p, 0.1, 1, bits=25, storage="simulate"),
        "Invalid bits: 25, expected 2 to 24 for storage='simulate'",
    ),
    (lambda p: HALP(p, 0.1, 1, scope="class"), "Invalid scope: 'class'"),
    (lambda p: HALP(p, 0.1, 1, storage="int"), "Invalid storage: 'int'"),
    (lambda p: HALP(p, 0.1, 1, rounding="up"), "Invalid rounding: 'up'"),
    (lambda p: HALP(p, 0.1, 1, delta_floor=-1.0), "Invalid delta_floor: -1.0"),
    (lambda p: HALP(p, 0.1, 1, svrg_coef=2.0), "Invalid svrg_coef value: 2.0"),
    (lambda p: HALP(p, 0.1, 1, option="III"), "Invalid option: 'III'"),
    (lambda p: HALP(p, 0.1, 1, option="II", loopless=True), "loopless=True needs option='I'"),
    (lambda p: LPSVRG(p, 0.1, 1, delta=0.1, option="mean"), "Invalid option: 'mean'"),
    (lambda p: LPSVRG(p, 0.1, 1, delta=0.0), "Invalid delta: 0.0"),
    (lambda p: LPSGD(p, 0.1, delta="max"), "Invalid delta: max"),
    (lambda p: SVRG(p, 0.1, 1, momentum=-1.0), "Invalid momentum value: -1.0"),
    (lambda p: SVRG(p, 0.1, 1, weight_decay=-1.0), "Invalid weight_decay value: -1.0"),
    (lambda p: SVRG(p, 0.1, 1, nesterov=True), "Nesterov momentum requires a momentum"),
    (lambda p: SVRG(p, 0.1, 1, anchor_dtype=torch.int8), "Invalid anchor_dtype"),
    (lambda p: SVRG(p, 0.1, 1, differentiable=True), "SVRG does not support differentiable=True"),
    (lambda p: SVRG(p, 0.1, 1, foreach=False, fused=True), "cannot do fused=True"),
    (lambda p: SVRG(p, 0.1, 1, capturable=2), "Invalid capturable: 2"),
    (lambda p: BitCentredSGD(p, 0.1, 1, mu=1.0, anchor="none"), "Invalid anchor: 'none'"),
    (
        lambda p: SVRG([nn.Parameter(torch.zeros(1, dtype=torch.complex64))], 0.1, 1),
        "SVRG does not support complex parameters",
    ),
    (
        lambda p: SVRG([nn.Parameter(torch.zeros(1, device="meta"))], 0.1, 1),
        "SVRG runs on the CPU and on CUDA, got a parameter on meta",
    ),
]


@pytest.mark.parametrize(("make", "text"), ERRORS, ids=[text for _, text in ERRORS])
def test_bad_settings_are_named(make: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        make([nn.Parameter(torch.zeros(3))])
    assert text in str(caught.value)


def test_unknown_settings_are_type_errors() -> None:
    for make, text in (
        (lambda p: SVRG(p, 0.1, 1, bits=8), "SVRG() got an unexpected keyword argument 'bits'"),
        (lambda p: LPSGD(p, 0.1, delta=1, option="I"), "LPSGD() got an unexpected keyword"),
    ):
        with pytest.raises(TypeError) as caught:
            make([nn.Parameter(torch.zeros(3))])  # type: ignore[no-untyped-call]
        assert text in str(caught.value)
    with pytest.raises(ValueError, match="Invalid bits: 99"):  # in a group as well
        HALP([{"params": [nn.Parameter(torch.zeros(3))], "bits": 99}], 0.1, 1)


@pytest.mark.parametrize("name", CENTERED)
def test_a_step_before_the_first_centre_says_what_to_call(name: str) -> None:
    p = LeastSquares()
    opt = MAKERS[name]([p.w])
    with pytest.raises(RuntimeError, match=rf"{name}.step\(\): no centre yet; call recenter"):
        opt.step(p.closure(opt, [0]))
    with pytest.raises(TypeError, match=r"recenter\(\) needs closures over the data"):
        opt.recenter()
    assert opt.needs_recenter


@pytest.mark.parametrize("name", CORRECTED)
def test_a_step_without_its_gradients_says_what_is_missing(name: str) -> None:
    p = LeastSquares()
    opt = MAKERS[name]([p.w])
    opt.recenter(p.parts(opt))
    p.closure(opt, [0])()
    before = p.w.detach().clone()
    with pytest.raises(RuntimeError, match="needs a closure, or a preceding `with opt"):
        opt.step()
    with pytest.raises(TypeError, match="the closure must return the loss, got None"):
        opt.step(lambda: None)
    assert torch.equal(before, p.w)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_that_are_not_finite(name: str) -> None:
    """Such elements stay and are counted; ``error_if_nonfinite`` raises before anything moves."""
    for strict in (False, True):
        w = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
        opt = MAKERS[name]([w], telemetry=True, error_if_nonfinite=strict, seed=1, momentum=0.5)
        bad = False

        def closure() -> torch.Tensor:
            opt.zero_grad()  # noqa: B023
            loss = (w**2).sum() / 2  # noqa: B023
            loss.backward()
            if bad:  # noqa: B023
                w.grad[1] = math.nan  # type: ignore[index] # noqa: B023
            return loss

        if name != "LPSGD":
            opt.recenter([closure])
        opt.step(closure)
        before, bad = w.detach().clone(), True
        if strict:
            with pytest.raises(RuntimeError, match="the gradient of parameter 0 is not finite"):
                opt.step(closure)
            assert torch.equal(w, before)
        else:
            opt.step(closure)
            assert w[1] == before[1] and w[0] != before[0] and w.isfinite().all()
            assert opt.telemetry()[0]["nonfinite"] == 1


def test_a_full_gradient_that_is_not_finite_keeps_the_weights() -> None:
    p = LeastSquares()
    opt = HALP([p.w], 0.05, 4, mu=2.0)
    p.train(opt, 4)
    before = p.w.detach().clone()

    def broken() -> torch.Tensor:
        loss = p.closure(opt, [0])()
        p.w.grad[0] = math.inf
        return loss

    with pytest.raises(RuntimeError, match="the full gradient is not finite"):
        opt.recenter([broken])
    assert torch.equal(p.w, before) and opt.needs_recenter
    with pytest.raises(RuntimeError, match="no centre yet"):
        opt.step(p.closure(opt, [0]))
    opt.recenter(p.parts(opt))
    opt.step(p.closure(opt, [0]))


def test_a_first_full_gradient_that_is_not_finite() -> None:
    for name in CENTERED:
        p = LeastSquares()
        opt = MAKERS[name]([p.w], seed=1)

        def broken(p: LeastSquares = p, opt: Any = opt) -> torch.Tensor:
            loss = p.closure(opt, [0])()
            p.w.grad[0] = math.nan
            return loss

        with pytest.raises(RuntimeError, match="the full gradient is not finite"):
            opt.recenter([broken])
        assert not p.w.any()
        twin = LeastSquares()
        other = MAKERS[name]([twin.w], seed=1)
        p.train(opt, 6), twin.train(other, 6)
        assert torch.equal(p.w, twin.w)


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    opt = LPSGD(table.parameters(), 0.1, delta=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="LPSGD does not support sparse gradients"):
        opt.step()
    other = SVRG(table.parameters(), 0.1, 1)
    with pytest.raises(RuntimeError, match="sparse gradients are not supported"):
        other.recenter([lambda: table(torch.tensor([1])).sum().backward() or 0.0])
