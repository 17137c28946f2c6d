"""Sizes of the model after every pass."""

from __future__ import annotations

from typing import ClassVar

from irtools.passmanager.step import Instrument, Step

__all__ = ["Sizes"]


class Sizes(Instrument):
    """Measures the file that the model makes, and its weights."""

    name: ClassVar[str] = "sizes"

    def begin(self, step: Step) -> None:
        self.after(step)

    def after(self, step: Step) -> None:
        step.figures.file_bytes = step.workspace.size(step.written)
        step.figures.weight_bytes = step.model.weight_bytes
