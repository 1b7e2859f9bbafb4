"""Public data sets as tensors, from files only: nothing is downloaded.

===================  ======================================================================================
:func:`mnist`        ``MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`` (torchvision's layout)
:func:`cifar10`      ``cifar-10-batches-py/`` (torchvision's original), or ``cifar10-jpg.tar.xz``: a tree
                     ``{train,test}/<class>/*.jpg`` of lossy JPEGs
:func:`shakespeare`  ``tinyshakespeare/input.txt``
===================  ======================================================================================
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class DataError(Exception):
    """A file that is missing or broken, in one sentence."""


def data_root(given: Path | None) -> Path:
    """The folder named on the command line, else by TORCHEXT_DATA."""
    named = given or os.environ.get("TORCHEXT_DATA")
    if not named:
        raise DataError("no data folder: pass --data DIR or set TORCHEXT_DATA")
    if not Path(named).is_dir():
        raise DataError(f"the data folder {named} does not exist")
    return Path(named)


class Labelled(NamedTuple):
    """Pictures uint8 (n, channels, height, width) and their classes int64 (n,)."""

    x: Tensor
    y: Tensor


# ---- MNIST


def read_idx(path: Path) -> Tensor:
    """A uint8 array in idx format: bytes 0, 0, 8, number of dimensions; sizes as big-endian uint32; values.

    Raises:
        DataError: another type, or a length that the sizes do not give.
    """
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as f:
            raw = f.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataError(f"{path} is no idx file of bytes: it starts with {raw[:4].hex(' ')!r}")
    start = 4 + 4 * raw[3]
    sizes = [int.from_bytes(raw[k : k + 4], "big") for k in range(4, start, 4)]
    want = start + int(np.prod(sizes, dtype=np.int64))
    if len(raw) != want:
        raise DataError(f"{path} has {len(raw)} bytes, expected {want} for the sizes {sizes}")
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(sizes).copy())


def mnist(root: Path, part: str = "train") -> Labelled:
    """MNIST; ``part`` is ``"train"`` (60,000 pictures) or ``"t10k"`` (10,000), 28 x 28."""
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        name = root / "MNIST" / "raw" / f"{part}-{kind}-ubyte"
        both = [p for p in (name, name.with_name(name.name + ".gz")) if p.exists()]
        if not both:
            raise DataError(f"MNIST: neither {name} nor {name.name}.gz is there")
        found.append(read_idx(both[0]))
    images, labels = found
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"MNIST {part}: images of shape {tuple(images.shape)} do not fit labels of shape "
            f"{tuple(labels.shape)}"
        )
    return Labelled(images[:, None], labels.long())


# ---- CIFAR-10


class Cifar10(NamedTuple):
    """Training and test part, and ``source``: "original" or "JPEG", which is lossy."""

    train: Labelled
    test: Labelled
    source: str


def cifar10(root: Path, cache: Path | None = None) -> Cifar10:
    """CIFAR-10, 3 x 32 x 32; the originals where they are, else the JPEGs, decoded once into ``cache``.

    ``cache`` (None: ``$XDG_CACHE_HOME/torchext``) gets one file of 184 MB per archive.
    """
    folder, archive = root / "cifar-10-batches-py", root / "cifar10-jpg.tar.xz"
    if folder.is_dir():
        train = [_original(folder / f"data_batch_{k}") for k in range(1, 6)]
        joined = Labelled(torch.cat([b.x for b in train]), torch.cat([b.y for b in train]))
        return Cifar10(joined, _original(folder / "test_batch"), "original")
    if not archive.exists():
        raise DataError(f"CIFAR-10: neither {folder} nor {archive.name} is in {root}")
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torchext"
    facts = archive.stat()
    kept = cache / f"cifar10-jpg-{facts.st_size}-{facts.st_mtime_ns}.pt"
    if not kept.exists():
        parts = _decode(archive)
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        torch.save([tuple(p) for p in parts], partial)
        partial.replace(kept)  # two processes may both decode; neither sees half a file
    train_part, test_part = (Labelled(*p) for p in torch.load(kept, weights_only=True))
    return Cifar10(train_part, test_part, "JPEG")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and plain values; a pickle may name any function, these are all we call."""

    ALLOWED = ("_reconstruct", "ndarray", "dtype", "_frombuffer", "encode")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("numpy", "_codecs") and name in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")


def _original(path: Path) -> Labelled:
    try:
        with path.open("rb") as f:
            batch = _ArraysOnly(f, encoding="bytes").load()
        x, y = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except (OSError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no batch of CIFAR-10: {error}") from error
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072 or y.shape != (len(x),):
        raise DataError(
            f"{path} has data {x.dtype} {x.shape}, expected uint8 (n, 3072) and n labels"
        )
    return Labelled(
        torch.from_numpy(x.reshape(-1, 3, 32, 32).copy()), torch.from_numpy(y.astype(np.int64))
    )


def _members(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    """(part, class, JPEG) of every picture, in one pass over the stream."""
    try:
        with lzma.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                parts = Path(member.name).parts
                if member.isfile() and len(parts) >= 3 and parts[-1].endswith(".jpg"):
                    file = tar.extractfile(member)
                    assert file is not None
                    yield parts[-3], parts[-2], file.read()
            while stream.read(1 << 20):  # tarfile does not mind a file cut between two members
                pass
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be read to its end: {error}") from error


def _decode(archive: Path) -> list[Labelled]:
    """Every picture of the archive; classes are numbered in alphabetical order."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"{archive} needs Pillow to decode its JPEGs: pip install pillow") from None
    found: dict[str, list[tuple[str, Tensor]]] = {"train": [], "test": []}
    for part, label, raw in _members(archive):
        if part not in found:
            raise DataError(f"{archive} has a folder {part!r}, expected train and test")
        try:
            picture = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
        except OSError as error:
            raise DataError(f"{archive} has a broken picture of {label}: {error}") from error
        if picture.shape != (32, 32, 3):
            raise DataError(f"{archive} has a picture of shape {picture.shape}, expected 32 x 32")
        found[part].append((label, torch.from_numpy(picture.transpose(2, 0, 1).copy())))
    for part, pictures in found.items():
        if not pictures:
            raise DataError(f"{archive} has no pictures {part}/<class>/*.jpg")
    classes = sorted({label for label, _ in found["train"]})
    unknown = {label for label, _ in found["test"]} - set(classes)
    if unknown:
        raise DataError(f"{archive} tests classes that it does not train: {sorted(unknown)}")
    return [
        Labelled(
            torch.stack([x for _, x in part]), torch.tensor([classes.index(k) for k, _ in part])
        )
        for part in found.values()
    ]


def first_of_each_class(data: Labelled, count: int) -> Labelled:
    """The first pictures of every class, ``count`` in all, in the order of the data."""
    if not 0 < count <= len(data.y):
        raise DataError(f"a subset must have 1 to {len(data.y)} pictures, got {count}")
    classes = int(data.y.max()) + 1
    rank = torch.zeros_like(data.y)
    for k in range(classes):
        rows = data.y == k
        rank[rows] = torch.arange(int(rows.sum()))
    chosen = torch.sort(torch.argsort(rank * classes + data.y)[:count]).values
    return Labelled(data.x[chosen], data.y[chosen])


# ---- TinyShakespeare


class Text(NamedTuple):
    """Character numbers int64: the first 90 %, the next 5 %, the last 5 %; ``vocabulary`` in order."""

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary: str


def shakespeare(root: Path) -> Text:
    """TinyShakespeare; the sorted distinct characters are numbered from 0."""
    path = root / "tinyshakespeare" / "input.txt"
    if not path.exists():
        raise DataError(f"TinyShakespeare: {path} is not there")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no text: {error}") from error
    if len(text) < 40:
        raise DataError(f"{path} has {len(text)} characters, too few to split")
    vocabulary = "".join(sorted(set(text)))
    number = {c: k for k, c in enumerate(vocabulary)}
    ids = torch.tensor([number[c] for c in text])
    cuts = [int(0.9 * len(ids)), int(0.95 * len(ids))]
    return Text(ids[: cuts[0]], ids[cuts[0] : cuts[1]], ids[cuts[1] :], vocabulary)
