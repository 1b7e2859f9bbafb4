"""Builds a store in two passes over a source: statistics, then codes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data import arrange, dense
from torchext.data._encode import Encoder, EncodeSums, layout_bytes, planes
from torchext.data.dataset import QuantizedDataset
from torchext.data.format import ALIGN, SLACK, StoreWriter
from torchext.data.gpu_source import GpuSource, encodes_on_gpu
from torchext.data.options import Options
from torchext.data.order import permutation
from torchext.data.plan import Books, Plan, block_rows, decide, measure
from torchext.data.progress import Progress
from torchext.data.sources import Source
from torchext.data.spill import scratch
from torchext.data.targets import Targets, read_targets
from torchext.random import STREAM_VERSION


@dataclass
class Sums:
    """Means over rows and copies."""

    noise: Tensor
    moments: Tensor
    linear: Tensor
    gradient: Tensor
    intercept_gradient: Tensor
    loss: Tensor
    clipped: Tensor

    @classmethod
    def of(cls, parts: list[EncodeSums]) -> Sums:
        """Average of the copies; clipped values are counted once."""

        def mean(name: str) -> Tensor:
            total: Tensor = sum(getattr(p, name) for p in parts[1:]) + getattr(parts[0], name)
            return total / len(parts)

        return cls(
            mean("noise"), mean("moments"), mean("linear"), mean("gradient"), mean("intercept_gradient"),
            mean("loss"), parts[0].clipped,
        )  # fmt: skip


def build(source: Source, options: Options) -> QuantizedDataset:
    """Encode a source where it is; the result is mapped from the file if ``options.path`` is set."""
    if not isinstance(source, GpuSource):
        return _build(source, options)
    path = options.path
    if not encodes_on_gpu(options):
        store = _build(source.on_cpu(), options)
        return store if path is not None else store.to(source.device)
    there = replace(options, path=None, folder=options.spill_folder(), layout="tile4")
    store = _build(source, there)
    if path is None:
        return store
    store.save(path)
    return QuantizedDataset.open(path, verify=False)


def _build(source: Source, options: Options) -> QuantizedDataset:
    progress = Progress(options.progress)
    try:
        key = options.key()
        targets = read_targets(source, options.loss, options.task)
        columns = measure(source, targets, options.scale, progress)
        books = None if options.bits == 32 else Books(source, columns, options, key, progress)
        progress.start("levels and pilot")
        plan = decide(source, targets, columns, books, options, key)
        order = permutation(key, source.rows) if options.shuffle else None
        if books is None:
            codes, sums = dense.encode(source, targets, plan, order, progress)
            return _assemble(source, targets, plan, options, key, codes, sums, order)
        bounds = books.limits(plan.sampling, plan.book)
        del books
        return _encode(source, targets, plan, options, key, bounds, order, progress)
    finally:
        progress.close()


def _encode(
    source: Source,
    targets: Targets | None,
    plan: Plan,
    options: Options,
    key: Tensor,
    bounds: Tensor,
    order: Tensor | None,
    progress: Progress,
) -> QuantizedDataset:
    layout, straight = options.final_layout, options.final_layout == "tile4" and order is None
    size = layout_bytes(source.rows, source.cols, options.bits, layout)
    shape = (options.copies, size)
    writer: StoreWriter | None = None
    try:
        if options.path is None:
            codes = _empty_codes(shape, source.device)
        else:
            writer = StoreWriter(
                options.path,
                _shapes(source, targets, plan, options, shape),
                reserve(source.names, None if targets is None else targets.classes),
            )
            codes = writer.view("codes")
        raw = codes
        if not straight:
            tiles = layout_bytes(source.rows, source.cols, options.bits)
            if source.device.type == "cpu":
                small = 1 << 62 if options.path is None else 1 << 20
                raw = scratch((options.copies, tiles), torch.uint8, options.spill_folder(), small)
            else:
                raw = torch.empty_like(codes)
        sums = Sums.of(_second_pass(source, targets, plan, key, bounds, raw, progress))
        if not straight:
            progress.start("arrange", options.copies)
            for copy in range(options.copies):
                _arrange(raw[copy], codes[copy], order, source, options, layout)
                progress.add(1)
        store = _assemble(source, targets, plan, options, key, codes, sums, order)
        if writer is None:
            return store
        for name, tensor in store.tensors().items():
            if name != "codes":
                writer.view(name).copy_(tensor)
        writer.finish(metadata(store))
        return QuantizedDataset.open(writer.path, verify=False)
    except BaseException:
        if writer is not None:
            writer.abort()
        raise


def _second_pass(
    source: Source,
    targets: Targets | None,
    plan: Plan,
    key: Tensor,
    bounds: Tensor,
    raw: Tensor,
    progress: Progress,
) -> list[EncodeSums]:
    """Encode every block for every copy; sums per copy."""
    x0 = None if plan.x0 is None else plan.x0.T.float().contiguous()
    intercept = None if plan.intercept is None else plan.intercept.float().contiguous()
    outputs = 0 if targets is None else targets.outputs
    encoders = [
        Encoder(
            plan.columns.mean, plan.columns.scale, plan.book, key, copy=copy,
            outputs=outputs, x0=x0, intercept=intercept,
            loss="squared_error" if targets is None else targets.loss, bounds=bounds,
            device=source.device,
        )
        for copy in range(len(raw))
    ]  # fmt: skip
    size, tile = block_rows(source, outputs), layout_bytes(64, source.cols, plan.book.bits)
    progress.start("encode", source.rows)
    for first in range(0, source.rows, size):
        last = min(source.rows, first + size)
        x = source.block(first, last)
        rows = slice(first, last)
        y = None if targets is None else targets.seen(rows).to(source.device)
        weight = None if targets is None else targets.weights(rows)
        weight = None if weight is None else weight.to(source.device)
        part = slice(first // 64 * tile, -(-last // 64) * tile)
        for copy, encoder in enumerate(encoders):
            encoder.add(x, raw[copy, part], y, weight)
        progress.add(last - first)
    return [encoder.finish() for encoder in encoders]


def _arrange(
    raw: Tensor, out: Tensor, order: Tensor | None, source: Source, options: Options, layout: str
) -> None:
    rows, cols, bits = source.rows, source.cols, options.bits
    if order is not None:
        moved = out if layout == "tile4" else torch.empty_like(raw)
        arrange.permute_tiles(raw, moved, order.to(raw.device), cols, bits)
        raw = moved
    if layout != "tile4":
        arrange.relayout(raw, out, rows, cols, bits, layout)


def _empty_codes(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Codes in memory; on the CPU they start a cache line and have readable bytes behind the end.

    numpy's zeros cost nothing until they are written, and lie in huge pages.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    room = torch.from_numpy(np.zeros(shape[0] * shape[1] + SLACK + ALIGN, dtype=np.uint8))
    first = -room.data_ptr() % ALIGN
    return room[first : first + shape[0] * shape[1]].view(shape)


def _assemble(
    source: Source,
    targets: Targets | None,
    plan: Plan,
    options: Options,
    key: Tensor,
    codes: Tensor,
    sums: Sums,
    order: Tensor | None,
) -> QuantizedDataset:
    anchor = anchor_intercept = None
    facts = dict(plan.pilot)
    if "level_cost" in facts:  # the same of all rows, and of the levels as kernels see them
        facts["level_error"] = float(sums.noise[0 if plan.sampling == "nearest" else 1].mean())
    if plan.x0 is not None:
        assert targets is not None
        exact, decoded = sums.gradient[0], sums.gradient[1]
        anchor = torch.stack([plan.x0, exact, exact - decoded])
        penalty = options.alpha * float(plan.x0.square().sum()) / targets.outputs
        doubled = targets.loss == "squared_error"  # F is the mean square, without the half
        facts["F_x0"] = float(sums.loss.mean()) * (2 if doubled else 1) + (
            penalty if doubled else penalty / 2
        )
        if plan.intercept is not None:
            b = sums.intercept_gradient
            anchor_intercept = torch.stack([plan.intercept, b[0], b[0] - b[1]])
    stored, book = None if targets is None else targets.stored, plan.book.to(codes.device)
    weight = None if targets is None else targets.weight
    pick = slice(None) if order is None else order
    return QuantizedDataset(
        rows=source.rows, cols=source.cols, outputs=0 if targets is None else targets.outputs,
        bits=options.bits, sampling=plan.sampling, level_kind=plan.levels,
        layout=options.final_layout if options.bits != 32 else "dense",
        copies=1 if options.bits == 32 else options.copies, codes=codes,
        y=None if stored is None else stored[pick], weight=None if weight is None else weight[pick],
        mean=plan.columns.mean, scale=plan.columns.scale, grid=book.grid, table=book.table,
        levels=book.levels, noise=sums.noise, moments=sums.moments, linear=sums.linear, anchor=anchor,
        anchor_intercept=anchor_intercept, pilot=facts, task="none" if targets is None else targets.task,
        classes=None if targets is None else targets.classes, feature_names=source.names, key=key,
        loss=options.loss, y_mean=torch.zeros(0, dtype=torch.float64) if targets is None else targets.mean,
        clipped=sums.clipped, shuffled=options.shuffle, scale_kind=options.scale,
    )  # fmt: skip


def _shapes(
    source: Source, targets: Targets | None, plan: Plan, options: Options, codes: tuple[int, int]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Tensors of the file, in order."""
    n, m, book = source.cols, 0 if targets is None else targets.outputs, plan.book
    f64, f32 = torch.float64, torch.float32
    out: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"codes": (torch.uint8, codes)}
    if targets is not None:
        out["y"] = (targets.stored.dtype, tuple(targets.stored.shape))
        if targets.weight is not None:
            out["w"] = (f32, (source.rows,))
        out["y_mean"] = (f64, (m,))
    out |= {"mean": (f64, (n,)), "scale": (f64, (n,)), "grid": (f32, (n, 2))}
    if book.levels is None:
        out["levels"] = (f32, (n, 2))
    else:
        out["levels"] = (f32, tuple(book.levels.shape))
        out["table"] = (torch.uint8, tuple(book.table.shape))
    out |= {
        "noise": (f64, (3, n)),
        "moments": (f64, (3, n)),
        "linear": (f64, (2, n, m)),
        "clipped": (torch.int64, (n,)),
    }
    if plan.x0 is not None:
        out["anchor"] = (f64, (3, n, m))
        if plan.intercept is not None:
            out["anchor_intercept"] = (f64, (3, m))
    return out


def reserve(names: list[str] | None, classes: list[Any] | None) -> int:
    """Bytes that the metadata take at most."""
    return 4096 + sum(len(json.dumps(json.dumps(what))) for what in (names, classes))


def metadata(store: QuantizedDataset) -> dict[str, str]:
    """The header's strings."""
    kind = (
        "affine" if store.table.numel() == 0 else ("int8" if store.table.shape[0] == 1 else "int16")
    )
    facts: dict[str, Any] = {
        "stream_version": STREAM_VERSION, "rows": store.rows, "cols": store.cols, "outputs": store.outputs,
        "bits": store.bits, "sampling": store.sampling, "levels": store.level_kind, "grid": kind,
        "layout": store.layout, "planes": "+".join(str(p) for p in planes(store.bits)),
        "copies": store.copies, "key": json.dumps([int(v) for v in store.key]),
        "shuffled": str(store.shuffled).lower(), "task": store.task,
        "loss": store.loss, "scale": store.scale_kind, "classes": json.dumps(store.classes),
        "feature_names": json.dumps(store.feature_names), "pilot": json.dumps(store.pilot),
    }  # fmt: skip
    return {name: str(value) for name, value in facts.items()}
