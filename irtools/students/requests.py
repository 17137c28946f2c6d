"""What a trainer of students is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from irtools.data import DataSettings
from irtools.errors import OptionError
from irtools.students.losses import check_weights
from irtools.students.settings import AdapterSettings, TrainingSettings

__all__ = ["DistillRequest", "FinetuneRequest", "LayerwiseRequest", "Task"]

Task = Literal["multi-class", "multi-label", "regression", "language-model"]


@dataclass(frozen=True)
class DistillRequest:
    """What to distill into what.

    Attributes:
        teacher: Checkpoint folder, or an ONNX model that `target` runs.
        student: `layers=0,2,5` of the teacher, `hidden=192,layers=3` for a smaller config of its
            kind, a checkpoint folder, or an ONNX file that `prune` made of a checkpoint.
        train: Training data with labels.
        evaluate: Test data with labels.
        work: Folder for checkpoints of the training, and where the results are left.
        losses: Weight of each term of the loss.
        temperature: Softens the teacher's and the student's outputs.
        layer_map: For every student layer the teacher layer whose output it learns; None:
            evenly spread, the last from the last (TinyBERT's g(m) = m N / M).
        relation_heads: Heads of the relation loss; None: the most that both widths allow.
        task: None: taken from the teacher's config and the labels.
        data: How the data is read.
        metric: Name of the metric; None: by the task.
        target: Runs an ONNX teacher.
        cache: Folder in which the teacher's outputs are kept between runs; None: not kept.
        training: Budget of both students.
        resume: Continue from the last checkpoint in `work`.
    """

    teacher: str
    student: str
    train: str
    evaluate: str
    work: Path
    losses: Mapping[str, float] = field(default_factory=lambda: {"soft": 0.5, "hard": 0.5})
    temperature: float = 2.0
    layer_map: tuple[int, ...] | None = None
    relation_heads: int | None = None
    task: Task | None = None
    data: DataSettings = field(default_factory=DataSettings)
    metric: str | None = None
    target: str = "ort-cpu"
    cache: Path | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    resume: bool = False

    def __post_init__(self) -> None:
        check_weights(self.losses)
        if not 0 < self.temperature < float("inf"):
            raise OptionError(f"temperature is {self.temperature:g}, expected more than 0")
        if self.relation_heads is not None and self.relation_heads < 1:
            raise OptionError("relation-heads is at least 1")
        self._check_use("layer-map", self.layer_map, "hidden", "attention", "relation")
        self._check_use("relation-heads", self.relation_heads, "relation")

    def _check_use(self, option: str, given: object, *terms: str) -> None:
        """Refuse an option that no term of the loss reads."""
        if given is not None and not any(self.losses.get(term) for term in terms):
            raise OptionError(
                f"{option} is for the loss {' or '.join(terms)}, and none is asked for"
            )


@dataclass(frozen=True)
class FinetuneRequest:
    """What to train on what. Fields as in `DistillRequest`.

    Attributes:
        base: Checkpoint folder; gets a new head where it has none for these labels.
        adapter: None: every weight is trained.
    """

    base: str
    train: str
    evaluate: str
    work: Path
    adapter: AdapterSettings | None = None
    task: Task | None = None
    data: DataSettings = field(default_factory=DataSettings)
    metric: str | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    resume: bool = False

    def __post_init__(self) -> None:
        if self.adapter is not None and self.training.quantize is not None:
            raise OptionError(
                "quantize is for training all weights: an adapter would be merged into rounded ones"
            )


@dataclass(frozen=True)
class LayerwiseRequest:
    """What to distill block by block, without labels. Fields as in `DistillRequest`.

    Attributes:
        teacher: Checkpoint folder.
        student: As in `DistillRequest`, of the teacher's width.
        train: Training data; labels are not read.
        evaluate: Data on which the outputs of both are compared; with labels, the metric too.
    """

    teacher: str
    student: str
    train: str
    evaluate: str
    work: Path
    layer_map: tuple[int, ...] | None = None
    data: DataSettings = field(default_factory=DataSettings)
    metric: str | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    resume: bool = False

    def __post_init__(self) -> None:
        if self.training.precision == "fp16":
            raise OptionError("blocks are trained in fp32 or bf16: leave out --precision fp16")
        if self.training.save_steps is not None:
            raise OptionError("a block is the least that is kept: leave out --save-steps")
