"""What the scripts for nets share beyond the comparison: options of the training, settings, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from training.common import comparison, plots
from training.common.methods import Method, Settings
from training.common.runs import rank
from training.common.trainer import Schedule, world_size


def _mu(text: str) -> float | str:
    return text if text == "auto" else float(text)


def add_training(p: argparse.ArgumentParser, presets: Mapping[str, Any]) -> None:
    """Options that replace numbers of the preset, for all methods of the call."""
    p.add_argument("--preset", choices=list(presets), default="cpu",
                   help="sizes, lengths and the tuned numbers of each method (default: cpu)")  # fmt: skip
    p.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    p.add_argument("--epochs", type=int, metavar="N")
    p.add_argument("--batch", type=int, metavar="N", help="examples a step, over all processes")
    p.add_argument("--centre-every", type=float, metavar="EPOCHS",
                   help="from one full gradient to the next: T, as a share of an epoch")  # fmt: skip
    p.add_argument("--decay-at", type=int, nargs="+", metavar="EPOCH",
                   help="epochs after which the step size falls to a tenth")  # fmt: skip
    p.add_argument("--lr", type=float, help="step size")
    p.add_argument("--momentum", type=float, help="of the method momentum")
    p.add_argument("--weight-decay", type=float)
    p.add_argument("--mu", type=_mu, help="HALP: the half-width of the box is the gradient norm over mu; "
                   "a number, or auto for 8 bits or more")  # fmt: skip
    p.add_argument("--headroom", type=float, help="LP methods: largest representable weight of a tensor, "
                   "in units of its largest weight at the start")  # fmt: skip
    p.add_argument("--delta", type=float, help="LP methods: one spacing for all tensors instead")
    p.add_argument("--svrg-coef", type=float, help="factor of the correction, 0 to 1")
    p.add_argument(
        "--scope", choices=("tensor", "global"), help="HALP: one spacing per tensor or for all"
    )


@dataclass(frozen=True)
class Resolved:
    """The preset with the options of the call on top."""

    own: dict[str, Any]
    schedule: Schedule
    settings: Mapping[str, Settings]
    changes: dict[str, Any]

    def of(self, method: Method) -> tuple[Settings, Schedule]:
        """Numbers of one method: those of its name, else of its kind, else of "default"."""
        for key in (method.name, method.kind, "default"):
            if key in self.settings:
                return replace(self.settings[key], **self.changes), self.schedule
        raise KeyError(method.name)

    def config(self, method: Method, seed: int) -> dict[str, Any]:
        """What a run's figures depend on."""
        own = {k: v for k, v in self.own.items() if k not in ("settings", "schedule")}
        settings, schedule = self.of(method)
        numbers = asdict(settings) | asdict(schedule) | {"decay_at": list(schedule.decay_at)}
        return own | numbers | {
            "method": method.name, "seed": seed, "processes": world_size(),
            "threads": torch.get_num_threads(),
        }  # fmt: skip


def deep_config(
    options: argparse.Namespace,
    own: dict[str, Any],
    schedule: Schedule,
    settings: Mapping[str, Settings],
) -> Resolved:
    """Applies what was given on the command line."""
    given = {k: v for k, v in vars(options).items() if v is not None}
    lengths = {f.name: given[f.name] for f in fields(Schedule) if f.name in given}
    if "decay_at" in lengths:
        lengths["decay_at"] = tuple(lengths["decay_at"])
    numbers = {f.name: given[f.name] for f in fields(Settings) if f.name in given}
    return Resolved(
        own | {"device": options.device}, replace(schedule, **lengths), settings, numbers
    )


def report(
    results: comparison.Results,
    options: argparse.Namespace,
    title: str,
    metric: str,
    label: str,
    best: Callable[..., float],
) -> None:
    """The table over seeds, and with ``--plot`` the curves."""
    if rank() != 0:
        return
    columns = {
        "gradient_epochs": "gradients (epochs of them)", "train_loss": "training loss",
        metric: label, "seconds": "seconds",
    }  # fmt: skip
    print("\n" + comparison.table(results, columns, {metric: best}))
    if options.plot:
        panels = [
            plots.Panel(comparison.curves(results, "epoch", "train_loss"), "epoch", "training loss",
                        log=False),
            plots.Panel(comparison.curves(results, "epoch", metric), "epoch", label, log=False),
            plots.Panel(comparison.curves(results, "gradient_epochs", metric),
                        "gradient evaluations / training examples", label, log=False),
        ]  # fmt: skip
        note = f"Mean over seeds {options.seeds}, band: their range."
        plots.draw(options.plot, title, panels, note)
