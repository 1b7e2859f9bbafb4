"""The lattice ops against exact rational arithmetic, their statistics, and awkward inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lattice_model as model
import numpy as np
import pytest
import stream_v1
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_model import Element, Rule
from torch import Tensor

from torchext import _testing, random
from torchext.optim import ops

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "optim_v1.json").read_text())
STORES = {2: torch.uint8, 3: torch.uint8, 4: torch.uint8, 8: torch.int8, 16: torch.int16}
KEY = random.key_from_seed(77)


def store(q: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes as the ops keep them; uint8 is two to a byte."""
    if dtype != torch.uint8:
        return q.to(dtype)
    padded = torch.cat([q, q.new_zeros(q.numel() % 2)]).to(torch.int64) & 15
    return (padded[0::2] | padded[1::2] << 4).to(torch.uint8)


def codes(z: Tensor, n: int) -> Tensor:
    if z.dtype != torch.uint8:
        return z.to(torch.float64)
    low, high = z.to(torch.int64) & 15, z.to(torch.int64) >> 4
    q = torch.stack([low, high], 1).flatten()[:n]
    return torch.where(q > 7, q - 16, q).to(torch.float64)


class Problem:
    """Random tensors for one step; :meth:`run` applies the op to copies and returns what it wrote."""

    def __init__(self, n: int, dtype: torch.dtype = torch.float32, bits: int = 8, seed: int = 0):
        r = np.random.default_rng(seed)
        own = torch.float64 if dtype == torch.float64 else torch.float32
        self.n, self.bits, self.dtype = n, bits, dtype
        self.param = torch.zeros(n, dtype=dtype)
        self.q = torch.tensor(r.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n))
        self.center, self.full, self.buf = (
            torch.tensor(r.standard_normal(n)).to(own) for _ in "abc"
        )
        self.grad, self.at_center = (torch.tensor(r.standard_normal(n)).to(dtype) for _ in "ab")
        self.delta = torch.tensor(0.013, dtype=own)

    def run(
        self, rule: Rule, dtype: torch.dtype | None = None, key: Tensor = KEY, stream: int = 0
    ) -> dict[str, Tensor]:
        z = [store(self.q, dtype or STORES[self.bits])]
        p, buf = [self.param.clone()], [self.buf.clone()] if rule.momentum else []
        stats = [torch.zeros(6, dtype=torch.float64)]
        ops.foreach_halp_step_(
            p, z, [self.center], [self.delta], [self.grad], [self.at_center], [self.full], buf, stats,
            rule.lr, rule.weight_decay, rule.coef, rule.momentum, rule.dampening, rule.bits,
            rule.flags(), key, [stream],
        )  # fmt: skip
        out = {"q": codes(z[0], self.n), "w": p[0], "stats": stats[0]}
        return out | ({"buf": buf[0]} if buf else {})


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: f"{c['name']}-{c['dtype']}")
@pytest.mark.parametrize("isa", _testing.ISAS)
def test_golden_vectors(case: dict[str, Any], isa: str) -> None:
    dtype = getattr(torch, case["dtype"])
    values = {
        k: torch.tensor(case[k], dtype=dtype)
        for k in ("center", "grad", "grad_center", "full_grad", "buf")
        if k in case
    }
    p, z = [torch.zeros_like(values["center"])], [torch.tensor(case["q"]).to(torch.int16)]
    buf = [values["buf"].clone()] if "buf" in case else []
    with _testing.isa(isa) as present:
        if not present:
            pytest.skip(f"this processor has no {isa}")
        ops.foreach_halp_step_(
            p, z, [values["center"]], [torch.tensor(case["delta"], dtype=dtype)], [values["grad"]],
            [values["grad_center"]], [values["full_grad"]], buf, [], *case["scalars"], case["bits"],
            case["flags"], random.key_from_seed(int(VECTORS["seed"], 16)), [VECTORS["stream"]],
        )  # fmt: skip
    assert z[0].tolist() == case["new_q"] and p[0].tolist() == case["new_w"]
    if buf:
        assert buf[0].tolist() == case["new_buf"]


RULES = st.builds(
    Rule,
    lr=st.sampled_from([1e-3, 0.1, 3.0]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    coef=st.sampled_from([0.0, 0.5, 1.0]),
    momentum=st.sampled_from([0.0, 0.9]),
    dampening=st.sampled_from([0.0, 0.1]),
    bits=st.sampled_from([2, 3, 4, 8, 16]),
    nearest=st.booleans(),
    maximize=st.booleans(),
    nesterov=st.booleans(),
    decoupled=st.booleans(),
    first=st.booleans(),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rule=RULES, n=st.integers(0, 9), double=st.booleans(), seed=st.integers(0, 99))
def test_a_step_is_the_formula(rule: Rule, n: int, double: bool, seed: int) -> None:
    p = Problem(n, torch.float64 if double else torch.float32, rule.bits, seed)
    kind = np.float64 if double else np.float32
    got = p.run(rule, stream=3)
    clipped = still = 0
    noise, moved = [], []
    for i in range(n):
        e = Element(
            float(p.q[i]), float(p.delta), float(p.grad[i]), float(p.center[i]),
            float(p.at_center[i]), float(p.full[i]), float(p.buf[i]) if rule.momentum else None,
        )  # fmt: skip
        u = model.uniform(77, 3, i, rule.nearest)
        q, w, buf, t = model.step(rule, e, u, kind)
        assert (got["q"][i].item(), got["w"][i].item()) == (q, w)
        if buf is not None:
            assert got["buf"][i].item() == buf
        low = math.floor(t)
        r = low + (u < kind(t - low))
        clipped, still = clipped + (e.q + r != q), still + (e.q == q)
        noise.append((r - t) ** 2)
        moved.append(t * t)
    peak = float(got["q"].abs().max()) if n else 0.0
    sums = [clipped, still, stream_v1.tree_sum(noise), stream_v1.tree_sum(moved), peak, 0.0]
    assert got["stats"].tolist() == sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_instruction_sets_agree(dtype: torch.dtype) -> None:
    rules = [
        Rule(),
        Rule(lr=5.0, weight_decay=0.1, momentum=0.9, nesterov=True, coef=0.5),
        Rule(weight_decay=0.2, decoupled=True, maximize=True, nearest=True),
    ]
    for n in (*range(1, 70), 127, 1023, 1024, 1025, 3000):
        p = Problem(n, dtype, seed=n)
        for rule in rules:
            expected = None
            for name in _testing.ISAS:
                with _testing.isa(name) as present:
                    if present:
                        got = p.run(rule)
                        expected = expected or got
                        assert same(got, expected), (name, n, rule)


def test_threads_and_grouping_do_not_matter() -> None:
    sizes = (40_000, 0, 1, 30_001)
    problems = [Problem(n, seed=n) for n in sizes]
    rule = Rule(weight_decay=0.1)
    alone = [p.run(rule, stream=k) for k, p in enumerate(problems)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            params = [p.param.clone() for p in problems]
            z = [store(p.q, torch.int8) for p in problems]
            stats = [torch.zeros(6, dtype=torch.float64) for _ in problems]
            ops.foreach_halp_step_(
                params, z, [p.center for p in problems], [p.delta for p in problems],
                [p.grad for p in problems], [p.at_center for p in problems],
                [p.full for p in problems], [], stats, rule.lr, rule.weight_decay, 1, 0, 0, 8, 0,
                KEY, [0, 1, 2, 3],
            )  # fmt: skip
            for k, one in enumerate(alone):
                assert torch.equal(params[k], one["w"]) and torch.equal(stats[k], one["stats"])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1025])
def test_codes_and_simulation_agree(bits: int, n: int) -> None:
    p = Problem(n, bits=bits, seed=n)
    assert torch.equal(codes(store(p.q, torch.uint8), n), p.q.double()) or bits > 4
    rule = Rule(bits=bits, lr=0.3, weight_decay=0.1)
    assert same(p.run(rule), p.run(rule, torch.float32))
    if bits < 8:
        assert same(p.run(rule), p.run(rule, torch.int8))


def test_rounding_is_unbiased_and_exact_on_the_lattice() -> None:
    """100,000 draws of each value; the mean within 4.5 standard errors of t."""
    n = 100_000
    for t in (0.0, 0.25, -0.3, 1.999, 5.0, -7.0, 126.5, -127.5):
        p, z = [torch.zeros(n)], [torch.zeros(n, dtype=torch.int8)]
        stats = [torch.zeros(6, dtype=torch.float64)]
        g = torch.full((n,), -t)
        ops.foreach_halp_step_(
            p, z, [], [torch.tensor(0.5)], [g], [], [], [], stats, 0.5, 0, 1, 0, 0, 8, 0, KEY, [1]
        )
        q, fraction = z[0].double(), t - math.floor(t)
        deviation = math.sqrt(fraction * (1 - fraction) / n)
        assert abs(q.mean().item() - t) <= 4.5 * deviation
        assert set(q.unique().tolist()) <= {float(math.floor(t)), float(math.ceil(t))}
        clipped, _, noise, moved, peak, skipped = stats[0].tolist()
        assert (clipped, skipped) == (0, 0) and peak == q.abs().max()
        assert noise == pytest.approx(n * fraction * (1 - fraction), rel=0.1, abs=1e-9)
        assert moved == pytest.approx(n * t * t)


def test_saturates_and_never_wraps() -> None:
    for bits, dtype in STORES.items():
        for sign in (-1.0, 1.0):
            p, z = [torch.zeros(5)], [store(torch.zeros(5), dtype)]
            stats = [torch.zeros(6, dtype=torch.float64)]
            ops.foreach_halp_step_(
                p, z, [], [torch.tensor(0.5)], [torch.full((5,), sign * 3e38)], [], [], [], stats,
                0.5, 0, 1, 0, 0, bits, 0, KEY, [1],
            )  # fmt: skip
            end = -(2 ** (bits - 1)) if sign > 0 else 2 ** (bits - 1) - 1
            assert codes(z[0], 5).tolist() == [end] * 5 and p[0].tolist() == [0.5 * end] * 5
            assert stats[0][0].item() == 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_elements_without_a_finite_step_are_left_alone_and_counted(
    bad: float, momentum: float
) -> None:
    p = Problem(70)
    p.param = p.center + p.delta * p.q
    rule = Rule(momentum=momentum)
    clean = p.run(rule)
    p.grad[66] = bad
    got = p.run(rule)
    assert got["q"][66] == p.q[66] and got["stats"][5] == 1
    keep = torch.arange(70) != 66
    assert torch.equal(got["q"][keep], clean["q"][keep]) and got["w"].isfinite().all()
    if momentum:
        assert got["buf"][66] == p.buf[66]


@pytest.mark.parametrize("delta", [0.0, 1e-40, math.nan])
def test_a_tensor_without_a_spacing_is_left_alone(delta: float) -> None:
    p = Problem(70)
    p.param, p.delta = torch.full((70,), 3.0), torch.tensor(delta)
    got = p.run(Rule(momentum=0.9))
    assert torch.equal(got["q"], p.q.double()) and torch.equal(got["w"], p.param)
    assert torch.equal(got["buf"], p.buf) and not got["stats"].any()


def test_strides_of_weights_and_gradients_do_not_matter() -> None:
    p = Problem(60)
    expected = p.run(Rule())
    param = torch.zeros(10, 6).t()
    grad = p.grad.reshape(6, 10).t().contiguous().t()
    z = [store(p.q, torch.int8).reshape(6, 10)]
    center, delta, full = [p.center.reshape(6, 10)], [p.delta], [p.full.reshape(6, 10)]
    ops.foreach_halp_step_(
        [param], z, center, delta, [grad], [p.at_center.reshape(6, 10)], full, [], [],
        0.1, 0, 1, 0, 0, 8, 0, KEY, [0],
    )  # fmt: skip
    assert torch.equal(param.flatten(), expected["w"])
    with pytest.raises(RuntimeError, match="params must not overlap"):
        ops.foreach_halp_materialize_([torch.zeros(1).expand(60)], [z[0].flatten()], [], delta)


def test_svrg_keeps_a_displacement() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        p = Problem(70, dtype)
        z = [p.center * 0.01]
        start, out = z[0].clone(), [p.param.clone()]
        stats = [torch.zeros(6, dtype=torch.float64)]
        rule = Rule(lr=0.1, weight_decay=0.1, coef=0.5)
        p.grad[3] = math.nan
        ops.foreach_svrg_step_(
            out, z, [p.center], [p.grad], [p.at_center], [p.full], [], stats, rule.lr,
            rule.weight_decay, rule.coef, 0, 0, 0,
        )  # fmt: skip
        assert z[0][3] == start[3] and stats[0].tolist() == [0, 0, 0, 0, 0, 1]
        assert torch.equal(out[0], (p.center + z[0]).to(dtype))
        kind = np.float64 if dtype == torch.float64 else np.float32
        for i in (0, 1, 69):
            e = Element(
                float(start[i]), 1.0, float(p.grad[i]), float(p.center[i]), float(p.at_center[i]),
                float(p.full[i]),
            )  # fmt: skip
            assert z[0][i].item() == model.step(rule.but(real=True), e, 0.0, kind)[0]


def test_moving_the_centre() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        p = Problem(70, dtype)
        param, center, z = [p.param.clone()], [p.center.clone()], [store(p.q, torch.int8)]
        ops.foreach_halp_materialize_(param, z, center, [p.delta])
        w = (p.center.double() + p.delta.double() * p.q.double()).to(p.center.dtype)
        assert torch.allclose(param[0].to(w.dtype), w.to(dtype).to(w.dtype), rtol=1e-6)
        ops.foreach_halp_commit_(param, z, center, [p.delta])
        assert not z[0].any() and torch.equal(center[0].to(dtype), param[0])
        assert torch.allclose(center[0], w, rtol=1e-6)


def test_encoding_weights() -> None:
    p = [torch.tensor([0.26, -0.374, 0.375, 9.0, -math.inf, 0.125])]
    z = [torch.zeros(6, dtype=torch.int8)]
    ops.foreach_halp_encode_(p, z, [torch.tensor(0.25)], 4)
    assert z[0].tolist() == [1, -1, 2, 7, -8, 0] and p[0].tolist() == [
        0.25,
        -0.25,
        0.5,
        1.75,
        -2.0,
        0,
    ]
    with pytest.raises(RuntimeError, match="params must not hold NaN"):
        ops.foreach_halp_encode_([torch.full((6,), math.nan)], z, [torch.tensor(0.25)], 4)
    with pytest.raises(RuntimeError, match="delta must be positive and finite, got 0"):
        ops.foreach_halp_encode_(p, z, [torch.tensor(0.0)], 4)


def test_skipped_elements_are_counted_once() -> None:
    """Where lr/delta overflows every element is skipped, and no other: 3 of a block of 64."""
    p = Problem(3)
    p.delta = torch.tensor(2.0**-125)
    assert p.run(Rule(lr=1e6))["stats"].tolist() == [0, 3, 0, 0, float(p.q.abs().max()), 3]


def test_square_sums_are_tree_sums() -> None:
    lists = [
        [float(np.float32(i % 7 - 3) * np.float32(0.1)) for i in range(n)] for n in (0, 33, 5000)
    ]
    x = [torch.tensor(values) for values in lists]
    got = torch.ops.torchext._foreach_square_sums(x, [], 0.0)
    assert got.tolist() == [stream_v1.tree_sum([v * v for v in values]) for values in lists]
    assert got[1].item().hex() == "0x1.451eb9a147ae8p+0"
    assert got[2].item().hex() == "0x1.90199b3800005p+7"
    decayed = torch.ops.torchext._foreach_square_sums(x[1:2], [torch.ones(33)], 0.5)
    assert decayed.item() == pytest.approx(sum((v + 0.5) ** 2 for v in lists[1]), rel=1e-6)
    doubles = torch.ops.torchext._foreach_square_sums([x[2].double()], [], 0.0)
    assert doubles.item() == got[2].item()


STEP: dict[str, Any] = dict(
    params=[torch.zeros(4)], z=[torch.zeros(4, dtype=torch.int8)], center=[torch.zeros(4)],
    delta=[torch.tensor(0.5)], grad=[torch.zeros(4)], grad_center=[torch.zeros(4)],
    full_grad=[torch.zeros(4)], buf=[], stats=[], lr=0.1, weight_decay=0.0, coef=1.0, momentum=0.0,
    dampening=0.0, bits=8, flags=0, key=KEY, streams=[0],
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"z": []}, "z must have 1 tensors, got 0"),
        ({"z": [torch.zeros(3, dtype=torch.int8)]}, "z must have 4 elements for 4 weights, got 3"),
        ({"z": [torch.zeros(4, dtype=torch.int64)]}, "z must be uint8"),
        ({"params": [torch.zeros(4, dtype=torch.int32)]}, "params must be float32"),
        ({"center": [torch.zeros(4).double()]}, "center must be float32, got float64"),
        ({"delta": []}, "delta must have 1 tensors, got 0"),
        ({"delta": [torch.zeros(2)]}, "delta must have one element a tensor, got 2"),
        ({"grad": [torch.zeros(5)]}, "grad must have 4 elements, got 5"),
        ({"grad": [torch.zeros(4).double()]}, "grad must be float32, got float64"),
        ({"full_grad": []}, "full_grad must be given with grad_center, got an empty list"),
        ({"buf": [torch.zeros(4).bfloat16()]}, "buf must be float32, got bfloat16"),
        ({"stats": [torch.zeros(6)]}, "stats must be float64, got float32"),
        ({"bits": 9}, r"bits must be in \[2, 8\], got 9"),
        ({"bits": 1}, r"bits must be in \[2, 8\], got 1"),
        ({"flags": 32}, r"flags must be in \[0, 31\], got 32"),
        ({"streams": []}, "streams must have 1 entries, got 0"),
        ({"streams": [-1]}, r"stream must be in \[0, 4294967295\], got -1"),
        ({"key": torch.zeros(3, dtype=torch.int64)}, r"key must have shape \(2\)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_wrong_arguments_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError, match=f"torchext::foreach_halp_step_: {text}"):
        ops.foreach_halp_step_(**(STEP | change))
