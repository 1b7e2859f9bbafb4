"""One table of calls: op x dtype. opcheck, the edge cases and the completeness test read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchext import random

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
KEY = random.key_from_seed(2024)
GRID = torch.arange(-3.0, 3.5, 0.5)  # candidates
LEVELS = torch.tensor([-1.5, -0.5, 0.25, 2.0])


@dataclass(frozen=True)
class Sample:
    """`call(x)` runs the op on a tensor of any shape; `args(x)` are its arguments, for opcheck."""

    name: str  # overload packet, e.g. "quantize"
    variant: str
    args: Callable[[Tensor], tuple[Any, ...]]
    dtypes: tuple[torch.dtype, ...] = FLOATS
    overload: str = "default"
    elementwise: bool = True  # takes a tensor of values of any shape

    @property
    def op(self) -> Any:
        return getattr(getattr(torch.ops.torchext, self.name), self.overload)

    def call(self, x: Tensor) -> Tensor:
        arguments = self.args(x)
        out: Tensor | tuple[Tensor, ...] | None = self.op(*arguments)
        if out is None:
            return arguments[0][0]
        if isinstance(out, tuple):  # all results in one tensor, exactly
            out = torch.cat([t.double().reshape(-1) for t in out])
        return out

    def input(self, dtype: torch.dtype, shape: tuple[int, ...] = (5, 13)) -> Tensor:
        """Reproducible values the op accepts."""
        if dtype in (torch.int64, torch.uint64):
            return KEY.view(dtype)
        n = int(torch.Size(shape).numel())
        steps = torch.arange(n, dtype=torch.float64)
        if dtype == torch.uint8:
            return (steps % 8).to(dtype).reshape(shape)
        return ((steps * 37 % 64 - 32) / 13).to(dtype).reshape(shape)

    def __str__(self) -> str:
        return f"{self.name}.{self.overload}-{self.variant}"


def _scale(scheme: str) -> Tensor:
    return torch.tensor([[-2.5, 0.35]]) if scheme == "minmax" else torch.tensor([0.35])


def _rounding(name: str, scheme: str, rounding: str) -> Sample:
    scale = None if scheme == "levels" else _scale(scheme)
    levels = LEVELS if scheme == "levels" else None
    bits = 2 if scheme == "levels" else 4
    key = KEY if rounding == "stochastic" else None
    return Sample(
        name,
        f"{scheme}-{rounding}",
        lambda x: (x, scale, levels, bits, scheme, None, None, rounding, key, 3),
    )


def _lattice(x: Tensor, store: torch.dtype) -> dict[str, list[Tensor]]:
    """Lists of one tensor each for the optimizer steps, weights like ``x``."""
    own = torch.float64 if x.dtype == torch.float64 else torch.float32
    real = x.is_floating_point()
    values = x.to(own) if real else torch.zeros(x.shape)
    codes = values.clone() if store == own else torch.zeros(x.shape, dtype=store)
    return {
        "params": [x.clone()],
        "z": [codes.contiguous()],
        "center": [values.contiguous().clone()],
        "delta": [torch.tensor(0.35, dtype=own)],
        "grad": [x.clone()],
    }


def _own(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _halp_step(x: Tensor) -> tuple[Any, ...]:
    a = _lattice(x, torch.int8)
    lists = (a["params"], a["z"], a["center"], a["delta"], a["grad"], [], [], [], [])
    return (*lists, 0.1, 0.01, 1.0, 0.0, 0.0, 8, 0, KEY, [3])


def _svrg_step(x: Tensor) -> tuple[Any, ...]:
    a = _lattice(x, _own(x))
    return (a["params"], a["z"], a["center"], a["grad"], [], [], [], [], 0.1, 0.0, 1.0, 0.0, 0.0, 0)


def _lattice_samples() -> list[Sample]:
    """Steps rewrite lists of tensors: ``call`` returns the weights that a step leaves."""

    def lists(*names: str) -> Callable[[Tensor], tuple[Any, ...]]:
        return lambda x: tuple(_lattice(x, torch.int8)[name] for name in names)

    rows: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
        "foreach_halp_step_": _halp_step,
        "foreach_svrg_step_": _svrg_step,
        "foreach_halp_materialize_": lists("params", "z", "center", "delta"),
        "foreach_halp_commit_": lists("params", "z", "center", "delta"),
        "foreach_halp_encode_": lambda x: (*lists("params", "z", "delta")(x), 8),
    }
    return [
        *(Sample(name, "lists", args, elementwise=False) for name, args in rows.items()),
        _with_tensor_rate("foreach_halp_step_", _halp_step, 9),
        _with_tensor_rate("foreach_svrg_step_", _svrg_step, 8),
    ]


def _with_tensor_rate(name: str, args: Callable[[Tensor], tuple[Any, ...]], at: int) -> Sample:
    def with_rate(x: Tensor) -> tuple[Any, ...]:
        plain = args(x)
        return (*plain[:at], torch.tensor(plain[at]), *plain[at + 1 :])

    return Sample(name, "lists", with_rate, overload="lr_tensor", elementwise=False)


def _table() -> list[Sample]:
    schemes = ("symmetric", "minmax", "levels")
    rows = [
        _rounding(name, scheme, rounding)
        for name in ("quantize", "fake_quantize")
        for scheme in schemes
        for rounding in ("stochastic", "nearest")
    ]
    for scheme in schemes:
        levels = LEVELS if scheme == "levels" else None
        scale = None if scheme == "levels" else _scale(scheme)
        bits = 2 if scheme == "levels" else 4

        def variance(x: Tensor, scale=scale, levels=levels, bits=bits, scheme=scheme):  # type: ignore[no-untyped-def]
            return (x, scale, levels, bits, scheme, None, None)

        def decode(x: Tensor, scale=scale, levels=levels, bits=bits, scheme=scheme):  # type: ignore[no-untyped-def]
            return (x, scale, levels, [x.numel() * 8 // bits], bits, scheme, None, None)

        rows.append(Sample("quantization_variance", scheme, variance))
        rows.append(Sample("dequantize", scheme, decode, (torch.uint8,), elementwise=False))
    rows += [
        Sample("quantization_scale", scheme, lambda x, s=scheme: (x, 4, s, None, None))  # type: ignore[misc]
        for scheme in ("symmetric", "minmax")
    ]
    for form, bits in (("bits", 4), ("count", 4)):
        rows.append(
            Sample(
                "quantize_draws",
                form,
                lambda x, form=form: (x, LEVELS, 2, form, None, KEY, 3),  # type: ignore[misc]
            )
        )
        rows.append(
            Sample(
                "dequantize_draws",
                form,
                lambda x, form=form, bits=bits: (  # type: ignore[misc]
                    *(x, LEVELS, [x.numel() * 8 // bits], 2, form, None, 1, KEY, 3),
                ),
                (torch.uint8,),
                elementwise=False,
            )
        )
    rows += [
        Sample(
            "optimal_levels",
            f"{objective}-{method}",
            lambda x, o=objective, m=method: (x, None, None, 5, None, None, o, m, 0.0, ""),  # type: ignore[misc]
        )
        for objective in ("stochastic", "nearest")
        for method in ("exact", "hist")
    ]
    rows += [
        Sample(
            "optimal_levels",
            "buckets",
            lambda x: (x, None, GRID, 3, None, 7, "stochastic", "exact", 0.0, "bfloat16"),
        ),
        *(
            Sample("rounding_error", rounding, lambda x, r=rounding: (x, LEVELS, None, None, 9, r))  # type: ignore[misc]
            for rounding in ("stochastic", "nearest")
        ),
        Sample("rounding_error", "whole", lambda x: (x, LEVELS, None, None, None, "stochastic")),
    ]
    keys = (torch.int64, torch.uint64)
    rows += [
        Sample("pack_bits", "3", lambda x: (x, 3), (torch.uint8,)),
        Sample(
            "unpack_bits", "4", lambda x: (x, x.numel() * 2, 4), (torch.uint8,), elementwise=False
        ),
        Sample("fold_in", "int", lambda k: (k, 7), keys, elementwise=False),
        Sample(
            "fold_in", "tensor", lambda k: (k, torch.tensor([7])), keys, "Tensor", elementwise=False
        ),
        Sample("split", "3", lambda k: (k, 3), keys, elementwise=False),
        *_lattice_samples(),
    ]
    return rows


SAMPLES = _table()


def sample_input(sample: Sample, dtype: torch.dtype) -> Tensor:
    """What opcheck runs on: packed ops take vectors, the others a matrix."""
    if sample.name in ("dequantize", "dequantize_draws", "unpack_bits"):
        return sample.input(dtype, (24,))
    return sample.input(dtype)
