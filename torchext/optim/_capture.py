"""Steps in CUDA graphs: a replay runs no Python, so the device counts the steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from torchext.optim._update import Member
from torchext.random import fold_in


class DeviceSteps:
    """The number of the step, on every device in use, and the key it is folded into."""

    def __init__(self) -> None:
        self._steps: dict[torch.device, Tensor] = {}
        self._parents: dict[torch.device, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._steps)

    def start(self, device: torch.device, step: int, parent: Tensor) -> None:
        """Counts on ``device`` too: from ``step`` on, or from where other devices are."""
        if device not in self._steps:
            others = iter(self._steps.values())
            now = next(others, torch.tensor(step, dtype=torch.int64))
            self._steps[device] = now.to(device, copy=True)
            self._parents[device] = parent.to(device)

    def key(self, device: torch.device) -> Tensor:
        return fold_in(self._parents[device], self._steps[device])

    def advance(self) -> None:
        for step in self._steps.values():
            step.add_(1)

    def now(self) -> int:
        """What the devices have counted to; waits for one of them."""
        return int(next(iter(self._steps.values())).item())


def capturing(members: Iterable[Member]) -> bool:
    """Whether a step now would be recorded in a CUDA graph."""
    return any(m.param.is_cuda for m in members) and torch.cuda.is_current_stream_capturing()


def check(
    name: str, members: list[Member], capturable: bool, steps: DeviceSteps, keeps_rng: bool
) -> None:
    """Before a step: what a capture would freeze must be there already."""
    if not capturing(members):
        return
    if not capturable:
        raise RuntimeError(f"{name}.step() in a CUDA graph needs capturable=True")
    if not steps:
        raise RuntimeError(f"{name}.step(): run one step before the capture, it makes the state")
    if keeps_rng:
        raise RuntimeError(
            f"{name}.step() in a CUDA graph needs preserve_rng=False: "
            "the random state of a captured pass cannot be restored"
        )
    for m in members:
        lr = m.group["lr"]
        if isinstance(lr, Tensor) and lr.device != m.param.device:
            raise RuntimeError(
                f"{name}.step() in a CUDA graph needs a tensor lr on {m.param.device}, got {lr.device}"
            )
