"""From codes in source order to a store's row order and layout."""

from __future__ import annotations

import torch
from torch import Tensor

from torchext.data import _encode
from torchext.data._encode import layout_bytes, pack_codes, unpack_codes

UNIT_ROWS = {"tile4": 64, "block": 128, "row": 1}


def permute_tiles(codes: Tensor, out: Tensor, order: Tensor, cols: int, bits: int) -> None:
    """tile4 codes of one copy with rows moved: row i of ``out`` is row ``order[i]`` of ``codes``.

    Works on strips of columns, so that it needs a few bytes per row, not per value.
    """
    _encode.permute_tiles(codes, order, cols, bits, out)


def relayout(codes: Tensor, out: Tensor, rows: int, cols: int, bits: int, layout: str) -> None:
    """tile4 codes of one copy to another layout, 1,024 rows at a time."""
    tile_bytes, unit_bytes = (
        layout_bytes(64, cols, bits),
        layout_bytes(UNIT_ROWS[layout], cols, bits, layout),
    )
    for first in range(0, rows, 1024):
        count = min(1024, rows - first)
        at = first // 64 * tile_bytes
        plain = unpack_codes(codes[at : at + -(-count // 64) * tile_bytes], count, cols, bits)
        packed = pack_codes(plain, bits, layout)
        begin = first // UNIT_ROWS[layout] * unit_bytes
        out[begin : begin + len(packed)] = packed


def tile4(
    codes: Tensor, rows: int, cols: int, bits: int, layout: str, device: torch.device
) -> Tensor:
    """Codes [copies, bytes] on ``device`` in tile4, which the kernels of GPUs read; converted there.

    float32 rows (``bits=32``) have no other form.
    """
    if layout == "tile4" or bits == 32:
        return codes.to(device).contiguous()
    size = layout_bytes(rows, cols, bits)
    out = torch.empty(len(codes), size, dtype=torch.uint8, device=device)
    step = max(128, (1 << 26) // max(1, cols) // 128 * 128)
    for copy, converted in zip(codes, out, strict=True):
        for first in range(0, rows, step):
            last = min(rows, first + step)
            begin, end = (layout_bytes(at, cols, bits, layout) for at in (first, last))
            plain = unpack_codes(copy[begin:end].to(device), last - first, cols, bits, layout)
            packed = pack_codes(plain, bits)
            at = layout_bytes(first, cols, bits)
            converted[at : at + len(packed)] = packed
    return out


def read_codes(
    codes: Tensor, index: Tensor, rows: int, cols: int, bits: int, layout: str
) -> Tensor:
    """uint8 (uint16 for 16 bits) [R, n] of the given rows of one copy."""
    unit = UNIT_ROWS[layout]
    units, inside = torch.unique(index // unit, return_inverse=True)
    picked = codes.view(-1, layout_bytes(unit, cols, bits, layout))[units]
    plain = unpack_codes(picked.reshape(-1), len(units) * unit, cols, bits, layout)
    at = inside * unit + index % unit
    return plain.view(torch.int16)[at].view(plain.dtype) if bits == 16 else plain[at]
