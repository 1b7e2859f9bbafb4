"""The CUDA kernels of the optimizers, in emulation: formats, sizes and options, with the bits of the CPU."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import emulation
import numpy as np
import pytest
import torch
from lattice_model import Rule
from parity import same_bits
from test_optim_steps import VECTORS, store
from torch import Tensor

from torchext import random

emulation.load()
CPU, EMULATED = torch.ops.torchext, torch.ops.torchext_emulated
KEY = random.key_from_seed(77)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
STORES = {
    torch.uint8: 4, torch.int8: 8, torch.int16: 16, torch.float32: 24, torch.float64: 24,
}  # fmt: skip
SIZES = (0, 1, 2, 3, 5, 127, 129, 512, 1025)
LISTS = ("params", "z", "center", "delta", "grad", "grad_center", "full_grad", "buf", "stats")


def lattice(
    sizes: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    kind: torch.dtype = torch.int8,
    anchor: torch.dtype | None = None,
    delta: float = 0.013,
    shift: int = 0,
) -> dict[str, list[Tensor]]:
    """Lists of random tensors, the start of each ``shift`` elements after that of its memory."""
    r = np.random.default_rng(sum(sizes))
    own = torch.float64 if dtype == torch.float64 else torch.float32
    bits = STORES[kind]

    def normal(n: int, to: torch.dtype) -> Tensor:
        return torch.tensor(r.standard_normal(n + shift)).to(to)[shift:]

    def codes(n: int) -> Tensor:
        q = torch.tensor(r.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n))
        z = store(q, kind)
        return torch.cat([z.new_zeros(shift), z])[shift:]

    made: dict[str, list[Tensor]] = {
        "params": [normal(n, dtype) for n in sizes],
        "z": [codes(n) for n in sizes],
        "center": [normal(n, own) for n in sizes],
        "delta": [torch.tensor(delta * (1 + k), dtype=own) for k in range(len(sizes))],
        "grad": [normal(n, dtype) for n in sizes],
        "grad_center": [normal(n, dtype) for n in sizes],
        "full_grad": [normal(n, anchor or own) for n in sizes],
        "buf": [normal(n, own) for n in sizes],
        "stats": [torch.ones(6, dtype=torch.float64) for _ in sizes],
    }
    assert tuple(made) == LISTS
    return made


def halp(lists: dict[str, list[Tensor]], rule: Rule, lr: Any = None) -> tuple[Any, ...]:
    buf = lists["buf"] if rule.momentum else []
    scalars = (rule.weight_decay, rule.coef, rule.momentum, rule.dampening)
    streams = list(range(5, 5 + len(lists["params"])))
    return (
        *[lists[name] for name in LISTS[:-2]], buf, lists["stats"], rule.lr if lr is None else lr,
        *scalars, rule.bits, rule.flags(), KEY, streams,
    )  # fmt: skip


def svrg(lists: dict[str, list[Tensor]], rule: Rule) -> tuple[Any, ...]:
    arguments = list(halp(lists, rule))
    return (*arguments[:3], *arguments[4:14], rule.flags())


def check(name: str, arguments: tuple[Any, ...], overload: str = "default") -> tuple[Any, ...]:
    """Runs the op in both ways; every tensor of every list must have the same bits afterwards."""
    theirs, ours = copy.deepcopy(arguments), copy.deepcopy(arguments)
    want = getattr(getattr(CPU, name), overload)(*theirs)
    got = getattr(getattr(EMULATED, name), overload)(*ours)
    assert want is None or same_bits(got, want)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(a, list) and a and isinstance(a[0], Tensor):
            for x, y in zip(a, b, strict=True):
                assert same_bits(x, y), (name, k, x.shape, x, y)
    return ours


RULES = [
    Rule(),
    Rule(lr=5.0, weight_decay=0.1, momentum=0.9, nesterov=True, coef=0.5),
    Rule(
        weight_decay=0.2, decoupled=True, maximize=True, nearest=True, momentum=0.5, dampening=0.3
    ),
    Rule(momentum=0.9, first=True, dampening=0.5),
]


@pytest.mark.parametrize("kind", STORES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_steps_in_every_format(dtype: torch.dtype, kind: torch.dtype) -> None:
    for rule in RULES:
        lists = lattice(SIZES, dtype, kind)
        check("foreach_halp_step_", halp(lists, rule.but(bits=STORES[kind])))
    lists = lattice(SIZES, dtype, kind)
    plain = tuple(lists[name] for name in ("params", "z", "center", "delta"))
    check("foreach_halp_materialize_", plain)
    check("foreach_halp_commit_", plain)
    check("foreach_halp_materialize_", (*plain[:2], [], []))
    check("foreach_halp_encode_", (*plain[:2], plain[3], STORES[kind] - 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_real_steps(dtype: torch.dtype) -> None:
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    for rule in (r.but(nearest=False) for r in RULES):
        lists = lattice(SIZES, dtype, kind)
        lists["grad"][-1][7] = math.inf
        check("foreach_svrg_step_", svrg(lists, rule))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda c: f"{c['name']}-{c['dtype']}")
def test_golden_vectors(case: dict[str, Any]) -> None:
    dtype = getattr(torch, case["dtype"])

    def values(name: str) -> list[Tensor]:
        return [torch.tensor(case[name], dtype=dtype)] if name in case else []

    p, z, buf = (
        [torch.zeros_like(values("center")[0])],
        [torch.tensor(case["q"]).to(torch.int16)],
        values("buf"),
    )
    EMULATED.foreach_halp_step_(
        p, z, values("center"), values("delta"), values("grad"), values("grad_center"),
        values("full_grad"), buf, [], *case["scalars"], case["bits"], case["flags"],
        random.key_from_seed(int(VECTORS["seed"], 16)), [VECTORS["stream"]],
    )  # fmt: skip
    assert z[0].tolist() == case["new_q"] and p[0].tolist() == case["new_w"]
    if buf:
        assert buf[0].tolist() == case["new_buf"]


def test_anchors_of_another_dtype() -> None:
    for dtype, anchor in itertools.product(DTYPES, DTYPES):
        check("foreach_halp_step_", halp(lattice((5, 130), dtype, anchor=anchor), RULES[1]))


def test_absent_lists() -> None:
    lists = lattice((5, 130))
    absent: set[str] = set()
    for name in ("stats", "grad_center", "full_grad", "center"):
        absent.add(name)
        check(
            "foreach_halp_step_",
            halp({k: [] if k in absent else v for k, v in lists.items()}, Rule()),
        )
    check("foreach_halp_step_", halp(lattice(()), Rule()))


@pytest.mark.parametrize("shift", [1, 2])
def test_memory_that_is_not_aligned(shift: int) -> None:
    for dtype, kind in itertools.product(DTYPES, STORES):
        lists = lattice((3, 131), dtype, kind, shift=shift)
        check("foreach_halp_step_", halp(lists, RULES[1].but(bits=STORES[kind])))


def test_strides() -> None:
    lists = lattice((24, 6))
    for name in ("params", "grad", "grad_center"):
        lists[name][0] = torch.randn(6, 4).t()
        lists[name][1] = torch.randn(2, 3, 4)[..., 1]
    arguments = halp(lists, RULES[1])
    ours = check("foreach_halp_step_", arguments)
    assert ours[0][0].stride() == (1, 4)


def test_more_tensors_than_one_launch_takes() -> None:
    sizes = tuple((37 * k) % 90 for k in range(70))
    check("foreach_halp_step_", halp(lattice(sizes), RULES[1]))
    lists = lattice(sizes)
    check("_foreach_square_sums", (lists["full_grad"], lists["center"], 0.25))


def test_sums_of_two_levels() -> None:
    """More than 1024 chunks of 1024 elements."""
    n = 1024 * 1024 + 1029
    check("_foreach_square_sums", ([torch.randn(n), torch.randn(40)], [], 0.0))
    check("foreach_halp_step_", halp(lattice((n, 7)), Rule()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_square_sums(dtype: torch.dtype) -> None:
    lists = lattice((*SIZES, 2049), dtype, anchor=dtype)
    check("_foreach_square_sums", (lists["full_grad"], [], 0.0))
    check("_foreach_square_sums", (lists["full_grad"], lists["center"], 0.3))
    mixed = [torch.randn(5, 7, dtype=torch.float64).t(), torch.randn(33).to(dtype)]
    check("_foreach_square_sums", (mixed, [], 0.0))


def test_steps_that_are_not_finite() -> None:
    for dtype, momentum in itertools.product(DTYPES, (0.0, 0.9)):
        lists = lattice((9, 200), dtype)
        for k, bad in enumerate((math.nan, math.inf, -math.inf)):
            lists["grad"][1][3 * k] = bad
        ours = check("foreach_halp_step_", halp(lists, Rule(momentum=momentum)))
        assert ours[8][1][5] == 4.0  # three of them, and the one that was there


def test_spacings_without_a_step() -> None:
    """0 and subnormal spacings leave a tensor alone; an infinite lr/delta skips every element."""
    lists = lattice((5, 130, 7, 3))
    for k, delta in enumerate((0.0, 1e-40, math.nan, 2.0**-125)):
        lists["delta"][k].fill_(delta)
    ours = check("foreach_halp_step_", halp(lists, Rule(lr=1e6)))
    assert [same_bits(a, b) for a, b in zip(ours[1], lists["z"], strict=True)] == [True] * 4
    assert ours[8][3][5] == 1 + 3 and ours[8][0][5] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rate_on_the_device(dtype: torch.dtype) -> None:
    for name, arguments in (("halp", halp), ("svrg", svrg)):
        kind = torch.int8 if name == "halp" else torch.float32
        given = arguments(
            lattice((5, 130), kind=kind), Rule(lr=float(torch.tensor(0.3, dtype=dtype)))
        )
        at = next(k for k, a in enumerate(given) if isinstance(a, float))
        tensor = (*given[:at], torch.tensor(0.3, dtype=dtype), *given[at + 1 :])
        theirs, ours = copy.deepcopy(given), copy.deepcopy(tensor)
        getattr(CPU, f"foreach_{name}_step_").default(*theirs)
        getattr(EMULATED, f"foreach_{name}_step_").lr_tensor(*ours)
        assert all(
            same_bits(a, b) for a, b in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True)
        )
        check(f"foreach_{name}_step_", tensor, "lr_tensor")


def test_encoding_what_the_cpu_refuses() -> None:
    """Nothing on a device can be refused for its values: NaN becomes code 0, and so weight 0."""
    p, z = [torch.tensor([0.3, math.nan, -9.0])], [torch.ones(3, dtype=torch.int8)]
    EMULATED.foreach_halp_encode_(p, z, [torch.tensor(0.25)], 4)
    assert p[0].tolist() == [0.25, 0.0, -2.0] and z[0].tolist() == [1, 0, -8]
    for delta in (0.0, -1.0, math.nan, math.inf, 1e-42):
        q, z = [torch.ones(3)], [torch.ones(3, dtype=torch.int8)]
        EMULATED.foreach_halp_encode_(q, z, [torch.tensor(delta)], 4)
        assert q[0].tolist() == [1.0] * 3 and z[0].tolist() == [1] * 3


def test_errors_are_those_of_the_cpu() -> None:
    lists = lattice((4,))
    for name, change, text in (
        ("foreach_halp_step_", {"delta": []}, "delta must have 1 tensors, got 0"),
        ("foreach_halp_step_", {"stats": [torch.zeros(6)]}, "stats must be float64, got float32"),
        ("foreach_halp_step_", {"grad": [torch.zeros(5)]}, "grad must have 4 elements, got 5"),
    ):
        for ops in (CPU, EMULATED):
            with pytest.raises(RuntimeError, match=f"torchext::{name}: {text}"):
                getattr(ops, name)(*halp(lists | change, Rule()))
    for lr, text in (
        (torch.tensor([1.0, 2.0]), "one element, got 2"),
        (torch.tensor(1), "float32 or"),
    ):
        for ops in (CPU, EMULATED):
            with pytest.raises(RuntimeError, match=f"lr must (have|be) {text}"):
                ops.foreach_halp_step_.lr_tensor(*halp(lists, Rule(), lr))
