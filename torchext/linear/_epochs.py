"""Where the steps of an epoch run: on the CPU, on a GPU that holds the codes, or streamed to one.

The state of a run stays in CPU memory; a GPU receives model and average before a call of the op and
returns them after it. All three give the same bits, except that streaming adds the iterates of every
part of an epoch to the average at its end, which may move the last bit of that float64 sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchext.data.arrange import UNIT_ROWS, tile4
from torchext.linear import _device
from torchext.linear._problem import Problem

if TYPE_CHECKING:
    from torchext.linear._trainer import Options

#: Bytes of one of the two buffers of streamed codes.
BUFFER_BYTES = 256 << 20
#: Start of every tensor in a buffer.
_ALIGNED = 64
#: What a problem holds beside its codes.
_SMALL = ("y", "weight", "z0", "x0", "constant", "shrink", "grid", "table")


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps ``first`` and following of a run: batch numbers int64 and step sizes float64."""

    order: Tensor
    gamma: Tensor
    first: int


@dataclasses.dataclass
class Model:
    """What the op writes into: x (m, n), intercept (m,) float32, average (m, n + 1) float64."""

    x: Tensor
    intercept: Tensor
    average: Tensor

    def on(self, device: torch.device) -> Model:
        """A copy there."""
        return Model(*(t.to(device, copy=True) for t in (self.x, self.intercept, self.average)))

    def receive(self, other: Model) -> None:
        """Take the other's values."""
        self.x.copy_(other.x)
        self.intercept.copy_(other.intercept)
        self.average.copy_(other.average)


def sgd_epoch(
    p: Problem, o: Options, key: Tensor, codes: Tensor, model: Model, steps: Steps
) -> Tensor:
    """The op on tensors that are all on one device: sums float64 (3, m)."""
    sums: Tensor = torch.ops.torchext._sgd_epoch(
        codes, p.rows, p.cols, p.bits, p.layout, p.grid, p.table, p.y, p.weight, p.z0,
        model.x, model.intercept, p.x0, p.constant, p.shrink, model.average,
        steps.order.contiguous(), steps.gamma, o.batch, p.loss, o.l1, o.l2,
        p.variance_reduced, p.fit_intercept, o.model_bits, o.residual_bits, o.gradient_bits,
        key, steps.first, o.threads,
    )  # fmt: skip
    return sums


class OnHost:
    """Epochs on the CPU."""

    def __init__(self, problem: Problem, options: Options, key: Tensor) -> None:
        self.problem, self.options, self.key = problem, options, key

    def run(self, copy: int, model: Model, steps: Steps) -> Tensor:
        """Runs the steps on a copy of the codes; writes into the model and returns the sums."""
        p = self.problem
        return sgd_epoch(p, self.options, self.key, p.codes_of(copy), model, steps)

    def with_problem(self, problem: Problem) -> OnHost:
        """The same data with another anchor."""
        return OnHost(problem, self.options, self.key)


class OnDevice:
    """Epochs on a GPU that holds all the data."""

    def __init__(
        self, problem: Problem, options: Options, key: Tensor, device: torch.device,
        codes: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.options, self.device = options, device
        self.key = key.to(device)
        if codes is None:
            p = problem
            codes = tile4(p.codes, p.rows, p.cols, p.bits, p.layout, device)
        layout = "tile4" if problem.bits != 32 else problem.layout
        self.problem = dataclasses.replace(_moved(problem, device), codes=codes, layout=layout)

    def run(self, copy: int, model: Model, steps: Steps) -> Tensor:
        """See :meth:`OnHost.run`."""
        p = self.problem
        there = model.on(self.device)
        moved = Steps(steps.order.to(self.device), steps.gamma.to(self.device), steps.first)
        sums = sgd_epoch(p, self.options, self.key, p.codes_of(copy), there, moved)
        model.receive(there)
        return sums.cpu()

    def with_problem(self, problem: Problem) -> OnDevice:
        """See :meth:`OnHost.with_problem`; the codes are not moved again."""
        return OnDevice(problem, self.options, self.key, self.device, self.problem.codes)


class Streamed:
    """Epochs on a GPU that does not hold the codes: parts of an epoch are sent while others run."""

    def __init__(
        self, problem: Problem, options: Options, key: Tensor, device: torch.device
    ) -> None:
        unit = 1 if problem.bits == 32 else UNIT_ROWS[problem.layout]
        if options.batch % unit and options.batch < problem.rows:
            raise ValueError(
                f"batch_size must be a multiple of {unit} where codes are streamed to a GPU that "
                f"cannot hold them, got {options.batch}"
            )
        self.host, self.options, self.device = problem, options, device
        self.key = key.to(device)
        self.small = _moved(
            dataclasses.replace(
                problem, codes=torch.empty(0), y=torch.empty(0), weight=None, z0=None
            ),
            device,
        )
        row_bytes = bytes_of(problem, 0, options.batch) // options.batch + 1
        self.steps = max(1, BUFFER_BYTES // (row_bytes * options.batch))
        rows = min(problem.rows, self.steps * options.batch) + unit
        size = (
            bytes_of(problem, 0, rows)
            + _ALIGNED
            + sum(4 * rows * t[:1].numel() + _ALIGNED for t in targets_of(problem).values())
        )
        self.buffers = [Buffer(size, device) for _ in range(2)]

    def run(self, copy: int, model: Model, steps: Steps) -> Tensor:
        """See :meth:`OnHost.run`."""
        p, batch = self.host, self.options.batch
        codes = as_bytes(p.codes_of(copy))
        moved = model.on(self.device)
        total = torch.zeros(3, p.outputs, dtype=torch.float64, device=self.device)
        gamma = steps.gamma.to(self.device)
        for i, (first, last) in enumerate(parts(steps.order, batch, p.rows, self.steps)):
            numbers = steps.order[first:last].tolist()
            spans = [(b * batch, min(p.rows, (b + 1) * batch)) for b in numbers]
            buffer = self.buffers[i % 2]
            rows = sum(end - begin for begin, end in spans)
            targets = targets_of(p)
            there_codes, *sent = buffer.send(
                [codes[slice(*_extent(p, *span))] for span in spans],
                *([as_bytes(t[slice(*span)]) for span in spans] for t in targets.values()),
            )
            if p.bits == 32:
                there_codes = there_codes.view(torch.float32).view(rows, -1)
            given: dict[str, Any] = {
                name: there.view(torch.float32).view(rows, *t.shape[1:])
                for (name, t), there in zip(targets.items(), sent, strict=True)
            }
            part = dataclasses.replace(self.small, rows=rows, **given)
            order = torch.arange(last - first, device=self.device)
            now = Steps(order, gamma[first:last], steps.first + first)
            total += sgd_epoch(part, self.options, self.key, there_codes, moved, now)
            buffer.used()
        model.receive(moved)
        return total.cpu()

    def with_problem(self, problem: Problem) -> Streamed:
        """See :meth:`OnHost.with_problem`."""
        return Streamed(problem, self.options, self.key, self.device)


class Buffer:
    """Pinned memory and its image on the device; sending one overlaps with work on the other."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.real = device.type == "cuda"
        self.host = torch.empty(size, dtype=torch.uint8, pin_memory=self.real)
        self.there = torch.empty(size, dtype=torch.uint8, device=device)
        if self.real:
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.free = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # Whoever had this memory before on the present stream is done with it.
            self.free.record(torch.cuda.current_stream(device))

    def send(self, *groups: list[Tensor]) -> list[Tensor]:
        """The bytes of every group, one tensor each on the device, ready for the present stream."""
        if self.real:
            self.copied.synchronize()  # the pinned memory has been read
        size, places = 0, []
        for group in groups:
            begin = size
            for piece in group:
                self.host[size : size + len(piece)].copy_(piece)
                size += len(piece)
            places.append(slice(begin, size))
            size = -(-size // _ALIGNED) * _ALIGNED
        if self.real:
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(self.free)  # the last work on this buffer is done
                self.there[:size].copy_(self.host[:size], non_blocking=True)
                self.copied.record()
            torch.cuda.current_stream(self.there.device).wait_event(self.copied)
        else:
            self.there[:size].copy_(self.host[:size])
        return [self.there[place] for place in places]

    def used(self) -> None:
        """The work that reads the buffer has been enqueued on the present stream."""
        if self.real:
            self.free.record(torch.cuda.current_stream(self.there.device))


def parts(order: Tensor, batch: int, rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of steps, at most ``most`` each, so that a batch that is short comes last in its range."""
    short = rows // batch if rows % batch else -1
    first = 0
    for i, number in enumerate(order.tolist()):
        if i + 1 - first == most or number == short or i + 1 == len(order):
            yield first, i + 1
            first = i + 1


def targets_of(p: Problem) -> dict[str, Tensor]:
    """What a problem has for every row beside the codes: float32 (K,) or (K, m)."""
    found = {"y": p.y, "weight": p.weight, "z0": p.z0}
    return {name: t for name, t in found.items() if t is not None}


def _extent(p: Problem, first: int, last: int) -> tuple[int, int]:
    """Bytes of the rows [first, last) in one copy of the codes."""
    if p.bits == 32:
        row = 4 * p.codes.shape[1]
        return first * row, last * row
    from torchext.data._encode import layout_bytes

    return (
        layout_bytes(first, p.cols, p.bits, p.layout),
        layout_bytes(last, p.cols, p.bits, p.layout),
    )


def bytes_of(p: Problem, first: int, last: int) -> int:
    """Bytes of these rows' codes."""
    begin, end = _extent(p, first, last)
    return end - begin


def as_bytes(codes: Tensor) -> Tensor:
    """The memory of the codes, uint8."""
    return codes.reshape(-1).view(torch.uint8)


def _moved(problem: Problem, device: torch.device) -> Problem:
    """The problem with everything but its codes on the device."""
    small = {name: _device.moved(getattr(problem, name), device) for name in _SMALL}
    return dataclasses.replace(problem, **small)  # type: ignore[arg-type]


def needed_bytes(p: Problem) -> int:
    """Memory that the whole problem takes on a device."""
    tensors: list[Tensor | None] = [p.codes, *(getattr(p, name) for name in _SMALL)]
    return sum(t.nbytes for t in tensors if t is not None)


def epochs_on(
    device: torch.device, problem: Problem, options: Options, key: Tensor
) -> OnHost | OnDevice | Streamed:
    """Epochs on ``device``; the codes are streamed to a GPU that cannot hold them."""
    if device.type == "cpu":
        return OnHost(problem, options, key)
    there = problem.codes.device == device
    if there or needed_bytes(problem) <= _device.free_bytes(device):
        return OnDevice(problem, options, key, device)
    return Streamed(problem, options, key, device)
