"""Students: smaller networks trained from larger ones. Implementations live in
`irtools.frontends` and are found through the entry points `irtools.students`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from irtools.data import DataSettings
from irtools.errors import OptionError, UsageError
from irtools.metrics import Evaluation
from irtools.plugins import Progress, registry

__all__ = [
    "LOSSES",
    "AdapterSettings",
    "DistillRequest",
    "DistillResult",
    "FinetuneRequest",
    "FinetuneResult",
    "Gain",
    "StudentTrainer",
    "Task",
    "Trained",
    "TrainingSettings",
    "find_trainer",
    "parse_losses",
]

Task = Literal["multi-class", "multi-label", "regression"]

LOSSES: Mapping[str, str] = {
    "soft": "the teacher's outputs at the temperature, times its square (Hinton 2015)",
    "hard": "the labels",
    "cosine": "cosine of the last hidden states (DistilBERT)",
    "embedding": "squared error of the embeddings (TinyBERT)",
    "hidden": "squared error of the hidden states, layer by layer (TinyBERT)",
    "attention": "squared error of the attention scores, layer by layer (TinyBERT)",
    "relation": "KL of the last layer's Q-Q, K-K and V-V relations (MiniLM v2)",
}
"""Terms of the loss that a student minimizes."""


def parse_losses(text: str) -> dict[str, float]:
    """Parse `soft=0.5,hard=0.5,cosine=1` into weights by name of the term.

    Raises:
        OptionError: An unknown term, a weight that is no number, or no weight above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in LOSSES:
            raise OptionError(f"there is no loss {name!r}; known are {', '.join(LOSSES)}")
        if name in weights:
            raise OptionError(f"the loss {name!r} has two weights, expected one")
        try:
            weights[name] = float(number)
        except ValueError:
            raise OptionError(f"loss {part!r} has no weight; write {name}=0.5") from None
    _check_weights(weights)
    return weights


def _check_weights(weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if name not in LOSSES:
            raise OptionError(f"there is no loss {name!r}; known are {', '.join(LOSSES)}")
        if not 0 <= weight < float("inf"):
            raise OptionError(f"the weight of loss {name!r} is {weight:g}, expected 0 or more")
    if not any(weights.values()):
        raise OptionError("every loss has weight 0: there is nothing to learn from")


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast a network is trained: AdamW, linear warm-up, linear decay to 0.

    Attributes:
        epochs: Passes over the training data; a part of one is allowed.
        batch: Samples per step and process.
        learning_rate: Largest step size.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Of matrices; biases and norms have none.
        accumulation: Batches whose gradients are added up before a step.
        precision: Arithmetic of forward and backward; weights stay float32.
        save_steps: Steps between checkpoints; None: one per epoch.
        seed: Seed of initial weights, order of samples and dropout.
        threads: Threads of torch; None: torch's choice.
    """

    epochs: float = 3.0
    batch: int = 32
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    save_steps: int | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise OptionError(f"epochs is {self.epochs:g}, expected more than 0")
        if min(self.batch, self.accumulation, self.save_steps or 1) < 1 or self.save_steps == 0:
            raise OptionError("batch, accumulation and save-steps are at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise OptionError(f"learning-rate is {self.learning_rate:g}, expected more than 0")
        if not 0 <= self.warmup < 1:
            raise OptionError(f"warmup is {self.warmup:g}, expected a share from 0 to 1")
        if not 0 <= self.weight_decay < float("inf"):
            raise OptionError(f"weight-decay is {self.weight_decay:g}, expected 0 or more")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")


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
        task: None: told by the teacher's config and the labels.
        data: How the data is read.
        metric: Name of the metric; None: by the task.
        target: Runs an ONNX teacher.
        cache: Folder in which the teacher's outputs are kept between runs; None: nowhere.
        training: Budget of both students.
        resume: Go on from the last checkpoint in `work`.
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
        _check_weights(self.losses)
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
class AdapterSettings:
    """A low-rank adapter W + s B A on the linear layers of a frozen network.

    Attributes:
        kind: `lora` has s = alpha / rank (Hu 2021), `rslora` s = alpha / sqrt(rank), `dora`
            rescales every row to a learned length, `qlora` is lora over a base in NF4
            (Dettmers 2023).
        rank: Rows of A.
        alpha: None: twice the rank.
        dropout: Of the adapter's input.
        modules: Names of the linear layers; empty: all but the head.
    """

    kind: Literal["lora", "rslora", "dora", "qlora"] = "lora"
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError(f"rank is {self.rank}, expected at least 1")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise OptionError(f"alpha is {self.alpha:g}, expected more than 0")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"adapter-dropout is {self.dropout:g}, expected 0 to 1")


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


@dataclass(frozen=True)
class Trained:
    """A network and what it is worth.

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
class Gain:
    """Difference of a metric between two networks on the same samples, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval (paired bootstrap over samples) leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class DistillResult:
    """Teacher and students.

    Attributes:
        gain: Metric of the distilled student less that of the hard-label one; None where the
            metric is not one per sample.
        tokenizer: Folder whose tokenizer the students read text with, or None.
        notes: What a reader of the figures should know.
    """

    teacher: Trained
    distilled: Trained
    hard_label: Trained
    gain: Gain | None
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

    result: Trained
    stages: tuple[Trained, ...] = ()
    adapter: Path | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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

    def finetune(self, request: FinetuneRequest, progress: Progress) -> FinetuneResult | None:
        """Train a network, whole or by an adapter. Raises as `distill`."""


def find_trainer(name: str = "transformers") -> StudentTrainer:
    """Return the trainer of a name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    trainer = registry.load("irtools.students", name)()
    if not callable(getattr(trainer, "distill", None)):
        raise UsageError(f"{name!r} of the group irtools.students is no trainer of students")
    found: StudentTrainer = trainer
    return found
