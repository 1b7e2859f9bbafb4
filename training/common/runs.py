"""One folder per run: figures, checkpoint and result; any run continues to the bit from its checkpoint."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

import torchext

Row = dict[str, float]
#: Steps between two questions to the other ranks whether to stop.
AGREE_EVERY = 20


class RunError(Exception):
    """A run that cannot start or continue, in one sentence."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class Process(Protocol):
    """Something that is trained step by step."""

    steps: int
    total_steps: int

    def advance(self) -> Row | None:
        """One step; at the end of an epoch its figures."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, enough to continue to the bit."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""


def rank() -> int:
    """Number of this process; 0 without torch.distributed."""
    return dist.get_rank() if dist.is_initialized() else 0


class RunFolder:
    """``metrics.csv`` (a row per epoch), ``checkpoint.pt``, ``result.json`` once the run is over.

    TensorBoard files are added where tensorboard is installed. Only rank 0 writes.
    """

    def __init__(self, path: Path, config: dict[str, Any], resume: bool) -> None:
        self.path, self.config, self.rows = path, config, []  # type: ignore[var-annotated]
        self.checkpoint, self.result_file = path / "checkpoint.pt", path / "result.json"
        if path.exists() and any(path.iterdir()) and not resume:
            raise RunError(f"{path} holds a run already; pass --resume, or another --out")
        self.writes = rank() == 0
        if self.writes:
            path.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Any] | None:
        """State of the process at the last checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return None
        try:
            saved = torch.load(self.checkpoint, weights_only=True)
            config, self.rows, state = saved["config"], saved["rows"], saved["process"]
        except Exception as error:  # whatever a broken archive raises
            raise RunError(f"{self.checkpoint} cannot be read: {error}") from error
        self._check(config, self.checkpoint)
        return dict(state)

    def save(self, state: dict[str, Any]) -> None:
        """Writes the checkpoint; a crash at any moment leaves the previous one."""
        if self.writes:
            with _atomic(self.checkpoint) as partial:
                torch.save({"config": self.config, "rows": self.rows, "process": state}, partial)

    def add(self, row: Row) -> None:
        """One more row of figures."""
        self.rows.append(row)
        if self.writes:
            with _atomic(self.path / "metrics.csv") as partial, partial.open("w") as f:
                writer = csv.DictWriter(f, list(self.rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)

    def result(self) -> dict[str, Any] | None:
        """What :meth:`finish` wrote, if the run is over."""
        if not self.result_file.exists():
            return None
        found = json.loads(self.result_file.read_text())
        self._check(found["config"], self.result_file)
        return dict(found)

    def finish(self) -> dict[str, Any]:
        """Writes and returns configuration, rows and versions."""
        out = {"config": self.config, "rows": self.rows, "versions": versions()}
        if self.writes:
            with _atomic(self.result_file) as partial:
                partial.write_text(json.dumps(out, indent=1) + "\n")
        return out

    def _check(self, saved: dict[str, Any], where: Path) -> None:
        for key in saved.keys() | self.config.keys():
            if saved.get(key) != self.config.get(key):
                raise RunError(
                    f"{where} was made with {key} = {saved.get(key)!r}, now it is {self.config.get(key)!r}; "
                    "use the same settings or another --out"
                )


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    yield partial
    partial.replace(path)


def versions() -> dict[str, str]:
    """What else the figures depend on."""
    return {
        "torchext": torchext.__version__, "torch": torch.__version__, "isa": torchext.cpu_isa(),
        "python": platform.python_version(), "threads": str(torch.get_num_threads()),
    }  # fmt: skip


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGINT or SIGTERM has come since."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {n: signal.signal(n, lambda number, _: came.append(number)) for n in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def drive(process: Process, folder: RunFolder, seconds: float, stop: Callable[[], bool]) -> Any:
    """Runs to the end from the folder's checkpoint; saves every so many ``seconds``, and to stop.

    Returns:
        What :meth:`RunFolder.finish` does.

    Raises:
        Interrupted: ``stop()`` was true; everything is saved.
    """
    done = folder.result()
    if done is not None:
        return done
    state = folder.load()
    if state is not None:
        process.load_state_dict(state)
    several = dist.is_initialized() and dist.get_world_size() > 1
    writer = _tensorboard(folder) if folder.writes else None
    saved_at = time.monotonic()
    with _progress(process, folder) as bar:
        while process.steps < process.total_steps:
            row = process.advance()
            bar.update(1)
            if row is not None:
                folder.add(row)
                if writer is not None:
                    for name, value in row.items():
                        writer.add_scalar(name, value, process.steps)
            # A signal reaches the ranks at different steps: they agree on one where all of them stop.
            if several:
                asked = process.steps % AGREE_EVERY == 0 and _any_rank(stop())
            else:
                asked = stop()
            if asked or time.monotonic() - saved_at > seconds:
                folder.save(process.state_dict())
                saved_at = time.monotonic()
            if asked and process.steps < process.total_steps:
                raise Interrupted(f"stopped at step {process.steps} of {process.total_steps}")
    if writer is not None:
        writer.close()
    folder.save(process.state_dict())  # the trained weights
    return folder.finish()


def _any_rank(flag: bool) -> bool:
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    flags = torch.tensor([float(flag)], device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def _tensorboard(folder: RunFolder) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder.path))


class _NoBar(contextlib.AbstractContextManager["_NoBar"]):
    def update(self, count: int) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _progress(process: Process, folder: RunFolder) -> Any:
    """A bar on a terminal, if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    hide = None if folder.writes else True
    return tqdm(
        total=process.total_steps, initial=process.steps, desc=folder.path.name, disable=hide
    )
