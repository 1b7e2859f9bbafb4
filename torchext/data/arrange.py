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
