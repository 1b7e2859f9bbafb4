"""The cases of benchmarks.cuda: codec, optimizer steps, levels, linear models, each beside its rivals."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import torchext
from benchmarks._contestants import encode, estimator, make_data
from benchmarks.cuda import Cases, Contest, Options, Run
from torchext import ops, random
from torchext.optim import ops as optim_ops

FULL, QUICK = 1 << 28, 1 << 12  # values of the large tensors


def values(n: int, o: Options) -> Tensor:
    return torch.randn(n, device=o.device, generator=torch.Generator(o.device).manual_seed(1))


def key(o: Options) -> Tensor:
    return random.key_from_seed(1).to(o.device)


# ---- codec


def eager_rounding(x: Tensor, scale: Tensor, bits: int) -> Run:
    """Stochastic rounding to one byte a code, as one writes it in torch."""
    top = 2 ** (bits - 1) - 1
    return lambda: torch.floor(x / scale + torch.rand_like(x)).clamp_(-top, top).to(torch.int8)


def torchao_rounding(x: Tensor) -> Run:
    from torchao.optim.quant_utils import _fp32_to_bf16_sr

    return lambda: _fp32_to_bf16_sr(x)


def bitsandbytes_rounding(x: Tensor, bits: int) -> Run:
    from bitsandbytes import functional

    return lambda: functional.quantize_4bit(x) if bits == 4 else functional.quantize_blockwise(x)


def library(name: str, make: Callable[[], Run], contest: Contest, label: str) -> None:
    """Adds a rival of another library, or the reason why it is absent."""
    if find_spec(name) is None:
        contest.absent[label] = "not installed"
        return
    try:
        contest.rivals[label] = make()
    except Exception as error:  # a library's own reasons: another version, no kernel for this card
        contest.absent[label] = f"{type(error).__name__}: {str(error)[:120]}"


def quantize(bits: int, stochastic: bool, o: Options) -> Contest:
    n = o.size(FULL, QUICK)
    x, k = values(n, o), key(o) if stochastic else None
    scale = torch.tensor(4.0 / 2 ** (bits - 1), device=o.device)
    rounding = "stochastic" if stochastic else "nearest"

    def run() -> object:
        return ops.quantize(x, scale, None, bits, "symmetric", None, None, rounding, k)

    contest = Contest(run, 4 * n + n * bits // 8)
    if stochastic:
        contest.rivals["torch eager, unpacked int8"] = eager_rounding(x, scale, bits)
        library("torchao", lambda: torchao_rounding(x), contest, "torchao float32 to bfloat16")
        name = f"bitsandbytes {bits}-bit blocks, nearest"
        library("bitsandbytes", lambda: bitsandbytes_rounding(x, bits), contest, name)
    return contest


def quantize_buckets(o: Options) -> Contest:
    n, bits, bucket = o.size(FULL, QUICK), 4, 512
    x, k = values(n, o), key(o)
    scale = ops.quantization_scale(x, bits, "symmetric", None, bucket)
    return Contest(
        lambda: ops.quantize(x, scale, None, bits, "symmetric", None, bucket, "stochastic", k),
        4 * n + n * bits // 8 + 4 * scale.numel(),
    )


def dequantize(bits: int, o: Options) -> Contest:
    n = o.size(FULL, QUICK)
    codes = torch.zeros(n * bits // 8, dtype=torch.uint8, device=o.device)
    scale = torch.tensor(0.5, device=o.device)
    return Contest(
        lambda: ops.dequantize(codes, scale, None, [n], bits, "symmetric", None, None),
        4 * n + n * bits // 8,
    )


# ---- optimizers


def halp_step(bits: int, o: Options) -> Contest:
    n = o.size(1 << 26, QUICK)
    store = {4: torch.uint8, 8: torch.int8, 16: torch.int16}[bits]
    z = [torch.zeros(n // 2 if bits == 4 else n, dtype=store, device=o.device)]
    param, center, grad, at_center, full = ([values(n, o)] for _ in range(5))
    delta, k = [torch.tensor(1e-3, device=o.device)], key(o)

    def run() -> None:
        optim_ops.foreach_halp_step_(
            param,
            z,
            center,
            delta,
            grad,
            at_center,
            full,
            [],
            [],
            1e-3,
            0,
            1,
            0,
            0,
            bits,
            0,
            k,
            [0],
        )

    return Contest(run, n * (20 + 2 * bits // 8))


# ---- levels


def levels_of_buckets(o: Options) -> Contest:
    n = o.size(1 << 24, QUICK)
    x = values(n, o)
    return Contest(lambda: torchext.optimal_levels(x, 16, bucket_size=512), 4 * n + n // 512 * 64)


def levels_of_one(n: int, method: str, o: Options) -> Contest:
    x = values(o.size(n, 1 << 15), o)
    return Contest(lambda: torchext.optimal_levels(x, 16, method=method), 4 * x.numel())


# ---- data sets


def encode_rows(mode: str, o: Options) -> Contest:
    """The second pass over a table at 4 bits on uniform levels: float32 read, codes and sums written."""
    from torchext.data._encode import Encoder, layout_bytes
    from torchext.data._levels import Codebook

    rows, cols, bits = o.size(1 << 18, 1 << 11), o.size(1024, 64), 4
    x = values(rows * cols, o).reshape(rows, cols)
    grid = torch.tensor([[-4.0, 8 / 15]], device=o.device).repeat(cols, 1)
    empty = torch.empty(0, device=o.device)
    book = Codebook(grid, empty, empty.byte(), None, "affine", bits, mode)
    zero = torch.zeros(cols, dtype=torch.float64, device=o.device)
    encoder = Encoder(zero, zero + 1, book, key(o), device=o.device)
    codes = torch.empty(layout_bytes(rows, cols, bits), dtype=torch.uint8, device=o.device)
    return Contest(lambda: encoder.add(x, codes, row0=0), 4 * x.numel() + len(codes))


def store_of_table(o: Options) -> Contest:
    """A whole store at 4 bits: statistics, levels, pilot, codes; the bytes are those of the table."""
    from torchext.data import QuantizedDataset

    rows, cols = o.size(1 << 18, 1 << 11), o.size(1024, 64)
    x = values(rows * cols, o).reshape(rows, cols)
    y, on_cpu = x[:, 0].cpu(), x.cpu()

    def build(table: Tensor) -> object:
        return QuantizedDataset.from_arrays(table, y, bits=4, random_state=0).to(o.device)

    contest = Contest(lambda: build(x), 4 * x.numel())
    contest.rivals["encoded on the CPU, then moved"] = lambda: build(on_cpu)
    return contest


# ---- linear models


class TorchEpoch:
    """Mini-batch least squares in float32: two cuBLAS products and an update a step."""

    def __init__(self, X: Tensor, y: Tensor, batch: int) -> None:
        self.X, self.y, self.batch = X, y, batch
        self.x = torch.zeros(X.shape[1], device=X.device)

    def __call__(self) -> None:
        for first in range(0, len(self.X), self.batch):
            a, y = self.X[first : first + self.batch], self.y[first : first + self.batch]
            self.x -= (1e-3 / len(a)) * (a.T @ (a @ self.x - y))


def linear_epoch(batch: int, o: Options) -> Contest:
    """An epoch of the estimator on codes, from the fit's own loop."""
    from benchmarks._bench import Turns

    cols, rows = o.size(1024, 64), o.size(1 << 19, 1 << 10)
    X, y = make_data(rows, cols)
    store, _ = encode(X, y, 4)
    turns = Turns(
        lambda after: estimator(
            4, 1, batch_size=min(batch, rows), device=str(o.device), callbacks=[after]
        ).fit(store)
    )
    theirs = TorchEpoch(
        torch.from_numpy(X).to(o.device), torch.from_numpy(y).float().to(o.device), batch
    )
    return Contest(
        turns,
        rows * cols // 2,
        {"float32, cuBLAS": theirs},
        note=", codes read once",
        close=turns.close,
    )


def halp_epoch(batch: int, o: Options) -> Contest:
    """Inner steps of LM-HALP at 8-bit data and 8-bit z against float32 SVRG with the same batch."""
    from torchext.linear._variance_reduced import REFRESH

    rows, cols = o.size(1 << 18, 1 << 8), o.size(1024, 64)
    count = o.size(20_000 if batch == 1 else (1 << 20) // batch, 4)
    codes = torch.randint(-127, 128, (rows, cols), dtype=torch.int8, device=o.device)
    phi = values(rows, o).reshape(1, -1)
    alpha_g = 1e-6 * values(cols + 1, o).double().reshape(1, -1)
    clips = torch.zeros(3, dtype=torch.int64, device=o.device)
    z, moved, k = torch.zeros(1, cols, dtype=torch.int8, device=o.device), values(cols, o), key(o)
    shared: tuple[Any, ...] = (phi, None, "squared", alpha_g, 0.2 / (127**2 / 3 * cols), 0.0, 1.0)
    floats = codes.float()
    contest = Contest(
        lambda: torch.ops.torchext._halp_epoch(
            codes, *shared, 1e-5, count, batch, REFRESH, "step", z, None, clips, None, k
        ),
        count * batch * cols,
        note=f", {count:,} steps",
    )
    contest.rivals["SVRG in float32"] = lambda: torch.ops.torchext._svrg_epoch(
        floats, *shared, 1.0, count, batch, moved.reshape(1, -1), None, k
    )
    return contest


CASES: Cases = {
    "quantize + pack 4 bits, stochastic": ("codec", lambda o: quantize(4, True, o)),
    "quantize + pack 8 bits, stochastic": ("codec", lambda o: quantize(8, True, o)),
    "quantize + pack 4 bits, nearest": ("codec", lambda o: quantize(4, False, o)),
    "quantize + pack 4 bits, buckets of 512": ("codec", quantize_buckets),
    "dequantize 4 bits": ("codec", lambda o: dequantize(4, o)),
    "dequantize 8 bits": ("codec", lambda o: dequantize(8, o)),
    "foreach HALP step, 4 bits": ("optim", lambda o: halp_step(4, o)),
    "foreach HALP step, 8 bits": ("optim", lambda o: halp_step(8, o)),
    "16 levels per 512 of 2^24 values, exact": ("levels", levels_of_buckets),
    "16 levels of 2^14 values, exact": ("levels", lambda o: levels_of_one(1 << 14, "exact", o)),
    "16 levels of 2^24 values, exact": ("levels", lambda o: levels_of_one(1 << 24, "exact", o)),
    "16 levels of 2^26 values, hist": ("levels", lambda o: levels_of_one(1 << 26, "hist", o)),
    "encode 4 bits, nearest, d = 1024": ("linear", lambda o: encode_rows("nearest", o)),
    "encode 4 bits, stochastic, d = 1024": ("linear", lambda o: encode_rows("stochastic", o)),
    "store from a table, 4 bits, d = 1024": ("linear", store_of_table),
    "SGD epoch 4 bits, d = 1024, B = 4096": ("linear", lambda o: linear_epoch(4096, o)),
    "SGD epoch 4 bits, d = 1024, B = 65536": ("linear", lambda o: linear_epoch(65536, o)),
    "LM-HALP (8, 8), d = 1024, B = 1": ("linear", lambda o: halp_epoch(1, o)),
    "LM-HALP (8, 8), d = 1024, B = 64": ("linear", lambda o: halp_epoch(64, o)),
    "LM-HALP (8, 8), d = 1024, B = 1024": ("linear", lambda o: halp_epoch(1024, o)),
}
