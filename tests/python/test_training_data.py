"""Readers of the public data sets, on small generated files, good and bad."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from training import data
from training.models import CharLSTM, CompactResNet

CLASSES = ("cat", "frog")


def idx(array: np.ndarray) -> bytes:
    """idx format: bytes 0, 0, 8 (uint8), dimensions, sizes big-endian, values."""
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, part: str, count: int, packed: bool = True) -> np.ndarray:
    r = np.random.default_rng(count)
    images, labels = r.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        raw, name = idx(array), f"{part}-{kind}-ubyte"
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(raw) if packed else raw)
    return images


def jpeg(value: int, side: int = 32) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.fromarray(np.full((side, side, 3), value, np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def write_archive(root: Path, pictures: dict[str, bytes]) -> Path:
    path = root / "cifar10-jpg.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name, raw in pictures.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_mnist(tmp_path: Path, packed: bool) -> None:
    images = write_mnist(tmp_path, "t10k", 7, packed)
    found = data.mnist(tmp_path, "t10k")
    assert found.x.shape == (7, 1, 28, 28) and found.x.dtype == torch.uint8
    assert np.array_equal(found.x[:, 0].numpy(), images) and found.y.tolist() == list(range(7))


def test_broken_idx_files(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=r"neither .*ubyte nor .*\.gz is there"):
        data.mnist(tmp_path)
    good = idx(np.zeros((2, 3)))
    for raw, text in (
        (good[:-1], r"has 17 bytes, expected 18 for the sizes \[2, 3\]"),
        (b"\0\0\x0d\x01" + good[4:], "is no idx file of bytes"),
        (b"", "is no idx file of bytes"),
        (good[:6], "has 6 bytes"),
    ):
        (tmp_path / "a").write_bytes(raw)
        with pytest.raises(data.DataError, match=text):
            data.read_idx(tmp_path / "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(good)[:-9])
    with pytest.raises(data.DataError, match=r"a\.gz cannot be read"):
        data.read_idx(tmp_path / "a.gz")
    write_mnist(tmp_path, "train", 4)
    folder = tmp_path / "MNIST" / "raw"
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3))))
    with pytest.raises(data.DataError, match=r"do not fit labels of shape \(3,\)"):
        data.mnist(tmp_path)


def test_cifar10_originals_come_first(tmp_path: Path) -> None:
    folder, r = tmp_path / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    x = r.integers(0, 256, (2, 3072)).astype(np.uint8)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps({b"data": x, b"labels": [3, 9]}))
    found = data.cifar10(tmp_path)
    assert found.source == "original" and found.train.x.shape == (10, 3, 32, 32)
    assert np.array_equal(found.test.x[1].numpy().ravel(), x[1]) and found.test.y.tolist() == [3, 9]
    for content, text in (
        (pickle.dumps({b"data": x[:, :5], b"labels": [3, 9]}), r"expected uint8 \(n, 3072\)"),
        (pickle.dumps({b"data": x}), "is no batch of CIFAR-10"),
        (pickle.dumps(os.getcwd), "it holds a posix.getcwd"),
        (b"", "is no batch of CIFAR-10"),
    ):
        (folder / "test_batch").write_bytes(content)
        with pytest.raises(data.DataError, match=text):
            data.cifar10(tmp_path)


def test_cifar10_from_jpegs_is_decoded_once(tmp_path: Path) -> None:
    pictures = {
        f"{part}/{label}/000{k}.jpg": jpeg(40 * k + 100 * c)
        for part in ("train", "test")
        for c, label in enumerate(CLASSES)
        for k in range(2)
    }
    archive, cache = write_archive(tmp_path, pictures), tmp_path / "cache"
    first = data.cifar10(tmp_path, cache)
    assert first.source == "JPEG" and first.train.y.tolist() == [0, 0, 1, 1]
    means = first.test.x.float().mean((1, 2, 3))
    assert torch.allclose(means, torch.tensor([0.0, 40, 100, 140]), atol=2)
    kept = [p.name for p in cache.iterdir()]
    facts = archive.stat()
    archive.write_bytes(b"never read again")
    os.truncate(archive, 0)
    with archive.open("r+b") as f:
        f.truncate(facts.st_size)
    os.utime(archive, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    again = data.cifar10(tmp_path, cache)
    assert torch.equal(again.train.x, first.train.x) and [p.name for p in cache.iterdir()] == kept


def test_broken_archives(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(data.DataError, match=r"neither .* is in"):
        data.cifar10(tmp_path, cache)
    good = {"train/cat/0.jpg": jpeg(1), "test/cat/0.jpg": jpeg(2)}
    for pictures, text in (
        ({"train/cat/0.jpg": jpeg(1)}, r"no pictures test/<class>"),
        (good | {"val/cat/0.jpg": jpeg(1)}, "folder 'val', expected train and test"),
        (good | {"test/dog/0.jpg": jpeg(1)}, r"does not train: \['dog'\]"),
        (good | {"test/cat/1.jpg": b"no jpeg"}, "broken picture of cat"),
        (good | {"test/cat/1.jpg": jpeg(1, 16)}, r"shape \(16, 16, 3\), expected 32 x 32"),
    ):
        write_archive(tmp_path, pictures)
        with pytest.raises(data.DataError, match=text):
            data.cifar10(tmp_path, cache)
    path = write_archive(tmp_path, good)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(data.DataError, match="cannot be read to its end"):
        data.cifar10(tmp_path, cache)
    assert not cache.exists() or not any(cache.iterdir())


def test_shakespeare(tmp_path: Path) -> None:
    folder = tmp_path / "tinyshakespeare"
    with pytest.raises(data.DataError, match="is not there"):
        data.shakespeare(tmp_path)
    folder.mkdir()
    text = "to be, or not to be: that is the question\n" * 10
    (folder / "input.txt").write_text(text)
    found = data.shakespeare(tmp_path)
    joined = torch.cat(found[:3])
    assert "".join(found.vocabulary[i] for i in joined) == text
    assert [len(p) for p in found[:3]] == [378, 21, 21]
    (folder / "input.txt").write_bytes(b"\xff\xfe" * 50)
    with pytest.raises(data.DataError, match="is no text"):
        data.shakespeare(tmp_path)
    (folder / "input.txt").write_text("short")
    with pytest.raises(data.DataError, match="5 characters, too few"):
        data.shakespeare(tmp_path)


def test_where_the_data_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHEXT_DATA", raising=False)
    with pytest.raises(data.DataError, match="pass --data DIR or set TORCHEXT_DATA"):
        data.data_root(None)
    monkeypatch.setenv("TORCHEXT_DATA", str(tmp_path))
    assert data.data_root(None) == tmp_path
    with pytest.raises(data.DataError, match="does not exist"):
        data.data_root(tmp_path / "none")


def test_a_subset_has_the_first_of_every_class() -> None:
    part = data.Labelled(torch.arange(12)[:, None], torch.tensor([0, 1, 2] * 4))
    chosen = data.first_of_each_class(part, 6)
    assert chosen.x[:, 0].tolist() == [0, 1, 2, 3, 4, 5] and chosen.y.bincount().tolist() == [
        2,
        2,
        2,
    ]
    with pytest.raises(data.DataError, match="1 to 12 pictures, got 13"):
        data.first_of_each_class(part, 13)


def test_sizes_of_the_nets() -> None:
    for model, count in ((CompactResNet(), 78_170), (CharLSTM(65), 280_897)):
        assert sum(p.numel() for p in model.parameters()) == count
    assert CompactResNet(4)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert CharLSTM(9, 4, 6)(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 9)
