"""What all optimizers of the package share: groups, counters, keys, state that survives loading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchext import random
from torchext.optim import _capture as capture
from torchext.optim import _distributed as distributed
from torchext.optim import _saved as saved
from torchext.optim import _telemetry as telemetry
from torchext.optim import _transfer as transfer
from torchext.optim import _update as update
from torchext.optim._options import (
    CENTER_DEFAULTS,
    GROUP_KEYS,
    SGD_DEFAULTS,
    Run,
    check_group,
    check_run,
    fill,
)
from torchext.optim._update import Member
from torchext.random import Purpose, fold_in, key_from_seed

Closure = Callable[[], Any]


class LatticeOptimizer(Optimizer):
    """Base of the optimizers whose weights are a centre plus a spacing times integers.

    Counters and the seed are Python integers in every param group, so that they survive saving,
    loading and casting exactly: ``t`` (steps since the last centre), ``epoch`` (centres so far) and
    ``global_step``.
    """

    _has_center: ClassVar[bool] = False  # recenter() is needed
    _corrected: ClassVar[bool] = False  # gradients at two points
    _counters: ClassVar[tuple[str, ...]] = ("t", "epoch", "global_step", "seed", "pick")

    def __init__(
        self,
        params: Any,
        own: dict[str, Any],
        run_options: dict[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        name = type(self).__name__
        known = SGD_DEFAULTS | (CENTER_DEFAULTS if self._has_center else {})
        settings = fill(name, options, known)
        in_run = {f.name for f in fields(Run)} & settings.keys()
        self._run = Run(**{key: settings[key] for key in in_run}, **run_options)
        check_run(name, self._run, settings)
        self.process_group = settings.get("process_group")
        self._fresh()
        seed = settings["seed"]
        if seed is None:
            seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64).item())
        defaults = own | {key: settings[key] for key in GROUP_KEYS}
        if self._has_center:
            defaults["svrg_coef"] = settings["svrg_coef"]
        defaults |= {
            "t": 0, "epoch": 0, "global_step": 0, "pick": -1, "seed": int(seed),
            "centered": not self._has_center, "converged": False,
            "method": name, "stream_version": random.STREAM_VERSION,
        }  # fmt: skip
        super().__init__(params, defaults)

    def _fresh(self) -> None:
        """What is never saved."""
        self._seed_agreed = False
        self._buffers: list[Tensor] = []
        self._grads_at_center: dict[int, Tensor] = {}
        self._all: list[Member] = []  # every parameter, made when first needed
        self._parents: dict[Purpose, tuple[int, Tensor]] = {}  # keys before the step is folded in
        self._device_steps = capture.DeviceSteps()  # of capturable steps

    # ---- groups, counters, keys

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; parameters added in mid-epoch wait for the next ``recenter``."""
        if isinstance(param_group, dict) and not isinstance(param_group["params"], Tensor):
            param_group["params"] = list(param_group["params"])
        filled = self.defaults | param_group
        if isinstance(filled["params"], Tensor):
            filled["params"] = [filled["params"]]
        check_group(type(self).__name__, filled, self._run)
        super().add_param_group(param_group)
        self._all = []
        if len(self.param_groups) > 1:
            for counter in self._counters:
                self.param_groups[-1][counter] = self.param_groups[0][counter]

    def _get(self, counter: str) -> int:
        return int(self.param_groups[0][counter])

    def _set(self, **counters: int | bool) -> None:
        for group in self.param_groups:
            group.update(counters)

    def _members(self) -> list[Member]:
        """Parameters that train or have state, with their numbers over all groups."""
        if not self._all:
            self._all = [Member(k, p, g, self.state) for k, (p, g) in enumerate(self._parameters())]
        return [m for m in self._all if m.param.requires_grad or m.param in self.state]

    def _parameters(self) -> list[tuple[Tensor, dict[str, Any]]]:
        return [(p, g) for g in self.param_groups for p in g["params"]]

    def _parent(self, purpose: Purpose) -> Tensor:
        seed, parent = self._get("seed"), self._parents.get(purpose)
        if parent is None or parent[0] != seed:
            parent = self._parents[purpose] = seed, fold_in(key_from_seed(seed), purpose)
        return parent[1]

    def _key(self, purpose: Purpose) -> Tensor:
        return fold_in(self._parent(purpose), self._get("global_step"))

    def _keys(self) -> Callable[[torch.device, int | None], Tensor]:
        """The key of this step on a device, for a shard; nobody waits for it."""
        if not self._run.capturable:
            key = self._key(Purpose.WEIGHT)

            def copied(device: torch.device, shard: int | None) -> Tensor:
                folded = key if shard is None else fold_in(key, shard)
                return folded.to(device, non_blocking=True)

            return copied

        def counted(device: torch.device, shard: int | None) -> Tensor:
            key = self._device_steps.key(device)
            return key if shard is None else fold_in(key, shard)

        return counted

    def _settle(self) -> None:
        """Catches up with the steps that devices have counted: replays of a graph run no Python."""
        if self._device_steps:
            now = self._device_steps.now()
            self._set(global_step=now, t=self._get("t") + now - self._get("global_step"))

    def _check_capture(self) -> None:
        keeps_rng = self._corrected and self._run.preserve_rng
        members, capturable = self._members(), self._run.capturable
        capture.check(type(self).__name__, members, capturable, self._device_steps, keeps_rng)

    def _agree_on_seed(self) -> None:
        """Replicas that round with different seeds would drift apart."""
        if not self._seed_agreed and distributed.active(self._run.sync, self.process_group):
            device = self.param_groups[0]["params"][0].device
            seed = distributed.agree(self._get("seed"), self.process_group, device)
            self._set(seed=seed)
        self._seed_agreed = True

    # ---- steps

    def _loss_of(self, closure: Closure) -> Any:
        with torch.enable_grad():
            loss = closure()
        if loss is None:
            raise TypeError(f"{type(self).__name__}: the closure must return the loss, got None")
        return loss

    def _ready(self) -> list[Member]:
        """Members with a gradient, after every check that must come before a weight moves."""
        name = type(self).__name__
        members = [m for m in self._members() if m.param.grad is not None]
        for m in members:
            grad = m.param.grad
            if grad is not None and grad.layout != torch.strided:
                raise RuntimeError(f"{name} does not support sparse gradients")
            if not m.has_codes:
                raise RuntimeError(f"{name}.step(): no centre yet; call recenter(closures) first.")
        if self._run.error_if_nonfinite:
            self._check_finite(members)
        return members

    def _check_finite(self, members: list[Member]) -> None:
        owners, flags = [], []
        for m in members:
            for grad in (m.param.grad, self._grads_at_center.get(m.number)):
                if grad is not None:
                    owners.append(m)
                    flags.append(distributed.local(grad).isfinite().all())
        for m, (finite,) in zip(owners, transfer.read(flags), strict=True):
            if not finite:
                raise RuntimeError(
                    f"{type(self).__name__}.step(): the gradient of parameter {m.name} is not finite"
                )

    def _apply(self, members: Iterable[Member]) -> None:
        if self._run.capturable:
            for m in self._members():
                device, step = distributed.local(m.param).device, self._get("global_step")
                self._device_steps.start(device, step, self._parent(Purpose.WEIGHT))
        if not self.param_groups[0]["converged"]:
            update.step(members, self._grads_at_center, self._keys())
        self._grads_at_center = {}
        if self._run.capturable:
            self._device_steps.advance()
        else:
            self._set(t=self._get("t") + 1, global_step=self._get("global_step") + 1)

    def telemetry(self) -> dict[str | int, dict[str, float]]:
        """What rounding did since the last centre, for every parameter; needs ``telemetry=True``.

        Returns:
            By parameter name (number, if the parameters have no names): ``delta``; ``radius``, the
            largest offset :math:`\\delta (2^{b-1} - 1)`; ``mu``; ``clip_rate``, the fraction of element
            updates that saturated; ``peak``, the largest code over the largest possible one;
            ``noise_ratio``, :math:`\\sqrt{\\sum (r - t)^2 / \\sum t^2}`; ``zero_rate``, the fraction of
            updates that left the code; ``grad_norm`` and ``loss`` at the centre; ``steps``;
            ``nonfinite``, elements skipped.
            A clip rate above 1e-3 asks for a smaller ``mu``, a high noise ratio for a larger one or more
            bits; a zero rate of 1 means that nothing moves.

        Raises:
            RuntimeError: without ``telemetry=True`` (``mu="auto"`` implies it).
        """
        if not self._counts():
            raise RuntimeError(
                f"{type(self).__name__}.telemetry() needs telemetry=True in the constructor"
            )
        self._settle()
        return telemetry.of([m for m in self._members() if m.has_codes and "stats" in m.state])

    def _counts(self) -> bool:
        return self._run.telemetry

    def _to_iterate(self) -> None:
        """Parameters from centre and codes."""
        update.materialize(m for m in self._members() if m.has_codes)

    # ---- saving and loading

    def register_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Names the model's buffers (``model.buffers()``), to be restored after the gradients at the centre.

        Batch-norm statistics then move once a step, as in a single pass. Not saved with the optimizer.
        """
        self._buffers = list(buffers)

    def state_dict(self) -> dict[str, Any]:
        """As in torch; counters that a device keeps (``capturable=True``) are read back."""
        self._settle()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return {**super().__getstate__(), "_run": self._run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._all = []
        if "_grads_at_center" not in self.__dict__:
            self.process_group = None
            self._fresh()
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken, to the bit, also in mid-epoch.

        Settings come from the saved param groups, as in torch, all but ``capturable``; codes keep their
        integer dtype, the centre its precision; everything moves to the device of its parameter. The
        parameters are rewritten from centre and codes. A step captured in a CUDA graph must be captured
        anew.

        Raises:
            ValueError: if another optimizer or shape was saved; nothing has changed then.
        """
        local = [distributed.local(p) for p, _ in self._parameters()]
        saved.check(type(self).__name__, state_dict, [p.numel() for p in local])
        super().load_state_dict(state_dict)
        # torch has cast every tensor to the dtype of its parameter, codes included.
        saved_ids = chain.from_iterable(g["params"] for g in state_dict["param_groups"])
        for (p, _), saved_id in zip(self._parameters(), saved_ids, strict=True):
            device = distributed.local(p).device
            for key, value in state_dict["state"].get(saved_id, {}).items():
                if isinstance(value, Tensor):
                    self.state[p][key] = value.detach().clone().to(device)
        self._seed_agreed, self._grads_at_center = False, {}
        self._set(capturable=self._run.capturable)  # how steps run, not what they do
        self._device_steps = capture.DeviceSteps()
        with torch.no_grad():
            self._to_iterate()
