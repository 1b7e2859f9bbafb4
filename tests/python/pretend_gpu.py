"""A GPU in name: tensors that say ``cuda:0``, live in CPU memory and run the emulated CUDA ops.

Mixing them with CPU tensors fails as it does on a real one, so Python code that moves data is tested on
machines without a GPU. Use as ``with PretendGpu() as gpu:``; ``gpu.syncs`` counts values read back one by
one, ``gpu.read`` bytes of tensors, ``gpu.ran`` lists the library's ops that ran there.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import emulation
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from torchext import _load
from torchext.linear import _device

GPU = torch.device("cuda", 0)
MOVES = ("aten::_to_copy", "aten::copy_")
READS = ("aten::_local_scalar_dense", "aten::equal")


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; ``inner`` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=GPU,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {})


def call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an op on the values of its tensors, and says where the results are."""
    name = func._schema.name
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    there = [isinstance(t, OnGpu) for t in tensors]
    result_there = any(there)
    ours = name.startswith("torchext::")
    mixed = [t for t in tensors if not isinstance(t, OnGpu) and (t.dim() > 0 or ours)]
    if result_there and mixed and name not in MOVES:
        raise RuntimeError(f"{name}: expected all tensors to be on the GPU")
    if "device" in kwargs and kwargs["device"] is not None:
        result_there = torch.device(kwargs["device"]).type == "cuda"
        kwargs = kwargs | {"device": torch.device("cpu")}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    if name == "aten::copy_":
        result_there = there[0]
    if result_there and name in READS:
        PretendGpu.active.syncs += 1
    if result_there and ours:
        func = kernel(func, name.removeprefix("torchext::"))
    wrappers = {id(t.inner): t for t in tensors if isinstance(t, OnGpu)}

    def unwrap(x: Any) -> Any:
        return x.inner if isinstance(x, OnGpu) else x

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor) or not result_there:
            return x
        return wrappers.get(id(x)) if id(x) in wrappers else OnGpu(x)

    result = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if name in MOVES and there[-1] and not result_there:
        PretendGpu.active.read += tensors[-1].nbytes
    return tree_map(wrap, result)


def kernel(func: Any, name: str) -> Any:
    """The emulated CUDA kernel of an op of the library; without one it runs on the CPU."""
    PretendGpu.active.ran.append(name)
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if not has(f"torchext_emulated::{name}", "CPU"):
        return func
    return getattr(getattr(torch.ops.torchext_emulated, name), func._overloadname)


class _Event:
    def record(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...


class _Stream:
    def __init__(self, device: Any = None) -> None: ...
    def wait_event(self, event: Any) -> None: ...


class PretendGpu(TorchDispatchMode):
    """While active, ``device="cuda"`` works."""

    active: PretendGpu

    def __init__(self, free_bytes: int = 1 << 40) -> None:
        super().__init__()
        self.syncs, self.read, self.free_bytes = 0, 0, free_bytes
        self.ran: list[str] = []
        emulation.load()

    @property
    def ops(self) -> set[str]:
        """The names in ``ran``."""
        return set(self.ran)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {})

    def __enter__(self) -> PretendGpu:
        torch._C._ensureCUDADeviceGuardSet()  # one that does nothing where there is no GPU
        self.patch = pytest.MonkeyPatch()
        for name, value in {
            "_lazy_init": lambda: None, "device_count": lambda: 1, "current_device": lambda: 0,
            "Stream": _Stream, "Event": _Event, "current_stream": _Stream,
            "stream": lambda _: contextlib.nullcontext(),
        }.items():  # fmt: skip
            self.patch.setattr(torch.cuda, name, value)
        self.patch.setattr(_load, "has_cuda_kernels", lambda: True)
        self.patch.setattr(_device, "free_bytes", lambda _: self.free_bytes)
        PretendGpu.active = self
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self.patch.undo()
