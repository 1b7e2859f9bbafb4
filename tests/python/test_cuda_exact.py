"""The exact side of the linear models on a GPU: the bits of the CPU, in graphs and on any stream."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from exact_samples import exact_args, halp_args, rows_of, svrg_args, targets
from parity import same_bits, tensors
from sklearn.base import clone
from torch import Tensor

from torchext import _build
from torchext.linear import LogisticRegression, Ridge, SGDClassifier

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]

ops = torch.ops.torchext


def on_gpu(args: tuple[Any, ...]) -> list[Any]:
    return [a.cuda() if isinstance(a, Tensor) else copy.copy(a) for a in args]


def both(name: str, args: tuple[Any, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """What CPU and GPU return and leave in their arguments."""
    cpu, gpu = copy.deepcopy(args), on_gpu(args)
    want = tensors(getattr(ops, name)(*cpu)) + tensors(cpu)
    found = tensors(getattr(ops, name)(*gpu)) + tensors(gpu)
    return want, [t.cpu() for t in found]


def check(name: str, args: tuple[Any, ...]) -> None:
    want, got = both(name, args)
    for a, b in zip(got, want, strict=True):
        assert same_bits(a, b)


KINDS = [torch.float32, torch.float64, torch.int8, torch.int16]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "loss, rows, cols, outputs",
    [
        ("squared", 5000, 90, 1),
        ("squared", 3000, 1030, 1),
        ("squared", 2100, 257, 10),
        ("logistic", 70_001, 12, 1),
        ("logistic", 2100, 257, 3),
        ("softmax", 70_001, 12, 7),
    ],
)
def test_exact_pass(kind: torch.dtype, loss: str, rows: int, cols: int, outputs: int) -> None:
    check("_exact_pass", exact_args(kind, loss, rows, cols, outputs, weighted=True))


@pytest.mark.parametrize("loss, outputs", [("squared", 3), ("logistic", 1), ("softmax", 10)])
def test_loss_terms(loss: str, outputs: int) -> None:
    same_loss_terms(loss, outputs, 70_001)


def same_loss_terms(loss: str, outputs: int, rows: int) -> None:
    z, moved, score = torch.randn(3, outputs, rows, generator=torch.Generator().manual_seed(1))
    y, length = targets(loss, rows, outputs).T.float().contiguous(), torch.rand(outputs)
    weight, out = torch.rand(rows), torch.zeros(outputs, rows)
    check("_loss_terms", (z, y, weight, None, None, None, loss, out))
    check("_loss_terms", (z, y, weight, 1e-3 * moved, score, length, loss, out))


@pytest.mark.parametrize("form", ["z8", "z16", "x16"])
@pytest.mark.parametrize(
    "loss, outputs, cols",
    [("squared", 1, 100), ("logistic", 1, 3000), ("softmax", 10, 784), ("squared", 1, 20_000),
     ("softmax", 300, 64)],
)  # fmt: skip
def test_halp_epoch(form: str, loss: str, outputs: int, cols: int) -> None:
    for hot in (0.02, 1.5):
        check("_halp_epoch", halp_args(form, loss, outputs, cols, 700, hot, refresh=64))


@pytest.mark.parametrize(
    "loss, outputs, cols",
    [("squared", 1, 100), ("logistic", 1, 3000), ("softmax", 10, 784), ("squared", 2, 20_000)],
)
def test_svrg_epoch(loss: str, outputs: int, cols: int) -> None:
    check("_svrg_epoch", svrg_args(loss, outputs, cols, 700))


@pytest.mark.parametrize("batch", [2, 64, 1000])
@pytest.mark.parametrize(
    "loss, outputs, cols", [("squared", 1, 1024), ("logistic", 1, 3000), ("softmax", 10, 784)]
)
def test_inner_epochs_of_batches(loss: str, outputs: int, cols: int, batch: int) -> None:
    for form in ("z8", "z16", "x16"):
        for hot in (0.02, 1.5):
            check(
                "_halp_epoch",
                halp_args(form, loss, outputs, cols, 100, hot, refresh=16, batch=batch),
            )
    check("_svrg_epoch", svrg_args(loss, outputs, cols, 100, batch=batch))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_rows_in_the_units_of_a_solver(kind: torch.dtype) -> None:
    same_rows(kind, 1000)


def same_rows(kind: torch.dtype, rows: int) -> None:
    x, mean = rows_of(kind, rows, 130), torch.linspace(-1, 1, 130).double()
    squares = torch.zeros(rows, dtype=torch.float64)
    for code, top in [(torch.int8, 127.0), (torch.int16, 32767.0), (torch.float32, 0.0)]:
        codes = torch.zeros(rows, 192, dtype=code)
        check("_grid_rows", (x, mean, 20 + mean, top, codes, squares))
    picked = torch.randint(0, rows, (300,), generator=torch.Generator().manual_seed(2))
    check("_scale_rows", (x, picked, mean, 2 + mean, torch.zeros(300, 130)))


def test_small_passes_and_rows() -> None:
    """Under compute-sanitizer too."""
    for kind in KINDS:
        check("_exact_pass", exact_args(kind, "squared", 130, 70, 2, weighted=True))
    for loss, outputs in (("logistic", 1), ("softmax", 3)):
        check("_exact_pass", exact_args(torch.float32, loss, 130, 70, outputs, weighted=False))
    same_loss_terms("softmax", 3, 1100)
    same_rows(torch.float32, 37)


@pytest.mark.parametrize("cols", [70, 13_000])
def test_small_inner_epochs(cols: int) -> None:
    """Under compute-sanitizer too; the larger ones leave shared memory."""
    for form in ("z8", "x16"):
        check("_halp_epoch", halp_args(form, "squared", 1, cols, 40, 0.3, refresh=16))
    check("_svrg_epoch", svrg_args("squared", 1, cols, 40))
    if cols < 100:
        check("_halp_epoch", halp_args("z16", "softmax", 3, cols, 40, 0.3, refresh=16))
        check("_svrg_epoch", svrg_args("softmax", 3, cols, 40))


@pytest.mark.parametrize("batch", [10, 150])
def test_small_inner_epochs_of_batches(batch: int) -> None:
    """Under compute-sanitizer too."""
    for form, loss, outputs in [("z8", "squared", 1), ("z16", "softmax", 3), ("x16", "squared", 2)]:
        check("_halp_epoch", halp_args(form, loss, outputs, 130, 6, 0.3, refresh=2, batch=batch))
    check("_svrg_epoch", svrg_args("squared", 1, 130, 6, batch=batch))
    check("_svrg_epoch", svrg_args("softmax", 3, 130, 6, batch=batch))


CASES = {
    "_exact_pass": exact_args(torch.float32, "squared", 3000, 90, 2, weighted=False),
    "_halp_epoch": halp_args("z8", "logistic", 1, 100, 200, 0.3),
    "_svrg_epoch": svrg_args("softmax", 3, 100, 200),
    "_halp_epoch of batches": halp_args("z8", "softmax", 3, 100, 20, 0.3, batch=150),
    "_svrg_epoch of batches": svrg_args("softmax", 3, 100, 20, batch=150),
}


def op_of(case: str) -> Any:
    return getattr(ops, case.split()[0])


@pytest.mark.parametrize("name", CASES)
def test_captured_in_a_graph(name: str) -> None:
    """Nothing waits for the GPU: a graph holds the op and gives its bits again."""
    op, args = op_of(name), on_gpu(CASES[name])
    warm = [a.clone() if isinstance(a, Tensor) else a for a in args]
    op(*warm)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        op(*args)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(tensors(args), tensors(warm), strict=True):
        assert same_bits(a.cpu(), b.cpu())


@pytest.mark.parametrize("name", CASES)
def test_on_another_stream(name: str) -> None:
    want = copy.deepcopy(CASES[name])
    op_of(name)(*want)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        args = on_gpu(CASES[name])
        op_of(name)(*args)
    stream.synchronize()
    for a, b in zip(tensors(args), tensors(want), strict=True):
        assert same_bits(a.cpu(), b)


def test_tensors_elsewhere_are_named() -> None:
    args = on_gpu(CASES["_exact_pass"])
    args[1] = args[1].cpu()
    with pytest.raises(RuntimeError, match="_exact_pass: w must be on the device of x"):
        ops._exact_pass(*args)


@pytest.mark.parametrize("solver", ["halp", "svrg"])
@pytest.mark.parametrize("loss", ["squared", "log_loss"])
def test_fits_on_tensors_there(solver: str, loss: str) -> None:
    """Encoded, solved and multiplied on the GPU, to the bits of the CPU."""
    x = rows_of(torch.float32, 3000, 40)
    labels = (
        x[:, :3].sum(1) + torch.randn(3000, generator=torch.Generator().manual_seed(4)) > 0
    ).long()
    model = SGDClassifier(loss, solver=solver, max_iter=2, random_state=0)
    cpu = clone(model).fit(x, labels)
    there = clone(model).set_params(device="cuda").fit(x.cuda(), labels.cuda())
    assert there.coef_.tolist() == cpu.coef_.tolist()
    assert there.loss_curve_ == cpu.loss_curve_
    np.testing.assert_allclose(
        there.decision_function(x.cuda()), cpu.decision_function(x), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    "model", [Ridge(bits=3), LogisticRegression(bits=3)], ids=["ridge", "logistic"]
)
def test_exact_models_on_tensors_there(model: Any) -> None:
    x = rows_of(torch.float32, 3000, 40)
    y = (x[:, :3].sum(1) > 0.3).long()
    cpu = clone(model).fit(x, y)
    there = clone(model).set_params(device="cuda").fit(x.cuda(), y.cuda())
    np.testing.assert_allclose(there.coef_, cpu.coef_, rtol=1e-4, atol=1e-4)
