"""Pilot rows as codes: what the fixed points of ``sampling="auto"`` are computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from torchext.data._encode import Encoder, layout_bytes, unpack_codes
from torchext.data._levels import Codebook, grid_values
from torchext.data.format import SLACK
from torchext.data.pilot import Pilot
from torchext.data.spill import scratch

_BLOCK = 8 << 20  # bytes of rows encoded at a time


class CodedRows:
    """Rows of a pilot, encoded as in the store that the same key and codebook give.

    Attributes:
        noise: float64 [3, n]: mean (q - a)^2, mean v, mean v^2 (v: variance of a draw).
        right: float64 [n, m]: mean q y.
        weight: float32 [S] or None.
    """

    noise: Tensor
    right: Tensor
    weight: Tensor | None

    def __init__(self, pilot: Pilot, book: Codebook, key: Tensor) -> None:
        self.rows, self.cols, self.book = pilot.sample.count, pilot.cols, book
        size = layout_bytes(self.rows, self.cols, book.bits)
        self.codes = scratch((size + SLACK,), torch.uint8, pilot.folder)[:size]
        outputs = pilot.targets.outputs
        self._encoder = Encoder(pilot.mean, pilot.scale, book, key, outputs=outputs)
        self._used = 0

    @classmethod
    def encode(cls, pilot: Pilot, books: Sequence[Codebook], key: Tensor) -> list[CodedRows]:
        """The rows once per codebook; the source is read once."""
        all_coded = [cls(pilot, book, key) for book in books]
        weights: list[Tensor] = []
        value = pilot.source.dtype.itemsize
        for rows in pilot.sample.blocks(1024 * max(1, _BLOCK // (1024 * pilot.cols * value))):
            x, index = pilot.source.take(rows), torch.from_numpy(rows)
            y, weight = pilot.targets.seen(index), pilot.targets.weights(index)
            for coded in all_coded:
                coded._add(x, y, weight, index)
            if weight is not None:
                weights.append(weight)
        for coded in all_coded:
            coded._finish(torch.cat(weights) if weights else None)
        return all_coded

    def _add(self, x: Tensor, y: Tensor, weight: Tensor | None, position: Tensor) -> None:
        end = self._used + layout_bytes(len(x), self.cols, self.book.bits)
        self._encoder.add(x, self.codes[self._used : end], y, weight, position=position)
        self._used = end

    def _finish(self, weight: Tensor | None) -> None:
        sums = self._encoder.finish()
        self.noise, self.right = sums.noise, sums.linear.sum(0)
        self.weight, self._mass = weight, sums.weight or 1.0

    def new_diagonal(self, alpha: float) -> Tensor:
        """float64 [n], all alpha."""
        return torch.full((self.cols,), alpha, dtype=torch.float64)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(decoded rows float32 [R, n], weights [R, 1]) in blocks of about 2^18 values."""
        step = max(64, 2**18 // self.cols // 64 * 64)
        unit = layout_bytes(64, self.cols, self.book.bits)
        for at in range(0, self.rows, step):
            count = min(step, self.rows - at)
            q = self._decode(self.codes[at // 64 * unit : -(-(at + count) // 64) * unit], count)
            yield q, None if self.weight is None else self.weight[at : at + count, None]

    def _decode(self, tiles: Tensor, count: int) -> Tensor:
        bits, grid = self.book.bits, self.book.grid
        if bits == 16:
            codes = unpack_codes(tiles, count, self.cols, 16).view(torch.int16).to(torch.int32)
            return grid_values(grid, (codes & 0xFFFF).T).T.contiguous()
        values: Tensor = torch.ops.torchext._sgd_decode(
            tiles, count, self.cols, bits, "tile4", grid, self.book.table, torch.arange(count), 0
        )
        return values

    def gram(self) -> Tensor:
        """Mean of q q^T, float64 [n, n]."""
        total = torch.zeros(self.cols, self.cols, dtype=torch.float64)
        for q32, weight in self.blocks():
            q = q32.double()
            total += (q if weight is None else q * weight).T @ q
        return total.div_(self._mass)

    def product(self, x: Tensor) -> Tensor:
        """Mean of q (q.x), float64 [n, m], for x [n, m], which is rounded in place to 14 bits and a sign.

        The images q.x of the rounded x are exact; they are rounded to 14 bits too, per 4,096 rows.
        """
        if self.book.bits > 8:  # the integer kernels read up to 8 bits
            out = torch.zeros_like(x)
            for q, weight in self.blocks():
                z = q @ x.float()
                out += (q.T @ (z if weight is None else z * weight)).double()
            return out.div_(self._mass)
        data = (self.codes, self.rows, self.cols, self.book.bits, self.book.grid, self.book.table)
        digits = x.T.contiguous()
        z = torch.ops.torchext._code_dot(*data, digits, 2)
        x.copy_(digits.T)
        if self.weight is not None:
            z *= self.weight
        image: Tensor = torch.ops.torchext._code_sum(*data, z, 2)
        return image.T / self._mass
