"""Students: smaller networks trained from larger ones, and who trains them."""

from __future__ import annotations

from irtools.students.contract import (
    LOSSES,
    AdapterSettings,
    DistillRequest,
    DistillResult,
    FinetuneRequest,
    FinetuneResult,
    Gain,
    StudentTrainer,
    Task,
    Trained,
    TrainingSettings,
    find_trainer,
    parse_losses,
)

__all__ = [
    "AdapterSettings",
    "DistillRequest",
    "DistillResult",
    "FinetuneRequest",
    "FinetuneResult",
    "Gain",
    "LOSSES",
    "StudentTrainer",
    "Task",
    "Trained",
    "TrainingSettings",
    "find_trainer",
    "parse_losses",
]
