"""Stores from arrays: shapes, row orders, random bits, layouts, sums; bytes that depend on nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torchext
from torchext.data import DataError, QuantizedDataset, _column_levels, order, pilot, plan
from torchext.data._encode import layout_bytes
from torchext.data._levels import grid_values
from torchext.data.coded import CodedRows
from torchext.data.targets import read_targets
from torchext.random import key_from_seed

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3000, 9)) * np.arange(1, 10) + 3
Y = X @ RNG.normal(size=9) + RNG.normal(size=3000)
SAMPLINGS = ("nearest", "stochastic", "corrected", "double")


def build(x: Any = X, y: Any = Y, **options: Any) -> QuantizedDataset:
    return QuantizedDataset.from_arrays(x, y, **{"random_state": 3, **options})


def scaled(store: QuantizedDataset, x: np.ndarray = X) -> np.ndarray:
    """Exact scaled values in the store's row order."""
    a = ((x - store.mean.numpy()) / store.scale.numpy()).astype(np.float32)
    return a[store.row_id().numpy()]


def test_public_name() -> None:
    assert torchext.QuantizedDataset is QuantizedDataset


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_decoded_values_lie_beside_the_exact_ones(bits: int, sampling: str) -> None:
    if sampling == "double" and bits == 1:
        pytest.skip("double sampling needs 2 bits")
    store = build(bits=bits, sampling=sampling)
    count = 2**bits if sampling != "double" else 2 ** (bits - 2) + 1
    a = scaled(store)
    for draw in range(2 if sampling == "double" else 1):
        q = store.decode(draw=draw).numpy()
        if sampling == "nearest":
            assert all(len(np.unique(column)) <= count for column in q.T)
        else:  # on one of the two levels around the value, and unbiased
            book = store.levels
            table = (
                grid_values(store.grid, torch.arange(count).expand(9, -1))
                if book is None
                else book[draw]
            )
            for j, column in enumerate(table.numpy()):
                level = np.unique(column)
                at = np.searchsorted(level, a[:, j], side="right").clip(1, len(level) - 1)
                assert ((q[:, j] == level[at]) | (q[:, j] == level[at - 1])).all()
            spread = np.sqrt(((q - a) ** 2).mean(0) / len(a))
            assert (np.abs((q - a).mean(0)) < 6 * spread + 1e-7).all()
    assert store.n_clipped == 0
    assert store.codes.shape == (1, layout_bytes(3000, 9, bits))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sums_are_those_of_the_codes(sampling: str) -> None:
    store = build(bits=3, sampling=sampling)
    a, y = scaled(store).astype(np.float64), store.y.double().numpy() - store.y_mean.numpy()
    q1 = store.decode().double().numpy()
    q2 = store.decode(draw=1).double().numpy()
    q = (q1 + q2) / 2
    close = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(store.noise[0], ((q1 - a) ** 2 + (q2 - a) ** 2).mean(0) / 2, **close)
    np.testing.assert_allclose(
        store.moments, [(a**2).mean(0), (q1 * q2).mean(0), q.mean(0)], **close
    )
    np.testing.assert_allclose(store.linear, [a.T @ y / 3000, (q - a).T @ y / 3000], **close)
    x0 = store.anchor[0].numpy()
    exact = a.T @ (a @ x0 - y) / 3000
    decoded = (q1.T @ (q2 @ x0 - y) + q2.T @ (q1 @ x0 - y)) / 6000
    np.testing.assert_allclose(store.anchor[1], exact, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(store.anchor[2], exact - decoded, rtol=1e-5, atol=1e-7)
    assert store.pilot["F_x0"] == pytest.approx(((a @ x0 - y) ** 2).mean(), rel=1e-6)


def test_random_bits_belong_to_the_row_of_the_source() -> None:
    """Shuffled or not, a value gets the same code; pilots draw the same values as the kernels."""
    straight = build(bits=3, sampling="stochastic", shuffle=False)
    mixed = build(bits=3, sampling="stochastic")
    where = mixed.row_id()
    assert torch.equal(where.sort().values, torch.arange(3000))
    assert not torch.equal(where, torch.arange(3000))
    assert torch.equal(straight.decode(where), mixed.decode())
    assert torch.equal(straight.y[where], mixed.y)
    for kind, levels in (
        ("stochastic", "uniform"),
        ("stochastic", "lloyd"),
        ("nearest", "lloyd"),
        ("nearest", "uniform"),
    ):
        store = build(bits=3, sampling=kind, levels=levels, shuffle=False)
        source = torchext.data.sources.from_arrays(X, Y)
        columns = plan.measure(source, None, "max", torchext.data.progress.Progress(False))
        options = torchext.data.Options(bits=3, levels=levels)
        book = plan.Books(source, columns, options, store.key).get(kind)
        targets = read_targets(source, "squared_error", "auto")
        assert targets is not None
        sample = order.Sample(store.key, 3000, 1300)
        some = pilot.Pilot(source, targets, columns.mean, columns.scale, sample)
        (coded,) = CodedRows.encode(some, [book], store.key)
        values = torch.cat([q for q, _ in coded.blocks()])
        assert torch.equal(values, store.decode(sample.indices()))


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
@pytest.mark.parametrize("bits", [1, 3, 4, 7, 16])
def test_layouts_hold_the_same_codes(layout: str, bits: int) -> None:
    plain = build(bits=bits, sampling="nearest")
    store = build(bits=bits, sampling="nearest", layout=layout)
    assert torch.equal(store.decode(), plain.decode())
    assert torch.equal(store.decode([5, 2999, 0, -1, 5]), plain.decode()[[5, 2999, 0, 2999, 5]])
    assert store.codes.shape == (1, layout_bytes(3000, 9, bits, layout))
    assert store.stored_bits == pytest.approx(8 * store.codes.numel() / 27000)


def test_sixteen_bits_and_float_rows() -> None:
    store = build(bits=16)
    assert np.abs(store.decode().numpy() - scaled(store)).max() < 2.0**-15
    dense = build(bits=32)
    assert (
        dense.layout == "dense"
        and dense.codes.shape == (3000, 16)
        and dense.codes.dtype == torch.float32
    )
    assert np.array_equal(dense.decode().numpy(), scaled(dense))
    np.testing.assert_allclose(dense.linear[0], store.linear[0], rtol=1e-9)
    np.testing.assert_allclose(dense.anchor[1], store.anchor[1], rtol=1e-6, atol=1e-12)
    assert float(dense.noise.abs().max()) == 0


def test_copies_are_independent_draws() -> None:
    store = build(bits=2, sampling="corrected", copies=3)
    q = torch.stack([store.decode(copy=c) for c in range(3)]).double()
    a = torch.from_numpy(scaled(store)).double()
    assert torch.equal(store.decode(), build(bits=2, sampling="corrected").decode())
    errors = (q - a).reshape(3, -1)
    assert float(torch.corrcoef(errors).fill_diagonal_(0).abs().max()) < 5 / np.sqrt(27000)
    np.testing.assert_allclose(store.noise[0], (q - a).square().mean((0, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    "bits, sampling", [(4, "nearest"), (2, "corrected"), (4, "double"), (4, "auto")]
)
def test_bytes_do_not_depend_on_chunks_threads_or_type_of_source(
    bits: int, sampling: str, tmp_path: Path
) -> None:
    def made(name: str, **how: Any) -> bytes:
        QuantizedDataset.from_iter(blocks(how.pop("size")), **options, path=tmp_path / name)
        return (tmp_path / name).read_bytes()

    def blocks(size: int) -> Any:
        return lambda: ((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))

    x, y = np.tile(X, (4, 1)), np.tile(Y, 4)
    options: dict[str, Any] = {"bits": bits, "sampling": sampling, "random_state": 11}
    QuantizedDataset.from_arrays(x, y, path=tmp_path / "whole", **options)
    whole = (tmp_path / "whole").read_bytes()
    before = torch.get_num_threads()
    try:
        for threads, size in ((1, 7), (2, 1000), (7, 12000)):
            torch.set_num_threads(threads)
            assert made("other", size=size) == whole
    finally:
        torch.set_num_threads(before)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    store = QuantizedDataset.from_arrays(str(tmp_path / "x.npy"), torch.from_numpy(y), **options)
    store.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == whole


def test_narrow_types_are_exact() -> None:
    small = RNG.integers(-100, 100, size=(2000, 3))
    for dtype in (np.int8, np.int16, np.float16, np.float32, ">f8", object):
        store = build(small.astype(dtype), None)
        assert torch.equal(store.decode(), build(small.astype(np.float64), None).decode())
    assert torch.equal(build(torch.from_numpy(small).bfloat16(), None).decode(), store.decode())
    locked = small.astype(np.float64)
    locked.flags.writeable = False
    assert torch.equal(build(locked[::-1][::-1], None).decode(), store.decode())


def test_weights_move_the_means() -> None:
    weight = RNG.integers(0, 3, size=3000).astype(np.float64)
    store = QuantizedDataset.from_arrays(
        X, Y, sample_weight=weight, bits=4, sampling="nearest", random_state=0
    )
    repeated = np.repeat(np.arange(3000), weight.astype(int))
    np.testing.assert_allclose(store.mean, X[repeated].mean(0), rtol=1e-12)
    np.testing.assert_allclose(store.y_mean, Y[repeated].mean(), rtol=1e-6)
    a = ((X - store.mean.numpy()) / store.scale.numpy())[repeated]
    np.testing.assert_allclose(store.moments[0], (a**2).mean(0), rtol=1e-6)
    x0, y = store.anchor[0].numpy(), Y[repeated, None] - store.y_mean.numpy()
    np.testing.assert_allclose(store.anchor[1], a.T @ (a @ x0 - y) / len(y), rtol=1e-5, atol=1e-6)


def test_classes() -> None:
    names = np.array(["b", "a", "c"])[RNG.integers(0, 3, 3000)]
    store = build(X, names, bits=2, loss="log_loss")
    assert (
        store.classes == ["a", "b", "c"] and store.outputs == 3 and store.task == "classification"
    )
    assert store.y.dtype == torch.int32 and store.anchor.shape == (3, 9, 3)
    assert store.anchor_intercept.shape == (3, 3)
    assert float(store.anchor[1].abs().max()) < 0.05  # exact gradient near the pilot's optimum
    two = build(X, names == "a", bits=2)
    assert two.classes == [False, True] and two.outputs == 1 and two.linear.shape == (2, 9, 1)
    signs = build(X, np.where(Y[:, None] > 0, 1.0, -1.0), bits=2, loss="log_loss")
    assert signs.classes is None and signs.y.dtype == torch.float32


def test_constant_columns_one_row_no_labels() -> None:
    x = X.copy()
    x[:, 4] = 2.5
    for sampling in SAMPLINGS:
        store = build(x, bits=4, sampling=sampling)
        assert float(store.scale[4]) == 1 and float(store.anchor[0][4].abs().max()) == 0
        assert float(store.decode()[:, 4].abs().max()) == 0
        assert int(store.read_codes()[:, 4].max()) == 0
    one = build(X[:1], Y[:1])
    assert (
        len(one) == 1
        and float(one.decode().abs().max()) == 0
        and one.y.tolist() == [[np.float32(Y[0])]]
    )
    bare = build(X, None)
    assert (
        bare.y is None and bare.anchor is None and bare.outputs == 0 and bare.sampling == "nearest"
    )


def test_few_distinct_values_are_kept() -> None:
    x = RNG.choice([-1.0, 0.25, 7.0], size=(1000, 2))
    store = build(x, None, bits=4, levels="lloyd")
    back = store.decode().double() * store.scale + store.mean
    step = store.grid[:, 1].double() * store.scale
    assert (
        float((back - torch.from_numpy(x[store.row_id()])).abs().max())
        <= float(step.max()) / 2 + 1e-6
    )


def test_custom_levels_and_clipping() -> None:
    levels = np.tile(np.array([-0.5, -0.1, 0.1, 0.5]), (9, 1))
    store = build(bits=2, sampling="nearest", levels=levels)
    assert store.n_clipped == int((np.abs(scaled(store)) > np.float32(0.5)).sum())
    assert float((store.decode().abs() - torch.tensor(0.5)).max()) < 0.01
    with pytest.raises(ValueError, match=r"levels must have shape \(9, 4\)"):
        build(bits=2, sampling="nearest", levels=levels[:, :3])


def test_permutation_and_nested_samples() -> None:
    key = key_from_seed(9)
    words = torch.ops.torchext._philox(torchext.random.fold_in(key, 7), 25_000, 0, 0) & 0xFFFFFFFF
    assert torch.equal(order.permutation(key, 100_000), torch.argsort(words, stable=True))
    pilots = torch.ops.torchext._philox(torchext.random.fold_in(key, 7), 150_001, 1, 0) & 0xFFFFFFFF
    sequence = torch.argsort(pilots[:600_001], stable=True)
    for count in (1, 100, 4096, 600_000, 600_001):
        sample = order.Sample(key, 600_001, count)
        assert torch.equal(sample.indices(), sequence[:count].sort().values)
        assert sum(len(b) for b in sample.blocks(1000)) == count


@pytest.mark.parametrize("bits, weighted", [(2, True), (4, False), (16, True)])
def test_auto_on_wide_data_is_the_solution_on_the_codes(bits: int, weighted: bool) -> None:
    """Above 512 columns conjugate gradients read the codes; here S = K and the system is solved directly."""
    rng = np.random.default_rng(bits)
    rows, cols = 3000, 530
    x = rng.normal(size=(rows, cols)) @ np.diag(rng.uniform(0.2, 5, cols)) + rng.normal(
        size=(rows, 1)
    )
    x[:, 7] = 3.0
    y = x @ rng.normal(size=(cols, 2)) + rng.normal(size=(rows, 2)) * [[1.0, 30.0]]
    weight = rng.uniform(0.2, 3, rows) if weighted else None
    options = dict(bits=bits, anchor="none", random_state=1, alpha=1e-3, sample_weight=weight)
    chosen = QuantizedDataset.from_arrays(x, y, sampling="auto", **options)
    w = np.ones(rows) if weight is None else weight.astype(np.float32).astype(np.float64)
    losses = {}
    for sampling in ("nearest", "corrected"):
        store = QuantizedDataset.from_arrays(x, y, sampling=sampling, shuffle=False, **options)
        q, a = store.decode().double().numpy(), scaled(store, x).astype(np.float64)
        target = store.y.double().numpy() - store.y_mean.numpy()
        extra = np.full(cols, 1e-3)
        if sampling == "corrected":
            extra -= (store.theta() * store.noise[0]).numpy()
        gram = (q.T * w) @ q / w.sum() + np.diag(extra)
        assert np.linalg.eigvalsh(gram)[0] > 0
        best = np.linalg.solve(gram, (q.T * w) @ target / w.sum())
        loss = (w @ (a @ best - target) ** 2 / w.sum() + 1e-3 * (best**2).sum(0)).mean()
        losses[sampling] = loss
        assert chosen.pilot[f"F_{sampling}"] == pytest.approx(loss, rel=5e-5)
    better = losses["corrected"] <= 0.995 * losses["nearest"]
    assert chosen.pilot["S"] == rows and chosen.sampling == ("corrected" if better else "nearest")


def test_auto_on_wide_data_with_constant_targets() -> None:
    x = np.random.default_rng(0).normal(size=(700, 600)).astype(np.float32)
    store = QuantizedDataset.from_arrays(x, np.full(700, 4.0), sampling="auto", random_state=0)
    assert store.sampling == "nearest" and store.pilot["F_nearest"] == 0.0  # both are exact fits


def test_auto_prefers_nearest_where_both_fit_exactly() -> None:
    """Two values a column: codes of both samplings are exact, and losses are rounding errors."""
    x = np.random.default_rng(0).integers(0, 2, size=(500, 5)).astype(np.float32)
    store = QuantizedDataset.from_arrays(x, x @ np.arange(5.0), bits=2, random_state=0)
    assert store.sampling == "nearest"
    assert max(store.pilot["F_nearest"], store.pilot["F_corrected"]) < 1e-12
    assert store.pilot["level_error"] < 1e-12
    assert store.pilot["level_cost"] <= store.pilot["level_bound"] < 1e-6


@pytest.mark.parametrize("levels", ["optimal", "shared", "lloyd"])
@pytest.mark.parametrize("sampling", ["nearest", "stochastic", "double"])
def test_what_levels_from_a_sample_cost(levels: str, sampling: str) -> None:
    """The error is that of the codes; from all rows, the cost of the levels foretells it within its bound
    and the rounding of levels to 8-bit integers (less than 1 % at 8 levels)."""
    x = np.exp(np.random.default_rng(3).normal(size=(20_000, 4)))
    for rows in (1000, 20_000):
        store = QuantizedDataset.from_arrays(
            x, bits=5 if sampling == "double" else 3, sampling=sampling, levels=levels,
            level_rows=rows, shuffle=False, random_state=0,
        )  # fmt: skip
        found = store.pilot
        if levels == "lloyd" and sampling != "nearest":
            assert "level_rows" not in found  # not judged by the variance of draws
            return
        assert found["level_rows"] == rows
        a = scaled(store, x).astype(np.float64)
        q = store.decode().double().numpy()
        if sampling == "nearest":
            assert found["level_error"] == pytest.approx(((q - a) ** 2).mean(), rel=1e-6)
        else:
            assert found["level_error"] == pytest.approx(((q - a) ** 2).mean(), rel=0.1)
        assert 0 < found["level_bound"] < 0.1 * found["level_cost"]
    assert found["level_error"] == pytest.approx(
        found["level_cost"], rel=0.01, abs=found["level_bound"]
    )


@pytest.mark.parametrize("sampling", ["nearest", "stochastic", "auto"])
def test_levels_of_all_rows(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From blocks, of a source that is not one tensor too, in any number of passes: the bits of a sample of
    all. Rare values count: the true error is within the bound of the cost and near that of the optimum."""
    x = np.exp(1.5 * np.random.default_rng(4).normal(size=(40_000, 130))).astype(np.float32)
    y = x[:, 0] if sampling == "auto" else None
    options: dict[str, Any] = dict(bits=3, sampling=sampling, levels="optimal", random_state=0)
    want = QuantizedDataset.from_arrays(x, y, level_rows=40_000, **options)
    few = QuantizedDataset.from_arrays(x, y, level_rows=1000, **options)
    monkeypatch.setattr(_column_levels, "HISTOGRAM_BYTES", 64 * 2048 * 16)
    monkeypatch.setattr(plan, "COUNTED_BYTES", 1 << 20)
    seen: list[str] = []
    for source in (x, x.astype(">f4")):
        seen.clear()
        got = QuantizedDataset.from_arrays(
            source, y, level_rows="all", progress=lambda s, d, t: seen.append(s), **options
        )
        assert "levels of all rows" in seen
        assert torch.equal(got.codes, want.codes) and torch.equal(got.levels, want.levels)
        assert got.pilot == want.pilot and got.pilot["level_rows"] == 40_000
    assert got.pilot["level_error"] < few.pilot["level_error"]
    if sampling == "nearest":
        assert got.pilot["level_error"] == pytest.approx(
            got.pilot["level_cost"], rel=0.01, abs=got.pilot["level_bound"]
        )  # 1 %: levels as stored are integers of 8 bits


@pytest.mark.parametrize("rows", ["some", True, 0, 3.5, 1 << 24])
def test_level_rows_are_all_or_an_integer(rows: Any) -> None:
    with pytest.raises(
        ValueError, match=r"level_rows must be 'all', None or an integer in \[1, 8388608\], got"
    ):
        QuantizedDataset.from_arrays(np.ones((4, 2), np.float32), level_rows=rows)


def test_pilot_sizes() -> None:
    sizes = {(20640, 8): 20640, (10**6, 256): 262144, (10**6, 1024): 16384, (10**6, 4096): 32768}
    assert {k: pilot.pilot_size(*k) for k in sizes} == sizes
    assert pilot.anchor_size(10**6, 8) == 4096 and pilot.anchor_size(10**6, 1024) == 16384


def test_theta() -> None:
    store = build(bits=2, sampling="corrected")
    for (rows, cols), value in {
        (20640, 8): 0.9606,
        (8192, 12): 0.9235,
        (20000, 90): 0.8661,
        (7291, 256): 0.6319,
    }.items():
        noise = torch.ones(3, cols, dtype=torch.float64)
        theta = torchext.data.noise.shrinkage(noise, rows, cols, "mp")
        assert theta.tolist() == pytest.approx([value] * cols, abs=5e-5)
        assert torchext.data.noise.shrinkage(noise, 2 * cols, cols, "mp").abs().max() < 1e-12
    v, square = store.noise[1], store.noise[2]
    carriers = 3000 * v * v / square
    share = (9 / carriers).clamp(max=1)
    assert torch.equal(store.theta(), (torch.sqrt(1 - share) - torch.sqrt(share)).clamp(min=0) ** 2)
    assert store.theta(0.5).tolist() == [0.5] * 9
    with pytest.raises(ValueError, match="theta must be"):
        store.theta("all")


def test_pickle_and_repr(tmp_path: Path) -> None:
    memory = build(bits=2)
    assert torch.equal(pickle.loads(pickle.dumps(memory)).decode(), memory.decode())
    mapped = build(bits=2, path=tmp_path / "a.tq")
    data = pickle.dumps(mapped)
    assert len(data) < 1000 and torch.equal(pickle.loads(data).decode(), mapped.decode())
    assert "3000 rows x 9 columns, 2 bits" in repr(memory)
    assert memory.info()["stored_bits"] == memory.stored_bits and memory.info()["file_bits"] > 2


@pytest.mark.parametrize(
    "options, text",
    [
        ({"bits": 9}, "bits must be 1..8, 16 or 32, got 9"),
        ({"sampling": "triple"}, "sampling must be one of auto, nearest"),
        ({"bits": 1, "sampling": "double"}, "double sampling needs 2..8 bits"),
        ({"bits": 16, "levels": "lloyd"}, "16 bits come with uniform or symmetric levels only"),
        ({"levels": "best"}, "levels must be an array or one of"),
        ({"layout": "tile8"}, "layout must be one of"),
        ({"copies": 0}, "copies must be at least 1"),
        ({"anchor": "first"}, "anchor must be"),
        ({"loss": "hinge"}, "loss must be squared_error or log_loss"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build(**options)


@pytest.mark.parametrize(
    "x, y, text",
    [
        (np.empty((0, 3)), None, "X: the table has 0 rows, at least 1 is needed"),
        (np.empty((3, 0)), None, "X: the table has 0 feature columns"),
        (
            np.zeros((2, 65_537), dtype=np.float32),
            None,
            "X: the table has 65537 feature columns, the kernels take up to",
        ),
        (
            np.array([[1.0, 2], [np.nan, 3]]),
            None,
            "X: row 1, column 0: the value is NaN, not a finite number",
        ),
        (np.array([[1.0, 2], [3, np.inf]]), None, "X: row 1, column 1: the value is inf"),
        (
            np.array([[1.0, "x"], [3, 4]], dtype=object),
            None,
            "X: row 0, column 1: 'x' is not a number",
        ),
        (np.ones((3, 2)), np.ones(4), "X: 4 targets do not fit 3 rows"),
        (np.ones((3, 2)), np.array([1, np.nan, 2]), "X: row 1, target 0 is nan"),
        (np.ones(3), None, "X: expected a table of rows and columns"),
        (np.ones((3, 2), dtype=complex), None, "complex numbers cannot be encoded"),
        (np.array([[1.7e308], [1.7e308], [-1e308]]), None, "spans more than"),
    ],
)
def test_bad_arrays(x: np.ndarray, y: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        build(x, y)


def test_progress_reports_and_stays_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    build(progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert ("statistics", 3000, 3000) in seen and ("encode", 3000, 3000) in seen
    build()
    assert capsys.readouterr() == ("", "")
