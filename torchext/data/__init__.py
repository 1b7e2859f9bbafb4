"""The QuantizedDataset store: data sets at a few bits per value."""

from __future__ import annotations

from torchext.data.dataset import QuantizedDataset as QuantizedDataset
from torchext.data.errors import DataError as DataError
from torchext.data.options import Options as Options

__all__ = ["DataError", "Options", "QuantizedDataset"]
