"""Optimizers whose iterates are low-precision integers around a full-precision centre."""

from __future__ import annotations

from torchext.optim import ops as ops

__all__ = ["ops"]
