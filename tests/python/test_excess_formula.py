"""Theory of training on one fixed stochastic draw: closed forms for the excess of its fixed points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchext.data._encode import Encoder, unpack_codes
from torchext.data._levels import codebook, grid_values
from torchext.random import key_from_seed

ROWS, COLS, BITS = 20_000, 90, 3


def uniform_problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scaled columns uniform on [-1, 1] and centred targets: standardised A x plus 0.3 noise."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (ROWS, COLS)).astype(np.float32)
    signal = a @ rng.standard_normal(COLS)
    y = signal / signal.std() + 0.3 * rng.standard_normal(ROWS)
    return a, y - y.mean()


def draw(a: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One stochastic draw of every value: (decoded values, mean v per column, mean (q-a)^2 per column)."""
    x = torch.from_numpy(a)
    book = codebook(BITS, "stochastic", lo=x.min(0).values, hi=x.max(0).values)
    zero, one = torch.zeros(COLS, dtype=torch.float64), torch.ones(COLS, dtype=torch.float64)
    encoder = Encoder(zero, one, book, key_from_seed(seed))
    packed = encoder.add(x)
    codes = unpack_codes(packed, ROWS, COLS, BITS)
    q = grid_values(book.grid, codes.T.contiguous()).T.double().numpy()
    noise = encoder.finish().noise
    return q, noise[1].numpy(), noise[0].numpy()


def loss(a: np.ndarray, y: np.ndarray, x: np.ndarray) -> float:
    return float(np.mean((a @ x - y) ** 2))


@pytest.mark.slow
def test_excess_of_the_corrected_estimator_follows_the_formula() -> None:
    """E F - F* = (F* W + n S + S W)/K for theta = 1 and noise below every eigenvalue of the Gram."""
    measured, predicted = [], []
    for seed in range(20):
        a32, y = uniform_problem(seed)
        a = a32.astype(np.float64)
        gram, rhs = a.T @ a / ROWS, a.T @ y / ROWS
        best = np.linalg.solve(gram, rhs)
        floor = loss(a, y, best)
        q, v, squared_error = draw(a32, seed)
        corrected = np.linalg.solve(q.T @ q / ROWS - np.diag(squared_error), q.T @ y / ROWS)
        s, w = float(v @ best**2), float(np.diag(np.linalg.inv(gram)) @ v)
        measured.append(loss(a, y, corrected) / floor - 1)
        predicted.append((floor * w + COLS * s + s * w) / ROWS / floor)
    assert np.mean(measured) == pytest.approx(np.mean(predicted), rel=0.2)


def test_naive_draw_is_an_unwanted_ridge() -> None:
    """On the expected Gram G0 + diag(v) the excess is x*' D (G0+D)^-1 G0 (G0+D)^-1 D x*, exactly."""
    a32, y = uniform_problem(3)
    a = a32.astype(np.float64)
    _, v, _ = draw(a32, 3)
    gram, rhs = a.T @ a / ROWS, a.T @ y / ROWS
    best = np.linalg.solve(gram, rhs)
    moved = np.linalg.solve(gram + np.diag(v), rhs)
    step = np.linalg.solve(gram + np.diag(v), v * best)
    excess = loss(a, y, moved) - loss(a, y, best)
    assert excess == pytest.approx(float(step @ gram @ step), rel=1e-9)
    assert excess > 0.01 * loss(a, y, best)  # the bias is no rounding error
