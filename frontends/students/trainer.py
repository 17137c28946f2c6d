"""The entry point: students of Transformers networks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

from irtools.errors import MissingExtraError
from irtools.frontends.students.networks.spec import parse_student
from irtools.plugins import Progress
from irtools.students import (
    DistillRequest,
    DistillResult,
    FinetuneRequest,
    FinetuneResult,
    LayerwiseRequest,
    LayerwiseResult,
)

__all__ = ["TransformersStudents"]


class TransformersStudents:
    """Trains checkpoints with transformers.Trainer, and adapters with peft."""

    name: ClassVar[str] = "transformers"

    def distill(self, request: DistillRequest, progress: Progress) -> DistillResult | None:
        spec = parse_student(request.student)
        _check_installed("distilling", "torch", "transformers", "accelerate")
        from irtools.frontends.students.distill import distill

        return distill(request, spec, progress)

    def layerwise(self, request: LayerwiseRequest, progress: Progress) -> LayerwiseResult:
        spec = parse_student(request.student)
        _check_installed("distilling", "torch", "transformers", "accelerate")
        from irtools.frontends.students.layerwise import layerwise

        return layerwise(request, spec, progress)

    def finetune(self, request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
        packages = ("torch", "transformers", "accelerate")
        _check_installed("fine-tuning", *packages, *(("peft",) if request.adapter else ()))
        from irtools.frontends.students.finetune import finetune

        return finetune(request, progress)


def _check_installed(what: str, *packages: str) -> None:
    if any(find_spec(package) is None for package in packages):
        raise MissingExtraError(what, "torch")
