"""CSV, LIBSVM, Parquet and iterators: the same store as from arrays, and messages that name the place."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchext.data import DataError, QuantizedDataset

RNG = np.random.default_rng(6)
X = RNG.normal(size=(5000, 4)).round(6)
Y = (X @ np.array([1.0, -2, 0.5, 0]) + 1).round(6)
OPTIONS: dict[str, Any] = {"bits": 3, "sampling": "nearest", "random_state": 1}


def csv_text(header: str = "a,b,target,c,d", delimiter: str = ",") -> str:
    table = np.column_stack([X[:, :2], Y, X[:, 2:]])
    rows = [delimiter.join(repr(float(v)) for v in row) for row in table]
    return "\n".join([header.replace(",", delimiter), *rows] if header else rows) + "\n"


def same(store: QuantizedDataset, expected: QuantizedDataset | None = None) -> None:
    expected = expected or QuantizedDataset.from_arrays(X, Y, **OPTIONS)
    assert torch.equal(store.codes, expected.codes) and torch.equal(store.y, expected.y)
    assert torch.equal(store.mean, expected.mean) and torch.equal(store.anchor, expected.anchor)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_the_array(packed: bool, delimiter: str, tmp_path: Path) -> None:
    text = csv_text(delimiter=delimiter).encode()
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(text) if packed else text)
    store = QuantizedDataset.from_csv(path, "target", **OPTIONS)
    same(store)
    assert store.feature_names == ["a", "b", "c", "d"]
    same(QuantizedDataset.from_csv(path, 2, **OPTIONS))
    same(QuantizedDataset.from_csv(path, -3, path=tmp_path / "t.tq", **OPTIONS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.tq"]


def test_csv_without_header_blank_lines_and_windows_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeff" + csv_text(header="").replace("\n", "\r\n\r\n"), newline="")
    store = QuantizedDataset.from_csv(path, "2", **OPTIONS)
    same(store)
    assert store.feature_names is None
    bare = QuantizedDataset.from_csv(path, **OPTIONS)
    assert bare.cols == 5 and bare.y is None


def test_csv_with_text_labels(tmp_path: Path) -> None:
    path = tmp_path / "iris.csv"
    path.write_text('5.1,3.5,setosa\n6.0,2.2,"virginica"\n5.0,3.4,setosa\n')
    store = QuantizedDataset.from_csv(path, -1, **OPTIONS)
    assert (
        store.rows == 3
        and store.classes == ["setosa", "virginica"]
        and store.task == "classification"
    )
    path.write_text("x,kind\n1,1\n2,0\n3,1\n")
    assert QuantizedDataset.from_csv(path, "kind", **OPTIONS).task == "regression"
    store = QuantizedDataset.from_csv(path, "kind", task="classification", **OPTIONS)
    assert store.classes == [0.0, 1.0]


@pytest.mark.parametrize(
    "text, text_of_error",
    [
        ("", "t.csv: the file is empty"),
        ("a,b\n", "t.csv: the table has 0 rows"),
        (
            "a,b,target\n1,2,3\n4,oops,6\n",
            "t.csv: line 3, column 'b' holds 'oops', which is not a number",
        ),
        ("a,b,target\n1,2,3\n\n4,,6\n", "t.csv: line 4, column 'b' is empty"),
        (
            "a,b,target\n1,2,3\n4,nan,6\n",
            "t.csv: line 3, column 'b' holds nan, a finite number is needed",
        ),
        ("a,b,target\n1,inf,3\n", "t.csv: line 2, column 'b' holds inf"),
        ("a,b,target\n1,2,3\n4,5\n", "t.csv: line 3 has 2 columns, 3 are expected"),
        ("a,b,c\n1,2,3\n", "t.csv: there is no target column 'target'; the columns are a, b, c"),
        ("a,b,target\n1,2,3\n4,5,\n", "t.csv: line 3, target column is empty"),
        ("a,b,target\n1,2,3\n4,5,nan\n", "t.csv: line 3, target 0 is nan"),
        ("target\n1\n", "t.csv: the table has 0 feature columns"),
    ],
)
def test_bad_csv(text: str, text_of_error: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        QuantizedDataset.from_csv(path, "target" if "a,b\n" != text else None, **OPTIONS)
    assert text_of_error in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_gzip_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    packed = gzip.compress(csv_text().encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"t\.csv\.gz: the gzip data are damaged or truncated"):
        QuantizedDataset.from_csv(path, "target", **OPTIONS)
    path.write_bytes(b"a,b\n1,\xff\xfe\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        QuantizedDataset.from_csv(path, **OPTIONS)


def test_constant_and_single_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,target\n1,2,3\n")
    one = QuantizedDataset.from_csv(path, "target", **OPTIONS)
    assert one.rows == 1 and one.decode().tolist() == [[0.0, 0.0]]
    path.write_text("a,b,target\n1,2,3\n1,3,3\n1,4,5\n")
    store = QuantizedDataset.from_csv(path, "target", **OPTIONS)
    assert store.decode()[:, 0].tolist() == [0.0] * 3 and store.anchor[0][0].tolist() == [0.0]


def test_libsvm(tmp_path: Path) -> None:
    path = tmp_path / "t.svm"
    lines = [
        f"{y!r} " + " ".join(f"{j + 1}:{float(v)!r}" for j, v in enumerate(x) if v)
        for x, y in zip(X, map(float, Y), strict=True)
    ]
    path.write_text("\n".join(lines) + " # comment\n")
    same(QuantizedDataset.from_libsvm(path, **OPTIONS))
    assert QuantizedDataset.from_libsvm(path, cols=6, **OPTIONS).cols == 6
    for text, error in {
        "1 1:2 x\n": "t.svm: line 1 holds 'x', expected label index:value",
        "1 0:2\n": "t.svm: line 1 holds '0:2'",
        "1 1:nan\n": "t.svm: line 1 holds '1:nan'",
        "1 70000:1\n": "t.svm: 70000 feature columns, the kernels take up to",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError, match=error):
            QuantizedDataset.from_libsvm(path, **OPTIONS)
    path.write_text("1 1:2\n0 7:2\n")
    with pytest.raises(DataError, match="line 2 has index 7, cols is 3"):
        QuantizedDataset.from_libsvm(path, cols=3, **OPTIONS)


def test_parquet_and_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"a": X[:, 0], "target": Y, "b": X[:, 1], "c": X[:, 2], "d": X[:, 3]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=777)
    store = QuantizedDataset.from_parquet(tmp_path / "t.parquet", "target", **OPTIONS)
    same(store)
    assert store.feature_names == ["a", "b", "c", "d"]
    same(QuantizedDataset.from_parquet(table, 1, **OPTIONS))
    same(
        QuantizedDataset.from_parquet(
            pa.RecordBatchReader.from_batches(table.schema, table.to_batches(100)), 1, **OPTIONS
        )
    )
    half = QuantizedDataset.from_parquet(
        table.set_column(1, "target", pa.array(["u", "v"] * 2500)), "target", **OPTIONS
    )
    assert half.classes == ["u", "v"]
    bad = {
        "column 'a' has type string": pa.table({"a": ["x"], "target": [1.0]}),
        "row 1, column 'a' is empty": pa.table({"a": [1.0, None], "target": [1.0, 2]}),
        "row 1, column 'a'.* NaN": pa.table({"a": [1.0, float("nan")], "target": [1.0, 2]}),
        "no target column 'target'; the columns are a": pa.table({"a": [1.0]}),
    }
    for text, made in bad.items():
        with pytest.raises(DataError, match=text):
            QuantizedDataset.from_parquet(made, "target", **OPTIONS)
    (tmp_path / "t.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"t\.parquet: not a Parquet file"):
        QuantizedDataset.from_parquet(tmp_path / "t.parquet", **OPTIONS)


def blocks(size: int = 321) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for at in range(0, len(X), size):
        yield X[at : at + size], Y[at : at + size]


def test_iterators() -> None:
    same(QuantizedDataset.from_iter(blocks(), **OPTIONS))
    same(QuantizedDataset.from_iter(blocks, **OPTIONS))
    tensors = ((torch.from_numpy(x), torch.from_numpy(y)) for x, y in blocks())
    same(QuantizedDataset.from_iter(tensors, **OPTIONS))
    weighted = QuantizedDataset.from_iter(((x, y, np.ones(len(x))) for x, y in blocks()), **OPTIONS)
    assert torch.equal(weighted.codes, QuantizedDataset.from_arrays(X, Y, **OPTIONS).codes)
    assert QuantizedDataset.from_iter([X], **OPTIONS).y is None


@pytest.mark.parametrize(
    "items, text",
    [
        ([], "blocks: the table has 0 rows"),
        ([(X, Y), (X[:, :3], Y)], "block 1: 3 columns, labels True"),
        ([(X, Y), X], "block 1: 4 columns, labels False"),
        ([(X, Y[:-1])], "block 0: 4999 labels for 5000 rows"),
        ([X.astype(np.float32), X], "block 1: X is float64, the first block was float32"),
        ([X[0]], "block 0: X must be a table"),
        ([(X, Y, Y, Y)], "block 0: expected X"),
        ([np.array([["a", "b"]])], "block 0: X holds something that is not a number"),
    ],
)
def test_bad_blocks(items: list[Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        QuantizedDataset.from_iter(items, **OPTIONS)


def test_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    same(QuantizedDataset.from_arrays(tmp_path / "x.npy", tmp_path / "y.npy", **OPTIONS))
    (tmp_path / "x.npy").write_bytes(b"1,2,3\n")
    with pytest.raises(DataError, match=r"x\.npy: not a \.npy file"):
        QuantizedDataset.from_arrays(tmp_path / "x.npy", **OPTIONS)
