"""Training and products over codes on a real GPU: the bits of the CPU, graphs, streams of work, copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sgd_model import F, Problem

from torchext import _build
from torchext.data import QuantizedDataset
from torchext.data._encode import pack_codes, permute_tiles, unpack_codes

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.skipif(not _build.CUDA, reason="torchext was built without CUDA"),
]

KINDS: list[dict[str, Any]] = [
    {"affine": True}, {"planes": 1}, {"planes": 2}, {"planes": 1, "books": 2}, {"planes": 2, "books": 2},
]  # fmt: skip


def same_epochs(p: Problem, **changes: Any) -> None:
    cpu, cuda = p.call(**changes), p.call(device="cuda", **changes)
    for name, value in cpu.items():
        np.testing.assert_array_equal(cuda[name], value, err_msg=name)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("outputs", [1, 3])
def test_epochs(bits: int, kind: dict[str, Any], outputs: int) -> None:
    p = Problem(rows=5000, cols=333, bits=bits, outputs=outputs, **kind)
    order = np.array([2, 4, 0, 1, 3])  # the short batch in the middle
    same_epochs(p, batch=1024, order=order, gamma=np.full(5, 0.02), l2=0.01, fit_intercept=True)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_small_epochs(kind: dict[str, Any]) -> None:
    """Under compute-sanitizer too."""
    p = Problem(rows=200, cols=70, bits=4, outputs=2, **kind)
    options = {"batch": 128, "order": np.array([1, 0]), "gamma": np.full(2, 0.02)}
    same_epochs(p, fit_intercept=True, **options)
    same_epochs(p, model_bits=32, residual_bits=32, gradient_bits=8, **options)


@pytest.mark.parametrize("cols", [1, 63, 64, 4097, 20000])
@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_columns_and_layouts(cols: int, layout: str) -> None:
    p = Problem(rows=300, cols=cols, bits=4, layout=layout)
    same_epochs(p, batch=128, order=np.array([2, 0, 1]), gamma=np.full(3, 0.01))


@pytest.mark.parametrize("batch", [1, 100, 4096, 32768])
def test_batches(batch: int) -> None:
    p = Problem(rows=40000, cols=65, bits=3)
    batches = -(-40000 // batch)
    order = np.arange(batches)[::-1][:20].copy()
    same_epochs(p, batch=batch, order=order, gamma=np.full(len(order), 0.02))


def test_the_float32_path() -> None:
    rng = np.random.default_rng(0)
    p = Problem(rows=3000, cols=130, bits=4, books=2)
    rows = np.zeros((3000, 144), F)
    rows[:, :130] = rng.uniform(-1, 1, (3000, 130))
    options = {"batch": 1100, "order": np.array([2, 0, 1]), "gamma": np.full(3, 0.02)}
    same_epochs(p, model_bits=32, residual_bits=32, gradient_bits=8, **options)
    p = Problem(rows=3000, cols=130, bits=4)
    same_epochs(p, codes=rows, bits=32, fit_intercept=True, **options)
    same_epochs(p, codes=rows, bits=32, model_bits=32, residual_bits=32, **options)


def test_logistic_losses() -> None:
    rng = np.random.default_rng(1)
    p = Problem(rows=2000, cols=40, bits=4, outputs=2)
    y = np.where(p.y < 0, -1, 1).astype(F)
    x0 = rng.normal(size=p.x.shape).astype(F) / 10
    z0 = rng.normal(size=p.y.shape).astype(F)
    options = {
        "y": y,
        "loss": "log_loss",
        "batch": 512,
        "order": np.arange(4),
        "gamma": np.full(4, 0.1),
    }
    same_epochs(p, **options)
    same_epochs(p, variance_reduced=True, x0=x0, constant=x0, z0=z0, **options)


def data(rows: int, cols: int, bits: int, planes: int, device: str) -> tuple[Any, ...]:
    """What the products take of a store, on a device."""
    rng = np.random.default_rng([rows, cols, bits])
    codes = torch.from_numpy(rng.integers(0, 1 << bits, size=(rows, cols), dtype=np.uint8))
    grid = torch.from_numpy(rng.uniform(-1, 1, size=(cols, 2)).astype(F)).abs()
    table = torch.from_numpy(
        rng.integers(0, 256, size=(planes, 1, cols, 1 << bits), dtype=np.uint8)
    )
    packed = pack_codes(codes, bits)
    return packed.to(device), rows, cols, bits, grid.to(device), table.to(device)


@pytest.mark.parametrize(
    "shape", [(9000, 70, 4, 1), (70000, 260, 2, 1), (4096, 5000, 5, 2), (1, 1, 8, 1)]
)
@pytest.mark.parametrize("outputs", [1, 5])
@pytest.mark.parametrize("digits", [1, 2])
def test_products(shape: tuple[int, int, int, int], outputs: int, digits: int) -> None:
    same_products(shape, outputs, digits)


def test_small_products() -> None:
    """Under compute-sanitizer too."""
    same_products((300, 70, 3, 1), 2, 2)
    same_products((65, 70, 5, 2), 1, 1)


def same_products(shape: tuple[int, int, int, int], outputs: int, digits: int) -> None:
    rows, cols = shape[:2]
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.normal(size=(outputs, cols)))
    e = torch.from_numpy(rng.normal(size=(outputs, rows)).astype(F))
    weight = e[0].abs()
    ops, found = torch.ops.torchext, {}
    for device in ("cpu", "cuda"):
        a = data(*shape, device)
        mine = [x.clone().to(device) for _ in range(2)]
        found[device] = [
            ops._code_dot(*a, mine[0], digits),
            ops._code_sum(*a, e.to(device), digits),
            ops._code_gram(*a, mine[1], None, None, weight.to(device), digits),
            *mine,
        ]
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        assert torch.equal(cpu, cuda.cpu())


@pytest.mark.parametrize("bits", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_packing(bits: int, layout: str) -> None:
    same_packing(1000, bits, layout)


@pytest.mark.parametrize("layout", ["tile4", "block", "row"])
def test_small_packing(layout: str) -> None:
    """Under compute-sanitizer too."""
    same_packing(130, 3, layout)


def same_packing(rows: int, bits: int, layout: str) -> None:
    codes = torch.randint(0, 1 << bits, (rows, 77), dtype=torch.int32)
    codes = codes.to(torch.uint16 if bits == 16 else torch.uint8)
    packed = pack_codes(codes, bits, layout)
    assert torch.equal(pack_codes(codes.cuda(), bits, layout).cpu(), packed)
    plain = unpack_codes(packed.cuda(), rows, 77, bits, layout).cpu()
    assert torch.equal(plain.view(torch.uint8), codes.view(torch.uint8))
    if layout == "tile4":
        order, out = torch.randperm(rows), torch.empty_like(packed)
        permute_tiles(packed, order, 77, bits, out)
        there = torch.empty_like(packed, device="cuda")
        permute_tiles(packed.cuda(), order.cuda(), 77, bits, there)
        assert torch.equal(there.cpu(), out)


def epoch_call(p: Problem) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """An epoch on tensors that stay where they are, and those that it writes."""
    x, intercept = torch.from_numpy(p.x).cuda(), torch.zeros(p.outputs, device="cuda")
    rest = [
        torch.from_numpy(t).cuda()
        for t in (p.codes, p.grid, p.table, p.y, np.array([0, 1, 2]), np.full(3, 0.02))
    ]
    codes, grid, table, y, order, gamma = rest
    key = p.key.cuda()

    def call() -> torch.Tensor:
        out: torch.Tensor = torch.ops.torchext._sgd_epoch(
            codes, p.rows, p.cols, p.bits, "tile4", grid, table, y, None, None, x, intercept, None,
            None, None, None, order, gamma, 256, "squared_error", 0.0, 0.0, False, True, 8, 8, 0,
            key, 0, 1,
        )  # fmt: skip
        return out

    return call, [x, intercept]


def test_an_epoch_in_a_graph() -> None:
    p = Problem(rows=700, cols=100, bits=4)
    call, state = epoch_call(p)
    start = [t.clone() for t in state]
    expected = [call().clone(), *(t.clone() for t in state)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sums = call()
    for t, old in zip(state, start, strict=True):
        t.copy_(old)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip([sums, *state], expected, strict=True))


def test_an_epoch_on_another_stream_without_synchronisation() -> None:
    p = Problem(rows=700, cols=100, bits=4)
    call, state = epoch_call(p)
    start = [t.clone() for t in state]
    expected = [call().clone(), *(t.clone() for t in state)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for t, old in zip(state, start, strict=True):
            t.copy_(old)
        torch.cuda.set_sync_debug_mode("error")
        try:
            sums = call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip([sums, *state], expected, strict=True))


def test_estimators_and_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from torchext.linear import SGDRegressor, _device, _epochs

    rng = np.random.default_rng(3)
    X = rng.normal(size=(5000, 30))
    y = X @ rng.normal(size=30)
    options: dict[str, Any] = dict(bits=4, batch_size=512, max_iter=3, random_state=0)
    cpu = SGDRegressor(**options).fit(X, y)
    assert np.array_equal(SGDRegressor(**options, device="cuda").fit(X, y).coef_, cpu.coef_)
    store = QuantizedDataset.from_arrays(X, y, bits=4, random_state=0)
    assert torch.equal(store.to("cuda").decode().cpu(), store.decode())
    monkeypatch.setattr(_device, "free_bytes", lambda _: 0)
    monkeypatch.setattr(_epochs, "BUFFER_BYTES", 1 << 14)
    streamed = SGDRegressor(**options, average=False, device="cuda").fit(X, y)
    assert np.array_equal(streamed.coef_, SGDRegressor(**options, average=False).fit(X, y).coef_)


def test_tensors_on_different_devices() -> None:
    p = Problem(rows=64, cols=5, bits=4)
    with pytest.raises(
        RuntimeError, match="torchext::_sgd_decode: row_index must be on the device"
    ):
        torch.ops.torchext._sgd_decode(
            torch.from_numpy(p.codes).cuda(), 64, 5, 4, "tile4", torch.from_numpy(p.grid).cuda(),
            torch.from_numpy(p.table).cuda(), torch.arange(3), 0,
        )  # fmt: skip
