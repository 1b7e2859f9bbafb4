"""The two matrices a solver multiplies with: the codes of a store, and the full-precision rows.

Both act on x float64 (m, n + 1) in scaled units, column n being the intercept: the score of row k is
z_k = sum_j a_kj x_j + x_n, with a_kj = (X_kj - mean_j)/scale_j, or without an intercept
z_k = sum_j (a_kj + mean_j/scale_j) x_j, so that no centring enters the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchext.data import QuantizedDataset
from torchext.data._encode import pack_codes, unpack_codes
from torchext.data.sources import Source
from torchext.linear import _device
from torchext.linear._epochs import Buffer, as_bytes


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch's number of threads for a while.

    Solvers run on one thread except inside the library's own ops: torch may split a long sum among its
    threads, and then its bits depend on their number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


#: Values handed to one op call at least, where the source is not one tensor.
_BLOCK = 1 << 22


@dataclass
class CodeProducts:
    """Products with the decoded rows of a store, in the order of the store.

    Attributes:
        threads: for the products.
        digits: 1 or 2 signed digits (7 bits each) for the vectors.
        passes: reads of the codes so far.
        device: where codes and vectors are.
        order: int64 (K,), the place in the source of every row; None where that is the same.
    """

    store: QuantizedDataset
    intercept: bool
    threads: int = 1
    digits: int = 1
    passes: int = 0
    device: torch.device = _device.CPU
    shift: Tensor = field(init=False)
    order: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        store = self.store
        self.shift = (store.mean / store.scale).to(self.device)
        self.order = store.row_id().to(self.device) if store.shuffled else None
        codes = store.codes[0]
        if store.layout != "tile4":  # the kernels read tiles
            plain = unpack_codes(codes, store.rows, store.cols, store.bits, store.layout)
            codes = pack_codes(plain, store.bits)
        self._codes = codes.to(self.device)
        self._grid, self._table = store.grid.to(self.device), store.table.to(self.device)

    def dot(self, x: Tensor) -> Tensor:
        """float32 (m, K): scores of x, which is first rounded in place to what was multiplied."""
        inner = x[:, :-1].contiguous()
        if bool((inner == 0).all()):
            end = x[:, -1:] if self.intercept else torch.zeros_like(x[:, -1:])
            return end.float().expand(len(x), self.store.rows).contiguous()
        with self._read() as data:
            z: Tensor = torch.ops.torchext._code_dot(*data, inner, self.digits)
        x[:, :-1] = inner
        offset = x[:, -1:] if self.intercept else inner @ self.shift[:, None]
        if bool((offset != 0).any()):
            z += offset.float()
        return z

    def sum(self, e: Tensor, mass: Tensor) -> Tensor:
        """float64 (m, n + 1): sum_k e_k q_k, and in the last column ``mass``, which is sum_k e_k."""
        with self._read() as data:
            total: Tensor = torch.ops.torchext._code_sum(*data, e, self.digits)
        return self._with_mass(total, mass)

    def gram(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """float64 (m, n + 1): sum_k v_k (score of x)_k (q_k, 1) in one read; x is rounded in place."""
        inner, offset, shift = x[:, :-1].contiguous(), None, None
        if self.intercept:
            offset = x[:, -1].contiguous()
        else:
            shift = self.shift
        with self._read() as data:
            total: Tensor = torch.ops.torchext._code_gram(
                *data, inner, offset, shift, weight, self.digits
            )
        x[:, :-1] = inner
        return self._with_mass(total[:, :-1], total[:, -1:])

    def arrange(self, values: Tensor) -> Tensor:
        """Values (..., K) of the rows of the source, in the order of the store."""
        return values if self.order is None else values[..., self.order]

    @contextlib.contextmanager
    def _read(self) -> Iterator[tuple[Any, ...]]:
        """What the products take of the store, for one read of it."""
        store, self.passes = self.store, self.passes + 1
        with torch_threads(self.threads):
            yield self._codes, store.rows, store.cols, store.bits, self._grid, self._table

    def _with_mass(self, total: Tensor, mass: Tensor) -> Tensor:
        """Sums over the rows (q_k + shift, 0) or (q_k, 1) from sums over q_k and 1."""
        if self.intercept:
            return torch.cat([total, mass], dim=1)
        return torch.cat([total + mass * self.shift, torch.zeros_like(mass)], dim=1)


@dataclass
class ExactRows:
    """Passes over the full-precision rows.

    Attributes:
        y: float64 (K, m) targets, signs +-1, or (K, 1) class numbers.
        weight: float64 (K,) or None.
        device: where the passes run; rows in CPU memory are moved there once if they fit, else sent block
            by block in every pass.
        passes: reads of the rows so far.
    """

    source: Source
    mean: Tensor
    scale: Tensor
    intercept: bool
    loss: str
    y: Tensor
    weight: Tensor | None
    threads: int = 1
    passes: int = 0
    device: torch.device = _device.CPU

    def __post_init__(self) -> None:
        self.y, self.weight = self.y.to(self.device), _device.moved(self.weight, self.device)
        source = self.source = _device.source_on(self.source, self.device)
        self._whole = source.whole() if source.device == self.device else None
        if self._whole is not None and source.cols > 1 and self._whole.stride(1) != 1:
            self._whole = None  # the op would copy it: block by block is enough

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows, in blocks of whole chunks."""
        source = self.source
        step = 1024 * max(1, _BLOCK // (1024 * source.cols))
        for first in range(0, source.rows, step):
            part = slice(first, min(source.rows, first + step))
            yield part, source.block(part.start, part.stop)

    def _there(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows on the device; blocks that do not stay there are sent while others are worked on."""
        if self._whole is not None:
            yield slice(0, self.source.rows), self._whole
        elif self.source.device == self.device:
            yield from self._blocks()
        else:
            buffers: list[Buffer] = []
            for i, (part, block) in enumerate(self._blocks()):
                if i < 2:
                    buffers.append(Buffer(max(block.nbytes, 8), self.device))
                (sent,) = buffers[i % 2].send([as_bytes(block)])
                yield part, sent.view(block.dtype).view(block.shape)
                buffers[i % 2].used()

    def gradient(self, x: Tensor) -> tuple[float, Tensor, Tensor]:
        """Sum of losses, its gradient float64 (m, n + 1) and the scores float32 (m, K) at x.

        The gradient is where x is, the scores are on ``device``. What stands for columns is worked on in CPU
        memory, so that no bit depends on the device.
        """
        self.passes += 1
        source, outputs, home = self.source, len(x), x.device
        x = x.cpu()
        w = (x[:, :-1] / self.scale).contiguous()
        offset = x[:, -1] - w @ self.mean if self.intercept else w.new_zeros(outputs)
        w, offset = w.to(self.device), offset.to(self.device)
        z = torch.empty(outputs, source.rows, dtype=torch.float32, device=self.device)
        raw, total = w.new_zeros(outputs, source.cols + 1), w.new_zeros(1)
        for part, rows in self._there():
            weight = None if self.weight is None else self.weight[part]
            with torch_threads(self.threads):
                torch.ops.torchext._exact_pass(
                    rows, w, offset, self.y[part], weight, self.loss, z[:, part], raw, total,
                )  # fmt: skip
        raw = raw.cpu()
        if self.intercept:
            raw[:, :-1] -= raw[:, -1:] * self.mean
        else:
            raw[:, -1] = 0.0
        raw[:, :-1] /= self.scale
        return float(total), raw.to(home), z
