"""Models and checkpoints on disk; see :mod:`torchext.linear._state` for the file itself."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from torchext.linear._state import read_file, write_file

if TYPE_CHECKING:
    from torch import Tensor

    from torchext.data import QuantizedDataset
    from torchext.linear._trainer import Trainer

S = TypeVar("S")

#: Parameters that may differ between the interrupted run and the one that continues it.
FREE = (
    "callbacks",
    "checkpoint",
    "checkpoint_every",
    "device",
    "n_jobs",
    "random_state",
    "resume",
    "verbose",
    "warm_start",
)


def fingerprint(estimator: Any, store: QuantizedDataset, key: Tensor) -> dict[str, Any]:
    """What decides the bits of a run: parameters, key and a digest of the encoded data."""
    digest = 0
    for part in (
        store.mean,
        store.scale,
        store.noise,
        store.moments,
        store.linear,
        store.codes.reshape(-1)[:4096],
    ):
        digest = zlib.crc32(part.contiguous().cpu().numpy().tobytes(), digest)
    shape = [store.rows, store.cols, store.bits, store.sampling, store.copies]
    return mark_of(estimator, key, [*shape, f"{digest:08x}"])


def mark_of(estimator: Any, key: Tensor, data: list[Any]) -> dict[str, Any]:
    """The fingerprint from what identifies the data."""
    params = {k: v for k, v in _plain(estimator.get_params()).items() if k not in FREE}
    return {"params": params, "key": [int(v) for v in key], "data": data}


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters that JSON can hold; others by their text."""
    out: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, np.generic):
            value = value.item()
        plain = value is None or isinstance(value, (bool, int, float, str))
        out[name] = value if plain else repr(value)
    return out


def save_checkpoint(estimator: Any, trainer: Trainer, mark: dict[str, Any]) -> None:
    """Write the trainer's last committed state, and the model it stands for, to ``estimator.checkpoint``."""
    write_checkpoint(estimator, estimator._coefficients(trainer), trainer.state.to_tensors(), mark)


def write_checkpoint(
    estimator: Any,
    model: tuple[Tensor, Tensor],
    state: tuple[dict[str, Tensor], dict[str, Any]],
    mark: dict[str, Any],
) -> None:
    """Coefficients and intercepts, tensors and plain values of the state, and the run's fingerprint."""
    more = {"fingerprint": mark, "state": state[1]}
    _write(estimator, estimator.checkpoint, *model, state[0], more)


def load_state(
    estimator: Any, mark: dict[str, Any], restore: Callable[[dict[str, Tensor], dict[str, Any]], S]
) -> S | None:
    """The state to go on from, by ``restore(tensors, plain)``; None if there is no checkpoint yet.

    Raises:
        ValueError: the checkpoint belongs to other data, another key or other parameters, or its state was
            written by a version of torchext whose solver kept other things.
    """
    if not os.path.exists(estimator.checkpoint):
        return None
    tensors, meta = read_file(estimator.checkpoint)
    if "state" not in meta:
        raise ValueError(
            f"{estimator.checkpoint}: a finished model without training state; train without resume"
        )
    theirs, ours = json.loads(meta["fingerprint"]), json.loads(json.dumps(mark))
    if theirs != ours:
        names = ours["params"].keys() | theirs["params"].keys()
        params = {k for k in names if ours["params"].get(k, ...) != theirs["params"].get(k, ...)}
        what = sorted(params) + [k for k in ("key", "data") if ours[k] != theirs[k]]
        raise ValueError(
            f"{estimator.checkpoint}: the checkpoint is of another run, it differs in {', '.join(what)}; "
            "use the same settings, or delete it"
        )
    try:
        return restore(tensors, json.loads(meta["state"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{estimator.checkpoint}: the training state is of another version of torchext; delete the "
            "checkpoint, or finish the run with the version that wrote it"
        ) from None


def _report_text(estimator: Any) -> str:
    report = getattr(estimator, "report_", None)
    return "{}" if report is None else json.dumps(report.to_dict(), default=str)


def _write(
    estimator: Any,
    path: str | os.PathLike[str],
    coef: Tensor,
    intercept: Tensor,
    tensors: dict[str, Tensor],
    more: dict[str, Any],
) -> None:
    meta: dict[str, Any] = {
        "estimator": type(estimator).__name__,
        "features": str(estimator.n_features_in_),
        "params": _plain(estimator.get_params()),
        **more,
    }
    if hasattr(estimator, "feature_names_in_"):
        meta["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    if hasattr(estimator, "classes_"):
        meta["classes"] = estimator.classes_.tolist()
    write_file(path, {**tensors, "coef": coef, "intercept": intercept}, meta)
