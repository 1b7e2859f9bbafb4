"""Shape rules of the ops: what torch.compile and meta tensors need instead of a kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, library


@library.register_fake("torchext::fold_in")
def _(key: Tensor, data: int) -> Tensor:
    return key.new_empty((2,), dtype=torch.int64)


@library.register_fake("torchext::fold_in.Tensor")
def _(key: Tensor, data: Tensor) -> Tensor:
    return key.new_empty((2,), dtype=torch.int64)


@library.register_fake("torchext::split")
def _(key: Tensor, n: int) -> Tensor:
    return key.new_empty((n, 2), dtype=torch.int64)


@library.register_fake("torchext::_philox")
def _(key: Tensor, blocks: int, stream: int, draw: int) -> Tensor:
    return key.new_empty((4 * blocks,), dtype=torch.int64)


@library.register_fake("torchext::_code_dot")
def _(
    codes: Tensor, rows: int, cols: int, bits: int, grid: Tensor, table: Tensor, x: Tensor, digits: int
) -> Tensor:  # fmt: skip
    return x.new_empty((x.shape[0], rows), dtype=torch.float32)


@library.register_fake("torchext::_code_gram")
def _(
    codes: Tensor, rows: int, cols: int, bits: int, grid: Tensor, table: Tensor, x: Tensor,
    offset: Tensor | None, shift: Tensor | None, weight: Tensor | None, digits: int,
) -> Tensor:  # fmt: skip
    return x.new_empty((x.shape[0], cols + 1), dtype=torch.float64)


@library.register_fake("torchext::_foreach_square_sums")
def _(x: Sequence[Tensor], center: Sequence[Tensor], weight_decay: float) -> Tensor:
    return x[0].new_empty((len(x),), dtype=torch.float64)


# Ops that only rewrite their arguments.
for _name in ("commit_", "encode_", "materialize_", "step_"):
    library.register_fake(f"torchext::foreach_halp_{_name}", lambda *arguments: None)
library.register_fake("torchext::foreach_svrg_step_", lambda *arguments: None)
for _name in ("halp", "svrg"):
    library.register_fake(f"torchext::foreach_{_name}_step_.lr_tensor", lambda *arguments: None)


@library.register_fake("torchext::_loss_terms")
def _(
    z: Tensor, y: Tensor, weight: Tensor | None, moved: Tensor | None, score: Tensor | None,
    length: Tensor | None, loss: str, slopes: Tensor | None,
) -> Tensor:  # fmt: skip
    return z.new_empty((z.shape[0], 4), dtype=torch.float64)


@library.register_fake("torchext::_code_sum")
def _(
    codes: Tensor, rows: int, cols: int, bits: int, grid: Tensor, table: Tensor, e: Tensor, digits: int
) -> Tensor:  # fmt: skip
    return e.new_empty((e.shape[0], cols), dtype=torch.float64)


@library.register_fake("torchext::_exact_pass")
def _(
    x: Tensor, w: Tensor, offset: Tensor, y: Tensor, weight: Tensor | None, loss: str, z: Tensor,
    gradient: Tensor, total: Tensor,
) -> None:  # fmt: skip
    return None


@library.register_fake("torchext::_grid_rows")
def _(x: Tensor, mean: Tensor, inverse: Tensor, top: float, codes: Tensor, squares: Tensor) -> None:
    return None


@library.register_fake("torchext::_halp_epoch")
def _(
    x: Tensor, phi: Tensor, weight: Tensor | None, loss: str, alpha_g: Tensor, alpha: float, l2: float,
    dx: float, dz: float, steps: int, batch: int, refresh: int, noise: str, z: Tensor,
    z_intercept: Tensor | None, clips: Tensor, gammas: Tensor | None, key: Tensor, stream: int = 0,
) -> None:  # fmt: skip
    return None


@library.register_fake("torchext::_svrg_epoch")
def _(
    x: Tensor, phi: Tensor, weight: Tensor | None, loss: str, alpha_g: Tensor, alpha: float, l2: float,
    dx: float, unit: float, steps: int, batch: int, z: Tensor, z_intercept: Tensor | None,
    key: Tensor, stream: int = 0,
) -> None:  # fmt: skip
    return None


@library.register_fake("torchext::_column_stats")
def _(x: Tensor, weight: Tensor | None, centre: Tensor | None, state: Tensor) -> Tensor:
    return state.new_empty((), dtype=torch.int64)


@library.register_fake("torchext::_encode")
def _(
    x: Tensor, mean: Tensor, scale: Tensor, grid: Tensor, levels: Tensor, mode: str, bits: int, key: Tensor,
    row0: int, rows: Tensor | None, copy: int, codes: Tensor, y: Tensor | None, weight: Tensor | None,
    x0: Tensor | None, intercept: Tensor | None, loss: str, bounds: Tensor | None, sums: Tensor,
    totals: Tensor, clipped: Tensor,
) -> None:  # fmt: skip
    return None


@library.register_fake("torchext::_column_levels")
def _(
    x: Tensor,
    rows: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    bounds: Tensor,
    levels: int,
    kind: str,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    shape = (2 if kind == "both" else 1, x.shape[1])
    return x.new_empty((*shape, levels), dtype=torch.float32), mean.new_empty((*shape, 2))


@library.register_fake("torchext::_histogram_new")
def _(pilot: Tensor, mean: Tensor, scale: Tensor, bounds: Tensor, levels: int) -> Tensor:
    return pilot.new_empty((-(-pilot.shape[1] // 64), 3360), dtype=torch.uint8)


@library.register_fake("torchext::_histogram_add")
def _(x: Tensor, state: Tensor, counts: Tensor) -> None:
    return None


@library.register_fake("torchext::_histogram_levels")
def _(
    state: Tensor, counts: Tensor, bounds: Tensor, levels: int, kind: str, iterations: int
) -> tuple[Tensor, Tensor]:
    shape = (2 if kind == "both" else 1, len(bounds))
    return bounds.new_empty((*shape, levels)), bounds.new_empty((*shape, 2), dtype=torch.float64)


@library.register_fake("torchext::_pack_codes")
def _(codes: Tensor, bits: int, layout: str) -> Tensor:
    from torchext.data._encode import layout_bytes

    return codes.new_empty(
        (layout_bytes(codes.shape[0], codes.shape[1], bits, layout),), dtype=torch.uint8
    )


@library.register_fake("torchext::_permute_tiles")
def _(packed: Tensor, order: Tensor, cols: int, bits: int, out: Tensor) -> None:
    return None


@library.register_fake("torchext::_scale_rows")
def _(x: Tensor, rows: Tensor | None, mean: Tensor, scale: Tensor, out: Tensor) -> None:
    return None


@library.register_fake("torchext::_unpack_codes")
def _(packed: Tensor, rows: int, cols: int, bits: int, layout: str) -> Tensor:
    return packed.new_empty((rows, cols), dtype=torch.uint16 if bits > 8 else torch.uint8)


def _channel_count(size: Sequence[int], dim: int | None, bucket_size: int | None) -> int:
    if bucket_size is not None:
        return (math.prod(size) + bucket_size - 1) // bucket_size
    return 1 if dim is None else size[dim]


def _packed_bytes(n: int, bits: int) -> int:
    return (n * bits + 7) // 8


@library.register_fake("torchext::quantize")
def _(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None,
    bucket_size: int | None,
    rounding: str,
    key: Tensor | None,
    stream: int = 0,
) -> Tensor:
    return x.new_empty((_packed_bytes(x.numel(), bits),), dtype=torch.uint8)


@library.register_fake("torchext::fake_quantize")
def _(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None,
    bucket_size: int | None,
    rounding: str,
    key: Tensor | None,
    stream: int = 0,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@library.register_fake("torchext::dequantize")
def _(
    codes: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    size: Sequence[int],
    bits: int,
    scheme: str,
    dim: int | None,
    bucket_size: int | None,
) -> Tensor:
    return codes.new_empty(size, dtype=torch.float32)


@library.register_fake("torchext::quantization_scale")
def _(x: Tensor, bits: int, scheme: str, dim: int | None, bucket_size: int | None) -> Tensor:
    channels = _channel_count(x.shape, dim, bucket_size)
    return x.new_empty((channels, 2) if scheme == "minmax" else (channels,), dtype=torch.float32)


@library.register_fake("torchext::quantization_variance")
def _(
    x: Tensor,
    scale: Tensor | None,
    levels: Tensor | None,
    bits: int,
    scheme: str,
    dim: int | None,
    bucket_size: int | None,
) -> Tensor:
    return x.new_empty((), dtype=torch.float64)


@library.register_fake("torchext::pack_bits")
def _(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty((_packed_bytes(codes.numel(), bits),))


@library.register_fake("torchext::unpack_bits")
def _(packed: Tensor, n: int, bits: int) -> Tensor:
    return packed.new_empty((n,))


@library.register_fake("torchext::_sgd_decode")
def _(
    codes: Tensor,
    rows: int,
    cols: int,
    bits: int,
    layout: str,
    grid: Tensor,
    table: Tensor,
    row_index: Tensor,
    draw: int,
) -> Tensor:
    return codes.new_empty((row_index.shape[0], cols), dtype=torch.float32)


@library.register_fake("torchext::_sgd_epoch")
def _(
    codes: Tensor,
    rows: int,
    cols: int,
    bits: int,
    layout: str,
    grid: Tensor,
    table: Tensor,
    *rest: Any,
) -> Tensor:
    x: Tensor = rest[3]
    return x.new_empty((3, x.shape[0]), dtype=torch.float64)


@library.register_fake("torchext::quantize_draws")
def _(
    x: Tensor, levels: Tensor, draws: int, form: str, dim: int | None, key: Tensor, stream: int = 0
) -> Tensor:
    base_bits = (levels.shape[-1] - 2).bit_length()
    width = base_bits + {"bits": draws, "count": draws.bit_length(), "ternary": 0}[form]
    counts = (x.numel() + 4) // 5 if form == "ternary" else 0
    return x.new_empty((_packed_bytes(x.numel(), width) + counts,), dtype=torch.uint8)


@library.register_fake("torchext::dequantize_draws")
def _(
    codes: Tensor,
    levels: Tensor,
    size: Sequence[int],
    draws: int,
    form: str,
    dim: int | None,
    draw: int,
    key: Tensor | None,
    stream: int = 0,
) -> Tensor:
    return codes.new_empty(size, dtype=torch.float32)


def _tables(x: Tensor, dim: int | None, bucket_size: int | None) -> list[int]:
    """Sizes of a result with one entry per table."""
    grouped = dim is not None or bucket_size is not None
    return [_channel_count(x.shape, dim, bucket_size)] if grouped else []


@library.register_fake("torchext::_levels_work")
def _(x: Tensor, levels: int, objective: str, method: str) -> Tensor:
    return x.new_empty(3, dtype=torch.int64)


@library.register_fake("torchext::optimal_levels")
def _(
    x: Tensor, weight: Tensor | None, candidates: Tensor | None, levels: int, dim: int | None,
    bucket_size: int | None, objective: str, method: str, rtol: float, level_dtype: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    tables = _tables(x, dim, bucket_size)
    dtype: torch.dtype = getattr(torch, level_dtype) if level_dtype else x.dtype
    return (
        x.new_empty([*tables, levels], dtype=dtype),
        x.new_empty(tables, dtype=torch.int64),
        x.new_empty(tables, dtype=torch.float64),
        x.new_empty(tables, dtype=torch.float64),
        x.new_empty(tables, dtype=torch.bool),
    )


@library.register_fake("torchext::rounding_error")
def _(
    x: Tensor, levels: Tensor, weight: Tensor | None, dim: int | None, bucket_size: int | None, rounding: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    tables = _tables(x, dim, bucket_size)
    return (
        x.new_empty(tables, dtype=torch.float64),
        x.new_empty(tables, dtype=torch.float64),
        x.new_empty(tables, dtype=torch.int64),
    )
