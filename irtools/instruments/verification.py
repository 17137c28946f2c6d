"""Holds every pass to a sound model with an unchanged interface."""

from __future__ import annotations

from typing import ClassVar

from irtools.model import Model
from irtools.passmanager import Instrument, Stage, Step

__all__ = ["Verification", "check_model"]


class Verification(Instrument):
    """Runs the verifier after every pass that modified the model; in release too.

    Raises:
        VerificationError: The pass left a model that is not valid, or renamed, dropped,
            reordered or retyped an input or output.
    """

    name: ClassVar[str] = "verifier"
    stage: ClassVar[Stage] = Stage.CHECK

    def after(self, step: Step) -> None:
        if step.modified:
            check_model(step.model, step.original)
            step.figures.checks.append(self.name)


def check_model(model: Model, original: Model) -> None:
    """Check that a model is sound and that callers of `original` can still call it.

    Raises:
        VerificationError: It is not.
    """
    model.verify(interface=original.interface)
