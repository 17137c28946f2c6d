"""How far a long step is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["NullProgress", "Progress", "all_of"]

T = TypeVar("T")


class Progress(Protocol):
    """Shows a person how far a long step is."""

    def step(self, label: str, done: int, total: int) -> None: ...


class NullProgress:
    """Shows nothing."""

    def step(self, label: str, done: int, total: int) -> None:
        """Ignore a step."""


def all_of(*listeners: Callable[[T], None] | None) -> Callable[[T], None]:
    """Return what calls all listeners, one after the other; None is none."""
    present = [one for one in listeners if one is not None]

    def tell(what: T) -> None:
        for one in present:
            one(what)

    return tell
