"""Model files: any fitted estimator of this package as safetensors, and back.

A model is float64 ``coef`` and ``intercept`` in the units of the data, plus metadata (all strings):
``format="torchext.linear"``, ``version``, ``estimator`` (class name), ``features`` (their number),
``params`` (JSON, the constructor's), and where known ``feature_names``, ``classes``, ``target`` and
``report`` (JSON). A reader needs nothing else: the prediction is ``X @ coef.T + intercept``. The
checkpoints of the SGD estimators are the same kind of file with their training state added.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import torch

from torchext.linear._checkpoint import _plain, _report_text
from torchext.linear._state import read_file, write_file

__all__ = ["describe_model", "load_model", "save_model"]

KINDS = ("LogisticRegression", "Ridge", "SGDClassifier", "SGDRegressor")

#: Parameters of one run, not of the model.
_TRANSIENT = (
    "callbacks",
    "checkpoint",
    "checkpoint_every",
    "n_jobs",
    "random_state",
    "resume",
    "verbose",
    "warm_start",
)


def save_model(estimator: Any, path: str | os.PathLike[str], *, target: str | None = None) -> None:
    """Write a fitted estimator to a file, replaced atomically.

    Args:
        estimator: a fitted SGDRegressor, SGDClassifier, Ridge or LogisticRegression of this package.
        path: the file, usually ``*.safetensors``.
        target: name of the predicted column, kept for the reader.
    """
    kind = type(estimator).__name__
    if kind not in KINDS:
        raise TypeError(f"estimator must be one of {', '.join(KINDS)}, got {kind}")
    meta: dict[str, Any] = {
        "estimator": kind,
        "features": str(estimator.n_features_in_),
        "params": {k: v for k, v in _plain(estimator.get_params()).items() if k not in _TRANSIENT},
        "report": _facts_text(estimator),
    }
    if target is not None:
        meta["target"] = target
    if hasattr(estimator, "feature_names_in_"):
        meta["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    if hasattr(estimator, "classes_"):
        meta["classes"] = np.asarray(estimator.classes_).tolist()
    coef = torch.from_numpy(np.array(estimator.coef_, dtype=np.float64))
    intercept = torch.from_numpy(np.array(estimator.intercept_, dtype=np.float64).reshape(-1))
    write_file(path, {"coef": coef, "intercept": intercept}, meta)


def load_model(path: str | os.PathLike[str]) -> Any:
    """The estimator in a model or checkpoint file, ready to predict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a model file, is damaged, or has another version.
    """
    import torchext.linear

    tensors, meta = read_file(path)
    kind = meta.get("estimator", "")
    if kind not in KINDS or not hasattr(torchext.linear, kind):
        raise ValueError(f"{path}: unknown estimator {kind!r} in the model file")
    if "coef" not in tensors or "intercept" not in tensors:
        raise ValueError(f"{path}: a model file must hold the tensors coef and intercept")
    made = getattr(torchext.linear, kind)
    names = set(made().get_params())
    params = json.loads(meta.get("params", "{}"))
    estimator = made(**{k: v for k, v in params.items() if k in names and k not in _TRANSIENT})
    estimator.coef_ = tensors["coef"].numpy()
    estimator.intercept_ = tensors["intercept"].numpy()
    features = int(meta.get("features", estimator.coef_.shape[-1]))
    if estimator.coef_.shape[-1] != features:
        raise ValueError(
            f"{path}: coef has {estimator.coef_.shape[-1]} columns, the metadata says {features}"
        )
    estimator.n_features_in_ = features
    if (
        kind in ("Ridge", "SGDRegressor")
        and estimator.coef_.ndim == 2
        and len(estimator.coef_) == 1
    ):
        estimator.coef_ = estimator.coef_[0]  # a checkpoint keeps one row per output
    if "feature_names" in meta:
        estimator.feature_names_in_ = np.asarray(json.loads(meta["feature_names"]), dtype=object)
    if "classes" in meta:
        estimator.classes_ = np.asarray(json.loads(meta["classes"]))
    return estimator


def describe_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model or checkpoint file says about itself, JSON values decoded.

    Besides the metadata: ``coef_shape``, and ``training_state`` (True for a checkpoint).
    """
    tensors, meta = read_file(path)
    facts: dict[str, Any] = {}
    for name, text in meta.items():
        try:
            facts[name] = json.loads(text) if name not in ("version", "features") else text
        except ValueError:
            facts[name] = text
    facts["coef_shape"] = list(tensors["coef"].shape) if "coef" in tensors else None
    facts["training_state"] = "state" in meta
    return facts


def _facts_text(estimator: Any) -> str:
    """The report of an SGD fit, or the counts of an exact one."""
    if getattr(estimator, "report_", None) is not None and hasattr(estimator.report_, "to_dict"):
        return _report_text(estimator)
    counts = {}
    for name in (
        "bits_per_value_",
        "n_iter_",
        "n_anchors_",
        "n_code_passes_",
        "grad_norm_",
        "sampling_",
    ):
        if hasattr(estimator, name):
            value = getattr(estimator, name)
            counts[name.rstrip("_")] = (
                value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
            )
    text: str = json.dumps(counts, default=str)
    return text
