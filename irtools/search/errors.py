"""What a search raises that found nothing."""

from __future__ import annotations

from irtools.errors import BudgetError
from irtools.report.entries import TriedEntry

__all__ = ["SearchError"]


class SearchError(BudgetError):
    """No pipeline keeps the goals.

    Args:
        message: Which goal is not kept, and how near the best came.
        tried: What was tried, in order.
        next: What could be done, each with its command.
    """

    def __init__(
        self, message: str, tried: tuple[TriedEntry, ...], next: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.tried = tried
        self.next = next
