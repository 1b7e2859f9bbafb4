"""The random stream is pinned: golden vectors, an independent implementation and the ops agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import stream_v1
import torch
from torch.testing._internal.optests import opcheck

from torchext import random

GOLDEN = json.loads((Path(__file__).parents[1] / "vectors" / "stream_v1.json").read_text())
SEED = int(GOLDEN["seed"], 16)


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def key_tensor(seed: int, offset: int) -> torch.Tensor:
    return torch.tensor([signed(seed), signed(offset)], dtype=torch.int64)


def op_words(key: torch.Tensor, blocks: int, stream: int = 0, draw: int = 0) -> list[int]:
    return torch.ops.torchext._philox(key, blocks, stream, draw).tolist()


def test_version() -> None:
    assert random.STREAM_VERSION == GOLDEN["stream_version"]


@pytest.mark.parametrize("case", GOLDEN["philox"])
def test_known_answers(case: dict) -> None:
    counter, key, words = ([int(w, 16) for w in case[name]] for name in ("counter", "key", "words"))
    assert stream_v1.philox(tuple(counter), tuple(key)) == words
    # The op reaches any counter: offset is its low half, stream and draw the high half.
    op = op_words(
        key_tensor(key[0] | key[1] << 32, counter[0] | counter[1] << 32), 1, counter[2], counter[3]
    )
    assert op == words


@pytest.mark.parametrize("case", GOLDEN["elements"])
def test_elements(case: dict) -> None:
    offset, first = int(case["offset"], 16), case["first"]
    words = [int(w, 16) for w in case["words"]]
    stream, draw = case["stream"], case["draw"]
    mine = [stream_v1.word(SEED, offset, first + i, stream, draw) for i in range(4)]
    assert mine == words
    assert op_words(key_tensor(SEED, offset), 2, stream, draw)[first : first + 4] == words


def test_uniforms() -> None:
    words = op_words(key_tensor(SEED, 0), 1)
    assert [stream_v1.uniform(w).hex() for w in words] == [
        float.fromhex(u).hex() for u in GOLDEN["uniforms"]
    ]
    assert stream_v1.uniform(2**32 - 1) == 1 - 2.0**-24


@pytest.mark.parametrize("case", GOLDEN["fold_in"])
def test_fold_in(case: dict) -> None:
    key, mine = key_tensor(SEED, case["offset"]), (SEED, case["offset"])
    for data in case["path"]:
        assert torch.equal(random.fold_in(key, data), random.fold_in(key, torch.tensor([data])))
        key, mine = random.fold_in(key, data), stream_v1.fold_in(*mine, data)
    assert mine == (int(case["seed"], 16), 0)
    assert key.tolist() == [signed(mine[0]), 0]


def test_stochastic_codes() -> None:
    case = GOLDEN["stochastic_codes"]
    x = [((37 * i) % 64 - 32) / 16 for i in range(20)]
    words = op_words(key_tensor(SEED, 0), 5, case["stream"])
    codes = [
        stream_v1.stochastic_code(v / case["scale"], stream_v1.uniform(w), case["clamp"])
        for v, w in zip(x, words, strict=True)
    ]
    assert codes == case["codes"]
    # The public ops, on the same grid: 4 bits give {-7..7}.
    grid = (torch.tensor(case["scale"]), None, 4, "symmetric", None, None, "stochastic")
    keyed = (key_tensor(SEED, 0), case["stream"])
    packed = torch.ops.torchext.quantize(torch.tensor(x), *grid, *keyed)
    assert (torch.ops.torchext.unpack_bits(packed, 20, 4).int() - 7).tolist() == case["codes"]
    values = torch.ops.torchext.fake_quantize(torch.tensor(x), *grid, *keyed)
    assert (values / case["scale"]).tolist() == case["codes"]


def test_draws() -> None:
    """Draw d of an element uses Philox draw number d; all draws share the interval."""
    case = GOLDEN["draws"]
    levels = np.array(case["levels"], dtype=np.float32)
    x = np.array([(13 * i % 41) / 40 for i in range(20)], dtype=np.float32)
    codes = []
    for i, value in enumerate(x):
        low = min(int(np.searchsorted(levels, value, side="right")) - 1, len(levels) - 2)
        fraction = (value - levels[low]) / (levels[low + 1] - levels[low])
        code = low
        for draw in range(2):
            u = stream_v1.uniform(stream_v1.word(SEED, 0, i, case["stream"], draw))
            code |= int(np.float32(u) < fraction) << (2 + draw)
        codes.append(code)
    assert codes == case["codes"]
    packed = torch.ops.torchext.quantize_draws(
        torch.from_numpy(x),
        torch.from_numpy(levels),
        2,
        "bits",
        None,
        key_tensor(SEED, 0),
        case["stream"],
    )
    assert torch.ops.torchext.unpack_bits(packed, 20, 4).tolist() == codes


def test_dealt_draws() -> None:
    """The decoder of counted draws deals the upward ones out with its own coins, by draw number."""
    case = GOLDEN["dealt"]
    dealt = []
    for i in range(20):
        left, places = i % 4, ""
        for draw in range(3):
            coin = stream_v1.word(SEED, 0, i, case["stream"], draw)
            up = coin * (3 - draw) >> 32 < left
            left -= up
            places += str(int(up))
        dealt.append(places)
    assert dealt == case["draws"]
    # Interval 0 of a table (0, 1): the code is the count, and draw d decodes to its digit.
    ops = torch.ops.torchext
    counts = ops.pack_bits(torch.tensor([i % 4 for i in range(20)], dtype=torch.uint8), 2)
    grid = (torch.tensor([0.0, 1.0]), [20], 3, "count", None)
    for draw in range(3):
        got = ops.dequantize_draws(counts, *grid, draw, key_tensor(SEED, 0), case["stream"])
        assert got.tolist() == [float(places[draw]) for places in dealt]


@pytest.mark.parametrize("case", [c for c in GOLDEN["tree_sum"] if c["n"] <= 5000])
def test_tree_sum(case: dict) -> None:
    x = np.array([(i % 7 - 3) * np.float32(0.1) for i in range(case["n"])], dtype=np.float32)
    squares = (x.astype(np.float64) ** 2).tolist()
    assert stream_v1.tree_sum(squares) == float.fromhex(case["sum"])


def test_split_and_advance() -> None:
    key = key_tensor(SEED, 3)
    children = random.split(key, 5)
    for j in range(5):
        assert torch.equal(children[j], random.fold_in(key, j))
    assert random.split(key, 0).shape == (0, 2)
    moved = random.advance(key_tensor(SEED, 0), 2**32 - 1)
    assert op_words(moved, 1) == op_words(key_tensor(SEED, 2**32 - 1), 1)


def test_seeding() -> None:
    assert random.key_from_seed(-1).tolist() == [-1, 0]
    assert random.key_from_seed(2**64 + 5).tolist() == [5, 0]
    torch.manual_seed(4)
    first = random.key()
    torch.manual_seed(4)
    assert torch.equal(first, random.key())
    assert not torch.equal(first, random.key())
    with torch.random.fork_rng():
        torch.manual_seed(4)
        assert torch.equal(first, random.key())
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(random.key(generator), random.key(torch.Generator().manual_seed(4)))


def test_children_are_uncorrelated() -> None:
    """Words of neighbouring children, streams and draws share no linear correlation."""
    n = 1 << 14
    key = random.key_from_seed(9)

    def centred(k: torch.Tensor, stream: int = 0, draw: int = 0) -> torch.Tensor:
        words = torch.ops.torchext._philox(k, n // 4, stream, draw)
        return words.double() / 2**32 - 0.5

    series = [
        centred(key), centred(key, 1), centred(key, 0, 1),
        centred(random.fold_in(key, 0)), centred(random.fold_in(key, 1)), centred(random.advance(key, 1)),
    ]  # fmt: skip
    for i, a in enumerate(series):
        assert abs(a.mean().item()) < 6.5 / (12 * n) ** 0.5
        for b in series[:i]:
            assert abs((a * b).mean().item() * 12) < 5 / n**0.5


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_opcheck(dtype: torch.dtype) -> None:
    key = random.key_from_seed(3).view(dtype)
    opcheck(torch.ops.torchext.fold_in.default, (key, 7))
    opcheck(torch.ops.torchext.fold_in.Tensor, (key, torch.tensor([7])))
    opcheck(torch.ops.torchext.split.default, (key, 3))
    opcheck(torch.ops.torchext._philox.default, (key, 3, 1, 0))


def test_compile_fullgraph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def derive(key: torch.Tensor) -> torch.Tensor:
        return random.split(random.fold_in(key, 3), 2)

    key = random.key_from_seed(11)
    assert torch.equal(derive(key), random.split(random.fold_in(key, 3), 2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda k: random.fold_in(k, -1),
            r"torchext::fold_in: data must be in \[0, 4294967295\], got -1",
        ),
        (
            lambda k: random.fold_in(k.int(), 1),
            "torchext::fold_in: key must be int64 or uint64, got int32",
        ),
        (
            lambda k: random.fold_in(k.repeat(2), 1),
            r"torchext::fold_in: key must have shape \(2\), got \(4\)",
        ),
        (lambda k: random.split(k, -1), r"torchext::split: n must be in \[0, 4294967295\], got -1"),
        (lambda k: random.fold_in(k, torch.tensor([1.0])), "data must be int64, got float32"),
        (lambda k: random.fold_in(k, torch.tensor([1, 2])), "data must have one element, got 2"),
    ],
)
def test_errors(call, text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        call(random.key_from_seed(1))
