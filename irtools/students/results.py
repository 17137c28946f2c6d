"""What a trainer of students returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from irtools.metrics import Difference, Evaluation

__all__ = ["DistillResult", "FinetuneResult", "TrainedNetwork"]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and its metric.

    Attributes:
        name: `teacher`, `distilled`, `hard-label`, ...
        folder: Its checkpoint; None where it has none that can be taken away.
        parameters: Number of parameters; None where it is not known.
        trained_parameters: How many of them were trained; 0 for a network that was given.
        evaluation: The metric on the test data, in float32.
        steps: Optimizer steps.
        seconds: Seconds of training, without those before a resume.
        losses: Mean of every term of the loss over the last tenth of the steps.
    """

    name: str
    folder: Path | None
    parameters: int | None
    evaluation: Evaluation
    trained_parameters: int = 0
    steps: int = 0
    seconds: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DistillResult:
    """Teacher and students.

    Attributes:
        gain: Metric of the distilled student less that of the hard-label one.
        tokenizer: Folder whose tokenizer the students read text with, or None.
        notes: What a reader of the figures should know.
    """

    teacher: TrainedNetwork
    distilled: TrainedNetwork
    hard_label: TrainedNetwork
    gain: Difference
    tokenizer: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinetuneResult:
    """A trained network.

    Attributes:
        result: The network as a checkpoint, adapter merged.
        stages: The same network at other stages, where an adapter was trained.
        adapter: Folder of the adapter alone in peft's format, or None.
        figures: Errors of the quantized base and of merging, by name.
    """

    result: TrainedNetwork
    stages: tuple[TrainedNetwork, ...] = ()
    adapter: Path | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
