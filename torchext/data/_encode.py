"""Typed wrappers of the store's encoding kernels.

Building a store takes two passes over blocks of rows: :func:`new_stats` / :func:`update_stats`, then, with
levels from :mod:`torchext.data._levels`, :class:`Encoder`. Every block but the last must have a multiple of
1,024 rows; then codes and sums do not depend on how the source was cut, on threads or on the instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchext.data._levels import Codebook

MOMENTS = 6
OUTPUT_SUMS = 4


def planes(bits: int) -> tuple[int, ...]:
    """Widths of the planes of a code, low bits first: 3 = (2, 1), 7 = (4, 2, 1), 16 = (8, 8)."""
    widths: list[int] = []
    while sum(widths) < bits:
        rest = bits - sum(widths)
        widths.append(next(w for w in (8, 4, 2, 1) if w <= rest))
    return tuple(widths)


def layout_bytes(rows: int, cols: int, bits: int, layout: str = "tile4") -> int:
    """Bytes of one copy of the codes."""
    if layout == "tile4":
        return -(-rows // 64) * -(-cols // 4) * 32 * bits
    if layout == "block":
        return -(-rows // 128) * cols * 16 * bits
    if layout == "row":
        return rows * sum(-(-cols * p // 512) * 64 for p in planes(bits))
    raise ValueError(f"layout must be tile4, block or row, got {layout!r}")


def pack_codes(codes: Tensor, bits: int, layout: str = "tile4") -> Tensor:
    """Codes uint8 [K, n] (uint16 for 16 bits) to the bytes of a layout; padding is zero."""
    return torch.ops.torchext._pack_codes(codes, bits, layout)  # type: ignore[no-any-return]


def unpack_codes(packed: Tensor, rows: int, cols: int, bits: int, layout: str = "tile4") -> Tensor:
    """Inverse of :func:`pack_codes`."""
    return torch.ops.torchext._unpack_codes(packed, rows, cols, bits, layout)  # type: ignore[no-any-return]


def permute_tiles(packed: Tensor, order: Tensor, cols: int, bits: int, out: Tensor) -> None:
    """Move rows of tile4 codes: row i of ``out`` is row ``order[i]`` (int64) of ``packed``.

    Works on strips of columns with at most 16 MiB (or 4 bytes a row) of memory per thread.
    """
    torch.ops.torchext._permute_tiles(packed, order, cols, bits, out)


def scale_rows(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    *,
    rows: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """float32 [R, n]: ``fl32((x - mean)/scale)`` of x [K, n] or of its ``rows`` (int64 [R]), into ``out``."""
    if out is None:
        count = len(x) if rows is None else len(rows)
        out = torch.empty(count, x.shape[1], dtype=torch.float32, device=x.device)
    torch.ops.torchext._scale_rows(x, rows, mean, scale, out)
    return out


def new_stats(cols: int, device: torch.device | str = "cpu") -> Tensor:
    """Running statistics of no rows: float64 [5, n] = (count, sum, minimum, maximum, weighted sum)."""
    state = torch.zeros(5, cols, dtype=torch.float64, device=device)
    state[2], state[3] = float("inf"), float("-inf")
    return state


def update_stats(
    x: Tensor, state: Tensor, weight: Tensor | None = None, centre: Tensor | None = None
) -> int:
    """Add a block of rows; returns the flat index of its first NaN or infinity, or -1.

    After a result other than -1 the state is of no use. All tensors are on one device.

    Args:
        x: float32 or float64 [R, n].
        state: see :func:`new_stats`.
        weight: float64 [R], of the weighted sum.
        centre: float64 [n]: the weighted sum is that of (x - centre)^2.
    """
    return int(torch.ops.torchext._column_stats(x, weight, centre, state))


def finish_stats(state: Tensor, scale: str = "max") -> tuple[Tensor, Tensor, Tensor]:
    """Mean, scale and scaled bounds of the columns.

    Returns:
        (mean float64 [n], scale float64 [n], bounds float32 [n, 2]): scale is ``max|x - mean|``, 1 for a
        constant column; bounds are the least and greatest scaled value exactly as the encoder computes it.
        ``scale="none"``: mean 0, scale 1.
    """
    count, total, low, high = state[0], state[1], state[2], state[3]
    empty = count == 0
    mean = torch.where(empty, torch.zeros_like(total), total / count.clamp(min=1))
    low, high = torch.where(empty, mean, low), torch.where(empty, mean, high)
    mean = torch.minimum(
        torch.maximum(mean, low), high
    )  # rounding must not push it out of the range
    if scale == "none":
        mean, width = torch.zeros_like(mean), torch.ones_like(mean)
    elif scale == "max":
        width = torch.maximum(high - mean, mean - low)
        width = torch.where(width > 0, width, torch.ones_like(width))
    else:
        raise ValueError(f"scale must be max or none, got {scale!r}")
    return mean, width, scaled_bounds(low, high, mean, width)


def scaled_bounds(low: Tensor, high: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """float32 [n, 2]: ``fl32((x - mean)/scale)`` of the least and the greatest value."""
    return (
        torch.stack([(low - mean) / scale, (high - mean) / scale], dim=1)
        .to(torch.float32)
        .contiguous()
    )


@dataclass(frozen=True)
class EncodeSums:
    """Weighted means over the rows, in scaled units; see ``csrc/kernels/encode.h`` for the exact meaning.

    Attributes:
        rows, weight: number of rows, sum of their weights.
        noise: [3, n]: mean (q-a)^2, mean v, mean v^2 (v: variance of a draw; 0 for nearest).
        moments: [3, n]: mean a^2, mean q^2, mean q.
        linear: [2, n, m]: mean a*y, mean (q-a)*y.
        gradient: [2, n, m]: gradient of the mean loss at x0 on exact and on decoded values.
        intercept_gradient: [2, m]: the same for the intercept.
        loss: [m] mean loss at x0 on exact values (squared error: (z-y)^2 / 2).
        y_mean: [m].
        clipped: number of values outside the bounds.
    """

    rows: int
    weight: float
    noise: Tensor
    moments: Tensor
    linear: Tensor
    gradient: Tensor
    intercept_gradient: Tensor
    loss: Tensor
    y_mean: Tensor
    clipped: Tensor


class Encoder:
    """Second pass: encodes blocks of rows into tile4 and keeps the running sums.

    It works on ``device``.

    Args:
        mean, scale: float64 [n].
        codebook: levels in kernel form; its sampling decides the rule (nearest, stochastic or double).
        key: the data set's key; copy and purpose are folded in here.
        copy: number of this copy of the codes.
        outputs: columns of the y that :meth:`add` gets; 0: no targets.
        x0: float32 [m, n], the anchor in scaled units, or None.
        intercept: float32 [m], added to z at the anchor.
        loss: ``"squared_error"`` or ``"log_loss"`` (y = +-1).
        bounds: float32 [n, 2]; values outside are clamped to the end levels and counted.
        device: where the rows and codes are; the other tensors are moved there.
    """

    def __init__(
        self,
        mean: Tensor,
        scale: Tensor,
        codebook: Codebook,
        key: Tensor,
        *,
        copy: int = 0,
        outputs: int = 0,
        x0: Tensor | None = None,
        intercept: Tensor | None = None,
        loss: str = "squared_error",
        bounds: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        cols, where = mean.shape[0], torch.device(device)

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(where)

        self.mean, self.scale, self.key = mean.to(where), scale.to(where), key.to(where)
        self.codebook = codebook.to(where)
        self.copy, self.outputs, self.loss = copy, outputs, loss
        self.x0, self.intercept, self.bounds = moved(x0), moved(intercept), moved(bounds)
        self.rows = 0
        self.sums = torch.zeros(
            MOMENTS + OUTPUT_SUMS * outputs, cols, dtype=torch.float64, device=where
        )
        self.totals = torch.zeros(4, outputs + 1, dtype=torch.float64, device=where)
        self.clipped = torch.zeros(cols, dtype=torch.int64, device=where)

    def add(
        self,
        x: Tensor,
        codes: Tensor | None = None,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        *,
        row0: int | None = None,
        position: Tensor | None = None,
    ) -> Tensor:
        """Encode the next rows; returns their codes (written to ``codes`` if given).

        Args:
            x: float32 or float64 [R, n], R a multiple of 1,024 unless these are the last rows.
            codes: uint8 slice of the output for these rows, ``layout_bytes(R, n, bits)`` bytes.
            y: float32 [R, m], centred by the caller for squared error.
            weight: float32 [R].
            row0: position of the first row in the source, which decides its random bits; default: rows
                encoded so far. A multiple of 64.
            position: int64 [R], positions of scattered rows, instead of row0.
        """
        book, (rows, cols) = self.codebook, x.shape
        if codes is None:
            size = layout_bytes(rows, cols, book.bits)
            codes = torch.empty(size, dtype=torch.uint8, device=x.device)
        torch.ops.torchext._encode(
            x,
            self.mean,
            self.scale,
            book.grid,
            book.base,
            book.sampling,
            book.bits,
            self.key,
            self.rows if row0 is None else row0,
            position,
            self.copy,
            codes,
            y if self.outputs else None,
            weight,
            self.x0,
            self.intercept,
            self.loss,
            self.bounds,
            self.sums,
            self.totals,
            self.clipped,
        )
        self.rows += rows
        return codes

    def finish(self) -> EncodeSums:
        """The sums so far as weighted means (zeros if there were no rows), in CPU memory."""
        sums, every = self.sums.cpu(), self.totals.cpu()
        weight = float(every[0, -1])
        total = weight if weight > 0 else 1.0
        mean = sums / total
        # [4, n, m]: a*y, (q-a)*y, exact gradient, decoded gradient
        per_output = (
            mean[MOMENTS:]
            .reshape(self.outputs, OUTPUT_SUMS, sums.shape[1])
            .permute(1, 2, 0)
            .contiguous()
        )
        totals = every[:, :-1] / total
        return EncodeSums(
            rows=self.rows,
            weight=weight,
            noise=mean[:3].clone(),
            moments=mean[3:6].clone(),
            linear=per_output[:2],
            gradient=per_output[2:],
            intercept_gradient=totals[2:],
            loss=totals[1],
            y_mean=totals[0],
            clipped=self.clipped.cpu(),
        )
