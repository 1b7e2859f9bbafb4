"""The state of a training run, and how it is written to and read from a file.

A checkpoint is a safetensors file: the tensors and numbers below, so that a resumed run continues
bit for bit, beside ``coef`` and ``intercept`` in the units of the data, so that the same file is
also a model. It is written to a temporary file, synced and renamed: an interruption leaves the
previous checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = "torchext.linear"
VERSION = "1"


@dataclass
class State:
    """Everything that changes while training; committed as a whole after every op call.

    Copies share tensors: a tensor is replaced, never changed in place, once its state is committed.
    """

    x: Tensor
    intercept: Tensor
    average: Tensor
    start_x: Tensor
    start_intercept: Tensor
    safe_x: Tensor
    safe_intercept: Tensor
    start_average: Tensor
    sums: Tensor
    gamma0: float
    averaged: int = 0
    start_averaged: int = 0
    epoch: int = 0
    done: int = 0
    steps: int = 0
    round: int = 0
    round_epoch: int = 0
    halvings: int = 0
    lowest: float = float("inf")
    stale: int = 0
    best: float = float("inf")
    open: bool = False
    stop: str = ""
    losses: list[float] = field(default_factory=list)
    valid_losses: list[float] = field(default_factory=list)
    anchor_losses: list[float] = field(default_factory=list)
    x0: Tensor | None = None
    constant: Tensor | None = None

    @staticmethod
    def start(x: Tensor, intercept: Tensor, gamma0: float) -> State:
        """State before the first step."""
        outputs, cols = x.shape
        average = torch.zeros(outputs, cols + 1, dtype=torch.float64)
        sums = torch.zeros(3, outputs, dtype=torch.float64)
        return State(
            x=x.clone(), intercept=intercept.clone(), average=average, start_x=x.clone(),
            start_intercept=intercept.clone(), safe_x=x.clone(), safe_intercept=intercept.clone(),
            start_average=average.clone(), sums=sums, gamma0=gamma0,
        )  # fmt: skip

    def copy(self) -> State:
        """A copy to be changed and then committed; its lists are its own, its tensors are shared."""
        new = State.__new__(State)
        new.__dict__.update(self.__dict__)
        new.losses, new.valid_losses = list(self.losses), list(self.valid_losses)
        new.anchor_losses = list(self.anchor_losses)
        return new

    def solution(self, average: bool) -> tuple[Tensor, Tensor]:
        """float64 (m, n), (m,): the averaged iterate if there is one, else the last."""
        if average and self.averaged > 0:
            mean = self.average / self.averaged
            return mean[:, :-1], mean[:, -1]
        return self.x.double(), self.intercept.double()

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors, and the plain values (floats as hexadecimal text: exact)."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                # safetensors refuses tensors that share memory, as those of a state may
                tensors["state." + f.name] = value.clone(memory_format=torch.contiguous_format)
            elif isinstance(value, float):
                plain[f.name] = value.hex()
            elif isinstance(value, list):
                plain[f.name] = [v.hex() for v in value]
            elif value is not None:
                plain[f.name] = value
        return tensors, plain

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], plain: dict[str, Any]) -> State:
        """Inverse of :meth:`to_tensors`."""
        values: dict[str, Any] = {
            name.removeprefix("state."): t
            for name, t in tensors.items()
            if name.startswith("state.")
        }
        for f in dataclasses.fields(State):
            if f.name in plain:
                value = plain[f.name]
                if f.type == "float":
                    value = float.fromhex(value)
                elif f.type == "list[float]":
                    value = [float.fromhex(v) for v in value]
                values[f.name] = value
        return State(**values)


def write_file(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    """Write a model or checkpoint atomically (temporary file, fsync, rename)."""
    from safetensors.torch import save

    target = Path(path)
    header = {
        k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in meta.items()
    }
    data = save(
        {k: t.contiguous() for k, t in tensors.items()},
        {"format": FORMAT, "version": VERSION, **header},
    )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a model or checkpoint file.

    Raises:
        ValueError: the file is not one, is damaged, or has a version this build does not read.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such model or checkpoint file")
    try:
        with safe_open(str(path), framework="pt") as f:
            meta = dict(f.metadata() or {})
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable model file ({error})") from None
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path}: not a torchext.linear model file")
    if meta.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {meta.get('version')} of the model file, this build reads {VERSION}"
        )
    return tensors, meta
