"""The ops over codes on CUDA, in emulation: the bits of the CPU for shapes, layouts and edge cases."""

from __future__ import annotations

from typing import Any

import emulation
import numpy as np
import pytest
import torch
from sgd_model import F, Problem
from test_products import Codes
from torch import Tensor

from torchext.data._encode import layout_bytes, pack_codes

emulation.load()
CPU, EMULATED = torch.ops.torchext, torch.ops.torchext_emulated


def same_epochs(p: Problem, **changes: Any) -> dict[str, np.ndarray]:
    """An epoch on both; every result must agree to the last bit."""
    cpu = p.call(**changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.torchext, "_sgd_epoch", EMULATED._sgd_epoch)
        cuda = p.call(**changes)
    for name, value in cpu.items():
        np.testing.assert_array_equal(cuda[name], value, err_msg=name)
    return cpu


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
@pytest.mark.parametrize("bits", [1, 3, 4, 7])
def test_epochs_on_every_layout(layout: str, bits: int) -> None:
    same_epochs(Problem(rows=130, cols=37, bits=bits, layout=layout), steps=2)


def test_codes_and_tables_at_any_address() -> None:
    p = Problem(rows=130, cols=20, bits=4)
    moved = torch.empty(len(p.codes) + 1, dtype=torch.uint8)[1:]
    moved.copy_(torch.from_numpy(p.codes))
    same_epochs(p, codes=moved, steps=2)
    p = Problem(rows=70, cols=20, bits=4)
    store = np.empty(p.table.size + 1, np.uint8)
    store[1:] = p.table.ravel()
    p.table = store[1:].reshape(p.table.shape)
    same_epochs(p, steps=2)


@pytest.mark.parametrize("batch", [1, 48, 64, 200])
def test_epochs_in_batches_of_any_size(batch: int) -> None:
    p = Problem(rows=130, cols=9, bits=5)
    order = np.arange(-(-130 // batch))[:3][::-1].copy()
    same_epochs(p, batch=batch, order=order, gamma=np.full(len(order), 0.05), fit_intercept=True)


def test_epochs_on_float32_rows_and_unrounded_models() -> None:
    rng = np.random.default_rng(0)
    p = Problem(rows=100, cols=21, bits=4)
    rows = np.zeros((100, 32), F)
    rows[:, :21] = rng.uniform(-1, 1, (100, 21))
    options = {"batch": 100, "order": np.zeros(2, np.int64), "gamma": np.full(2, 0.05)}
    same_epochs(p, codes=rows, bits=32, model_bits=32, residual_bits=32, **options)
    same_epochs(p, codes=rows, bits=32, fit_intercept=True, **options)
    same_epochs(p, model_bits=32, residual_bits=8, fit_intercept=True, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 0.0])
def test_strange_models_give_what_the_cpu_gives(value: float) -> None:
    """A diverged model is seen by the caller, so its bits need not agree; that it is not finite must."""
    p = Problem(rows=64, cols=5, bits=4)
    x = p.x.copy()
    x[0, 2] = value
    if np.isfinite(value):
        same_epochs(p, x=x, steps=2)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.torchext, "_sgd_epoch", EMULATED._sgd_epoch)
        found = p.call(x=x, steps=2)
    assert not np.isfinite(found["x"]).all()


def test_a_batch_number_out_of_range_is_no_step() -> None:
    p = Problem(rows=130, cols=9, bits=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.torchext, "_sgd_epoch", EMULATED._sgd_epoch)
        found = p.call(order=np.array([1, 3]), gamma=np.full(2, 0.05))
        one = p.call(order=np.array([1]), gamma=np.full(1, 0.05))
    for name in ("x", "intercept", "average", "sums"):
        np.testing.assert_array_equal(found[name], one[name])


def test_epoch_errors_are_those_of_the_cpu() -> None:
    p = Problem(rows=64, cols=5, bits=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.torchext, "_sgd_epoch", EMULATED._sgd_epoch)
        with pytest.raises(RuntimeError, match="loss must be squared_error or log_loss, got hinge"):
            p.call(loss="hinge")
        with pytest.raises(RuntimeError, match="x0 must be given with variance_reduced"):
            p.call(variance_reduced=True)
        with pytest.raises(RuntimeError, match=r"outputs must be in \[1, 4096\], got 4097"):
            p.call(
                x=np.zeros((4097, 5), F), intercept=np.zeros(4097, F), y=None,
                average=np.zeros((4097, 6)),
            )  # fmt: skip


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_decode(bits: int, layout: str) -> None:
    p = Problem(rows=70, cols=13, bits=bits, books=2, planes=1 + bits % 2, layout=layout)
    rows = torch.tensor([69, 0, 64, 5, 5])
    for draw in (0, 1):
        arguments = (
            torch.from_numpy(p.codes), p.rows, p.cols, bits, layout, torch.from_numpy(p.grid),
            torch.from_numpy(p.table), rows, draw,
        )  # fmt: skip
        assert torch.equal(EMULATED._sgd_decode(*arguments), CPU._sgd_decode(*arguments))


def test_decode_rows_that_do_not_exist_and_none() -> None:
    p = Problem(rows=70, cols=3, bits=4)
    arguments = [
        torch.from_numpy(p.codes), p.rows, p.cols, 4, "tile4", torch.from_numpy(p.grid),
        torch.from_numpy(p.table), torch.tensor([-1, 3, 70]), 0,
    ]  # fmt: skip
    found = EMULATED._sgd_decode(*arguments)
    assert found[0].isnan().all() and found[2].isnan().all() and found[1].isfinite().all()
    arguments[7] = torch.empty(0, dtype=torch.int64)
    assert EMULATED._sgd_decode(*arguments).shape == (0, 3)
    rows = torch.arange(64.0).reshape(2, 32)
    dense = (rows, 2, 30, 32, "tile4", torch.empty(0), torch.empty(0, dtype=torch.uint8))
    assert torch.equal(EMULATED._sgd_decode(*dense, torch.tensor([1]), 0), rows[1:, :30])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_packing(bits: int, layout: str) -> None:
    for shape in ((70, 5), (129, 65), (0, 4), (1, 1)):
        codes = torch.randint(0, 1 << bits, shape, dtype=torch.int32)
        codes = codes.to(torch.uint16 if bits == 16 else torch.uint8)
        packed = EMULATED._pack_codes(codes, bits, layout)
        assert torch.equal(packed, CPU._pack_codes(codes, bits, layout))
        plain = EMULATED._unpack_codes(packed, *shape, bits, layout)
        assert torch.equal(plain.view(torch.uint8), codes.view(torch.uint8))
    with pytest.raises(RuntimeError, match=r"bits must be 1..8 or 16, got 9"):
        EMULATED._pack_codes(codes, 9, layout)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 16])
def test_permuting_rows(bits: int) -> None:
    rows, cols = 130, 9
    codes = torch.randint(0, 1 << bits, (rows, cols), dtype=torch.int32)
    packed = pack_codes(codes.to(torch.uint16 if bits == 16 else torch.uint8), bits)
    order = torch.randperm(rows)
    out = torch.empty_like(packed), torch.empty_like(packed)
    EMULATED._permute_tiles(packed, order, cols, bits, out[0])
    CPU._permute_tiles(packed, order, cols, bits, out[1])
    assert torch.equal(*out)
    order[3] = rows  # no such row: codes 0, as padding has
    EMULATED._permute_tiles(packed, order, cols, bits, out[0])
    plain = EMULATED._unpack_codes(out[0], rows, cols, bits, "tile4").to(torch.int32)
    assert not plain[3].any()
    with pytest.raises(RuntimeError, match="out must be another tensor"):
        EMULATED._permute_tiles(packed, order, cols, bits, packed)


SHAPES = [(1, 1, 4, 0), (70, 5, 3, 1), (600, 70, 4, 2), (513, 65, 8, 0), (130, 33, 1, 1)]


def both(name: str, *arguments: Any) -> Tensor:
    """Runs an op on both with copies of the tensors; results and what it wrote must agree."""
    results = []
    for space in (CPU, EMULATED):
        mine = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        results.append((getattr(space, name)(*mine), *(a for a in mine if isinstance(a, Tensor))))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    return results[1][0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("digits", [1, 2])
def test_products(shape: tuple[int, int, int, int], outputs: int, digits: int) -> None:
    a = Codes(*shape)
    rng = np.random.default_rng(1)
    data = (a.packed, a.rows, a.cols, a.bits, a.grid, a.table)
    x = torch.from_numpy(rng.normal(size=(outputs, a.cols)))
    e = torch.from_numpy(rng.normal(size=(outputs, a.rows)).astype(F))
    both("_code_dot", *data, x, digits)
    both("_code_sum", *data, e, digits)
    weight = torch.from_numpy(rng.uniform(0, 2, a.rows).astype(F))
    both("_code_gram", *data, x, None, None, None, digits)
    offset, shift = torch.ones(outputs, dtype=torch.float64), x[0].clone()
    both("_code_gram", *data, x, offset, shift, weight, digits)


def test_products_over_several_slabs_and_rounds() -> None:
    """More rows than a slab of 4,096; zero vectors; a slab of zeros."""
    a = Codes(4200, 6, 2, 1)
    data = (a.packed, a.rows, a.cols, a.bits, a.grid, a.table)
    e = torch.linspace(-1, 1, a.rows).reshape(1, -1).clone()
    e[:, :4096] *= 1e-30
    both("_code_sum", *data, e, 1)
    e[:, 4096:] = 0
    both("_code_sum", *data, e, 2)
    both("_code_dot", *data, torch.zeros(1, 6, dtype=torch.float64), 1)


def test_product_errors_are_those_of_the_cpu() -> None:
    a = Codes(70, 5, 3, 1)
    data = (a.packed, a.rows, a.cols, a.bits, a.grid, a.table)
    with pytest.raises(RuntimeError, match=r"digits must be in \[1, 2\], got 3"):
        EMULATED._code_dot(*data, torch.zeros(1, 5, dtype=torch.float64), 3)
    with pytest.raises(RuntimeError, match="x must be float64, got float32"):
        EMULATED._code_dot(*data, torch.zeros(1, 5), 1)
    with pytest.raises(RuntimeError, match=r"e must have shape \(outputs, 70\), got \(1, 5\)"):
        EMULATED._code_sum(*data, torch.zeros(1, 5), 1)
    with pytest.raises(RuntimeError, match=r"weight must have shape \(70\)"):
        x = torch.zeros(1, 5, dtype=torch.float64)
        EMULATED._code_gram(*data, x, None, None, torch.zeros(3), 1)


def test_the_bytes_of_a_layout_are_those_of_python() -> None:
    assert len(pack_codes(torch.zeros(70, 5, dtype=torch.uint8), 3)) == layout_bytes(70, 5, 3)
