"""What a report holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from irtools.analysis.block_pair import BlockPair
from irtools.goals import Interval
from irtools.measure.base import BenchSettings
from irtools.measure.effort import MeasuringPlan
from irtools.measure.figures import Figure, Verdict
from irtools.measure.kit import KitTimes
from irtools.measure.machine import Machine
from irtools.report.kinds import figure_kinds
from irtools.targets import KernelReport

__all__ = [
    "AdapterEntry",
    "ArtifactEntry",
    "DataEntry",
    "DecisionEntry",
    "FileEntry",
    "GoalEntry",
    "ModelEntry",
    "ModuleEntry",
    "PassEntry",
    "PlanEntry",
    "ReportData",
    "SettingsEntry",
    "Row",
    "SampleEntry",
    "TargetEntry",
    "TriedEntry",
]


@dataclass(frozen=True)
class ModelEntry:
    """A model, identified by its content.

    Attributes:
        sha256: Fingerprint of graph and weights, wherever the weights are stored.
        task: What it is used for, as its metadata says.
        classes: Names of its classes by number, as its metadata says.
    """

    source: str
    sha256: str
    nodes: int
    opset: int | None
    task: str | None = None
    classes: Mapping[str, str] | None = None


@dataclass(frozen=True)
class DataEntry:
    """Data that a run used.

    Attributes:
        sha256: Digest of names, types, shapes and bytes.
        synthetic: Drawn from the model's signature.
    """

    source: str
    sha256: str
    samples: int
    synthetic: bool
    labelled: bool


@dataclass(frozen=True)
class TargetEntry:
    """What the model was optimized for.

    Attributes:
        precision: Type in which the runtime computes float32 models by default.
    """

    name: str
    isa: str
    runtime: str
    precision: str = "float32"


@dataclass(frozen=True)
class PassEntry:
    """A pass of the pipeline with all its options, defaults included."""

    name: str
    text: str
    exactness: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One pass, and the model after it; row 0 is the original.

    A figure is an attribute as well: `row.latency` is `row.figures["latency"]`, or None where it
    was not measured.

    Attributes:
        changed: Sum of the counters that count changes.
        skipped_parts: Sum of the counters that count what was left as it was.
        skipped: The pass was not run (bisect limit).
        figures: What was measured, by the key of its kind (`size`, `latency`, `fidelity`).
        seconds: Wall time by activity: `pass`, then what was measured and checked.
        peak_bytes: Peak resident memory of this process by activity, mapped weights included;
            empty where the system does not report it. Child processes count by themselves.
        remedies: What the pass itself would try next where the numbers suffer too much.
    """

    index: int
    text: str
    modified: bool
    skipped: bool
    counters: Mapping[str, int]
    changed: int
    skipped_parts: int
    notes: tuple[str, ...]
    checks: tuple[str, ...]
    figures: Mapping[str, Figure]
    seconds: Mapping[str, float]
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        figures = self.__dict__.get("figures", {})
        if name in figures:
            return figures[name]
        if name.startswith("_") or name not in {kind.key for kind in figure_kinds()}:
            raise AttributeError(f"a row has no attribute and no figure {name!r}")
        return None


@dataclass(frozen=True)
class FileEntry:
    """A file, identified by its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class AdapterEntry:
    """An adapter of the model.

    Attributes:
        path: Its folder.
        factor: Of what it adds.
        sha256: Of names and content of its files.
        form: `merged` into the weights, or as `inputs` or `constants` next to them.
    """

    path: str
    factor: float
    sha256: str
    form: str = "merged"


@dataclass(frozen=True)
class SettingsEntry:
    """Everything that decided the result, apart from model, pipeline and data.

    The names are those of the options of `irc optimize`; what data was read is in its own
    entries. `drawn_sizes` are those of `--size`, `fixed_sizes` those of `--fix`.
    """

    target: str
    metric: str | None
    timed: str | None
    figures: tuple[str, ...]
    new_tokens: int | None
    goals: tuple[str, ...]
    drop_slower: bool
    seed: int
    threads: int | None
    check: bool
    portable: bool
    effort: str
    task: str | None = None
    opset: int | None = None
    with_past: bool = False
    part: str | None = None
    trust_remote_code: bool = False
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[AdapterEntry, ...] = ()
    tokenizer: FileEntry | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    max_length: int | None = None
    samples: int | None = None
    drawn_sizes: Mapping[str, int] = field(default_factory=dict)
    further_metrics: tuple[str, ...] = ()
    show_samples: bool = True


@dataclass(frozen=True)
class GoalEntry:
    """A goal, and what came of it.

    Attributes:
        goal: As it is written (`max-drop=1%`).
        figure: The figure that is quoted, with its interval.
        kept: Whether that keeps the goal.
    """

    goal: str
    figure: str
    kept: bool


@dataclass(frozen=True)
class TriedEntry:
    """A pipeline that was tried on the way to the goals.

    Attributes:
        name: What was tried, in words.
        pipeline: The whole pipeline, from the original.
        outcome: `taken`: the next one went on from it; `left`: the state before it was better;
            `refused`: it could not be run.
        why: The reason.
        figures: What goals are decided by, on the samples that are chosen by: `loss:METRIC`,
            `metric:METRIC`, `speedup`, `latency` in ms, `size` and `memory` in bytes; `sqnr` in dB
            and `agreement` where there are no goals on metrics.
        goals: Goal to `yes`, `no` or `undecided`.
        seconds: Wall time.
        target: Where it was tried.
    """

    name: str
    pipeline: str
    outcome: Literal["taken", "left", "refused"]
    why: str
    figures: Mapping[str, Interval] = field(default_factory=dict)
    goals: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    target: str = ""


@dataclass(frozen=True)
class DecisionEntry:
    """One thing that a pass did.

    Attributes:
        subject: What it was done to: a value, node or module name.
        action: What was done, in words.
        cost: Predicted loss, in the unit of its plan.
        gain: Predicted gain, in the unit of its plan.
    """

    subject: str
    action: str
    cost: float
    gain: float


@dataclass(frozen=True)
class PlanEntry:
    """What a pass did, decision by decision, as it was applied.

    Attributes:
        row: Number of the pass's row.
        cost_unit: Unit of the predicted losses.
        gain_unit: Unit of the predicted gains.
        decisions: The ones that are predicted to cost most, the worst first.
        others: How many are not among these.
    """

    row: int
    cost_unit: str
    gain_unit: str
    decisions: tuple[DecisionEntry, ...]
    others: int = 0


@dataclass(frozen=True)
class ModuleEntry:
    """A module of the source without the modules in it, before and after all passes.

    Attributes:
        name: Its dotted name; empty: of nodes whose module is not known.
        nodes: How many it has, before and after.
        bytes: Of the weights that its nodes read, before and after.
        types: Element types of these weights, before and after, that with the most bytes first.
    """

    name: str
    nodes: tuple[int, int]
    bytes: tuple[int, int]
    types: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class SampleEntry:
    """What a person sees of a sample whose answer changed.

    Attributes:
        sample: Its position among the samples that are quoted, from 0.
        text: Its text, cut at 300 letters; empty where it did not come as text.
        thumbnail: The picture that was fed, as a PNG in base64; empty where it is not one.
    """

    sample: int
    text: str = ""
    thumbnail: str = ""


@dataclass(frozen=True)
class ArtifactEntry:
    """What was written, and the kernels that the runtime chose for it."""

    files: Mapping[str, str]
    bytes: int
    kernels: KernelReport
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """One run of a pipeline.

    Attributes:
        created: UTC time at its end, ISO 8601. Only here is there a time: the model's bytes do not
            depend on when it was made.
        calibration: Data for ranges and refits; None where no pass asked.
        evaluation: Data for fidelity and metric.
        seconds: Wall time of the whole run.
        measuring: On how much models were measured, and why; None: nothing was.
        goals: What the result had to keep, and whether it does.
        tried: Pipelines that were tried on the way to the goals, in order; empty where the pipeline
            was given.
        command: The command that makes the result again without searching.
        next: What could be done beyond the result, each with its command.
        trials: All trials of a tuner, of which `tried` has the front; those that ended early too.
        elsewhere: Times of the result on other machines, measured by a kit of `irc bench`.
        plans: What passes with a plan decided.
        modules: The modules of the source, in the order of the original; those that appeared
            afterwards come last. Empty where none is recorded.
        block: A repeated block of the model before and after; None: none is small enough to draw.
        samples: Of answers that changed, what there is to see: 60 texts or 24 pictures at most,
            and nothing with `--hide-samples`.
    """

    created: str
    model: ModelEntry
    calibration: DataEntry | None
    evaluation: DataEntry | None
    target: TargetEntry
    machine: Machine
    versions: Mapping[str, str]
    pipeline: str
    passes: tuple[PassEntry, ...]
    settings: SettingsEntry
    bench: BenchSettings | None
    rows: tuple[Row, ...]
    result: ModelEntry
    kernels: KernelReport | None
    verdicts: tuple[Verdict, ...]
    seconds: float
    artifact: ArtifactEntry | None = field(default=None)
    measuring: MeasuringPlan | None = None
    goals: tuple[GoalEntry, ...] = ()
    tried: tuple[TriedEntry, ...] = ()
    command: str = ""
    next: tuple[str, ...] = ()
    trials: tuple[TriedEntry, ...] = ()
    elsewhere: tuple[KitTimes, ...] = ()
    plans: tuple[PlanEntry, ...] = ()
    modules: tuple[ModuleEntry, ...] = ()
    samples: tuple[SampleEntry, ...] = ()
    block: BlockPair | None = None
