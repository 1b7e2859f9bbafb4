"""Store files to QuantizedDataset and back, with every shape checked before codes are touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchext.data._encode import layout_bytes
from torchext.data._levels import grid_values
from torchext.data.dataset import QuantizedDataset
from torchext.data.errors import DataError
from torchext.data.format import Metadata, StoreWriter, read_store

Shape = tuple[int, ...]


def open_store(path: str | Path, verify: bool | None) -> QuantizedDataset:
    """See :meth:`QuantizedDataset.open`."""
    metadata, tensors = read_store(path, verify)
    try:
        store = _store(Path(path), metadata, tensors)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{Path(path).name}: the header lacks or garbles a field ({error})"
        ) from None
    store.path = str(Path(path).resolve())
    return store


def _store(path: Path, meta: Metadata, tensors: dict[str, Tensor]) -> QuantizedDataset:
    rows, cols, outputs = int(meta["rows"]), int(meta["cols"]), int(meta["outputs"])
    bits, copies = int(meta["bits"]), int(meta["copies"])
    layout, sampling, kind = meta["layout"], meta["sampling"], meta["grid"]
    _choose(path, "bits", bits, (*range(1, 9), 16))
    _choose(path, "layout", layout, ("tile4", "block", "row"))
    _choose(path, "sampling", sampling, ("nearest", "stochastic", "corrected", "double"))
    _choose(path, "grid", kind, ("affine", "int8", "int16"))
    classes = json.loads(meta["classes"])
    books, size = 2 if sampling == "double" else 1, 2**bits
    f32, f64 = torch.float32, torch.float64
    need: dict[str, tuple[torch.dtype, Shape]] = {
        "codes": (torch.uint8, (copies, layout_bytes(rows, cols, bits, layout))),
        "mean": (f64, (cols,)), "scale": (f64, (cols,)), "grid": (f32, (cols, 2)),
        "noise": (f64, (3, cols)), "moments": (f64, (3, cols)), "linear": (f64, (2, cols, outputs)),
        "clipped": (torch.int64, (cols,)),
    }  # fmt: skip
    if outputs:
        need["y"] = (f32, (rows, outputs)) if classes is None else (torch.int32, (rows,))
        need["y_mean"] = (f64, (outputs,))
    if kind == "affine":
        need["levels"] = (f32, (cols, 2))
    else:
        need["levels"] = (f32, (books, cols, size))
        need["table"] = (torch.uint8, (1 if kind == "int8" else 2, books, cols, size))
    optional = {
        "w": (f32, (rows,)),
        "anchor": (f64, (3, cols, outputs)),
        "anchor_intercept": (f64, (3, outputs)),
    }
    need |= {name: what for name, what in optional.items() if name in tensors}
    for name, (dtype, shape) in need.items():
        _check(path, name, tensors.get(name), dtype, shape)
    levels = None if kind == "affine" else tensors["levels"]
    table = tensors.get("table", torch.empty(0, dtype=torch.uint8))
    if levels is not None:
        whole = table[0].to(torch.int64) + (table[1].to(torch.int64) << 8 if len(table) == 2 else 0)
        if not all(
            torch.equal(grid_values(tensors["grid"], t), v)
            for t, v in zip(whole, levels, strict=True)
        ):
            raise DataError(f"{path.name}: levels and table disagree")
    return QuantizedDataset(
        rows=rows, cols=cols, outputs=outputs, bits=bits, sampling=sampling, level_kind=meta["levels"],
        layout=layout, copies=copies, codes=tensors["codes"], y=tensors.get("y"), weight=tensors.get("w"),
        mean=tensors["mean"], scale=tensors["scale"], grid=tensors["grid"], table=table, levels=levels,
        noise=tensors["noise"], moments=tensors["moments"], linear=tensors["linear"],
        anchor=tensors.get("anchor"), anchor_intercept=tensors.get("anchor_intercept"),
        pilot=json.loads(meta["pilot"]), task=meta["task"], classes=classes,
        feature_names=json.loads(meta["feature_names"]),
        key=torch.tensor(json.loads(meta["key"]), dtype=torch.int64).reshape(2), loss=meta["loss"],
        y_mean=tensors.get("y_mean", torch.zeros(0, dtype=f64)), clipped=tensors["clipped"],
        shuffled=meta["shuffled"] == "true", scale_kind=meta["scale"],
    )  # fmt: skip


def _choose(path: Path, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise DataError(
            f"{path.name}: {name} is {value!r}, this build reads {', '.join(str(a) for a in allowed)}"
        )


def _check(path: Path, name: str, tensor: Tensor | None, dtype: torch.dtype, shape: Shape) -> None:
    if tensor is None:
        raise DataError(f"{path.name}: tensor {name!r} is missing")
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        found = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise DataError(f"{path.name}: tensor {name!r} must be {dtype} {shape}, got {found}")


def save_store(store: QuantizedDataset, path: str | Path) -> None:
    """See :meth:`QuantizedDataset.save`."""
    from torchext.data.builder import metadata, reserve

    if store.bits == 32:
        raise ValueError(
            "bits=32 keeps float32 rows in memory and has no file form; save the array instead"
        )
    tensors = store.tensors()
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    writer = StoreWriter(path, shapes, reserve(store.feature_names, store.classes))
    try:
        for name, tensor in tensors.items():
            writer.view(name).copy_(tensor)
        writer.finish(metadata(store))
    except BaseException:
        writer.abort()
        raise
