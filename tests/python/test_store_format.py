"""The file format: a reader written from the document alone, and what damage does."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchext.data import DataError, QuantizedDataset
from torchext.data.format import StoreWriter

RNG = np.random.default_rng(8)
X = RNG.normal(size=(700, 11))
Y = X @ RNG.normal(size=11)


def read_with_numpy(path: Path, draw: int = 0, copy: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Decoded scaled values [K, n] and labels, from docs/store-format.md and nothing else."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    meta = header.pop("__metadata__")
    assert (meta["format"], meta["version"]) == ("torchext.qdata", "1")
    types = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64}
    t = {}
    for name, e in header.items():
        begin, end = e["data_offsets"]
        data = raw[start + begin : start + end]
        assert f"{zlib.crc32(data.tobytes()):08x}" == json.loads(meta["crc32"])[name]
        t[name] = np.frombuffer(data.tobytes(), types[e["dtype"]]).reshape(e["shape"])
    rows, cols, bits = (int(meta[k]) for k in ("rows", "cols", "bits"))
    codes = np.zeros((rows, cols), dtype=np.int64)
    k, j = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    before = 0
    for p in (int(p) for p in meta["planes"].split("+")):
        if meta["layout"] == "tile4":
            in_tile, c = k % 64, j % 4
            base = (k // 64 * -(-cols // 4) + j // 4) * 32 * bits + 32 * before
            if p == 1:
                at, field = base + 4 * (in_tile % 8) + c, in_tile // 8
            else:
                line = 128 // p  # rows of one line
                at, field = (
                    base + in_tile // line * 64 + 4 * (in_tile % 16) + c,
                    in_tile % line // 16,
                )
        elif meta["layout"] == "block":
            at = (k // 128 * cols + j) * 16 * bits + 16 * before + k % 128 % (16 * p)
            field = k % 128 // (16 * p)
        else:
            sizes = [-(-cols * int(q) // 512) * 64 for q in meta["planes"].split("+")]
            first = sum(sizes[: meta["planes"].split("+").index(str(p)) if before or p != 8 else 0])
            first = sizes[0] if bits == 16 and before else first
            at, field = k * sum(sizes) + first + j // (512 // p) * 64 + j % 64, j % (512 // p) // 64
        codes |= (t["codes"][copy][at].astype(np.int64) >> (p * field) & (2**p - 1)) << before
        before += p
    if meta["grid"] == "affine":
        lo, step = t["grid"].T
        return lo + step * codes.astype(np.float32), t["y"]
    return t["levels"][draw][j, codes], t["y"]


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
@pytest.mark.parametrize(
    "bits, sampling, levels",
    [
        *[(b, "nearest", "lloyd") for b in range(1, 9)],
        (5, "stochastic", "uniform"),
        (4, "double", "uniform"),
        (16, "nearest", "uniform"),
    ],
)
def test_a_reader_from_the_document(
    bits: int, sampling: str, levels: str, layout: str, tmp_path: Path
) -> None:
    cols = 11 if bits % 2 else 300  # one unit of a row, and several
    x = RNG.normal(size=(150, cols))
    path = tmp_path / "a.tq"
    store = QuantizedDataset.from_arrays(
        x, x[:, :2], bits=bits, sampling=sampling, levels=levels, layout=layout, copies=2,
        random_state=1, path=path, anchor="none",
    )  # fmt: skip
    for draw in range(2 if sampling == "double" else 1):
        for copy in range(2):
            values, y = read_with_numpy(path, draw, copy)
            assert np.array_equal(values, store.decode(draw=draw, copy=copy).numpy())
    assert np.array_equal(y, store.y.numpy())


def small(path: Path, **options: Any) -> QuantizedDataset:
    given = {"bits": 3, "random_state": 2, **options}
    return QuantizedDataset.from_arrays(X, Y, path=path, **given)


def test_safetensors_reads_it_and_tensors_are_aligned(tmp_path: Path) -> None:
    from safetensors import safe_open

    small(tmp_path / "a.tq")
    with safe_open(tmp_path / "a.tq", framework="pt") as file:
        assert file.metadata()["rows"] == "700"
        np.testing.assert_allclose(file.get_tensor("mean"), X.mean(0), rtol=1e-12)
        names = set(file.keys())
    assert {
        "codes",
        "y",
        "mean",
        "scale",
        "levels",
        "noise",
        "moments",
        "linear",
        "anchor",
    } <= names
    raw = (tmp_path / "a.tq").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8:start])
    entries.pop("__metadata__")
    assert start % 64 == 0
    assert all(
        e["data_offsets"][0] % 64 == 0 for name, e in entries.items() if not name.startswith("_pad")
    )
    assert len(raw) - start - entries["anchor"]["data_offsets"][1] >= 64


def test_open_gives_back_everything(tmp_path: Path) -> None:
    names = [f"column {j}" for j in range(11)]
    weight = np.linspace(0, 2, 700)
    made = QuantizedDataset.from_arrays(
        X, np.where(Y > 0, "yes", "no"), sample_weight=weight, feature_names=names, bits=4,
        loss="log_loss", random_state=4,
    )  # fmt: skip
    made.save(tmp_path / "a.tq")
    back = QuantizedDataset.open(tmp_path / "a.tq", verify=True)
    for name, value in vars(made).items():
        other = getattr(back, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other) and value.dtype == other.dtype, name
        elif name != "path":
            assert value == other, name
    assert back.codes.data_ptr() % 64 == 0
    with pytest.raises(ValueError, match="bits=32"):
        QuantizedDataset.from_arrays(X, Y, bits=32).save(tmp_path / "b.tq")


def test_every_flipped_bit_and_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tq"
    small(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(good[:8], "little")
    places = [
        *range(0, 16),
        *range(16, header, 7),
        *rng.integers(header, len(good), 1500),
        len(good) - 1,
    ]
    bad = tmp_path / "bad.tq"
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(data)
        with pytest.raises(DataError):
            QuantizedDataset.open(bad, verify=True)
    for size in [
        0,
        1,
        7,
        8,
        9,
        100,
        header - 1,
        header,
        header + 1,
        *rng.integers(0, len(good), 200),
        len(good) - 1,
    ]:
        bad.write_bytes(good[:size])
        with pytest.raises(DataError):
            QuantizedDataset.open(bad, verify=False)
    for extra in (b"\0", b"more"):
        bad.write_bytes(good + extra)
        with pytest.raises(DataError, match="truncated or extended"):
            QuantizedDataset.open(bad)
    QuantizedDataset.open(path, verify=True)


def rewritten(path: Path, out: Path, change: dict[str, str], drop: str = "") -> Path:
    """The file with other metadata, checksums right again."""
    store = QuantizedDataset.open(path)
    from torchext.data.builder import metadata

    tensors = {k: v for k, v in store.tensors().items() if k != drop}
    writer = StoreWriter(out, {k: (v.dtype, tuple(v.shape)) for k, v in tensors.items()}, 8192)
    for name, tensor in tensors.items():
        writer.view(name).copy_(tensor)
    writer.finish({**metadata(store), **change})
    return out


@pytest.mark.parametrize(
    "change, drop, text",
    [
        (
            {"rows": "701"},
            "",
            r"tensor 'y' must be torch.float32 \(701, 1\), got torch.float32 \(700, 1\)",
        ),
        ({"rows": "-700"}, "", "must be"),
        ({"rows": "many"}, "", "header lacks or garbles a field"),
        ({"bits": "9"}, "", "bits is 9, this build reads 1, 2"),
        ({"layout": "spiral"}, "", "layout is 'spiral'"),
        ({"sampling": "triple"}, "", "sampling is 'triple'"),
        ({"classes": "["}, "", "header lacks or garbles a field"),
        ({"key": "[1]"}, "", "header lacks or garbles a field"),
        ({"grid": "affine"}, "", "tensor 'levels' must be"),
        ({}, "noise", "tensor 'noise' is missing"),
    ],
)
def test_files_that_disagree_with_themselves(
    change: dict[str, str], drop: str, text: str, tmp_path: Path
) -> None:
    small(tmp_path / "a.tq", sampling="nearest")
    with pytest.raises(DataError, match=text):
        QuantizedDataset.open(rewritten(tmp_path / "a.tq", tmp_path / "b.tq", change, drop))


def test_wrong_version_and_strangers(tmp_path: Path) -> None:
    small(tmp_path / "a.tq")
    good = (tmp_path / "a.tq").read_bytes()
    bad = tmp_path / "b.tq"
    bad.write_bytes(good.replace(b'"version": "1"', b'"version": "2"'))
    with pytest.raises(DataError, match=r"b\.tq: store version '2'; this build reads version '1'"):
        QuantizedDataset.open(bad)
    bad.write_bytes(b"a,b,c\n1,2,3\n" * 100)
    with pytest.raises(DataError, match="not a torchext store"):
        QuantizedDataset.open(bad)
    with pytest.raises(FileNotFoundError):
        QuantizedDataset.open(tmp_path / "none.tq")


def _read(path: str, queue: Any) -> None:
    store = QuantizedDataset.open(path, verify=True)
    queue.put(float(store.decode().double().sum()))


@pytest.mark.dist
def test_two_processes_read_one_file(tmp_path: Path) -> None:
    store = small(tmp_path / "a.tq")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    readers = [
        context.Process(target=_read, args=(str(tmp_path / "a.tq"), queue)) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    found = [queue.get(timeout=120) for _ in readers]
    for reader in readers:
        reader.join()
    assert found == [float(store.decode().double().sum())] * 2


SLOW_BUILD = """
import signal, sys, time, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start with it ignored
from torchext.data import QuantizedDataset
def slow(stage, done, total):
    if stage == "encode":
        print("encoding", flush=True)
        time.sleep(60)
QuantizedDataset.from_arrays(np.random.rand(5000, 20), np.random.rand(5000), path=sys.argv[1], progress=slow)
"""


@pytest.mark.dist
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_leaves_no_store(how: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "a.tq"
    build = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=os.getcwd(),
    )
    assert build.stdout is not None and build.stdout.readline() == b"encoding\n"
    build.send_signal(how)
    build.wait(timeout=60)
    assert not path.exists()
    if how == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
    small(path)  # a later build is not disturbed
    QuantizedDataset.open(path, verify=True)


def test_a_failed_build_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tq"
    small(path)
    before = path.read_bytes()

    def fail(stage: str, done: int, total: int) -> None:
        if stage == "encode":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        small(path, progress=fail)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_mapped_store_survives_replacement(tmp_path: Path) -> None:
    store = small(tmp_path / "a.tq")
    values = store.decode()
    small(tmp_path / "a.tq", bits=8)
    assert torch.equal(store.decode(), values)
