"""Inner epochs of HALP and SVRG: integers exactly as the big-integer model, any instruction set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from halp_model import FORMATS, Epoch, padded, problem_p, unit, words
from torch import Tensor
from torch.testing._internal.optests import opcheck

from torchext import _testing
from torchext.random import fold_in, key_from_seed

ops = torch.ops.torchext


def call(
    epoch: Epoch, phi: Tensor, loss: str, weight: Tensor | None = None, noise: str = "step"
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """z (C, n), the intercept's z, clips and coefficients of the kernel in use."""
    data, moved, *_ = FORMATS[epoch.form]
    outputs, n = len(epoch.alpha_g), epoch.codes.shape[1]
    x = padded(epoch.codes, data)
    z = torch.full((outputs, x.shape[1]), 5, dtype=moved)
    end = torch.full((outputs,), 5, dtype=torch.int32) if epoch.intercept else None
    clips = torch.zeros(3, dtype=torch.int64)
    gammas = torch.zeros(epoch.steps * epoch.batch, outputs, dtype=torch.int32)
    ops._halp_epoch(
        x, phi, weight, loss, torch.from_numpy(epoch.alpha_g), epoch.alpha, epoch.l2, epoch.dx, epoch.dz,
        epoch.steps, epoch.batch, epoch.refresh, noise, z, end, clips, gammas, epoch.key, epoch.stream,
    )  # fmt: skip
    assert not z[:, n:].any()
    return z[:, :n], end, clips, gammas


def random_epoch(
    form: str, outputs: int, cols: int, intercept: bool, hot: float, batch: int = 1
) -> Epoch:
    """``hot`` scales the steps: above 1, everything saturates."""
    rng = np.random.default_rng(cols + outputs)
    top = 32767 if form == "x16" else 127
    codes = rng.integers(-top, top + 1, (50, cols))
    shift, high = FORMATS[form][5], FORMATS[form][4]
    dz, dx = 0.01, 1.0 / top
    g = rng.normal(size=(outputs, cols + 1)) * hot * high * (dz / 2**shift)
    return Epoch(
        codes, form, g, 0.05 * hot, 0.1, dx, dz, 70, 32, intercept, key_from_seed(cols), 3, batch
    )


@pytest.mark.parametrize("hot", [0.02, 1.5])
@pytest.mark.parametrize(
    "form, outputs, cols, intercept, loss, batch",
    [
        ("z8", 1, 67, False, "squared", 1),
        ("z8", 1, 1, True, "logistic", 1),
        ("z8", 3, 130, True, "softmax", 1),
        ("z16", 1, 64, True, "logistic", 1),
        ("z16", 2, 70, False, "squared", 1),
        ("x16", 1, 33, True, "squared", 1),
        ("x16", 3, 65, False, "softmax", 1),
        ("z8", 2, 67, True, "squared", 2),
        ("z8", 3, 130, False, "softmax", 5),
        ("z16", 1, 33, True, "squared", 700),
        ("z16", 1, 65, False, "logistic", 3),
        ("x16", 2, 70, True, "squared", 7),
    ],
)
def test_integers_are_exact(
    form: str, outputs: int, cols: int, intercept: bool, loss: str, batch: int, hot: float
) -> None:
    epoch = random_epoch(form, outputs, cols, intercept, hot, batch)
    phi = torch.randn(outputs, 50, generator=torch.Generator().manual_seed(1))
    weight = torch.linspace(0.5, 1.5, 50)
    found = {}
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if there:
                found[isa] = call(epoch, phi, loss, weight)
    z, end, clips, gammas = found["ref"]
    for other in found.values():
        for ours, theirs in zip(found["ref"], other, strict=True):
            assert ours is None or torch.equal(ours, theirs)
    model_z, model_end, model_clips, products = epoch.replay(gammas.numpy())
    assert np.array_equal(z.numpy(), model_z)
    assert end is None or np.array_equal(end.numpy(), model_end)
    assert [int(clips[0]), int(clips[2])] == model_clips
    assert (min(model_clips) > 0) == (hot > 1)
    if loss == "squared":  # the coefficients too, one float32 operation at a time
        _, _, _, most, high, shift = FORMATS[form]
        data = 32767 if form == "x16" else 127
        most = min(most, (2**31 - 1 - high - 2**25) // (batch * data))
        factor = np.float32(epoch.alpha * epoch.dx / (batch * (epoch.dz / 2**shift)))
        for i in range(epoch.steps * batch):
            row = (words(epoch.key, 4, i, 1, 3)[0] * 50) >> 32
            for c in range(outputs):
                moved = np.float32(epoch.dx * epoch.dz * float(products[i, c]))
                target = factor * (moved * np.float32(weight[row]))
                low = math.floor(target)
                drawn = unit(words(epoch.key, 1, i * outputs + c, 1, 3)[0])
                code = low + int(drawn < np.float32(target) - np.float32(low))
                assert int(gammas[i, c]) == max(-most, min(most, code))


def slope(loss: str, phi: np.ndarray) -> np.ndarray:
    if loss == "logistic":
        return 1.0 / (1.0 + np.exp(-phi))
    e = np.exp(phi - phi.max(axis=0))
    return np.asarray(e / e.sum(axis=0))


@pytest.mark.parametrize("loss, outputs", [("logistic", 1), ("softmax", 4)])
@pytest.mark.parametrize("size", [1e-9, 1e-6, 1e-2, 1.0, 30.0])
def test_changes_of_the_slope_do_not_cancel(loss: str, outputs: int, size: float) -> None:
    """One step with a known product: gamma is the change in units so small that its rounding is nothing."""
    rng = np.random.default_rng(3)
    phi = rng.normal(size=(outputs, 1)) * 3.0
    drift = np.zeros((outputs, 2))
    drift[:, 0] = -rng.uniform(0.3, 1.0, outputs) * 32000 / 256
    form, dz = "z16", 1.0
    dx = size / (127 * 120)
    # alpha_g moves z in the first step; the second step then sees the product 127 z.
    base = {
        "codes": np.full((1, 1), 127),
        "form": form,
        "alpha_g": drift,
        "l2": 0.0,
        "dx": dx,
        "dz": dz,
    }
    rest = {"steps": 2, "refresh": 0, "intercept": False, "key": key_from_seed(0)}
    probe = call(
        Epoch(alpha=1e-30, **base, **{**rest, "steps": 1}), torch.from_numpy(phi).float(), loss
    )
    s = dx * dz * 127.0 * probe[0].numpy().astype(np.float64)
    p = np.longdouble(1) * phi.astype(np.float32)
    exact = (slope(loss, p + s) - slope(loss, p)).astype(np.float64)
    if size <= 1e-6:  # the first order, which long double differences no longer show
        at = slope(loss, p).astype(np.float64)
        exact = at * (1 - at) * s if loss == "logistic" else at * (s - (at * s).sum(axis=0))
    alpha = 20000.0 / np.abs(exact).max() / (256.0 * dx / dz)
    gammas = call(Epoch(alpha=alpha, **base, **rest), torch.from_numpy(phi).float(), loss)[3]
    assert np.allclose(gammas[1].numpy() / 20000.0, (exact / np.abs(exact).max())[:, 0], atol=2e-4)


def solve(
    seed: int,
    form: str,
    mu: float,
    epochs: int,
    noise: str = "step",
    l2: float = 0.0,
    alpha: float = 1e-3,
    batch: int = 1,
) -> list[float]:
    """Gradient norms of problem P; form "f32" is SVRG."""
    codes, y, dx = problem_p(seed)
    rows, n = codes.shape
    data, moved, top, *_ = FORMATS.get(form, (torch.float32, torch.float32, 1, 0, 0, 0))
    x, w = padded(codes, data), torch.zeros(1, n, dtype=torch.float64)
    targets = torch.from_numpy(y).reshape(-1, 1)
    key, clips = fold_in(key_from_seed(seed + 1), 1), torch.zeros(3, dtype=torch.int64)
    norms = []
    for epoch in range(epochs + 1):
        phi, g = torch.empty(1, rows), torch.zeros(1, n + 1, dtype=torch.float64)
        total = torch.zeros(1, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        ops._exact_pass(x[:, :n], w * dx, zero, targets, None, "squared", phi, g, total)
        g = g * dx / rows
        g[:, :n] += l2 * w
        g[:, n] = 0.0
        norms.append(float(g.norm()))
        z = torch.empty(1, x.shape[1], dtype=moved)
        args: tuple[Any, ...] = (x, phi, None, "squared", alpha * g, alpha, l2, dx)
        dz = norms[-1] / (mu * top)
        if form == "f32":
            ops._svrg_epoch(*args, 1.0, 2000 // batch, batch, z, None, fold_in(key, epoch))
            dz = 1.0
        else:
            rest = (2000 // batch, batch, 64, noise, z, None, clips, None)
            ops._halp_epoch(*args, dz, *rest, fold_in(key, epoch))
        w = w + dz * z[:, :n].double()
    return norms


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_problem_p(seed: int) -> None:
    """8 bits reach what float64 reaches; as fast as SVRG to within a quarter."""
    halp, svrg = solve(seed, "z8", 1.5, 60), solve(seed, "f32", 1.0, 60)
    wide = solve(seed, "z16", 1.5, 60)
    assert halp[-1] <= 1e-12 and wide[-1] <= 1e-12 and svrg[-1] <= 1e-10

    def epochs(norms: list[float]) -> int:
        return next(i for i, norm in enumerate(norms) if norm <= 1e-6 * norms[0])

    assert epochs(wide) <= epochs(svrg) + 1
    assert epochs(solve(seed, "z8", 2.0, 25)) <= 1.25 * epochs(svrg)


@pytest.mark.parametrize("form, mu", [("z8", 1.5), ("z16", 1.5), ("f32", 1.0)])
@pytest.mark.parametrize("batch, alpha", [(2, 2e-3), (16, 1.2e-2), (100, 6e-2)])
def test_mini_batches_reach_the_same(form: str, mu: float, batch: int, alpha: float) -> None:
    """As many rows an epoch, and steps that grow with the batch."""
    assert solve(0, form, mu, 60, batch=batch, alpha=alpha)[-1] <= 1e-11


@pytest.mark.parametrize("mu", [1.0, 3.0, 6.0])
def test_nearest_rounding_never_moves(mu: float) -> None:
    norms = solve(0, "z8", mu, 5, noise="nearest")
    assert norms == norms[:1] * 6


def wide_problem(refresh: int, mu: float) -> float:
    """Gradient norm after 12 epochs with 1,000 columns, start about 570."""
    r = np.random.default_rng(0)
    X = r.standard_normal((3000, 1000))
    w0 = np.zeros(1000)
    w0[:100] = r.uniform(0.0, 100.0, 100)
    y = X @ w0 + 10.0 * r.standard_normal(3000)
    dx = float(np.abs(X).max()) / 127
    codes = np.rint(X / dx)
    x, a, w = padded(codes, torch.int8), dx * codes, np.zeros(1000)
    key, clips = key_from_seed(1), torch.zeros(3, dtype=torch.int64)
    for epoch in range(12):
        g = a.T @ (a @ w - y) / 3000
        z = torch.empty(1, 1024, dtype=torch.int8)
        alpha_g = torch.from_numpy(np.append(1e-4 * g, 0.0)).reshape(1, -1)
        dz = float(np.linalg.norm(g)) / (mu * 127)
        ops._halp_epoch(
            x, torch.zeros(1, 3000), None, "squared", alpha_g, 1e-4, 0.0, dx, dz, 6000, 1, refresh, "step", z,
            None, clips, None, fold_in(key, epoch),
        )  # fmt: skip
        w += dz * z[0, :1000].numpy()
    return float(np.linalg.norm(a.T @ (a @ w - y) / 3000))


def test_drift_must_be_rounded_afresh() -> None:
    """Rounded once an epoch, the error of alpha g acts in one direction for all its steps."""
    once, often = wide_problem(0, 4.0), wide_problem(64, 4.0)
    assert often < 30 < 60 < once


def test_penalty() -> None:
    assert solve(0, "z8", 1.5, 60, l2=1.0)[-1] <= 1e-12


@pytest.mark.parametrize("batch", [1, 70])
def test_svrg_bits_do_not_depend_on_the_instruction_set(batch: int) -> None:
    runs = []
    for isa in _testing.ISAS:
        with _testing.isa(isa) as there:
            if there:
                runs.append(solve(0, "f32", 1.0, 5, l2=0.1, batch=batch))
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("kind", [torch.int8, torch.int16])
def test_exact_pass_on_codes(kind: torch.dtype) -> None:
    """The same sums as on the codes as float64, any instruction set, strided rows too."""
    x = torch.randint(-127, 128, (37, 91), dtype=kind)[:, :77]
    w, y = torch.randn(2, 77, dtype=torch.float64), torch.randn(37, 2, dtype=torch.float64)
    results = []
    for isa in _testing.ISAS:
        with _testing.isa(isa):
            for rows in (x, x.double()):
                z, g = torch.empty(2, 37), torch.zeros(2, 78, dtype=torch.float64)
                total = torch.zeros(1, dtype=torch.float64)
                ops._exact_pass(rows, w, torch.ones(2).double(), y, None, "squared", z, g, total)
                results.append((z, g, total))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck() -> None:
    epoch = random_epoch("z8", 1, 67, True, 0.1)
    x, phi = padded(epoch.codes, torch.int8), torch.zeros(1, 50)
    g, key = torch.from_numpy(epoch.alpha_g), epoch.key
    z, end = torch.zeros(1, 128, dtype=torch.int8), torch.zeros(1, dtype=torch.int32)
    clips, gammas = torch.zeros(3, dtype=torch.int64), torch.zeros(5, 1, dtype=torch.int32)
    args = (
        x,
        phi,
        None,
        "squared",
        g,
        0.1,
        0.0,
        0.01,
        0.01,
        5,
        1,
        64,
        "step",
        z,
        end,
        clips,
        gammas,
        key,
    )
    opcheck(ops._halp_epoch.default, args)
    args = (
        x.float(),
        phi,
        None,
        "squared",
        g,
        0.1,
        0.0,
        0.01,
        1.0,
        5,
        1,
        z.float(),
        end.float(),
        key,
    )
    opcheck(ops._svrg_epoch.default, args)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"x": torch.zeros(4, 63, dtype=torch.int8)}, "x must have shape"),
        ({"x": torch.zeros(4, 64)}, "x and z must be int8 and int8"),
        ({"phi": torch.zeros(1, 5)}, r"phi must have shape \(1, 4\), got \(1, 5\)"),
        ({"loss": "hinge"}, "loss must be squared, logistic or softmax, got hinge"),
        ({"alpha_g": torch.full((1, 3), math.nan).double()}, "alpha_g must be finite, got"),
        ({"alpha": 0.0}, "alpha must be positive, got 0"),
        ({"l2": 6.0}, "alpha \\* l2 must be below 0.5, got 0.6"),
        ({"l2": -1.0}, "l2 must be >= 0, got -1"),
        ({"dz": math.inf}, "dz must be positive, got inf"),
        ({"noise": "some"}, "noise must be step or nearest, got some"),
        ({"steps": -1}, "steps must be in"),
        ({"batch": 0}, "batch must be in"),
        ({"batch": 32769}, "batch must be in"),
        ({"z": torch.zeros(1, 32, dtype=torch.int8)}, r"z must have shape \(1, 64\)"),
        ({"clips": torch.zeros(2, dtype=torch.int64)}, "clips must have shape"),
        ({"weight": torch.zeros(3)}, "weight must have shape"),
    ],
)
def test_errors(change: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {
        "x": torch.zeros(4, 64, dtype=torch.int8), "phi": torch.zeros(1, 4), "weight": None,
        "loss": "squared", "alpha_g": torch.zeros(1, 3).double(), "alpha": 0.1, "l2": 0.0, "dx": 1.0,
        "dz": 1.0, "steps": 3, "batch": 1, "refresh": 64, "noise": "step",
        "z": torch.zeros(1, 64, dtype=torch.int8),
        "z_intercept": None, "clips": torch.zeros(3, dtype=torch.int64), "gammas": None,
        "key": key_from_seed(0),
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=f"torchext::_halp_epoch: {text}"):
        ops._halp_epoch(*(arguments | change).values())
