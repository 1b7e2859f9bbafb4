"""Typed wrappers of the public ops; their docstrings are the reference documentation."""

from __future__ import annotations

__all__: list[str] = []
