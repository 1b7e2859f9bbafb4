"""What a run has to say about itself: bits, bytes, seconds, choices and the guards that acted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchext.data import QuantizedDataset
    from torchext.linear._problem import Problem


class _Facts:
    """Reading of a report by name."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict of plain values."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Report(_Facts):
    """Facts about one ``fit``; ``str()`` prints them, ``report["name"]`` reads one.

    ``bits_per_value`` counts all draws of one copy (2^b levels a value); ``bytes_per_epoch`` are the
    code bytes one epoch reads, next to those of float32 rows; losses are means over rows and outputs
    (squared: with the factor 1/2), without the penalty.
    """

    bits_per_value: int
    stored_bits_per_value: float
    bytes_per_epoch: int
    float32_bytes_per_epoch: int
    seconds_per_epoch: float
    seconds_encoding: float | None
    epochs: int
    sampling: str
    auto: str
    levels: str
    draws: str
    layout: str
    anchor: str
    pilot_loss: dict[str, Any]
    loss_at_zero: float
    loss_at_anchor: float | None
    anchor_losses: tuple[float, ...]
    full_precision_passes: int
    penalty: str
    batch_size: int
    steps: int
    schedule: str
    step_size: float
    model_bits: int
    residual_bits: int
    gradient_bits: int
    key: tuple[int, int]
    stopped: str
    guards: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.bits_per_value} bits per value, all draws counted (2^b levels), "
            f"stored {self.stored_bits_per_value:.3g}, sampling {self.sampling}, {self.levels} levels, "
            f"{self.draws}, layout {self.layout}",
            f"{self.bytes_per_epoch:,} bytes per epoch (float32: {self.float32_bytes_per_epoch:,}), "
            f"{self.seconds_per_epoch:.3g} s per epoch, {self.epochs} epochs, "
            f"{self.steps} steps of {self.batch_size} rows",
            f"model {self.model_bits}, residual {self.residual_bits}, gradient {self.gradient_bits or 32} "
            f"bits; {self.schedule} steps from {self.step_size:.3g}; penalty {self.penalty}; key {self.key}",
            f"auto: {self.auto}",
            f"anchor {self.anchor}: loss at x0 "
            + ("unknown" if self.loss_at_anchor is None else f"{self.loss_at_anchor:.6g}")
            + f", at 0 {self.loss_at_zero:.6g}; {self.full_precision_passes} further full-precision passes",
            f"stopped: {self.stopped}",
        ]
        lines += [f"guard: {text}" for text in self.guards]
        return "\n".join(lines)


@dataclass(frozen=True)
class VrReport(_Facts):
    """Facts about a ``fit`` with ``solver="halp"`` or ``"svrg"``; read like :class:`Report`.

    An epoch is one pass over all codes and ``steps_per_epoch`` steps of ``batch_size`` rows each.
    ``gradient_norm`` is that of the last centre over that at x = 0, ``clip_rate`` the share of clamped
    updates of z.
    """

    solver: str
    bits_per_value: int
    stored_bits_per_value: float
    z_bits: int
    bytes_per_epoch: int
    float32_bytes_per_epoch: int
    seconds_per_epoch: float
    seconds_encoding: float
    epochs: int
    steps_per_epoch: int
    batch_size: int
    step_size: float
    mu: float | None
    clip_rate: float
    restores: int
    gradient_norm: float
    loss_at_zero: float
    penalty: str
    key: tuple[int, int]
    stopped: str
    sampling: str = "nearest"
    levels: str = "one grid for all columns"
    draws: str = "no random draws"
    layout: str = "rows"
    anchor: str = "none"
    loss_at_anchor: float | None = None
    guards: tuple[str, ...] = ()

    def __str__(self) -> str:
        z = "float32" if self.z_bits == 32 else f"{self.z_bits} bits, mu {self.mu:.3g}"
        return "\n".join(
            [
                f"{self.solver}: {self.bits_per_value} bits per value (2^b levels, nearest, {self.levels}), "
                f"stored {self.stored_bits_per_value:.3g}, displacement {z}",
                f"{self.bytes_per_epoch:,} bytes per epoch (float32: {self.float32_bytes_per_epoch:,}), "
                f"{self.seconds_per_epoch:.3g} s per epoch, {self.epochs} epochs of {self.steps_per_epoch} "
                f"steps of {self.batch_size} {'row' if self.batch_size == 1 else 'rows'} and a full pass",
                f"step {self.step_size:.3g}; penalty {self.penalty}; key {self.key}; "
                f"{self.clip_rate:.2g} of the updates clamped, {self.restores} epochs taken back",
                f"gradient {self.gradient_norm:.1e} of that at 0 on the codes; stopped: {self.stopped}",
                *(f"guard: {text}" for text in self.guards),
            ]
        )


def auto_reason(store: QuantizedDataset, asked: str) -> str:
    """One sentence: why this sampling."""
    if asked != "auto":
        return f'not used, sampling="{asked}" was asked for'
    pilot = store.pilot or {}
    near, corr = pilot.get("F_nearest"), pilot.get("F_corrected")
    if near is None or corr is None:
        return f"{store.sampling} (1 bit, another loss than squares, or a given data set: no comparison made)"
    return (
        f"{store.sampling}: on {pilot.get('S')} pilot rows nearest gives {near:.6g}, corrected {corr:.6g}; "
        "corrected is taken only if it is 0.5 % better and its Gram matrix positive definite"
    )


def penalty_text(l1: float, l2: float) -> str:
    """The penalty in words."""
    parts = [f"{name} {size:.3g}" for name, size in (("l2", l2), ("l1", l1)) if size > 0]
    return " + ".join(parts) or "none"


def draws_text(store: QuantizedDataset, problem: Problem) -> str:
    """Fixed or refreshed draws, in the words a report must use."""
    if store.sampling == "nearest" or problem.bits == 32:
        return "no random draws"
    return (
        "fixed draws"
        if store.copies == 1
        else f"{store.copies} copies of draws, one an epoch in turn"
    )
