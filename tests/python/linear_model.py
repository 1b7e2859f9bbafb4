"""Reference model of the training epoch in numpy, written from the formulas, in float64.

One step on the decoded rows Q_B of a batch with B rows (theta D = ``shrink``, h or mu = ``constant``):

    e = w l'(Q_B x + b, y)                      or, variance reduced, e = w (Q_B (x - x0))
    g = Q_B^T e / B + constant - shrink (x - x0) + l2 x
    x <- x - gamma g, then sign(x) max(|x| - gamma l1, 0);   b <- b - gamma mean(e) if trained

Roundings (model copy, residual, gradient) are unbiased and are left out: the op is compared at 32 bits.
"""

from __future__ import annotations

import numpy as np


def slope(z: np.ndarray, y: np.ndarray, loss: str) -> np.ndarray:
    return z - y if loss == "squared_error" else -y / (1 + np.exp(y * z))


def value(z: np.ndarray, y: np.ndarray, loss: str) -> np.ndarray:
    return 0.5 * (z - y) ** 2 if loss == "squared_error" else np.logaddexp(0, -y * z)


def epoch(
    q, y, x, intercept, order, gamma, *, batch, loss="squared_error", weight=None, z0=None, x0=None,
    constant=None, shrink=None, average=None, l1=0.0, l2=0.0, variance_reduced=False, fit_intercept=False,
    second=None,
):  # fmt: skip
    """Train on decoded rows q (K, n); x (m, n), intercept (m,) and average (m, n + 1) change in place.

    x0 and constant are (m, n), or (m, n + 1) with the intercept's entry last.

    ``second`` is the other draw of double sampling. Returns [loss sum, e^2 sum, rows] by output, as the op.
    """
    rows = len(q)
    sums = np.zeros((3, len(x)))
    base = np.zeros((len(x), q.shape[1] + 1))
    extra = base.copy()
    if x0 is not None:
        base[:, : x0.shape[1]] = x0
    if constant is not None:
        extra[:, : constant.shape[1]] = constant
    base, base_intercept = base[:, :-1], base[:, -1]
    for number, step in zip(order, gamma, strict=True):
        part = slice(number * batch, min(rows, (number + 1) * batch))
        w = 1.0 if weight is None else weight[part, None]
        pairs = [(q, q)] if second is None else [(q, second), (second, q)]
        gradient, slopes = np.zeros_like(x), np.zeros(len(x))
        for left, right in pairs:
            z = right[part] @ (x - base if variance_reduced else x).T
            if fit_intercept:
                z += intercept - base_intercept if variance_reduced else intercept
            if not variance_reduced:
                e, losses = w * slope(z, y[part], loss), w * value(z, y[part], loss)
            elif loss == "squared_error":
                e, losses = w * z, w * 0.5 * z**2
            else:
                e = w * (slope(z + z0[part], y[part], loss) - slope(z0[part], y[part], loss))
                losses = w * value(z + z0[part], y[part], loss)
            gradient += e.T @ left[part] / (len(z) * len(pairs))
            slopes += e.mean(0) / len(pairs)
            sums += np.stack([losses.sum(0), (e**2).sum(0), np.full(len(x), len(z))]) / len(pairs)
        gradient += extra[:, :-1]
        gradient -= 0.0 if shrink is None else shrink * (x - base)
        gradient += l2 * x
        x -= step * gradient
        x[...] = np.sign(x) * np.maximum(np.abs(x) - step * l1, 0.0)
        if fit_intercept:
            intercept -= step * (slopes + extra[:, -1])
        if average is not None:
            average += np.column_stack([x, intercept])
    return sums
