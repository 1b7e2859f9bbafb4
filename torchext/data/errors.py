"""The error that bad data raises."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that cannot be encoded or read; the message is one sentence naming file, row and column."""
