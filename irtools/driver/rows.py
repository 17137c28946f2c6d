"""Rows of the report while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from irtools.passmanager import Instrument, Stage, Step

if TYPE_CHECKING:
    from irtools.report.entries import Row

__all__ = ["Rows"]


class Rows(Instrument):
    """Passes on the row of each pass as soon as it is done; the last of the instruments.

    Args:
        on_row: What is called with it.
    """

    name: ClassVar[str] = "rows"
    stage: ClassVar[Stage] = Stage.SHOW

    def __init__(self, on_row: Callable[[Row], None]) -> None:
        self._on_row = on_row

    def begin(self, step: Step) -> None:
        self.after(step)

    def after(self, step: Step) -> None:
        from irtools.driver.make import make_row

        self._on_row(make_row(step))
