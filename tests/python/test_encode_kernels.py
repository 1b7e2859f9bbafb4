"""Encoding kernels against models written from the formulas, and against themselves on every ISA."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
import torch

import torchext
from torchext import _testing
from torchext.data import _encode as enc
from torchext.data import _levels as lev
from torchext.data._column_levels import (
    ColumnHistograms,
    column_levels,
    histogram_bins,
    optimal_column_levels,
    shared_levels,
)
from torchext.random import key_from_seed

ISAS = [
    name
    for name in _testing.ISAS
    if _testing.ISAS.index(name) <= _testing.ISAS.index(torch.ops.torchext._cpu_isa())
]
KEY = key_from_seed(7)


def tiny() -> tuple[torch.Tensor, torch.Tensor]:
    a = torch.tensor([[0.5, -1], [-0.5, 0.25], [1, 0], [-1, 0.75]], dtype=torch.float64)
    return a, torch.tensor([[1.0], [-1], [2], [-2]])


def exact_book(bits: int, sampling: str, levels: torch.Tensor) -> lev.Codebook:
    """A codebook whose searched levels are the given ones, not rounded to a grid."""
    grid = lev.uniform_grid(levels[:, 0], levels[:, -1], levels.shape[1])
    empty = torch.empty(0, dtype=torch.uint8)
    return lev.Codebook(grid, levels.float().contiguous(), empty, None, "affine", bits, sampling)


def model_codes(a: np.ndarray, levels: np.ndarray, u: np.ndarray | None) -> np.ndarray:
    """The search rule, value by value; u: uniforms for stochastic rounding."""
    codes = np.zeros(a.shape, dtype=np.int64)
    for k, j in np.ndindex(a.shape):
        row = levels[j]
        last = int(np.max(np.nonzero(np.diff(row) > 0)[0])) + 1 if np.any(np.diff(row) > 0) else 0
        if last == 0:
            continue
        i = min(max(int(np.sum(row <= a[k, j])) - 1, 0), last - 1)
        low, high = np.float32(row[i]), np.float32(row[i + 1])
        if u is None:
            up = a[k, j] > np.float32(np.float32(low + high) / np.float32(2))
        else:
            up = u[k, j] < np.float32(np.float32(a[k, j] - low) / np.float32(high - low))
        codes[k, j] = i + int(up)
    return codes


def uniforms(rows: int, cols: int, copy: int, draw: int, row0: int = 0) -> np.ndarray:
    pitch = 64 * -(-cols // 64)
    key = torch.ops.torchext.fold_in(torch.ops.torchext.fold_in(KEY, 4), copy)
    words = torch.ops.torchext._philox(key, (row0 + rows) * pitch // 4, 0, draw)
    u = (words >> 8).double() * 2.0**-24
    return u.reshape(-1, pitch)[row0:, :cols].numpy().astype(np.float32)


def test_tiny_set_nearest() -> None:
    """Codes, D, moments and anchor of the four rows worked out by hand."""
    a, y = tiny()
    levels = torch.tensor([[-1, -1 / 3, 1 / 3, 1]] * 2, dtype=torch.float32)
    x0 = torch.tensor([[1.0, -0.5]])
    one = torch.ones(2, dtype=torch.float64)
    encoder = enc.Encoder(0 * one, one, exact_book(2, "nearest", levels), KEY, outputs=1, x0=x0)
    packed = encoder.add(a, y=y)
    codes = enc.unpack_codes(packed, 4, 2, 2)
    # (1/2, -1), (-1/2, 1/4), (1, 0: a tie, lower), (-1, 3/4)
    assert codes.tolist() == [[2, 0], [1, 2], [3, 1], [0, 3]]
    sums = encoder.finish()
    q = np.array([[1 / 3, -1], [-1 / 3, 1 / 3], [1, -1 / 3], [-1, 1]], dtype=np.float32).astype(
        np.float64
    )
    check_sums(
        sums, a.numpy(), q, q, y.numpy().astype(float), x0.numpy().astype(float), np.ones(4), None
    )
    assert sums.noise[0].tolist() == pytest.approx([1 / 72, 13 / 288], rel=1e-6)
    assert (sums.gradient[0] - sums.gradient[1]).flatten().tolist() == pytest.approx(
        [-37 / 576, -79 / 576], rel=1e-6
    )
    assert sums.linear[1].flatten().tolist() == pytest.approx([-1 / 12, -5 / 16], rel=1e-6)
    assert float(sums.noise[1].abs().max()) == 0.0


def test_tiny_set_variances() -> None:
    """Mean v and Ke_j = (sum v)^2 / sum v^2 of a stochastic draw do not depend on the draw."""
    a, _ = tiny()
    levels = torch.tensor([[-1, -1 / 3, 1 / 3, 1]] * 2, dtype=torch.float32)
    one = torch.ones(2, dtype=torch.float64)
    encoder = enc.Encoder(0 * one, one, exact_book(2, "stochastic", levels), KEY)
    encoder.add(a)
    noise = encoder.finish().noise
    assert noise[1].tolist() == pytest.approx(
        [float(Fraction(1, 24)), float(Fraction(19, 288))], rel=1e-6
    )
    assert (4 * noise[1] ** 2 / noise[2]).tolist() == pytest.approx([2, 722 / 265], rel=1e-6)


def test_double_code_example() -> None:
    """Levels 0, .25, .. 1: base 2, d1 = 1, d2 = 0 is code 6; all ones is (1, 1); 8 is (0, .25)."""
    book = lev.codebook(4, "double", lo=torch.zeros(1), hi=torch.ones(1))
    assert book.levels is not None
    assert book.levels[:, 0, 6].tolist() == [0.75, 0.5]
    assert book.levels[:, 0, 15].tolist() == [1.0, 1.0]
    assert book.levels[:, 0, 8].tolist() == [0.0, 0.25]
    assert book.table.shape == (1, 2, 1, 16)


def check_sums(sums, a, q, q2, y, x0, w, loss) -> None:  # type: ignore[no-untyped-def]
    """Every sum against fp64 numpy, with the conventions of encode.h for two draws."""
    total = w.sum()
    mean = lambda v: (w[:, None] * v).sum(0) / total  # noqa: E731
    both = (q + q2) / 2
    close = lambda got, want: np.testing.assert_allclose(got.numpy(), want, rtol=1e-9, atol=1e-12)  # noqa: E731
    close(sums.noise[0], mean(((q - a) ** 2 + (q2 - a) ** 2) / 2))
    close(sums.moments[0], mean(a * a))
    close(sums.moments[1], mean(q * q2))
    close(sums.moments[2], mean(both))
    slope = (
        (lambda z: z - y)
        if loss in (None, "squared_error")
        else (lambda z: -y / (1 + np.exp(y * z)))
    )
    for o in range(y.shape[1]):
        close(sums.linear[0, :, o], mean(a * y[:, o : o + 1]))
        close(sums.linear[1, :, o], mean((both - a) * y[:, o : o + 1]))
        e, e1, e2 = (slope(v @ x0.T)[:, o : o + 1] for v in (a, q, q2))
        close(sums.gradient[0, :, o], mean(a * e))
        close(sums.gradient[1, :, o], mean((q * e2 + q2 * e1) / 2))
        close(sums.intercept_gradient[0, o], (w[:, None] * e).sum() / total)


CASES = [
    ("nearest", 4, 1, "squared_error"),
    ("nearest", 2, 2, "log_loss"),
    ("stochastic", 3, 1, "squared_error"),
    ("stochastic", 8, 1, "squared_error"),
    ("double", 4, 2, "squared_error"),
    ("double", 8, 1, "squared_error"),
    ("nearest", 1, 1, "squared_error"),
    ("nearest", 16, 1, "squared_error"),
    ("nearest", 6, 1, "squared_error"),
]


def encode_case(mode, bits, outputs, loss, kind, rows, cols, **over):  # type: ignore[no-untyped-def]
    """One encoding of random data; `over`: dtype, weighted, chunks (row counts), copy, row0."""
    rng = np.random.default_rng(rows * 1000 + cols)
    x = np.exp(rng.normal(size=(rows, cols))).astype(over.get("dtype", np.float32))
    if cols > 2:
        x[:, 1] = 3.25  # constant
        x[:, 2] = rng.integers(0, 2, rows)  # two values
    x = torch.from_numpy(x)
    state = enc.new_stats(cols)
    assert enc.update_stats(x, state) == -1
    mean, scale, bounds = enc.finish_stats(state)
    if kind == "uniform":
        book = lev.codebook(bits, mode, lo=bounds[:, 0], hi=bounds[:, 1])
    else:
        count = lev.level_count(bits, mode)
        levels = column_levels(x, mean, scale, bounds, 16).levels[:, :: max(1, 16 // count)][
            :, :count
        ]
        if levels.shape[1] < count:
            levels = torch.cat([levels, levels[:, -1:].expand(cols, count - levels.shape[1])], 1)
        levels = torch.cummax(levels, 1).values.contiguous()
        book = lev.codebook(bits, mode, levels=levels)
    y = torch.from_numpy(np.sign(rng.normal(size=(rows, outputs))).astype(np.float32))
    weight = (
        torch.from_numpy(rng.uniform(0.5, 2, rows).astype(np.float32))
        if over.get("weighted")
        else None
    )
    x0 = torch.from_numpy(rng.normal(size=(outputs, cols)).astype(np.float32))
    tight = bounds * 0.5 if over.get("tight") else bounds
    encoder = enc.Encoder(
        mean,
        scale,
        book,
        KEY,
        copy=over.get("copy", 0),
        outputs=outputs,
        x0=x0,
        loss=loss,
        bounds=tight,
    )
    parts, at = [], 0
    for count in over.get("chunks", [rows]):
        part = slice(at, at + count)
        parts.append(
            encoder.add(x[part], y=y[part], weight=None if weight is None else weight[part])
        )
        at += count
    return {
        "x": x,
        "mean": mean,
        "scale": scale,
        "bounds": tight,
        "book": book,
        "y": y,
        "weight": weight,
        "x0": x0,
        "codes": torch.cat(parts),
        "encoder": encoder,
    }


@pytest.mark.parametrize("kind", ["uniform", "table"])
@pytest.mark.parametrize("mode, bits, outputs, loss", CASES)
def test_against_model(mode: str, bits: int, outputs: int, loss: str, kind: str) -> None:
    if kind == "table" and bits == 16:
        pytest.skip("16 bits have uniform levels only")
    rows, cols = 133, 7
    case = encode_case(
        mode, bits, outputs, loss, kind, rows, cols, weighted=bits % 2 == 0, tight=True
    )
    a = ((case["x"].double() - case["mean"]) / case["scale"]).float().numpy()
    book = case["book"]
    count = lev.level_count(bits, mode)
    base = (
        book.base
        if book.base.numel()
        else lev.grid_values(book.grid, torch.arange(count).expand(cols, count))
    )
    levels = base.numpy()
    got = enc.unpack_codes(case["codes"], rows, cols, bits).to(torch.int64).numpy()
    if mode == "nearest":
        index = index2 = model_codes(a, levels, None)
        want = index
    elif mode == "stochastic":
        index = index2 = model_codes(a, levels, uniforms(rows, cols, 0, 0))
        want = index
    else:
        low = model_codes(a, levels, np.full(a.shape, np.inf, np.float32))  # never up: the base
        index = model_codes(a, levels, uniforms(rows, cols, 0, 0))
        index2 = model_codes(a, levels, uniforms(rows, cols, 0, 1))
        want = low | (index - low) << (bits - 2) | (index2 - low) << (bits - 1)
    np.testing.assert_array_equal(got, want)
    take = lambda i: np.take_along_axis(levels.T, i, 0).astype(float)  # noqa: E731
    w = np.ones(rows) if case["weight"] is None else case["weight"].numpy().astype(float)
    check_sums(
        case["encoder"].finish(),
        a.astype(float),
        take(index),
        take(index2),
        case["y"].numpy().astype(float),
        case["x0"].numpy().astype(float),
        w,
        loss,
    )
    bounds = case["bounds"].numpy()
    clipped = ((a < bounds[:, 0]) | (a > bounds[:, 1])).sum(0)
    np.testing.assert_array_equal(case["encoder"].clipped.numpy(), clipped)
    assert clipped.sum() > 0


def state_of(case) -> tuple[torch.Tensor, ...]:  # type: ignore[no-untyped-def]
    e = case["encoder"]
    return case["codes"], e.sums, e.totals, e.clipped


def same(a, b) -> None:  # type: ignore[no-untyped-def]
    for one, two in zip(state_of(a), state_of(b), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", ["uniform", "table"])
@pytest.mark.parametrize("mode, bits, outputs, loss", CASES)
@pytest.mark.parametrize("cols", [1, 5, 16, 37])
def test_isa_parity(mode: str, bits: int, outputs: int, loss: str, kind: str, cols: int) -> None:
    if kind == "table" and bits == 16:
        pytest.skip("16 bits have uniform levels only")
    for rows, extra in (
        (1, {}),
        (64, {"dtype": np.float64}),
        (200, {"weighted": True}),
        (1030, {"tight": True}),
    ):
        results = []
        for isa in ISAS:
            with _testing.isa(isa):
                results.append(encode_case(mode, bits, outputs, loss, kind, rows, cols, **extra))
        for other in results[1:]:
            same(results[0], other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widest", [0, 100, 790, 900])
def test_scaled_values_are_quotients(dtype: torch.dtype, widest: int) -> None:
    """Kernels that multiply by an inverse round as a division does, special values included."""
    generator = torch.Generator().manual_seed(widest)
    rows, cols = 40_000 if widest == 0 else 2_000, 37
    double = lambda *size: torch.randn(*size, dtype=torch.float64, generator=generator)  # noqa: E731
    scale = double(cols).abs() + 0.5
    scale *= 2.0 ** torch.linspace(-widest, widest, cols, dtype=torch.float64)
    if dtype == torch.float32:
        scale.clamp_(1e-30, 1e30)
    scale[3] = 2.0 - 2.0**-52  # all ones
    mean = double(cols) * scale
    x = mean + double(rows, cols) * scale * 2.0 ** -torch.randint(
        0, 40, (rows, 1), generator=generator
    )
    x = x.to(dtype)
    top = torch.finfo(dtype).max
    odd = [
        float("inf"),
        -float("inf"),
        float("nan"),
        top,
        -top,
        torch.finfo(dtype).tiny / 8,
        -0.0,
        0.0,
    ]
    x[70:78, 5] = torch.tensor(odd, dtype=dtype)
    x[100], x[101] = mean.to(dtype), (mean * (1 + 1e-7)).to(dtype)
    ends = torch.tensor([[-1.0, 1.0]]).expand(cols, 2).contiguous()
    book = lev.codebook(8, "nearest", lo=ends[:, 0], hi=ends[:, 1])
    results = []
    for isa in ISAS:
        with _testing.isa(isa):
            encoder = enc.Encoder(mean, scale, book, KEY, bounds=ends)
            sums, codes = [], []
            for at in range(0, rows, 64):  # few rows a sum: no difference drowns
                codes.append(encoder.add(x[at : at + 64], row0=at))
                sums.append(encoder.sums.clone())
                encoder.sums.zero_()
            results.append((torch.cat(codes), torch.stack(sums), encoder.clipped))
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][2], other[2])
        assert torch.equal(results[0][1].view(torch.int64), other[1].view(torch.int64)) or bool(
            ((results[0][1] == other[1]) | (results[0][1].isnan() & other[1].isnan())).all()
        )
    want = ((x.double() - mean) / scale).float()
    assert torch.equal(enc.scale_rows(x, mean, scale).nan_to_num(7.0), want.nan_to_num(7.0))
    some = torch.tensor([rows - 1, 0, 5, 5])
    assert torch.equal(enc.scale_rows(x, mean, scale, rows=some), want[some])
    square = want[:64].double().square().sum(0)
    torch.testing.assert_close(results[0][1][0, enc.MOMENTS - 3], square, rtol=1e-12, atol=0)


def test_scaled_rows_refuse_what_does_not_fit() -> None:
    x, one = torch.zeros(3, 2), torch.ones(2, dtype=torch.float64)
    assert enc.scale_rows(torch.zeros(0, 2), one, one).shape == (0, 2)
    with pytest.raises(RuntimeError, match=r"_scale_rows: rows must be in .0, 2., got 3"):
        enc.scale_rows(x, one, one, rows=torch.tensor([3]))
    with pytest.raises(RuntimeError, match="_scale_rows: out must have shape"):
        enc.scale_rows(x, one, one, out=torch.empty(2, 2))
    with pytest.raises(RuntimeError, match="_scale_rows: x must be float32 or float64"):
        enc.scale_rows(x.half(), one, one)
    with pytest.raises(RuntimeError, match="_encode: rows must be in"):
        book = lev.codebook(4, "stochastic", lo=-torch.ones(2), hi=torch.ones(2))
        enc.Encoder(one, one, book, KEY).add(x, position=torch.tensor([0, 1, -1]))


@pytest.mark.parametrize("mode", ["nearest", "stochastic", "double"])
def test_scattered_rows_draw_what_their_places_draw(mode: str) -> None:
    rows, cols = 2_100, 21
    x = torch.randn(rows, cols, generator=torch.Generator().manual_seed(4)).clamp_(-1, 1)
    zero, one = torch.zeros(cols, dtype=torch.float64), torch.ones(cols, dtype=torch.float64)
    book = lev.codebook(4, mode, lo=-torch.ones(cols), hi=torch.ones(cols))
    index = torch.randperm(rows, generator=torch.Generator().manual_seed(5))[:1_111]
    for isa in ISAS:
        with _testing.isa(isa):
            codes = enc.Encoder(zero, one, book, KEY).add(x)
            some = enc.Encoder(zero, one, book, KEY).add(x[index], position=index)
        plain = enc.unpack_codes(codes, rows, cols, 4)
        assert torch.equal(enc.unpack_codes(some, len(index), cols, 4), plain[index])


def test_threads_and_chunks() -> None:
    """Bits do not depend on how the source is cut or on the number of threads."""
    rows, cols = 20 * 1024 + 77, 9
    before = torch.get_num_threads()
    base = encode_case("stochastic", 4, 1, "squared_error", "table", rows, cols)
    try:
        for threads, chunks in (
            (1, [rows]),
            (2, [1024, rows - 1024]),
            (7, [3072, 17408, rows - 20480]),
        ):
            torch.set_num_threads(threads)
            same(
                base,
                encode_case(
                    "stochastic", 4, 1, "squared_error", "table", rows, cols, chunks=chunks
                ),
            )
    finally:
        torch.set_num_threads(before)


def test_copies_differ() -> None:
    one, two = (
        encode_case("stochastic", 4, 1, "squared_error", "uniform", 200, 9, copy=c) for c in (0, 1)
    )
    assert not torch.equal(one["codes"], two["codes"])


def test_no_rows() -> None:
    case = encode_case("nearest", 4, 1, "squared_error", "uniform", 64, 3)
    before = [t.clone() for t in state_of(case)[1:]]
    out = case["encoder"].add(torch.empty(0, 3), y=torch.empty(0, 1))
    assert out.numel() == 0
    for old, new in zip(before, state_of(case)[1:], strict=True):
        assert torch.equal(old, new)


def test_constant_column_outside_its_level() -> None:
    """A column without spread keeps code 0 whatever comes later, in every mode."""
    one = torch.ones(1, dtype=torch.float64)
    for mode in ("nearest", "stochastic", "double"):
        for bits in (2, 4, 8):
            book = lev.codebook(bits, mode, lo=torch.zeros(1), hi=torch.zeros(1))
            for isa in ISAS:
                with _testing.isa(isa):
                    encoder = enc.Encoder(0 * one, one, book, KEY, bounds=torch.zeros(1, 2))
                    packed = encoder.add(torch.tensor([[0.0], [1.0], [-1.0]]))
                assert enc.unpack_codes(packed, 3, 1, bits).sum() == 0
                assert encoder.clipped.tolist() == [2]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stats(isa: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    before = torch.get_num_threads()
    for rows, cols in ((0, 3), (1, 1), (1025, 5), (3000, 67)):
        x = torch.from_numpy(rng.normal(size=(rows, 2 * cols))).to(dtype)[:, :cols]
        with _testing.isa(isa):
            whole = enc.new_stats(cols)
            assert enc.update_stats(x, whole) == -1
            cut = enc.new_stats(cols)
            torch.set_num_threads(3)
            for part in (x[:1024], x[1024:]):
                assert enc.update_stats(part, cut) == -1
            torch.set_num_threads(before)
        assert torch.equal(whole, cut)
        with _testing.isa("ref"):
            ref = enc.new_stats(cols)
            enc.update_stats(x.t().contiguous().t(), ref)  # column-major
        assert torch.equal(whole, ref)
        if rows:
            np.testing.assert_allclose(whole[1], x.double().sum(0), rtol=1e-12, atol=1e-12)
            assert torch.equal(whole[2], x.double().min(0).values)
            assert torch.equal(whole[3], x.double().max(0).values)
            weight = torch.from_numpy(rng.uniform(size=rows))
            centre = torch.from_numpy(rng.normal(size=cols))
            for w, c in ((weight, None), (weight, centre), (None, centre)):
                with _testing.isa(isa):
                    weighted = enc.new_stats(cols)
                    enc.update_stats(x, weighted, w, c)
                assert torch.equal(weighted[:4], whole[:4]) and not whole[4].any()
                values = x.double() if c is None else (x.double() - c).square()
                model = np.zeros(cols)
                for at in range(0, rows, 1024):
                    chunk = np.zeros(cols)
                    for k in range(at, min(rows, at + 1024)):
                        chunk += (1.0 if w is None else float(w[k])) * values[k].numpy()
                    model += chunk
                assert weighted[4].tolist() == model.tolist()
    for bad in (float("nan"), float("inf"), -float("inf")):
        x = torch.zeros(1100, 7, dtype=dtype)
        x[1060, 4] = x[1090, 0] = bad
        with _testing.isa(isa):
            assert enc.update_stats(x, enc.new_stats(7)) == 1060 * 7 + 4


def model_place(
    layout: str, row: int, col: int, cols: int, bits: int
) -> list[tuple[int, int, int, int]]:
    """(byte, bit, width, shift of the field in the code) of every plane, from the text of the format."""
    out, shift = [], 0
    for p in enc.planes(bits):
        if layout == "tile4":
            tile, r = divmod(row, 64)
            base = (tile * -(-cols // 4) + col // 4) * 32 * bits + 32 * shift
            if p == 1:
                out.append((base + 4 * (r % 8) + col % 4, r // 8, p, shift))
            else:
                line, r = divmod(r, 64 // (p // 2))
                out.append((base + 64 * line + 4 * (r % 16) + col % 4, p * (r // 16), p, shift))
        elif layout == "block":
            block, r = divmod(row, 128)
            base = (block * cols + col) * 16 * bits + 16 * shift
            out.append((base + r % (16 * p), p * (r // (16 * p)), p, shift))
        else:
            units = [-(-cols * w // 512) for w in enc.planes(bits)]
            base = 64 * (row * sum(units) + sum(units[: len(out)]))
            unit, c = divmod(col, 512 // p)
            out.append((base + 64 * unit + c % 64, p * (c // 64), p, shift))
        shift += p
    return out


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 16])
def test_layouts(layout: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    for rows, cols in ((0, 3), (1, 1), (70, 5), (129, 130)):
        codes = rng.integers(0, 2**bits, (rows, cols)).astype(np.uint16 if bits > 8 else np.uint8)
        packed = enc.pack_codes(torch.from_numpy(codes), bits, layout)
        want = np.zeros(enc.layout_bytes(rows, cols, bits, layout), dtype=np.uint8)
        for k, j in np.ndindex(codes.shape):
            for byte, bit, width, shift in model_place(layout, k, j, cols, bits):
                want[byte] |= (int(codes[k, j]) >> shift & (2**width - 1)) << bit
        np.testing.assert_array_equal(packed.numpy(), want)
        back = enc.unpack_codes(packed, rows, cols, bits, layout)
        np.testing.assert_array_equal(back.numpy(), codes)


@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 16])
def test_permute_tiles(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for rows, cols in ((0, 3), (1, 1), (70, 5), (200, 130)):
        codes = rng.integers(0, 2**bits, (rows, cols)).astype(np.uint16 if bits > 8 else np.uint8)
        order = rng.permutation(rows)
        packed = enc.pack_codes(torch.from_numpy(codes), bits)
        out = torch.full_like(packed, 255)
        enc.permute_tiles(packed, torch.from_numpy(order), cols, bits, out)
        assert torch.equal(out, enc.pack_codes(torch.from_numpy(codes[order]), bits))
    with pytest.raises(RuntimeError, match="order must be in"):
        enc.permute_tiles(packed, torch.full((200,), 200), cols, bits, out)


def test_layout_vectors() -> None:
    """The worked examples of the store format."""
    rows = torch.arange(64, dtype=torch.uint8)[:, None]
    wide = rows.expand(64, 4)
    line = torch.arange(16).repeat_interleave(4)
    assert enc.pack_codes(wide % 16, 4).tolist() == (line * 17).repeat(2).tolist()
    assert enc.pack_codes(wide % 4, 2).tolist() == (line % 4 * 0x55).tolist()
    assert (
        enc.pack_codes(torch.arange(4, dtype=torch.uint8).expand(64, 4), 4).tolist()
        == [0, 17, 34, 51] * 32
    )
    rows = torch.arange(128, dtype=torch.uint8)[:, None]
    i = torch.arange(64)
    assert enc.pack_codes(rows % 16, 4, "block").tolist() == (i % 16 * 17).tolist()
    assert enc.pack_codes(rows % 4, 2, "block").tolist() == (i[:32] % 4 * 0x55).tolist()
    three = (i[:32] % 4 * 0x55).tolist() + [0 if k % 8 < 4 else 255 for k in range(16)]
    assert enc.pack_codes(rows % 8, 3, "block").tolist() == three
    five = enc.pack_codes(torch.tensor([[1, 2, 3, 4, 5]], dtype=torch.uint8), 4, "row")
    assert five.tolist() == [1, 2, 3, 4, 5] + [0] * 59


def two_columns(name: str, rows: int, seed: int) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Columns of a distribution, float32, and their mean, scale and bounds."""
    rng = np.random.default_rng(seed)
    draw = {"uniform": rng.uniform, "gauss": rng.normal, "cauchy": rng.standard_cauchy}.get(name)
    x = np.exp(rng.normal(size=(rows, 2))) if draw is None else draw(size=(rows, 2))
    x = torch.from_numpy(x.astype(np.float32))
    state = enc.new_stats(2)
    enc.update_stats(x, state)
    return x, enc.finish_stats(state)


def lloyd_error(a: np.ndarray, levels: np.ndarray) -> float:
    middle = (levels[1:] + levels[:-1]) / 2
    return float(np.mean((a - levels[np.searchsorted(middle, a)]) ** 2))


@pytest.mark.parametrize("name", ["uniform", "gauss", "lognormal", "cauchy"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_lloyd_levels_are_centroids(name: str, bits: int) -> None:
    """Cells' means on the sample, and no worse than plain Lloyd on the sorted values."""
    x, (mean, scale, bounds) = two_columns(name, 20000, seed=3)
    results = []
    for isa in ISAS:
        with _testing.isa(isa):
            results.append(column_levels(x, mean, scale, bounds, 2**bits).levels)
    assert all(torch.equal(results[0], r) for r in results)
    a = ((x.double() - mean) / scale).float().double().numpy()
    levels = results[0].double().numpy()
    for j in range(2):
        v = np.sort(a[:, j])
        plain = np.quantile(v, (np.arange(2**bits) + 0.5) / 2**bits)
        for _ in range(60):
            cut = np.searchsorted(v, (plain[1:] + plain[:-1]) / 2)
            plain = np.array(
                [c.mean() if c.size else plain[i] for i, c in enumerate(np.split(v, cut))]
            )
        best = lloyd_error(v, plain)
        assert lloyd_error(v, levels[j]) <= 1.01 * best + 1e-15
        if bits > 4:
            continue  # 60 iterations end further from the fixed point, at the same error
        cells = np.split(v, np.searchsorted(v, (levels[j, 1:] + levels[j, :-1]) / 2))
        np.testing.assert_allclose(levels[j], [c.mean() for c in cells], atol=0.1 * np.sqrt(best))


def draw_variance(a: np.ndarray, levels: np.ndarray) -> float:
    at = np.clip(np.searchsorted(levels, a, side="right") - 1, 0, len(levels) - 2)
    return float(np.mean((levels[at + 1] - a) * (a - levels[at])))


@pytest.mark.parametrize("name", ["uniform", "gauss", "lognormal", "cauchy"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", ["nearest", "stochastic"])
def test_optimal_levels_of_columns(name: str, bits: int, kind: str) -> None:
    """Close to the optimum over all values, the cost as stated, and nearly never worse than Lloyd's."""
    x, (mean, scale, bounds) = two_columns(name, 5000, seed=6)
    results = []
    for isa in ISAS:
        with _testing.isa(isa):
            results.append(column_levels(x, mean, scale, bounds, 2**bits, kind=kind))
    together = optimal_column_levels(x, mean, scale, bounds, 2**bits)[kind == "stochastic"]
    for other in (*results, together):
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    a = ((x.double() - mean) / scale).float()
    found = torchext.optimal_levels(a, 2**bits, objective=kind, dim=1)
    error = lloyd_error if kind == "nearest" else draw_variance
    plain = column_levels(x, mean, scale, bounds, 2**bits).levels.double().numpy()
    limit = 1.3 if name == "cauchy" else 1.05  # of 32 or 64 levels, where few bins lie between two
    for j in range(2):
        v, levels = a[:, j].double().numpy(), results[0].levels[j].double().numpy()
        best, mine = error(v, found.levels[j].double().numpy()), error(v, levels)
        assert mine <= (1.01 if bits < 5 else limit) * best + 1e-15
        assert abs(mine - float(results[0].cost[j])) <= float(results[0].bound[j]) + 1e-7 * mine
        if kind == "nearest":
            assert mine <= lloyd_error(v, plain[j]) * 1.005
        else:
            assert levels[0] <= v.min() and levels[-1] >= v.max()


@pytest.mark.parametrize("bits", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_histograms_of_blocks_add_up(bits: int, dtype: torch.dtype) -> None:
    """Any split of the rows, any order, any instruction set, and merging: the bits of all rows at once."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(3001, 70, generator=g, dtype=dtype).exp()
    x[:, 3], x[:, 4] = 2.5, (x[:, 4] > 1) * x[:, 4]  # constant; many zeros
    state = enc.new_stats(70)
    enc.update_stats(x, state)
    mean, scale, bounds = enc.finish_stats(state)
    pilot = x[torch.arange(512) * 3001 // 512]

    def count(blocks: list[torch.Tensor]) -> ColumnHistograms:
        histograms = ColumnHistograms(pilot, mean, scale, bounds, 2**bits)
        for block in blocks:
            histograms.add(block)
        return histograms

    want = optimal_column_levels(x, mean, scale, bounds, 2**bits)
    halves = count([x[:1000]]), count([x[1000:]])
    halves[0].merge(halves[1])
    with _testing.isa("ref"):
        slow = count([x])
    found = halves[0], slow, count(list(x.flip(0).split(257))), count([x[0:0], x])
    for histograms in found:
        assert int(histograms.counts[0].sum()) == x.numel()
        assert torch.equal(histograms.counts, found[0].counts)
        for a, b in zip(want, histograms.levels("both"), strict=True):
            assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert torch.equal(slow.levels("nearest")[0].levels, want[0].levels)
    other = ColumnHistograms(pilot + 1, mean, scale, bounds, 2**bits)
    with pytest.raises(ValueError, match="use one pilot"):
        other.merge(slow)
    with pytest.raises(RuntimeError, match="counts must"):
        torch.ops.torchext._histogram_add(x, slow.state, slow.counts[:, :, :99].contiguous())
    with pytest.raises(RuntimeError, match="state must"):
        torch.ops.torchext._histogram_add(x[:, :50], slow.state[:0], slow.counts)
    with pytest.raises(RuntimeError, match="pilot must hold at least one row"):
        ColumnHistograms(x[:0], mean, scale, bounds, 4)


def test_histogram_ops_have_shape_rules() -> None:
    x = torch.randn(40, 65, generator=torch.Generator().manual_seed(6))
    state = enc.new_stats(65)
    enc.update_stats(x, state)
    mean, scale, bounds = enc.finish_stats(state)
    made = (
        torch.ops.torchext._histogram_new(x, mean, scale, bounds, 20),
        torch.zeros(2, 65, histogram_bins(20), dtype=torch.int64),
    )
    check = torch.library.opcheck
    ops = torch.ops.torchext
    check(ops._histogram_new.default, (x, mean, scale, bounds, 20))
    check(ops._histogram_add.default, (x, *made))
    ops._histogram_add(x, *made)
    check(ops._histogram_levels.default, (*made, bounds, 20, "both", 9))


def test_levels_of_a_thousand_columns_are_found_in_two_seconds() -> None:
    """20,000 x 1,024, 16 levels, processor time of all threads; .13 s where it was written."""
    x = torch.randn(20_000, 1024, generator=torch.Generator().manual_seed(0))
    state = enc.new_stats(1024)
    enc.update_stats(x, state)
    stats = enc.finish_stats(state)
    begin = time.process_time()
    column_levels(x, *stats, 16, kind="nearest")
    assert time.process_time() - begin <= 2


@pytest.mark.parametrize("kind", ["nearest", "stochastic"])
@pytest.mark.parametrize("levels", [2, 4, 9, 16])
def test_a_shared_table(kind: str, levels: int) -> None:
    """Columns of one shape and different ranges get one table in integer form, and close to their own;
    a constant column gets its value, and does not count."""
    rng = np.random.default_rng(7)
    x = torch.from_numpy(rng.beta(2, 5, size=(4000, 5)))
    x[0], x[1] = 0.0, 1.0  # so that all columns have the same range
    x = x * torch.tensor([1.0, 30.0, 7.0, 1e-3, 0.0]) + torch.tensor([0.0, 5.0, 1.0, -2.0, 3.0])
    state = enc.new_stats(5)
    enc.update_stats(x, state)
    mean, scale, bounds = enc.finish_stats(state)
    found = shared_levels(x, mean, scale, bounds, levels, kind=kind)
    own = column_levels(x, mean, scale, bounds, levels, kind=kind)
    book = (
        lev.codebook(levels.bit_length() - 1, "nearest", levels=found.levels)
        if levels != 9
        else None
    )
    if book is not None:
        assert all(torch.equal(book.table[:, :, 0], book.table[:, :, j]) for j in (1, 2, 3))
    assert found.levels[4].unique().numel() == 1
    error = lloyd_error if kind == "nearest" else draw_variance
    a = ((x - mean) / scale).float().double().numpy()
    for j in range(4):
        mine = error(a[:, j], found.levels[j].double().numpy())
        assert mine <= 1.05 * error(a[:, j], own.levels[j].double().numpy())
        assert mine == pytest.approx(float(found.cost[j]), rel=0.05)
    empty = shared_levels(x[:, 4:], mean[4:], scale[4:], bounds[4:], levels, kind=kind)
    assert empty.cost.tolist() == [0.0] and empty.levels.unique().numel() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lloyd_levels_of_many_columns(dtype: torch.dtype) -> None:
    """Several strips, the last one short, on listed rows: the same bits on every instruction set."""
    rng = np.random.default_rng(4)
    x = torch.from_numpy(rng.normal(size=(3000, 2 * 83))).to(dtype)[:, :83]
    rows = torch.from_numpy(np.sort(rng.choice(3000, 1801, replace=False)))
    state = enc.new_stats(83)
    enc.update_stats(x, state)
    found = []
    for isa in ISAS:
        with _testing.isa(isa):
            found.append(column_levels(x, *enc.finish_stats(state), 16, rows=rows).levels)
    assert all(torch.equal(found[0], f) for f in found)
    assert bool((found[0][:, 1:] > found[0][:, :-1]).all())


def test_lloyd_few_values() -> None:
    """Fewer distinct values than levels: exactly those values, padded with the last."""
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.integers(0, 3, (500, 3)).astype(np.float64))
    x[:, 1] = 4.0
    state = enc.new_stats(3)
    enc.update_stats(x, state)
    mean, scale, bounds = enc.finish_stats(state)
    levels = column_levels(x, mean, scale, bounds, 8).levels
    a = ((x - mean) / scale).float()
    for j in range(3):
        distinct = torch.unique(a[:, j])
        np.testing.assert_allclose(levels[j, : distinct.numel()], distinct, atol=1e-7)
        assert torch.equal(
            levels[j, distinct.numel() :],
            levels[j, distinct.numel() - 1].expand(8 - distinct.numel()),
        )
    rows = torch.arange(0, 500, 7)
    assert torch.equal(
        column_levels(x, mean, scale, bounds, 8, rows=rows).levels,
        column_levels(x[rows], mean, scale, bounds, 8).levels,
    )


def test_grids() -> None:
    lo, hi = torch.tensor([-1.0, 0.1, 0.5]), torch.tensor([1.0, 0.7, 0.5])
    for count in (2, 4, 16, 256, 65536):
        grid = lev.uniform_grid(lo, hi, count)
        top = lev.grid_values(grid, torch.full((3, 1), count - 1))[:, 0]
        assert bool((top >= hi).all())
        assert float((top - hi).max()) < 1e-4
        assert grid[2].tolist() == [0.5, 0.0]
    levels = torch.tensor([[-1.0, -0.2, 0.3, 1.0], [0.1, 0.1001, 0.4, 0.7], [0.5, 0.5, 0.5, 0.5]])
    _, _, values, kind = lev.to_grid(levels)
    assert kind == "int16"  # two levels of the second column would merge on 256 points
    assert float((values - levels).abs().max()) < 2e-5
    assert bool((values[:, 0] <= levels[:, 0]).all()) and bool(
        (values[:, -1] >= levels[:, -1]).all()
    )
    book = lev.codebook(2, "nearest", levels=levels)
    assert book.table.shape == (2, 1, 3, 4)
    assert lev.to_grid(levels[[0, 2]])[3] == "int8"
