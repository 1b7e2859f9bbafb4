"""Estimators and stores on a GPU: the bits of the CPU, also where the codes are streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from pretend_gpu import PretendGpu

import torchext
from torchext.data import QuantizedDataset
from torchext.linear import SGDClassifier, SGDRegressor, _device, _epochs

ROWS, COLS = 300, 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, COLS)) * RNG.uniform(0.2, 3, COLS)
Y = X @ RNG.normal(size=(COLS, 2)) + 0.1 * RNG.normal(size=(ROWS, 2)) + 1
LABELS = np.digitize(Y[:, 0], np.quantile(Y[:, 0], [0.4, 0.7]))
SMALL: dict[str, Any] = dict(batch_size=128, max_iter=2, random_state=0)


def state_of(model: Any) -> tuple[Any, ...]:
    return model.coef_.tolist(), np.asarray(model.intercept_).tolist(), model.loss_curve_


CASES: list[dict[str, Any]] = [
    dict(bits=2),
    dict(bits=4, sampling="double", copies=2, anchor="none", l1_ratio=0.5, penalty="elasticnet"),
    dict(bits=3, sampling="corrected", scale="std", gradient_bits=8),
    dict(bits=8, levels="uniform", layout="row", scale="none"),
    dict(bits=32),
    dict(bits=16, levels="uniform"),
    dict(bits=4, anchor=1, model_bits=32, batch_size=100),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_regressor_has_the_bits_of_the_cpu(case: dict[str, Any]) -> None:
    options = SMALL | case
    cpu = SGDRegressor(**options).fit(X, Y)
    with PretendGpu() as gpu:
        cuda = SGDRegressor(**options, device="cuda").fit(X, Y)
    assert state_of(cuda) == state_of(cpu)
    assert gpu.ran.count("_sgd_epoch") == cpu.n_iter_
    encodes = case["bits"] != 32 and "layout" not in case
    assert ("_encode" in gpu.ops) == encodes and gpu.syncs == encodes  # a look for NaN


@pytest.mark.parametrize("loss", ["squared", "log_loss"])
def test_classifier_has_the_bits_of_the_cpu(loss: str) -> None:
    weight = RNG.uniform(0.5, 2, ROWS)
    cpu = SGDClassifier(loss, bits=4, **SMALL).fit(X, LABELS, sample_weight=weight)
    with PretendGpu():
        cuda = SGDClassifier(loss, bits=4, device="cuda:0", **SMALL)
        cuda.fit(X, LABELS, sample_weight=weight)
    assert state_of(cuda) == state_of(cpu)
    np.testing.assert_array_equal(cuda.predict(X), cpu.predict(X))


def test_rows_that_do_not_fit_are_encoded_on_the_cpu() -> None:
    with PretendGpu(free_bytes=X.nbytes) as gpu:
        cuda = SGDRegressor(bits=4, device="cuda", **SMALL).fit(X, Y)
        assert "_encode" not in gpu.ops and "_sgd_epoch" in gpu.ops
    with PretendGpu(free_bytes=3 * X.nbytes) as gpu:
        other = SGDRegressor(bits=4, device="cuda", **SMALL).fit(X, Y)
        assert "_encode" in gpu.ops
    assert state_of(cuda) == state_of(other)


def test_streams_of_batches() -> None:
    cpu = SGDRegressor(bits=4, **SMALL)
    with PretendGpu() as gpu:
        cuda = SGDRegressor(bits=4, device="cuda", **SMALL)
        for part in np.array_split(np.arange(ROWS), 2):
            cpu.partial_fit(X[part], Y[part])
            cuda.partial_fit(X[part], Y[part])
    assert state_of(cuda) == state_of(cpu)
    assert gpu.ran.count("_sgd_epoch") == 2


@pytest.mark.parametrize(
    "case",
    [dict(bits=3), dict(bits=32), dict(bits=4, layout="block"), dict(bits=2, copies=2)],
    ids=str,
)
def test_codes_that_do_not_fit_are_streamed(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SMALL | {"max_iter": 3} | case
    cpu = SGDRegressor(**options).fit(X, Y)
    monkeypatch.setattr(_epochs, "BUFFER_BYTES", 1)
    with PretendGpu(free_bytes=0) as gpu:
        cuda = SGDRegressor(**options, device="cuda").fit(X, Y)
    assert gpu.ran.count("_sgd_epoch") == 3 * 3  # a batch a call
    np.testing.assert_allclose(cuda.coef_, cpu.coef_, rtol=1e-13)
    np.testing.assert_allclose(cuda.loss_curve_, cpu.loss_curve_, rtol=1e-12)
    plain = SGDRegressor(**options, average=False).fit(X, Y)
    with PretendGpu(free_bytes=0):
        cuda = SGDRegressor(**options, average=False, device="cuda").fit(X, Y)
    assert cuda.coef_.tolist() == plain.coef_.tolist()  # the model itself to the bit


def test_streamed_logistic_with_weights_and_several_anchors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = SMALL | dict(bits=4, anchor=1, average=False)
    weight = RNG.uniform(0.5, 2, ROWS)
    cpu = SGDClassifier("log_loss", **options).fit(X, LABELS, sample_weight=weight)
    with PretendGpu(free_bytes=0):
        cuda = SGDClassifier("log_loss", device="cuda", **options)
        cuda.fit(X, LABELS, sample_weight=weight)
    assert cuda.coef_.tolist() == cpu.coef_.tolist()


def test_streaming_needs_whole_tiles() -> None:
    with (
        PretendGpu(free_bytes=0),
        pytest.raises(ValueError, match="batch_size must be a multiple of 64"),
    ):
        SGDRegressor(bits=4, batch_size=100, device="cuda", random_state=0).fit(X, Y)


@pytest.mark.parametrize("rows", [1, 128, 129, 300, 640])
@pytest.mark.parametrize("most", [1, 2, 100])
def test_parts_of_an_epoch(rows: int, most: int) -> None:
    """They cover all steps in order; only the last batch of a part may be short."""
    batches = -(-rows // 128)
    for order in (torch.arange(batches), torch.arange(batches).flip(0)):
        found = list(_epochs.parts(order, 128, rows, most))
        assert [i for first, last in found for i in range(first, last)] == list(range(batches))
        for first, last in found:
            assert last - first <= most
            assert all(int(b) * 128 + 128 <= rows for b in order[first : last - 1])
    assert list(_epochs.parts(torch.empty(0, dtype=torch.int64), 128, rows, most)) == []


@pytest.mark.parametrize("bits", [2, 4, 16, 32])
@pytest.mark.parametrize("layout", ["tile4", "row"])
def test_a_store_on_the_gpu(bits: int, layout: str, tmp_path: Path) -> None:
    levels = "uniform" if bits == 16 else "auto"
    store = QuantizedDataset.from_arrays(
        X, Y, bits=bits, layout=layout, levels=levels, random_state=0
    )
    rows = torch.tensor([5, -1, 64])
    with PretendGpu():
        moved = store.to("cuda")
        assert moved.device == torch.device("cuda", 0) and moved.to("cuda:0") is moved
        assert moved.layout == ("tile4" if bits != 32 else store.layout)
        assert torch.equal(moved.decode(rows).cpu(), store.decode(rows))
        if bits != 32:
            found = moved.read_codes(slice(60, 70)).cpu()
            assert torch.equal(
                found.view(torch.uint8), store.read_codes(slice(60, 70)).view(torch.uint8)
            )
            moved.save(tmp_path / "moved.tq")
        back = moved.to("cpu")
        assert torch.equal(back.decode(), store.decode())
        cuda = SGDRegressor(device="cuda", **SMALL).fit(moved)
        with pytest.raises(
            ValueError, match=r'the data set is on cuda:0 and device=.cpu.; use device="cuda:0"'
        ):
            SGDRegressor(**SMALL).fit(moved)
    assert state_of(cuda) == state_of(SGDRegressor(**SMALL).fit(store))
    if bits != 32:
        assert torch.equal(QuantizedDataset.open(tmp_path / "moved.tq").decode(), store.decode())


def test_a_run_goes_on_on_another_device(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(bits=4, batch_size=128, max_iter=4, random_state=0, tol=None)
    whole = SGDRegressor(**options).fit(X, Y)
    path = tmp_path / "run.safetensors"

    def stop(progress: Any) -> bool:
        if progress.epoch == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        SGDRegressor(**options, checkpoint=path, callbacks=[stop]).fit(X, Y)
    with PretendGpu():
        model = SGDRegressor(**options, checkpoint=path, resume=True, device="cuda").fit(X, Y)
    assert state_of(model) == state_of(whole)


def test_the_device_parameter() -> None:
    assert _device.resolve("cpu") == _device.CPU == _device.resolve(torch.device("cpu"))
    for wrong in ("tpu", "mps", 3.5, None, "cuda:x"):
        with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:<number>"'):
            _device.resolve(wrong)
    with PretendGpu():
        assert _device.resolve("cuda") == torch.device("cuda", 0)
        with pytest.raises(
            ValueError, match="device='cuda:1' needs GPU 1, this machine shows 1 GPUs"
        ):
            _device.resolve("cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' needs"):
            SGDRegressor(device="cuda").fit(X, Y)


def test_without_kernels_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchext._load, "has_cuda_kernels", lambda: False)
    with pytest.raises(ValueError, match="needs the CUDA kernels of torchext: "):
        _device.resolve("cuda")
    monkeypatch.setattr(torchext._load, "cuda_error", ImportError("libcudart is missing"))
    with pytest.raises(ValueError, match="libcudart is missing"):
        _device.resolve("cuda")


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with PretendGpu() as gpu:
        x = torch.ones(3, device="cuda")
        assert (
            x.device == torch.device("cuda", 0) and float((x + 1).sum()) == 6.0 and gpu.syncs == 1
        )
        view = x[1:]
        view += 2 * torch.ones(2).to("cuda")
        assert torch.equal(x.cpu(), torch.tensor([1.0, 3.0, 3.0]))
        with pytest.raises(RuntimeError, match="expected all tensors to be on the GPU"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError):
            x.numpy()
