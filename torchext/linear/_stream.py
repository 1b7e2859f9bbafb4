"""partial_fit: batches of rows that arrive one after another.

The first batch fixes mean, scale and levels of the columns (their range widened by 10 % at both ends);
later values outside are clamped and counted. No anchor, nearest (or stochastic) codes, one epoch per
call. Means drift, so unlike in ``fit`` an intercept is trained for squared losses too. A batch is encoded on
the GPU of the estimator if it fits there; what the first one fixed is in CPU memory, with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data import _column_levels, _encode, _levels
from torchext.data.sources import as_tensor, from_arrays
from torchext.linear import _device
from torchext.linear._problem import Problem
from torchext.linear._schedule import automatic_step
from torchext.linear._state import State
from torchext.linear._table import Table
from torchext.linear._trainer import Trainer
from torchext.random import key_from_seed


@dataclass
class Stream:
    """What the first batch fixed, and the training state that later batches move on."""

    mean: Tensor
    scale: Tensor
    bounds: Tensor
    book: _levels.Codebook | None
    unit: Tensor
    y_mean: Tensor
    key: Tensor
    bits: int
    state: State
    rows: int = 0
    clipped: int = 0

    @staticmethod
    def start(estimator: Any, X: Tensor, y: Tensor) -> Stream:
        """Statistics and levels from the first batch."""
        sums = _sums(X)
        mean, low, high = _encode.finish_stats(sums)[0], sums[2], sums[3]
        low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
        scale = torch.maximum(high - mean, mean - low)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        bounds = _encode.scaled_bounds(low, high, mean, scale)
        bits = int(estimator.bits or 4)
        sampling = "nearest" if estimator.sampling == "auto" else estimator.sampling
        if sampling not in ("nearest", "stochastic"):
            raise ValueError(
                f'partial_fit encodes with sampling "nearest" or "stochastic", got {sampling!r}; '
                "the others need sums over all the data: use fit"
            )
        book = None
        if bits != 32:

            def find(kind: str, count: int, shared: bool) -> Tensor:
                how = _column_levels.shared_levels if shared else _column_levels.column_levels
                return how(X, mean, scale, bounds, count, kind=kind).levels

            book = _levels.chosen_codebook(estimator.levels, bits, sampling, bounds, find)
        unit = torch.ones_like(mean)
        if estimator.scale == "none":
            unit = scale.clone()
        elif estimator.scale == "std":
            std = (_sums(X, mean)[4] / len(X)).sqrt() / scale
            unit = torch.where(std > 0, 1.0 / std.clamp_min(1e-300), unit)
        squares = estimator._loss_name() == "squared_error"
        y_mean = y.double().mean(0) if squares else torch.zeros(y.shape[1], dtype=torch.float64)
        state = State.start(torch.zeros(y.shape[1], X.shape[1]), torch.zeros(y.shape[1]), 0.0)
        if hasattr(estimator, "coef_"):  # go on from an earlier fit
            coef = torch.from_numpy(
                np.asarray(estimator.coef_, dtype=np.float64).reshape(y.shape[1], -1)
            )
            base = torch.from_numpy(np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1))
            state.x = (coef * scale / unit).float().contiguous()
            state.intercept = (base + coef @ mean - y_mean).float()
        key = key_from_seed(estimator._seed())
        return Stream(mean, scale, bounds, book, unit, y_mean, key, bits, state)

    def problem(self, loss: str, X: Tensor, y: Tensor, weight: Tensor | None) -> Problem:
        """Encode a batch with the frozen statistics."""
        rows, cols = X.shape
        targets = (y.double() - self.y_mean).float().contiguous()
        weights = None if weight is None else weight.float().contiguous()
        grid = (
            torch.stack([torch.zeros(cols), torch.ones(cols)], 1).double() * self.unit[:, None]
        ).float()
        table = torch.empty(0, dtype=torch.uint8)
        if self.book is None:
            mean, scale, unit = (t.to(X.device) for t in (self.mean, self.scale, self.unit))
            codes = torch.zeros(rows, 16 * -(-cols // 16), device=X.device)
            codes[:, :cols] = ((X.double() - mean) / scale).float() * unit.float()
        else:
            encoder = _encode.Encoder(
                self.mean, self.scale, self.book, self.key, bounds=self.bounds, device=X.device
            )
            size = _encode.layout_bytes(rows, cols, self.bits)
            codes = aligned_bytes(size, X.device)
            encoder.add(X, codes, None, None, row0=64 * -(-self.rows // 64))
            codes = codes.reshape(1, size)
            self.clipped += int(encoder.clipped.sum())
            grid = (self.book.grid.double() * self.unit[:, None]).float().contiguous()
            table = self.book.table
        self.rows += rows
        return Problem(
            codes=codes, rows=rows, cols=cols, outputs=y.shape[1], bits=self.bits, layout="tile4", grid=grid,
            table=table, unit=self.unit, y=targets, weight=weights, loss=loss, fit_intercept=True,
            shrink=None, x0=None, constant=None, variance_reduced=False, z0=None,
            loss_at_zero=math.inf,  # a strange batch is no divergence: the guard only meets infinities
            loss_at_anchor=None, guards=(),
        )  # fmt: skip

    def train(self, estimator: Any, problem: Problem) -> Trainer:
        """One epoch over a batch; the step size is that of the first batch unless it had to be halved."""
        options = estimator._options(problem, 1 << 30)
        kind = options.schedule.kind
        schedule = dataclasses.replace(
            options.schedule, kind="constant" if kind == "linear" else kind
        )
        options = dataclasses.replace(options, schedule=schedule, tol=0.0, average=False)
        if self.state.gamma0 == 0.0:
            index = torch.arange(min(problem.rows, 4096))
            batch = min(options.batch, problem.rows)
            bound = automatic_step(
                problem.decode(index), None, options.l2, batch, problem.curvature, intercept=True
            )
            self.state.gamma0 = float(estimator.eta0) if estimator.eta0 is not None else bound.step
        device = _device.resolve(estimator.device)
        trainer = Trainer(problem, options, self.key, self.state, device=device)
        trainer.run_epoch()
        self.state = trainer.state
        return trainer


def _sums(X: Tensor, centre: Tensor | None = None) -> Tensor:
    """Statistics of a batch, in CPU memory; see :func:`torchext.data._encode.update_stats`."""
    state = _encode.new_stats(X.shape[1], X.device)
    _encode.update_stats(X, state, None, _device.moved(centre, X.device))
    return state.cpu()


def aligned_bytes(size: int, device: torch.device = _device.CPU) -> Tensor:
    """uint8 (size,) as the kernels want it: on a 64-byte boundary, with 64 readable bytes behind it."""
    if device.type != "cpu":
        return torch.zeros(size, dtype=torch.uint8, device=device)
    room = torch.zeros(size + 128, dtype=torch.uint8)
    start = -room.data_ptr() % 64
    return room[start : start + size]


def batch_of(
    estimator: Any, X: Table, y: np.ndarray, weight: np.ndarray | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tensors of a batch: X contiguous and where it is to be encoded, the others in CPU memory."""
    source = from_arrays(X)
    bits = int(estimator.bits or 4)
    if bits != 32:
        device = _device.resolve(estimator.device)
        source = _device.source_on(source, device, source.rows * source.cols * bits // 8)
    rows = source.block(0, source.rows).contiguous()
    return rows, as_tensor(y), None if weight is None else as_tensor(weight)
