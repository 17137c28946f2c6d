"""What a trainer of students returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from irtools.metrics import Difference, Evaluation

__all__ = [
    "BlockFit",
    "DistillResult",
    "FinetuneResult",
    "LayerwiseNetwork",
    "LayerwiseResult",
    "TrainedNetwork",
]


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


@dataclass(frozen=True)
class BlockFit:
    """A block that was trained to give what blocks of the teacher give.

    Attributes:
        name: Of the student's block, `encoder.layer.2`.
        taught_by: The teacher's blocks that it stands for, the first and the last.
        before: Relative squared error on batches that it was not trained on, before.
        after: And after; the same where training made it no better, which is then undone.
        steps: Optimizer steps.
        seconds: Seconds.
    """

    name: str
    taught_by: tuple[int, int]
    before: float
    after: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class LayerwiseNetwork:
    """A network next to the teacher.

    Attributes:
        name: `teacher`, `untrained` (rounded and no more), `layerwise`.
        parameters: Number of parameters.
        kept_db: Signal of the teacher's outputs to the difference, in decibels; None for itself.
        evaluation: The metric on the test data; None without labels.
    """

    name: str
    parameters: int
    kept_db: float | None
    evaluation: Evaluation | None


@dataclass(frozen=True)
class LayerwiseResult:
    """What distilling block by block made.

    Attributes:
        folder: The student's checkpoint.
        networks: Teacher, the student before its training, and after.
        blocks: In order.
        tokenizer: Folder whose tokenizer the student reads text with, or None.
        notes: What a reader of the figures should know.
    """

    folder: Path
    networks: tuple[LayerwiseNetwork, ...]
    blocks: tuple[BlockFit, ...]
    tokenizer: Path | None = None
    notes: tuple[str, ...] = ()
