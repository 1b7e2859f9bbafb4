"""Stores of tables on a GPU: encoded there, to the bits of the CPU, or on the CPU where that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import PretendGpu

from torchext import _load
from torchext.data import DataError, QuantizedDataset, _column_levels, gpu_source, plan

ROWS, COLS = 1100, 7
RNG = np.random.default_rng(0)
X = torch.from_numpy(np.sinh(RNG.normal(size=(ROWS, COLS))) * RNG.uniform(0.2, 3, COLS)).float()
X[:, 3] = 2.0
Y = X.double() @ torch.from_numpy(RNG.normal(size=(COLS, 2))) + 0.1
LABELS = torch.bucketize(Y[:, 0].contiguous(), torch.tensor([-1.0, 1.0]).double())
WEIGHT = torch.from_numpy(RNG.uniform(0.5, 2, ROWS))
THERE = {"_column_stats", "_encode"}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()


def assert_same(store: QuantizedDataset, want: QuantizedDataset, folder: Path) -> None:
    """Every tensor and the file to the bit."""
    back, tensors = store.to("cpu"), want.tensors()
    assert set(back.tensors()) == set(tensors)
    for name, tensor in back.tensors().items():
        assert raw(tensor) == raw(tensors[name]), name
    assert back.pilot == want.pilot
    back.save(folder / "gpu.tq")
    want.save(folder / "cpu.tq")
    assert (folder / "gpu.tq").read_bytes() == (folder / "cpu.tq").read_bytes()


CASES: list[dict[str, Any]] = [
    *(dict(bits=bits, sampling=s) for bits in (2, 4, 6, 8) for s in ("auto", "stochastic", "double")),
    dict(bits=1, sampling="nearest", anchor="none"),
    dict(bits=3, sampling="corrected", copies=3, shuffle=False),
    dict(bits=5, levels="lloyd", scale="none"),
    dict(bits=4, levels="shared", sampling="double"),
    dict(bits=4, levels="symmetric", alpha=0.1),
    dict(bits=16, levels="uniform"),
    dict(bits=4, level_rows=300),
    dict(bits=4, level_rows="all"),
    dict(bits=4, loss="log_loss"),
    dict(bits=4, loss="log_loss", sampling="double", alpha=0.1),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bits_of_the_cpu(case: dict[str, Any], tmp_path: Path) -> None:
    y = LABELS if case.get("loss") == "log_loss" else Y
    want = QuantizedDataset.from_arrays(X, y, random_state=0, **case)
    with PretendGpu() as gpu:
        there = X.to("cuda"), y.to("cuda")
        store = QuantizedDataset.from_arrays(*there, random_state=0, **case)
        assert store.device == torch.device("cuda", 0) and store.layout == "tile4"
        assert {store.grid.device, store.table.device} == {store.device}
        assert store.y is not None and store.y.device.type == "cpu"
        assert THERE <= gpu.ops and gpu.syncs <= 1  # a look for NaN
        assert_same(store, want, tmp_path)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("y", [None, Y, LABELS], ids=["none", "numbers", "classes"])
def test_labels_and_weights(y: torch.Tensor | None, weighted: bool, tmp_path: Path) -> None:
    task = "classification" if y is LABELS else "auto"
    options: dict[str, Any] = dict(bits=4, random_state=0, task=task)
    want = QuantizedDataset.from_arrays(X, y, sample_weight=WEIGHT if weighted else None, **options)
    with PretendGpu() as gpu:
        weight = WEIGHT.to("cuda") if weighted else None
        store = QuantizedDataset.from_arrays(X.to("cuda"), y, sample_weight=weight, **options)
        assert THERE <= gpu.ops
        assert_same(store, want, tmp_path)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool],
    ids=str,
)
def test_types_and_strides(dtype: torch.dtype, tmp_path: Path) -> None:
    x = (X > 1) if dtype is torch.bool else X.clamp(-100, 100).to(dtype)
    for part in (x, x.t().contiguous().t(), x[:, 2:7]):
        want = QuantizedDataset.from_arrays(part, bits=4, random_state=0)
        with PretendGpu() as gpu:
            store = QuantizedDataset.from_arrays(part.to("cuda"), bits=4, random_state=0)
            assert THERE <= gpu.ops
            assert_same(store, want, tmp_path)


def test_blocks_and_strips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plan, "GPU_VALUES", 1)
    monkeypatch.setattr(_column_levels, "HISTOGRAM_BYTES", 1)
    x, y = torch.cat([X] * 10, 1) + torch.arange(10 * COLS), Y[:, 0]
    options: dict[str, Any] = dict(bits=3, random_state=0, sampling="auto", level_rows=700)
    want = QuantizedDataset.from_arrays(x, y, **options)
    with PretendGpu() as gpu:
        store = QuantizedDataset.from_arrays(x.to("cuda"), y, **options)
        assert gpu.ran.count("_column_stats") == gpu.ran.count("_encode") == 2
        assert gpu.ran.count("_histogram_add") == 2
        assert_same(store, want, tmp_path)


def test_wide_tables(tmp_path: Path) -> None:
    """The pilot's conjugate gradients read codes."""
    x = torch.randn(200, 520, generator=torch.Generator().manual_seed(0))
    want = QuantizedDataset.from_arrays(x, x[:, 0], bits=3, random_state=0)
    with PretendGpu():
        store = QuantizedDataset.from_arrays(x.to("cuda"), x[:, 0], bits=3, random_state=0)
        assert_same(store, want, tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        dict(bits=32),
        dict(bits=4, layout="row", path="made.tq"),
    ],
    ids=str,
)
def test_what_is_encoded_on_the_cpu(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    want = QuantizedDataset.from_arrays(X, LABELS, random_state=0, **(case | {"path": None}))
    with PretendGpu() as gpu:
        store = QuantizedDataset.from_arrays(X.to("cuda"), LABELS, random_state=0, **case)
        assert not gpu.ops & THERE
        assert store.device.type == ("cpu" if "path" in case else "cuda")
        assert torch.equal(store.decode().cpu(), want.decode())


def test_a_file_is_written_and_mapped(tmp_path: Path) -> None:
    path, other = tmp_path / "gpu.tq", tmp_path / "cpu.tq"
    QuantizedDataset.from_arrays(X, Y, bits=4, random_state=0, path=other)
    with PretendGpu() as gpu:
        store = QuantizedDataset.from_arrays(X.to("cuda"), Y, bits=4, random_state=0, path=path)
        assert THERE <= gpu.ops
    assert store.device.type == "cpu" and store.path == str(path.resolve())
    assert path.read_bytes() == other.read_bytes()


def test_other_layouts_become_tile4(tmp_path: Path) -> None:
    want = QuantizedDataset.from_arrays(X, Y, bits=4, random_state=0)
    with PretendGpu():
        store = QuantizedDataset.from_arrays(X.to("cuda"), Y, bits=4, random_state=0, layout="row")
        assert_same(store, want, tmp_path)


def test_errors_name_the_value() -> None:
    bad = X.clone()
    bad[1050, 5] = float("nan")
    with PretendGpu():
        with pytest.raises(DataError, match="X: row 1050, column 5: the value is NaN"):
            QuantizedDataset.from_arrays(bad.to("cuda"))
        for wrong, text in (
            (X[:0], "0 rows"),
            (X[0], "expected a table of rows and columns"),
            (X.to(torch.complex64), "complex numbers cannot be encoded"),
        ):
            with pytest.raises(DataError, match=text):
                QuantizedDataset.from_arrays(wrong.to("cuda"))


def test_without_kernels_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendGpu():
        x = X.to("cuda")
        monkeypatch.setattr(_load, "has_cuda_kernels", lambda: False)
        with pytest.raises(
            ValueError, match=r"X is on cuda:0, and encoding .* \(or pass X.cpu\(\)\)"
        ):
            gpu_source.GpuSource(x)
