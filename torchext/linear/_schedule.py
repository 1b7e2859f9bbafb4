"""Step sizes: the automatic first step and the schedules.

The automatic step is half of the ceiling above which mini-batch SGD diverges,

.. math:: \\gamma_0 = 1 / (\\lambda_{max} + R_2 / B),

with :math:`\\lambda_{max}` of the decoded Gram matrix plus the ridge, and
:math:`R_2 = mean ||q||^4 / mean ||q||^2` over the decoded rows, which feels heavy tails that the
mean square would miss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Values from which a step size is computed.
STEP_VALUES = 1 << 24
SCHEDULES = ("auto", "constant", "linear", "epoch", "invscaling", "shift")


@dataclass(frozen=True)
class Schedule:
    """gamma_t of every step t of a run of ``total`` steps, ``per_epoch`` of them an epoch.

    ``constant`` gamma0; ``linear`` gamma0 for half of the run, then linearly down to 0; ``epoch``
    gamma0 / (epoch + 1); ``invscaling`` gamma0 / (t + 1)^power_t; ``shift`` 2^-s with s from gamma0
    rounded down to a power of two, one more every ``shift_every`` epochs.
    """

    kind: str
    per_epoch: int
    total: int
    power_t: float = 0.25
    shift_every: int = 5

    def gammas(self, gamma0: float, first: int, count: int) -> Tensor:
        """float64 (count,): the step sizes of steps first .. first + count - 1."""
        if self.kind == "constant":
            return torch.full((count,), gamma0, dtype=torch.float64)
        t = torch.arange(first, first + count, dtype=torch.float64)
        epoch = torch.div(t, self.per_epoch, rounding_mode="floor")
        if self.kind == "linear":
            half = self.total // 2
            left = (self.total - t) / max(1, self.total - half)
            return gamma0 * torch.clamp(left, max=1.0, min=0.0)
        if self.kind == "epoch":
            return gamma0 / (epoch + 1)
        if self.kind == "invscaling":
            return gamma0 / (t + 1) ** self.power_t
        first_shift = math.ceil(-math.log2(gamma0))  # "shift"
        return 2.0 ** -(first_shift + torch.div(epoch, self.shift_every, rounding_mode="floor"))


@dataclass(frozen=True)
class StepBound:
    """What the automatic step was computed from."""

    lmax: float
    r2: float
    step: float


def automatic_step(
    rows: Tensor,
    weight: Tensor | None,
    ridge: float,
    batch: int,
    curvature: float,
    *,
    intercept: bool = False,
    share: float = 1.0,
) -> StepBound:
    """gamma_0 from a sample of decoded rows.

    Args:
        rows: float32 (S, n) decoded rows in the units of the model.
        weight: sample weights of these rows (mean about 1), or None.
        ridge: L2 penalty, part of the curvature.
        batch: rows per step.
        curvature: largest second derivative of the loss: 1 squared, 1/4 logistic.
        intercept: whether an intercept, a column of ones, is trained too.
        share: factor on gamma_0; 2 is the ceiling.

    The result is rounded down to 8 significant bits, so that the last bits of a matrix product,
    which depend on threads and processor, cannot reach the model.
    """
    count, cols = rows.shape
    ones = 1.0 if intercept else 0.0
    norms, buffer = (
        torch.empty(count, dtype=torch.float64),
        torch.empty(min(count, 256), cols, dtype=torch.float64),
    )
    for at in range(0, count, 256):  # one buffer: fresh ones would scatter over the heap
        part = buffer[: min(256, count - at)].copy_(rows[at : at + 256]).square_()
        torch.sum(part, 1, out=norms[at : at + 256])
    norms += ones
    w = torch.ones(count, dtype=torch.float64) if weight is None else weight.double()
    mean_square, mean_fourth = float((w * norms).mean()), float((w * w * norms * norms).mean())
    if not mean_square > 0.0:
        return StepBound(0.0, 0.0, 1.0)
    lmax, r2 = largest_curvature(rows, w, ones), mean_fourth / mean_square
    return StepBound(lmax, r2, few_digits(share / (curvature * (lmax + r2 / batch) + ridge)))


def sample_rows(cols: int) -> int:
    """Rows that tell the step size: 16 a column in at most 64 MiB of float32, but 4,096 at least."""
    return max(4096, min(16 * cols, STEP_VALUES // cols))


def largest_curvature(rows: Tensor, weight: Tensor, unit: float) -> float:
    """Largest eigenvalue of the weighted mean of a a^T by power iteration, from below.

    Args:
        rows: float (S, n), the vectors a without the intercept's column.
        weight: (S,).
        unit: what every row has in that column, 0 for none.
    """
    count, cols = rows.shape
    v = torch.ones(cols, dtype=rows.dtype)
    b = torch.tensor(unit, dtype=rows.dtype)
    w, lmax = weight.to(rows.dtype) / count, 0.0
    for _ in range(20):
        norm = torch.sqrt(v.square().sum() + b * b).clamp_min(1e-30)
        v, b = v / norm, b / norm
        z = w * (rows @ v + b * unit)
        v, b = rows.T @ z, z.sum() * unit
        lmax = math.hypot(float(torch.linalg.vector_norm(v)), float(b))
    return lmax


def few_digits(step: float) -> float:
    """``step`` rounded down to 8 significant bits."""
    mantissa, exponent = math.frexp(step)
    return math.ldexp(math.floor(mantissa * 256) / 256, exponent)
