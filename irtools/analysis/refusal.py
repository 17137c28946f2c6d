"""The answer that a place cannot be changed, with one of the reasons of who asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

__all__ = ["ReasonedRefusal"]

R = TypeVar("R", bound=str)


class ReasonedRefusal(Exception, Generic[R]):  # noqa: N818 - an answer, not an error
    """Something stays as it is.

    Derive from it, with the reasons that there are.

    Attributes:
        reasons: Key of a reason to its sentence.
        reason: A key of `reasons`.
        where: The operator or value that it is about.
    """

    reasons: ClassVar[Mapping[str, str]]

    def __init__(self, reason: R, where: str) -> None:
        super().__init__(f"{self.reasons[reason]} ({where})")
        self.reason = reason
        self.where = where
