"""An op is finished when it has every part: kernels, shape rule, documented wrapper, samples, benchmark."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import FunctionType

import pytest
import samples
import torch

import torchext
from torchext import ops, random
from torchext.optim import ops as optim_ops

ROOT = Path(__file__).parents[2]

# Ops without a CUDA kernel, and why.
CPU_ONLY: dict[str, str] = {
    "_column_levels": "little work, long chains of decisions; columns on a GPU are counted there",
    "_histogram_levels": "little work, long chains of decisions",
    "_histogram_new": "looks at 512 rows, once per store",
    "_levels_work": "counts what the CPU solver does, for benchmarks",
}

# Ops whose speed nobody waits for.
NO_BENCHMARK = {
    "fold_in": "one Philox block",
    "split": "one Philox block a key",
    "quantization_scale": "one pass at memory speed, part of quantize in benchmarks",
    "dequantize_draws": "the decoder of quantize_draws",
    "quantize_draws": "the store's encoder is the fast path and has a benchmark",
    "foreach_halp_commit_": "once an epoch",
    "foreach_halp_encode_": "once a run",
}

# Where the bits of an op that takes a key are pinned: the test and the file of vectors it reads.
GOLDEN = {
    "fold_in": ("test_stream_v1.py", "stream_v1.json"),
    "split": ("test_stream_v1.py", "stream_v1.json"),
    "foreach_halp_step_": ("test_optim_steps.py", "optim_v1.json"),
    "quantize": ("test_quantize.py", "quantize_v1.json"),
    "fake_quantize": ("test_stream_v1.py", "stream_v1.json"),
    "quantize_draws": ("test_stream_v1.py", "stream_v1.json"),
    "dequantize_draws": ("test_stream_v1.py", "stream_v1.json"),
}

SECTIONS = (".. math::", "Args:", "Returns:", "Raises:", "Determinism:", "Example:", "Source:")

DTYPES = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
)  # fmt: skip

SCHEMAS = [s for s in torch._C._jit_get_all_schemas() if s.name.startswith("torchext::")]
NAMES = sorted(
    s.name.removeprefix("torchext::") + (f".{s.overload_name}" if s.overload_name else "")
    for s in SCHEMAS
)
PUBLIC = [name for name in NAMES if not name.startswith("_")]
PACKETS = sorted({name.split(".")[0] for name in PUBLIC})


def has_kernel(name: str, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"torchext::{name}", key))


def wrapper(packet: str) -> FunctionType | None:
    for module in (ops, random, optim_ops):
        if packet in module.__all__:
            found = getattr(module, packet)
            assert isinstance(found, FunctionType)
            return found
    return None


def test_the_schemas_are_alphabetical_and_commented() -> None:
    text = (ROOT / "csrc" / "ops" / "schema.cpp").read_text()
    names = re.findall(r'm\.def\([^"]*"([a-z_A-Z.0-9]+)\(', text)
    assert names == sorted(names)
    assert set(names) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cpu_kernel(name: str) -> None:
    keys = ("CPU", "CompositeExplicitAutograd")
    assert any(has_kernel(name, key) for key in keys), f"{name} has no CPU implementation"


@pytest.mark.parametrize("name", NAMES)
def test_cuda_kernel_or_a_reason(name: str) -> None:
    if torchext._build.CUDA and torch.version.cuda:
        anywhere = has_kernel(name, "CUDA") or has_kernel(name, "CompositeExplicitAutograd")
        assert anywhere != (name in CPU_ONLY), f"{name}: add a CUDA kernel or a CPU_ONLY reason"
    assert all(reason for reason in CPU_ONLY.values())


@pytest.mark.parametrize("name", NAMES)
def test_fake(name: str) -> None:
    if name in ("_cpu_isa", "_force_isa"):
        return  # no tensor goes in or comes out
    from torch._library.simple_registry import singleton

    registered = singleton.find(f"torchext::{name}").fake_impl.kernel is not None
    assert registered or has_kernel(name, "Meta"), f"{name} has no shape rule in torchext/_fakes.py"


@pytest.mark.parametrize("packet", PACKETS)
def test_wrapper_is_documented_and_typed(packet: str) -> None:
    function = wrapper(packet)
    assert function is not None, f"{packet} is missing from torchext.ops"
    doc = inspect.getdoc(function) or ""
    missing = [section for section in SECTIONS if section not in doc]
    assert not missing, f"the docstring of {packet} lacks {missing}"
    assert re.search(r"[Cc]lass [AB]", doc), f"the docstring of {packet} names no parity class"
    assert doc.splitlines()[0].endswith("."), "the first line is a sentence"
    assert set(inspect.signature(function).parameters) | {"return"} == set(function.__annotations__)


@pytest.mark.parametrize("name", PUBLIC)
def test_samples_cover_every_dtype(name: str) -> None:
    """Every dtype that the op accepts has a row, so opcheck and the edge cases run on it."""
    packet, _, overload = name.partition(".")
    rows = [
        s for s in samples.SAMPLES if s.name == packet and s.overload == (overload or "default")
    ]
    assert rows, f"{name} has no row in tests/python/samples.py"
    accepted = set()
    for dtype in DTYPES:
        x = samples.sample_input(rows[0], rows[0].dtypes[0])
        try:
            rows[0].call(x.view(dtype) if dtype in (torch.int64, torch.uint64) else x.to(dtype))
        except RuntimeError:
            continue
        accepted.add(dtype)
    for row in rows:
        assert set(row.dtypes) == accepted, f"{row}: the op takes {accepted}"


@pytest.mark.parametrize("packet", PACKETS)
def test_keyed_ops_are_pinned(packet: str) -> None:
    takes_key = any(
        s.name == f"torchext::{packet}" and any(a.name == "key" for a in s.arguments)
        for s in SCHEMAS
    )
    if takes_key:
        assert packet in GOLDEN, f"{packet} takes a key and has no golden vector"
        name, vectors = GOLDEN[packet]
        text = (ROOT / "tests" / "python" / name).read_text()
        assert re.search(rf"\b{packet}\(", text) and vectors in text, (
            f"{name} does not pin {packet}"
        )
        assert (ROOT / "tests" / "vectors" / vectors).exists()


@pytest.mark.parametrize("packet", PACKETS)
def test_benchmark_or_a_reason(packet: str) -> None:
    text = "".join(p.read_text() for p in (ROOT / "benchmarks").rglob("*.py"))
    assert packet in NO_BENCHMARK or re.search(rf"\b(ops|torchext)\.{packet}\(", text), (
        f"{packet} has no benchmark"
    )


def test_no_table_names_an_op_that_is_gone() -> None:
    assert set(CPU_ONLY) <= set(NAMES)
    assert set(NO_BENCHMARK) | set(GOLDEN) <= set(PACKETS)
    assert {s.name for s in samples.SAMPLES} <= set(PACKETS)


def test_schema_conventions() -> None:
    """Key and stream come last; in-place names end in _; only the types of the stable ABI."""
    scalars = {"int", "Optional[int]", "float", "bool", "str"}
    allowed = scalars | {"Tensor", "Optional[Tensor]", "List[Tensor]", "List[int]"}
    for schema in SCHEMAS:
        if schema.name.removeprefix("torchext::").startswith("_"):
            continue
        types = {str(a.type) for a in schema.arguments}
        assert types <= allowed, f"{schema}: {types - allowed}"
        names = [a.name for a in schema.arguments]
        if "key" in names and names[0] != "key":
            last = "streams" if names[0] == "params" else "stream"  # one for each tensor of a list
            assert names[-2:] == ["key", last], schema
