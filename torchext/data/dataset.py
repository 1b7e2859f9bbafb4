"""QuantizedDataset: rows of numbers kept as codes of a few bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from torchext.data._encode import layout_bytes, planes
from torchext.data._levels import grid_values
from torchext.data.arrange import read_codes, tile4
from torchext.data.noise import shrinkage
from torchext.data.options import BuildOptions, Options
from torchext.data.order import permutation

__all__ = ["QuantizedDataset"]


@dataclass(eq=False, repr=False)
class QuantizedDataset:
    r"""A table of K rows and n features at a few bits per value, with labels and exact moments.

    Value x of column j is scaled to :math:`a = (x - \mu_j)/s_j \in [-1, 1]` and stored as a code of
    ``bits`` bits that selects one of the column's levels. Make one with :meth:`from_arrays`,
    :meth:`from_csv`, :meth:`from_parquet`, :meth:`from_libsvm` or :meth:`from_iter`; :meth:`open` maps a
    file.

    Attributes:
        rows, cols, outputs: K, n and the number of targets m (1 per class if there are more than two).
        bits: total bits per value, all draws counted; 32: float32 rows.
        sampling: ``"nearest"``, ``"stochastic"``, ``"corrected"`` or ``"double"``.
        codes: uint8 [copies, bytes] in ``layout``; for bits=32 float32 [K, pitch].
        y: float32 [K, m], or int32 [K] class numbers, uncentred; None without labels.
        weight: float32 [K] sample weights or None.
        mean, scale: float64 [n].
        grid, table, levels: float32 [n, 2] (lo, step); uint8 [P, ncb, n, 2^bits] integers T by code (empty
            if T is the code); float32 [ncb, n, 2^bits] decoded lo + step*T, None if the table is empty.
        noise: float64 [3, n]: mean (q - a)^2, mean v, mean v^2; v is the variance of a draw.
        moments: float64 [3, n]: mean a^2, mean q^2, mean q.
        linear: float64 [2, n, m]: mean a y, mean (q - a) y, with y as the loss sees it: centred for squared
            errors, class against the rest as +-1.
        anchor: float64 [3, n, m]: x0, exact gradient there, exact minus decoded gradient; or None.
        anchor_intercept: float64 [3, m]: the same for the intercept of ``loss="log_loss"``.
        pilot: what the pilot found: S, F_nearest, F_corrected (None: indefinite), S0, F_x0; and of levels
            from data: level_rows, level_cost (mean squared rounding error on those rows), level_bound (how
            far it may be off), level_error (the same on all rows, with the levels as stored).
        y_mean: float64 [m].
        clipped: int64 [n], values outside the levels.
    """

    rows: int
    cols: int
    outputs: int
    bits: int
    sampling: str
    level_kind: str
    layout: str
    copies: int
    codes: Tensor
    y: Tensor | None
    weight: Tensor | None
    mean: Tensor
    scale: Tensor
    grid: Tensor
    table: Tensor
    levels: Tensor | None
    noise: Tensor
    moments: Tensor
    linear: Tensor
    anchor: Tensor | None
    anchor_intercept: Tensor | None
    pilot: dict[str, Any]
    task: str
    classes: list[Any] | None
    feature_names: list[str] | None
    key: Tensor
    loss: str
    y_mean: Tensor
    clipped: Tensor
    shuffled: bool = False
    scale_kind: str = "max"
    path: str | None = field(default=None)

    # -- making one ---------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        feature_names: list[str] | None = None,
        **options: Unpack[BuildOptions],
    ) -> QuantizedDataset:
        """Encode a numpy array, tensor, data frame, or a ``.npy`` file (given by path, mapped).

        A tensor on a GPU is encoded there, to the same bits, and its store stays there (as after
        :meth:`to`; with ``path=`` it is the mapped file). With ``bits=32`` it is made on the CPU from a copy,
        and moved.

        Args:
            X: (K, n) numbers.
            y: (K,) or (K, m) labels, or None.
            sample_weight: (K,) numbers >= 0.
            feature_names: default: the columns of a data frame.
            **options: see :class:`torchext.data.Options`.

        Example:
            >>> import numpy as np
            >>> x = np.random.default_rng(0).normal(size=(1000, 5))
            >>> store = QuantizedDataset.from_arrays(x, x @ np.ones(5), bits=2, random_state=0)
            >>> len(store), store.bits, store.sampling
            (1000, 2, 'nearest')
        """
        from torchext.data import sources
        from torchext.data.builder import build

        return build(sources.from_arrays(X, y, sample_weight, feature_names), Options(**options))

    @classmethod
    def from_csv(
        cls,
        source: str | Path,
        /,
        target: str | int | None = None,
        *,
        header: bool | None = None,
        delimiter: str | None = None,
        **options: Unpack[BuildOptions],
    ) -> QuantizedDataset:
        """Encode a CSV file, plain or gzip.

        Args:
            source: the file.
            target: name or position of the label column (negative counts from the right); None: no labels.
            header: whether the first line holds names; None: it does if it has text above numbers.
            delimiter: default: the one of comma, semicolon, tab that the first line has most of.
            **options: see :class:`torchext.data.Options`.
        """
        from torchext.data import text
        from torchext.data.builder import build

        made = Options(**options)
        return build(text.from_csv(source, target, header, delimiter, made), made)

    @classmethod
    def from_libsvm(
        cls, source: str | Path, /, *, cols: int | None = None, **options: Unpack[BuildOptions]
    ) -> QuantizedDataset:
        """Encode LIBSVM text (``label index:value ...``, indices from 1), plain or gzip, as dense rows."""
        from torchext.data import text
        from torchext.data.builder import build

        made = Options(**options)
        return build(text.from_libsvm(source, cols, made), made)

    @classmethod
    def from_parquet(
        cls, table: Any, /, target: str | int | None = None, **options: Unpack[BuildOptions]
    ) -> QuantizedDataset:
        """Encode a Parquet file, an Arrow table or a record batch reader (needs the extra ``[data]``)."""
        from torchext.data import tables
        from torchext.data.builder import build

        made = Options(**options)
        return build(tables.from_parquet(table, target, made), made)

    @classmethod
    def from_iter(
        cls,
        blocks: Iterable[Any] | Callable[[], Iterable[Any]],
        /,
        *,
        feature_names: list[str] | None = None,
        **options: Unpack[BuildOptions],
    ) -> QuantizedDataset:
        """Encode blocks of rows from an iterable, or a function that returns one.

        Args:
            blocks: yields ``X``, ``(X, y)`` or ``(X, y, weight)``; X (R, n), any R. They are kept in an
                unnamed temporary file until the second pass.
            feature_names: names of the columns.
            **options: see :class:`torchext.data.Options`.
        """
        from torchext.data import streams
        from torchext.data.builder import build

        made = Options(**options)
        return build(streams.from_iter(blocks, feature_names, made), made)

    @classmethod
    def open(cls, path: str | Path, verify: bool | None = None) -> QuantizedDataset:
        """Map a store file; any number of processes may.

        Args:
            path: a file written by ``path=`` or :meth:`save`.
            verify: check all checksums; default: for files below 1 GiB.

        Raises:
            DataError: the file is no store, damaged, or of another version.
        """
        from torchext.data.reader import open_store

        return open_store(path, verify)

    def save(self, path: str | Path) -> None:
        """Write the store to a file, under its name only when complete."""
        from torchext.data.reader import save_store

        save_store(self, path)

    # -- where it is -------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the codes are."""
        return self.codes.device

    def to(self, device: str | torch.device) -> QuantizedDataset:
        """The same data with codes and levels on a device; the rest stays in CPU memory.

        A GPU gets tile4 codes, whatever the layout was. Estimators move the data by themselves; a store
        that is already on their ``device`` saves that when several are fitted. :meth:`decode` and
        :meth:`read_codes` return tensors there. Back on the CPU the codes stay tile4, and the store is no
        longer mapped from its file (``path`` is None).

        Args:
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        """
        there = torch.device(device)
        if there.type == "cuda" and there.index is None:
            there = torch.device("cuda", torch.cuda.current_device())
        if there == self.device:
            return self
        layout = self.layout
        if there.type == "cpu":
            codes = self.codes.to(there)
        else:
            codes = tile4(self.codes, self.rows, self.cols, self.bits, layout, there)
            layout = layout if self.bits == 32 else "tile4"
        return replace(
            self,
            codes=codes,
            layout=layout,
            grid=self.grid.to(there),
            table=self.table.to(there),
            levels=None if self.levels is None else self.levels.to(there),
            path=None,
        )

    # -- reading ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return (
            f"QuantizedDataset({self.rows} rows x {self.cols} columns, {self.bits} bits, {self.sampling}, "
            f"{self.level_kind} levels, {self.layout})"
        )

    def __reduce__(self) -> Any:
        if self.path is not None:
            return QuantizedDataset.open, (self.path,)
        return object.__new__, (QuantizedDataset,), self.__dict__

    @property
    def stored_bits(self) -> float:
        """Bits of codes per value and copy, padding included."""
        return (
            self.codes.numel()
            * self.codes.element_size()
            * 8
            / (self.copies * self.rows * self.cols)
        )

    @property
    def n_clipped(self) -> int:
        """Values outside the levels, encoded as the end level."""
        return int(self.clipped.sum())

    n_clipped_ = n_clipped

    @property
    def exact_moments(self) -> dict[str, Tensor]:
        """Sums over unquantised values: mean a^2 [n], mean a y [n, m]."""
        return {"square": self.moments[0], "target": self.linear[0]}

    def theta(self, kind: str | float = "keff") -> Tensor:
        """float64 [n]: part of the noise to subtract, ``"keff"``, ``"mp"`` or a number."""
        return shrinkage(self.noise, self.rows, self.cols, kind)

    def row_id(self) -> Tensor:
        """int64 [K]: position in the source of every row."""
        return permutation(self.key, self.rows) if self.shuffled else torch.arange(self.rows)

    def read_codes(self, rows: Any = None, copy: int = 0) -> Tensor:
        """uint8 [R, n] (uint16 for 16 bits) codes of some rows (default: all)."""
        return read_codes(
            self.codes[copy], self._index(rows), self.rows, self.cols, self.bits, self.layout
        )

    def decode(self, rows: Any = None, draw: int = 0, *, copy: int = 0) -> Tensor:
        """float32 [R, n] scaled values.

        Args:
            rows: index, slice, sequence or tensor of rows; default all.
            draw: 0, or 1 for the second draw of double sampling.
            copy: which copy of the codes.
        """
        index = self._index(rows)
        if self.bits == 32:
            return self.codes[index, : self.cols]
        if self.bits == 16:
            codes = self.read_codes(index, copy).view(torch.int16).to(torch.int32) & 0xFFFF
            return grid_values(self.grid, codes.T).T.contiguous()
        draw = draw if self.sampling == "double" else 0
        decoded: Tensor = torch.ops.torchext._sgd_decode(
            self.codes[copy], self.rows, self.cols, self.bits, self.layout, self.grid, self.table, index, draw
        )  # fmt: skip
        return decoded

    def _index(self, rows: Any) -> Tensor:
        return self._host_index(rows).to(self.device)

    def _host_index(self, rows: Any) -> Tensor:
        if rows is None:
            return torch.arange(self.rows)
        if isinstance(rows, slice):
            return torch.arange(self.rows)[rows]
        index = torch.as_tensor(np.asarray(rows) if not isinstance(rows, Tensor) else rows.cpu())
        index = (
            torch.nonzero(index).reshape(-1)
            if index.dtype == torch.bool
            else index.to(torch.int64).reshape(-1)
        )
        if len(index) and (int(index.min()) < -self.rows or int(index.max()) >= self.rows):
            raise IndexError(
                f"rows must lie in [0, {self.rows}), got {int(index.min())} .. {int(index.max())}"
            )
        return torch.where(index < 0, index + self.rows, index)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file form, by name."""
        named = {
            "codes": self.codes, "y": self.y, "w": self.weight,
            "y_mean": self.y_mean if self.outputs else None,
            "mean": self.mean, "scale": self.scale, "grid": self.grid,
            "levels": self.grid if self.levels is None else self.levels,
            "table": None if self.levels is None else self.table, "noise": self.noise,
            "moments": self.moments,
            "linear": self.linear, "clipped": self.clipped, "anchor": self.anchor,
            "anchor_intercept": self.anchor_intercept,
        }  # fmt: skip
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def info(self) -> dict[str, Any]:
        """Facts for people: shapes, bits, levels, pilot losses, sizes."""
        values = self.rows * self.cols
        total = (
            Path(self.path).stat().st_size
            if self.path
            else sum(t.nbytes for t in self.tensors().values())
        )
        kind = (
            "affine"
            if self.table.numel() == 0
            else ("int8" if self.table.shape[0] == 1 else "int16")
        )
        return {
            "rows": self.rows, "cols": self.cols, "outputs": self.outputs, "task": self.task,
            "classes": self.classes, "loss": self.loss, "bits": self.bits, "stored_bits": self.stored_bits,
            "file_bits": 8 * total / values, "sampling": self.sampling, "levels": self.level_kind,
            "grid": kind,
            "layout": self.layout, "planes": list(planes(self.bits)) if self.bits <= 16 else [32],
            "copies": self.copies, "shuffled": self.shuffled, "key": [int(v) for v in self.key],
            "anchor": self.anchor is not None, "pilot": dict(self.pilot), "n_clipped": self.n_clipped,
            "codes_bytes": self.codes.nbytes, "total_bytes": total, "float32_bytes": 4 * values,
            "feature_names": self.feature_names,
        }  # fmt: skip

    def expected_bytes(self) -> int:
        """Bytes of one copy of the codes."""
        return layout_bytes(self.rows, self.cols, self.bits, self.layout)
