"""Linear models trained on low-bit data, as scikit-learn estimators."""

from __future__ import annotations

from torchext.linear._callbacks import Progress
from torchext.linear._classifier import SGDClassifier
from torchext.linear._logistic import LogisticRegression
from torchext.linear._model_io import load_model, save_model
from torchext.linear._regressor import SGDRegressor
from torchext.linear._report import Report, VrReport
from torchext.linear._ridge import Ridge
from torchext.linear._trainer import ConvergenceError

__all__ = [
    "ConvergenceError",
    "LogisticRegression",
    "Progress",
    "Report",
    "Ridge",
    "SGDClassifier",
    "SGDRegressor",
    "VrReport",
    "load_model",
    "save_model",
]
