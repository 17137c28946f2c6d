"""The protocol of trainers, and finding one by name."""

from __future__ import annotations

from typing import ClassVar, Protocol

from irtools.errors import UsageError
from irtools.plugins import Progress, registry
from irtools.students.requests import DistillRequest, FinetuneRequest, LayerwiseRequest
from irtools.students.results import DistillResult, FinetuneResult, LayerwiseResult

__all__ = ["StudentTrainer", "find_trainer"]


class StudentTrainer(Protocol):
    """Trains networks of one framework.

    In a run of several processes every one of them calls; the methods return None in all but
    the main one.
    """

    name: ClassVar[str]

    def distill(self, request: DistillRequest, progress: Progress) -> DistillResult | None:
        """Train a student twice on one budget: from the teacher, and from the labels alone.

        Raises:
            UsageError: Requests that contradict themselves.
            DataError: Data that does not fit, such as labels outside the classes.
            ModelError: A teacher or student that cannot be read.
            UnsupportedError: Sound, but not possible with this teacher or on this machine.
            MissingExtraError: The packages it takes are not installed.
        """

    def layerwise(self, request: LayerwiseRequest, progress: Progress) -> LayerwiseResult:
        """Train the blocks of a student one at a time, in one process. Raises as `distill`."""

    def finetune(self, request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
        """Train a network, whole or by an adapter. Raises as `distill`."""


def find_trainer(name: str = "transformers") -> StudentTrainer:
    """Return the trainer of a name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    trainer = registry.load("irtools.students", name)()
    if not callable(getattr(trainer, "distill", None)):
        raise UsageError(f"{name!r} of the group irtools.students is not a trainer of students")
    found: StudentTrainer = trainer
    return found
