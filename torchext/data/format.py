"""The container of a store: safetensors with aligned tensors and checksums (see docs/store-format.md)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchext.data.errors import DataError

FORMAT, VERSION = "torchext.qdata", "1"
ALIGN = 64
SLACK = 64  # readable bytes behind the last tensor: kernels load whole vectors
_DTYPES = {
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000
_STEP = 1 << 24
_BLANK = "00000000"

Metadata = dict[str, str]


def _crc(data: np.ndarray[Any, Any]) -> str:
    """crc32 of bytes as 8 hex digits."""
    value = 0
    for at in range(0, len(data), _STEP):
        value = zlib.crc32(data[at : at + _STEP].data, value)
    return f"{value:08x}"


class StoreWriter:
    """Writes a store under a temporary name; the final name appears when the file is complete.

    Args:
        path: final name; an existing file is replaced at the end.
        tensors: dtype and shape of every tensor, in file order.
        reserve: bytes kept for the metadata.
    """

    def __init__(
        self,
        path: str | Path,
        tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]],
        reserve: int,
    ) -> None:
        self.path = Path(path)
        self.entries: dict[str, Any] = {}
        at = pads = 0
        for name, (dtype, shape) in tensors.items():
            size = int(np.prod(shape, dtype=np.int64)) * torch.empty(0, dtype=dtype).element_size()
            self.entries[name] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [at, at + size],
            }
            at += size
            if at % ALIGN:
                self.entries[f"_pad{pads}"] = _pad(at, ALIGN - at % ALIGN)
                at, pads = at + ALIGN - at % ALIGN, pads + 1
        self.entries[f"_pad{pads}"] = _pad(at, SLACK)
        self.size = at + SLACK
        table = len(json.dumps(self.entries)) + 48 * len(self.entries)
        self.start = -(-(8 + table + reserve) // ALIGN) * ALIGN
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        with open(self._temporary, "xb") as file:
            file.truncate(self.start + self.size)
        self._bytes = np.memmap(self._temporary, dtype=np.uint8, mode="r+")

    def view(self, name: str) -> Tensor:
        """The mapped tensor, to be filled."""
        return _tensor(torch.from_numpy(np.asarray(self._bytes)[self.start :]), self.entries[name])

    def finish(self, metadata: Metadata) -> None:
        """Checksums, header, flush to disk, rename."""
        data = np.asarray(self._bytes)[self.start :]
        sums = {
            name: _crc(data[slice(*entry["data_offsets"])]) for name, entry in self.entries.items()
        }
        full = {
            **metadata,
            "format": FORMAT,
            "version": VERSION,
            "crc32": json.dumps(sums),
            "header_crc32": _BLANK,
        }
        header = json.dumps({"__metadata__": full, **self.entries}, ensure_ascii=True).encode()
        if len(header) > self.start - 8:
            raise ValueError(
                f"{self.path.name}: {len(header)} bytes of header do not fit the reserved {self.start - 8}"
            )
        length = self.start - 8
        blob = bytearray(length.to_bytes(8, "little") + header.ljust(length))
        at = blob.index(_BLANK.encode(), blob.index(b'"header_crc32"'))
        blob[at : at + 8] = f"{zlib.crc32(blob):08x}".encode()
        self._bytes[: self.start] = np.frombuffer(blob, dtype=np.uint8)
        self._bytes.flush()
        with open(self._temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary, self.path)
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def abort(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):
            self._temporary.unlink()


def _pad(at: int, size: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}


def _tensor(data: Tensor, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    if begin == end:
        return torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
    return data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def read_store(path: str | Path, verify: bool | None = None) -> tuple[Metadata, dict[str, Tensor]]:
    """Metadata and mapped tensors of a store; the mapping is private, the file is never written.

    Args:
        path: a file made by :class:`StoreWriter`.
        verify: check the checksum of every tensor; default: if the file has less than 1 GiB. The
            header is always checked.
    """
    path = Path(path)
    size = path.stat().st_size
    if size < 8:
        raise DataError(f"{path.name}: not a torchext store, the file has only {size} bytes")
    raw = np.memmap(path, dtype=np.uint8, mode="c")
    metadata, entries, start = _read_header(path, np.asarray(raw), size)
    tensors: dict[str, Tensor] = {}
    data = torch.from_numpy(np.asarray(raw)[start:])
    for name, entry in entries.items():
        if not name.startswith("_pad"):
            tensors[name] = _tensor(data, entry)
    if verify if verify is not None else size < 1 << 30:
        sums = json.loads(metadata["crc32"])
        for name, entry in entries.items():
            if _crc(np.asarray(raw)[start:][slice(*entry["data_offsets"])]) != sums.get(name):
                raise DataError(
                    f"{path.name}: tensor {name!r} is damaged, its checksum does not agree"
                )
    return metadata, tensors


def _read_header(
    path: Path, raw: np.ndarray[Any, Any], size: int
) -> tuple[Metadata, dict[str, Any], int]:
    length = int.from_bytes(raw[:8].tobytes(), "little")
    if not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise DataError(
            f"{path.name}: not a torchext store or truncated, its header would have {length} bytes"
        )
    blob = raw[: 8 + length].tobytes()
    try:
        header = json.loads(blob[8:])
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise DataError(
                f"{path.name}: not a torchext store, its format is {metadata['format']!r}"
            )
        if metadata["version"] != VERSION:
            raise DataError(
                f"{path.name}: store version {metadata['version']!r}; this build reads version {VERSION!r}, "
                "so update torchext or encode the data again"
            )
        stated = metadata["header_crc32"]
        blank = blob.replace(
            f'"header_crc32": "{stated}"'.encode(), f'"header_crc32": "{_BLANK}"'.encode()
        )
        if f"{zlib.crc32(blank):08x}" != stated:
            raise DataError(f"{path.name}: the header is damaged, its checksum does not agree")
        _check_entries(path, header, size - 8 - length)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path.name}: not a torchext store or damaged, the header cannot be read ({error})"
        ) from None
    return metadata, header, 8 + length


def _check_entries(path: Path, entries: dict[str, Any], size: int) -> None:
    """Tensors fill the data section without holes, and their shapes fit their bytes."""
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        item = torch.empty(0, dtype=_DTYPES[entry["dtype"]]).element_size()
        count = int(np.prod(entry["shape"], dtype=np.int64))
        if begin != at or end - begin != count * item or min(entry["shape"], default=0) < 0:
            raise DataError(f"{path.name}: the header places tensor {name!r} wrongly")
        at = end
    if at != size:
        raise DataError(
            f"{path.name}: truncated or extended, {size} bytes of data where the header needs {at}"
        )
