"""The exact side of the linear models on CUDA, in emulation: the bits of the CPU ops."""

from __future__ import annotations

import copy
from typing import Any

import emulation
import pytest
import torch
from exact_samples import exact_args, halp_args, rows_of, svrg_args, targets
from parity import same_bits, tensors
from torch import Tensor

emulation.load()


def both(name: str, *args: Any) -> tuple[list[Tensor], list[Tensor]]:
    """What the CPU op and the emulated CUDA op return and leave in their arguments."""
    found = []
    for library in (torch.ops.torchext, torch.ops.torchext_emulated):
        own = copy.deepcopy(args)
        found.append(tensors(getattr(library, name)(*own)) + tensors(own))
    return found[0], found[1]


def check(name: str, *args: Any) -> list[Tensor]:
    want, got = both(name, *args)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert same_bits(a, b)
    return got


@pytest.mark.parametrize(
    "kind, loss, rows, cols, outputs",
    [
        (torch.float32, "squared", 1100, 3, 1),
        (torch.float32, "logistic", 33, 200, 1),
        (torch.float64, "softmax", 50, 67, 10),
        (torch.int8, "squared", 65, 64, 3),
        (torch.int16, "logistic", 40, 9, 1),
        (torch.float32, "logistic", 1103, 5, 3),
        (torch.float32, "softmax", 1103, 2, 3),
        (torch.float32, "squared", 1, 1, 1),
        (torch.float32, "squared", 0, 5, 2),
        (torch.float64, "squared", 9, 0, 1),
    ],
)
def test_exact_pass(kind: torch.dtype, loss: str, rows: int, cols: int, outputs: int) -> None:
    for weighted in (False, True):
        check("_exact_pass", *exact_args(kind, loss, rows, cols, outputs, weighted))


def test_exact_pass_of_strided_rows_and_scores() -> None:
    x, w, offset, y, _, loss, _, g, total = exact_args(
        torch.float32, "squared", 40, 30, 2, weighted=False
    )
    check("_exact_pass", x[:, :20], w[:, :20].contiguous(), offset, y, None, loss,
          torch.zeros(2, 90)[:, 7:47], g[:, :21].contiguous(), total)  # fmt: skip


def test_exact_pass_of_an_unknown_class_is_nan() -> None:
    """The CPU op refuses it; on the GPU nobody may wait to look."""
    args = list(exact_args(torch.float32, "softmax", 5, 4, 3, weighted=False))
    args[3][2] = 3.0
    torch.ops.torchext_emulated._exact_pass(*args)
    assert args[8].isnan().all() and args[7].isnan().any()
    assert torch.isfinite(args[6]).all()


@pytest.mark.parametrize(
    "loss, rows, outputs",
    [("squared", 1030, 2), ("logistic", 90, 1), ("softmax", 1041, 3), ("softmax", 7, 40),
     ("squared", 0, 1)],
)  # fmt: skip
@pytest.mark.parametrize("move", ["none", "moved", "along"])
def test_loss_terms(loss: str, rows: int, outputs: int, move: str) -> None:
    generator = torch.Generator().manual_seed(4)
    z, moved, score = torch.randn(3, outputs, rows, generator=generator)
    y = targets(loss, rows, outputs).T.float().contiguous()
    length = torch.linspace(0.1, 2.0, outputs)
    for weight in (None, torch.linspace(0.5, 1.5, rows)):
        for size in (1e-4, 3.0):
            check(
                "_loss_terms", z, y, weight, None if move == "none" else size * moved,
                score if move == "along" else None, length if move == "along" else None, loss,
                torch.zeros(outputs, rows),
            )  # fmt: skip
    check("_loss_terms", torch.cat([z, z], dim=1)[:, :rows], y, None, None, None, None, loss, None)


@pytest.mark.parametrize("hot", [0.002, 1.5])
@pytest.mark.parametrize(
    "form, loss, outputs, cols",
    [
        ("z8", "squared", 1, 67), ("z8", "logistic", 1, 256), ("z8", "softmax", 3, 130),
        ("z16", "logistic", 1, 64), ("z16", "squared", 2, 70), ("x16", "squared", 1, 33),
        ("x16", "softmax", 5, 65),
    ],
)  # fmt: skip
def test_halp_epoch(form: str, loss: str, outputs: int, cols: int, hot: float) -> None:
    out = check("_halp_epoch", *halp_args(form, loss, outputs, cols, 70, hot))
    z, _, clips, gammas, _ = out[-5:]
    assert z.any() and (hot < 1 or gammas.any())
    assert (int(clips[0]) > 7) == (hot > 1)


@pytest.mark.parametrize(
    "more",
    [
        {"steps": 0}, {"steps": 1}, {"refresh": 0}, {"noise": "nearest"}, {"intercept": False},
        {"weighted": False}, {"cols": 1}, {"cols": 1030, "outputs": 4, "steps": 12},
        {"form": "z16", "outputs": 200, "cols": 3, "steps": 6},
        {"form": "x16", "cols": 9000, "steps": 6},
    ],
    ids=str,
)  # fmt: skip
def test_halp_epoch_edges(more: dict[str, Any]) -> None:
    """Short runs, options, several warps an output, many outputs, and rows beyond shared memory."""
    how: dict[str, Any] = {
        "form": "z8", "loss": "squared", "outputs": 1, "cols": 70, "steps": 40, "hot": 0.3,
    } | more  # fmt: skip
    check("_halp_epoch", *halp_args(**how))


@pytest.mark.parametrize(
    "loss, outputs, cols, steps, intercept, weighted",
    [
        ("squared", 1, 67, 70, True, True), ("logistic", 1, 64, 70, True, False),
        ("softmax", 3, 130, 70, True, True), ("squared", 2, 1, 20, False, False),
        ("softmax", 6, 65, 12, False, True), ("squared", 1, 6000, 4, True, True),
        ("squared", 20, 900, 3, True, True), ("logistic", 1, 5, 0, True, True),
    ],
)  # fmt: skip
def test_svrg_epoch(
    loss: str, outputs: int, cols: int, steps: int, intercept: bool, weighted: bool
) -> None:
    check("_svrg_epoch", *svrg_args(loss, outputs, cols, steps, intercept, weighted))


@pytest.mark.parametrize("batch", [2, 7, 150])
@pytest.mark.parametrize("hot", [0.02, 1.5])
@pytest.mark.parametrize(
    "form, loss, outputs, cols",
    [
        ("z8", "squared", 1, 67), ("z8", "softmax", 3, 130), ("z16", "logistic", 1, 600),
        ("z16", "squared", 10, 70), ("x16", "squared", 1, 300), ("x16", "softmax", 5, 65),
    ],
)  # fmt: skip
def test_halp_epoch_of_batches(
    form: str, loss: str, outputs: int, cols: int, hot: float, batch: int
) -> None:
    """Batches that are no multiple of four rows, and of several slices; two drifts."""
    args = halp_args(form, loss, outputs, cols, 4, hot, refresh=3, batch=batch)
    z, end, clips, gammas, _ = check("_halp_epoch", *args)[-5:]
    assert z.any() and (hot < 1 or (end.any() and gammas.any()))
    assert (int(clips[0]) > 7) == (hot > 1)


@pytest.mark.parametrize(
    "more",
    [
        {"steps": 0}, {"steps": 1}, {"refresh": 0}, {"noise": "nearest"}, {"intercept": False},
        {"weighted": False}, {"cols": 1}, {"form": "z16", "outputs": 40, "cols": 3, "batch": 5},
        {"form": "x16", "cols": 5000, "steps": 2}, {"batch": 128, "intercept": False},
    ],
    ids=str,
)  # fmt: skip
def test_halp_epoch_of_batches_edges(more: dict[str, Any]) -> None:
    how: dict[str, Any] = {
        "form": "z8", "loss": "squared", "outputs": 1, "cols": 70, "steps": 9, "hot": 0.3,
        "batch": 50,
    } | more  # fmt: skip
    check("_halp_epoch", *halp_args(**how))


@pytest.mark.parametrize("batch", [2, 64, 65, 200])
@pytest.mark.parametrize(
    "loss, outputs, cols, intercept, weighted",
    [
        ("squared", 1, 67, True, True), ("logistic", 1, 400, True, False),
        ("softmax", 3, 130, True, True), ("squared", 10, 1, False, False),
    ],
)  # fmt: skip
def test_svrg_epoch_of_batches(
    loss: str, outputs: int, cols: int, intercept: bool, weighted: bool, batch: int
) -> None:
    """One slice of the rows, which is a chain of sums, and several."""
    for steps in (0, 1, 4):
        args = svrg_args(loss, outputs, cols, steps, intercept, weighted, batch)
        z = check("_svrg_epoch", *args)[-3 if intercept else -2]
        assert z.any() == (steps > 0)


def test_svrg_intercept_of_many_rows() -> None:
    """What they take from the intercept is read 1024 at a time."""
    check("_svrg_epoch", *svrg_args("squared", 2, 5, 2, batch=2500))


def test_coefficients_of_large_batches() -> None:
    """They have the range that keeps sums in 32 bits."""
    for form in ("z16", "x16"):
        out = check("_halp_epoch", *halp_args(form, "squared", 1, 3, 2, 1.5, batch=1024))
        assert int(out[-3][1]) > 8, "no coefficient was clipped"


def test_misaligned_displacement_is_refused_with_batches() -> None:
    args = list(halp_args("z8", "squared", 1, 64, 3, 0.3, batch=4))
    args[13] = torch.zeros(67, dtype=torch.int8)[3:].view(1, 64)
    with pytest.raises(RuntimeError, match="z must start at a multiple of 16 bytes with batch > 1"):
        torch.ops.torchext_emulated._halp_epoch(*args)


def test_misaligned_rows() -> None:
    args = list(halp_args("z8", "squared", 1, 64, 5, 0.3))
    storage = torch.zeros(args[0].numel() + 3, dtype=torch.int8)
    rows = storage[3:].view(args[0].shape)
    rows.copy_(args[0])
    want = check("_halp_epoch", *args)
    args[0] = rows
    got = copy.deepcopy(args[1:])
    torch.ops.torchext_emulated._halp_epoch(rows, *got)
    assert same_bits(tensors(got)[-5], want[-5])


def test_errors_are_those_of_the_cpu() -> None:
    """Argument checks are shared."""
    halp = list(halp_args("z8", "squared", 1, 64, 5, 0.3))
    for place, value, text in [
        (5, -1.0, "alpha must be positive"), (12, "fair", "noise must be step or nearest"),
        (1, torch.zeros(1, 3), "phi must have shape"), (8, 0.0, "dz must be positive"),
    ]:  # fmt: skip
        args = [*halp[:place], value, *halp[place + 1 :]]
        for library in (torch.ops.torchext, torch.ops.torchext_emulated):
            with pytest.raises(RuntimeError, match=f"torchext::_halp_epoch: {text}"):
                library._halp_epoch(*args)
    exact = list(exact_args(torch.float32, "squared", 5, 4, 1, weighted=False))
    exact[5] = "hinge"
    for library in (torch.ops.torchext, torch.ops.torchext_emulated):
        with pytest.raises(RuntimeError, match="_exact_pass: loss must be squared"):
            library._exact_pass(*exact)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows, cols", [(9, 70), (33, 3), (0, 5), (1, 1)])
def test_rows_on_a_grid(kind: torch.dtype, rows: int, cols: int) -> None:
    x = rows_of(kind, rows, cols + 2)[:, :cols]
    mean, inverse = torch.linspace(-1, 1, cols).double(), torch.linspace(20, 40, cols).double()
    squares = torch.zeros(rows, dtype=torch.float64)
    for code, top in [
        (torch.int8, 127.0), (torch.int16, 100.5), (torch.float32, 32767.0), (torch.float32, 0.0),
    ]:  # fmt: skip
        codes = torch.zeros(rows, cols + 5, dtype=code)
        check("_grid_rows", x, mean, inverse, top, codes, squares)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_scaled_rows(kind: torch.dtype) -> None:
    x, mean = rows_of(kind, 20, 40)[:, 3:38], torch.linspace(-1, 1, 35).double()
    scale = torch.linspace(0.5, 2, 35).double()
    check("_scale_rows", x, None, mean, scale, torch.zeros(20, 35))
    check("_scale_rows", x, torch.tensor([3, 3, 19, 0]), mean, scale, torch.zeros(4, 35))
    out = torch.zeros(3, 35)
    torch.ops.torchext_emulated._scale_rows(x, torch.tensor([1, 20, -1]), mean, scale, out)
    assert torch.isfinite(out[0]).all() and out[1:].isnan().all()
