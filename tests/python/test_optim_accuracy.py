"""How far the optimizers get: noisy least squares, float32, automatic mu, and the theorem.

The complete table is ``python -m benchmarks.optim_accuracy``; here are as many epochs as decide it.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.optim_accuracy import T, run
from torchext.optim import HALP, LPSVRG, SVRG


def epochs_to(trace: np.ndarray, factor: float) -> int:
    """Epochs until the gradient norm is below ``factor`` times its start."""
    reached = np.flatnonzero(trace[0] <= factor * trace[0, 0])
    assert len(reached), f"not within {trace.shape[1] - 1} epochs: {trace[0, -1]:.2e}"
    return int(reached[0])


@pytest.mark.slow
def test_halp_goes_on_where_a_fixed_lattice_stops() -> None:
    """8 bits: as fast as SVRG up to a factor of 1.3 with automatic mu; LP-SVRG stays at its floor."""
    svrg = epochs_to(run(lambda p: SVRG(p, 1e-3, T, seed=3), 10), 1e-4)
    halp = epochs_to(run(lambda p: HALP(p, 1e-3, T, seed=3), 12), 1e-4)
    assert 7 <= svrg <= 10 and halp <= 1.3 * svrg
    floor = run(lambda p: LPSVRG(p, 1e-3, T, delta=0.8, bits=8, seed=3), 7)[0, -2:]
    assert (20 < floor).all() and (floor < 45).all()


@pytest.mark.slow
def test_one_spacing_for_four_tensors_is_as_good_as_for_one() -> None:
    """Problem P with its weights in four parameters: scope="global" has the spacing of the whole vector."""
    for mu in (1.5, "auto"):
        parts = run(lambda p, mu=mu: HALP(p, 1e-3, T, mu=mu, scope="global", seed=3), 8, tensors=4)
        whole = run(lambda p, mu=mu: HALP(p, 1e-3, T, mu=mu, seed=3), 8)
        assert abs(epochs_to(parts, 1e-3) - epochs_to(whole, 1e-3)) <= 1


@pytest.mark.slow
def test_a_small_mu_diverges_and_a_large_one_only_clips() -> None:
    wild = run(lambda p: HALP(p, 1e-3, T, mu=0.2, seed=3), 4)[0]
    slow = run(lambda p: HALP(p, 1e-3, T, mu=6.0, seed=3), 4)[0]
    assert wild[-1] > 2 * wild[0]
    assert (np.diff(slow) < 0).all() and slow[-1] > 0.05 * slow[0]


@pytest.mark.slow
def test_float32_passes_the_point_where_steps_of_the_weights_vanish() -> None:
    """Offsets are stepped, not weights: 3e-5, where SVRG on float32 weights stalls at 1.5e-3."""
    trace = run(lambda p: HALP(p, 1e-3, T, mu=1.5, bits=16, seed=3), 16, dtype=torch.float32)
    assert trace[0, -2:].min() < 3e-5


def test_the_theorem_holds() -> None:
    """Option II, mu the true convexity, step and epoch as it says: f - f* shrinks by gamma or more."""
    r = np.random.default_rng(0)
    a, w = r.standard_normal((400, 20)), r.standard_normal(20)
    y = a @ w + 0.5 * r.standard_normal(400)
    smooth = float((a**2).sum(1).max())
    convex = float(np.linalg.eigvalsh(a.T @ a / 400)[0])
    kappa, gamma, bits, d, runs = smooth / convex, 0.9, 12, 20, 6
    lr, top = gamma / (4 * smooth * (1 + gamma)), 2 ** (bits - 1) - 1
    inner = 8 * kappa * (1 + gamma) / (gamma**2 - 2 * kappa**2 * d * (1 + gamma) / top**2)
    assert 60 < kappa < 70 and 1300 < inner < 1400
    x, target = torch.tensor(a), torch.tensor(y)
    params = [nn.Parameter(torch.zeros(d).double()) for _ in range(runs)]
    opt = HALP(
        params, lr, int(np.ceil(inner)), mu=convex, bits=bits, option="II", delta_floor=0.0, seed=5
    )
    views = [p.detach() for p in params]
    order = np.random.default_rng(1).integers(0, 400, (3 * opt.T, runs)).tolist()

    def value(v: torch.Tensor) -> float:
        return float(((x @ v - target) ** 2).mean() / 2)

    best = value(torch.linalg.lstsq(x, target[:, None]).solution[:, 0])

    def full() -> float:
        for p, v in zip(params, views, strict=True):
            p.grad = x.T @ (x @ v - target) / 400
        return 0.0

    gaps = []
    for epoch in range(3):
        opt.recenter([full])
        gaps.append(np.mean([value(v) - best for v in views]))
        for rows in order[epoch * opt.T : (epoch + 1) * opt.T]:

            def closure(rows: list[int] = rows) -> float:
                for p, v, i in zip(params, views, rows, strict=True):
                    p.grad = x[i] * (x[i].dot(v) - target[i])
                return 0.0

            opt.step(closure)
    opt.recenter([full])
    gaps.append(np.mean([value(v) - best for v in views]))
    assert all(after <= gamma * before for before, after in itertools.pairwise(gaps))
