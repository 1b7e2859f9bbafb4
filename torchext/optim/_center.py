"""Optimizers with a centre: re-centring, and gradients at two points."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchext.optim import _distributed as distributed
from torchext.optim import _full_gradient as full_gradient
from torchext.optim import _telemetry as telemetry
from torchext.optim import _transfer as transfer
from torchext.optim import _update as update
from torchext.optim._base import Closure, LatticeOptimizer
from torchext.optim._full_gradient import RecenterInfo, Sums, WeightedClosure
from torchext.optim._spacing import square_norms, total_norm
from torchext.optim._update import Member
from torchext.random import Purpose


class CenterOptimizer(LatticeOptimizer):
    """Base of SVRG, HALP, LP-SVRG and bit-centred SGD."""

    _has_center: ClassVar[bool] = True
    _keeps_full_grad: ClassVar[bool] = True

    def _fresh(self) -> None:
        super()._fresh()
        #: Wraps the pass at the centre, for example ``ddp.no_sync``; not saved.
        self.centre_context: Any = contextlib.nullcontext

    @property
    def T(self) -> int:
        """Steps from one centre to the next."""
        return self._run.T

    # ---- re-centring

    @property
    def needs_recenter(self) -> bool:
        """True before the first centre, then after T steps; with ``loopless``, by a coin of 1/T per step.

        The coin depends on the seed and the step only, so that all ranks agree. With ``capturable`` the
        steps are counted on the device, and this waits for it.
        """
        if not all(group["centered"] for group in self.param_groups):
            return True
        self._settle()
        t = self._get("t")
        if not self._run.loopless:
            return t >= self._run.T
        return t > 0 and (self._word(0) >> 8) * 2.0**-24 < 1.0 / self._run.T

    def _word(self, draw: int) -> int:
        key = self._key(Purpose.SAMPLER)
        return int(torch.ops.torchext._philox(key, 1, 0, draw)[0].item())

    @torch.no_grad()
    def recenter(self, closures: Iterable[WeightedClosure] | None = None) -> RecenterInfo:
        """Moves the centre to the present weights and takes the full gradient there.

        Args:
            closures: each runs forward and backward on a part of the data and returns its
                MEAN loss; ``(closure, samples)`` weights it, a bare one counts 1. A generator will do:
                see :func:`full_gradient_closures`. Gradients and losses are averaged over all samples and,
                where torch.distributed is initialised, over all ranks with one all-reduce for each
                dtype and device.

        Returns:
            Loss, gradient norm, number of samples, and whether the gradient is zero.

        Raises:
            ValueError: no samples at all.
            RuntimeError: a full gradient that is not finite. The centre has moved, the weights are
                valid; another ``recenter`` is needed.
        """
        self._settle()
        self._agree_on_seed()
        self._grads_at_center = {}
        self._finish_epoch()
        self._set(centered=False)
        members = [m for m in self._members() if m.has_codes]
        sums = self._gather(members, closures)
        if not sums.weight > 0:
            raise ValueError("recenter: the closures have no samples; the full gradient is unknown")
        for g in sums.grads:
            g.div_(sums.weight)
        squares = square_norms(members, sums.grads)
        norm, loss = total_norm(squares), sums.loss / sums.weight
        if not math.isfinite(norm):
            raise RuntimeError(
                "recenter: the full gradient is not finite; the weights are those of the last step"
            )
        self._new_center(members, squares)
        for m, g in zip(members, sums.grads, strict=True):
            if self._keeps_full_grad:
                transfer.put(m.state, "full_grad", g.to(self._run.anchor_dtype or g.dtype))
            m.state["loss"] = loss
            if self._counts():
                transfer.put(m.state, "stats", telemetry.new_stats(m))
        self._set(t=0, epoch=self._get("epoch") + 1, centered=True, converged=norm == 0.0)
        if self._run.option == "II":
            self._set(pick=(self._word(1) * self._run.T) >> 32)
        weight = int(sums.weight) if sums.weight == int(sums.weight) else sums.weight
        return RecenterInfo(loss, norm, weight, norm == 0.0)

    def _gather(self, members: list[Member], closures: Iterable[WeightedClosure] | None) -> Sums:
        if closures is None:
            raise TypeError(
                f"{type(self).__name__}.recenter() needs closures over the data, for example "
                "full_gradient_closures(model, loss_fn, loader)"
            )
        sums = full_gradient.accumulate(members, closures, self._loss_of)
        if distributed.active(self._run.sync, self.process_group):
            full_gradient.reduce(members, sums, self.process_group)
        return sums

    def _finish_epoch(self) -> None:
        """Commits the iterate that the option names; creates the state of new parameters."""
        members = [m for m in self._members() if m.param.requires_grad]
        old = [m for m in members if m.has_codes]
        for m in old:
            kept = m.state.pop("z_kept", None)
            if kept is not None:
                m.state["z"] = kept
            mean = m.state.pop("z_mean", None)
            if mean is not None:
                m.state["center"].add_(mean * m.state.get("delta", 1.0))
                m.state["z"].zero_()
            if self._run.reset_momentum:
                m.state.pop("momentum_buffer", None)
        self._commit(old)
        for m in members:
            if not m.has_codes:
                self._start(m)

    def _commit(self, members: list[Member]) -> None:
        update.commit(members)

    def _start(self, m: Member) -> None:
        """State of a parameter that is met for the first time."""
        p = distributed.local(m.param).detach()
        m.state["center"] = p.to(update.own_dtype(p), copy=True).contiguous()

    def _new_center(self, members: list[Member], squares: list[float]) -> None:
        """Norms, and in subclasses spacings, for the epoch, from the full gradient's squared norms."""
        norm = total_norm(squares)
        for m in members:
            m.state["grad_norm"] = norm

    # ---- steps

    @contextlib.contextmanager
    def at_centre(self) -> Iterator[None]:
        """The parameters are the centre inside; on leaving, their gradients are kept for ``step()``.

        For loops that cannot pass a closure: run the forward and backward pass of the batch in here,
        then once more as usual, then ``step()``. The random state is restored at the end, so that
        dropout masks agree, and so are registered buffers.
        """
        self._check_center()
        restore = self._random_state() if self._run.preserve_rng else None
        saved = [b.clone() for b in self._buffers]
        with torch.no_grad():
            self._to_center()
        try:
            with self.centre_context():
                yield
            self._grads_at_center = self._take_gradients()
        finally:
            if restore is not None:
                restore()
            with torch.no_grad():
                for buffer, value in zip(self._buffers, saved, strict=True):
                    buffer.copy_(value)
                self._to_iterate()

    def _random_state(self) -> Callable[[], None]:
        """Remembers the random state of the CPU and the devices in use; returns what restores it."""
        devices = {m.param.device for m in self._members() if m.param.device.type == "cuda"}
        cpu, cuda = torch.get_rng_state(), [(d, torch.cuda.get_rng_state(d)) for d in devices]

        def restore() -> None:
            torch.set_rng_state(cpu)
            for device, state in cuda:
                torch.cuda.set_rng_state(state, device)

        return restore

    def _to_center(self) -> None:
        members = [m for m in self._members() if m.has_codes]
        transfer.copy(update.weights(members), (m.state["center"] for m in members))

    def _take_gradients(self) -> dict[int, Tensor]:
        """Gradients at the centre: taken, or copied where they are views of somebody's buffer."""
        found: dict[int, Tensor] = {}
        for m in self._members():
            grad = m.param.grad
            if grad is None:
                continue
            if grad.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            own = distributed.local(grad)
            shared = own._base is not None or own.untyped_storage().nbytes() != own.nbytes
            found[m.number] = own.clone() if shared else own
            m.param.grad = None
        return found

    def _check_center(self) -> None:
        if not all(group["centered"] for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}.step(): no centre yet; call recenter(closures) first."
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step.

        Args:
            closure: zeroes the gradients, runs forward and backward on a batch and returns the loss.
                The methods with a correction call it twice, first at the centre, then at the weights;
                the others once. Without it, the gradients must be there: see :meth:`at_centre`.

        Returns:
            The loss at the weights before the step; None without a closure.

        Raises:
            RuntimeError: before the first ``recenter``, without gradients at the centre, for sparse
                gradients, or for gradients that are not finite under ``error_if_nonfinite``. No weight
                has moved then.
            TypeError: a closure that returns no loss.
        """
        self._agree_on_seed()
        self._check_center()
        self._check_capture()
        loss = None
        if closure is not None:
            if self._corrected:
                with self.at_centre():
                    self._loss_of(closure)
            loss = self._loss_of(closure)
        elif self._corrected and not self._grads_at_center:
            name = type(self).__name__
            raise RuntimeError(
                f"{name}.step() needs a closure, or a preceding `with opt.at_centre():` pass, "
                "because the gradient is evaluated at two points."
            )
        members = self._ready()
        self._keep(members)
        self._apply(members)
        return loss

    def _keep(self, members: list[Member]) -> None:
        """What options II and mean need of the iterate before the step."""
        t, option = self._get("t"), self._run.option
        if option == "II" and t == self._get("pick"):
            for m in self._members():
                if m.has_codes:
                    m.state["z_kept"] = m.state["z"].clone()
        elif option == "mean":
            for m in members:
                center = m.state["center"]
                q = update.code_values(m.state["z"], center)
                mean = m.state.setdefault("z_mean", torch.zeros_like(center))
                mean.add_(q - mean, alpha=1.0 / (t + 1))
