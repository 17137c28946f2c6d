"""How far a long step is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NullProgress", "Progress"]


class Progress(Protocol):
    """Shows a person how far a long step is."""

    def step(self, label: str, done: int, total: int) -> None: ...


class NullProgress:
    """Shows nothing."""

    def step(self, label: str, done: int, total: int) -> None:
        """Ignore a step."""
