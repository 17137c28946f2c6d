"""The report: everything that is known about one run, as one JSON document."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from irtools.measure import BenchSettings, LatencyResult
from irtools.measure.effort import MeasuringPlan
from irtools.measure.figures import DrawnBack, MetricFigure
from irtools.measure.generate import GreedyText
from irtools.measure.machine import Machine
from irtools.metrics import Fidelity
from irtools.report.plain import plain_data
from irtools.targets import KernelReport

__all__ = [
    "ArtifactEntry",
    "DataEntry",
    "Level",
    "ModelEntry",
    "PassEntry",
    "Report",
    "Row",
    "TargetEntry",
    "Verdict",
]


@dataclass(frozen=True)
class ModelEntry:
    """A model, identified by its content.

    Attributes:
        sha256: Fingerprint of graph and weights, wherever the weights lie.
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
        precision: Type in which the runtime computes float32 models unless told.
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

    Attributes:
        changed: Sum of the statistics that count changes.
        skipped_parts: Sum of the statistics that count what was left as it was.
        skipped: The pass was not run (bisect limit).
        file_bytes: Size on disk.
        weight_bytes: Sum of initializers and constants.
        latency: One result per shape, of a decoder with a cache one per prompt length and one per
            length of the cache; `speedup` is against the original.
        fidelity: Closeness to the original, of the output that suffers most.
        inherited: Fidelity and metric are those of the model before it, whose function it keeps.
        greedy: How much of the original's greedy text a decoder writes, too.
        seconds: Wall time by activity: `pass`, then what was measured and checked.
        peak_bytes: Peak resident memory of this process by activity, mapped weights included;
            empty where the system does not tell. Child processes count by themselves.
        remedies: What the pass itself would try next where the numbers suffer too much.
    """

    index: int
    text: str
    modified: bool
    skipped: bool
    statistics: Mapping[str, int]
    changed: int
    skipped_parts: int
    notes: tuple[str, ...]
    checks: tuple[str, ...]
    drawn_back: DrawnBack | None
    file_bytes: int | None
    weight_bytes: int | None
    latency: tuple[LatencyResult, ...]
    fidelity: Fidelity | None
    metric: MetricFigure | None
    greedy: GreedyText | None
    seconds: Mapping[str, float]
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    remedies: tuple[str, ...] = ()
    inherited: bool = False


@dataclass(frozen=True)
class ArtifactEntry:
    """What was written, and the kernels that the runtime chose for it."""

    files: Mapping[str, str]
    bytes: int
    kernels: KernelReport
    notes: tuple[str, ...] = ()


class Level(enum.Enum):
    """How much a verdict matters."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"


@dataclass(frozen=True)
class Verdict:
    """One sentence on what the figures mean."""

    level: Level
    text: str


@dataclass(frozen=True)
class Report:
    """One run of a pipeline.

    Attributes:
        created: UTC time at its end, ISO 8601. Time stands here alone: the model's bytes do not
            depend on when it was made.
        calibration: Data for ranges and refits; None where no pass asked.
        evaluation: Data for fidelity and metric.
        seconds: Wall time of the whole run.
        measuring: On how much models were measured, and why; None: nothing was.
    """

    FORMAT: ClassVar[str] = "irtools-report"
    VERSION: ClassVar[int] = 2

    created: str
    model: ModelEntry
    calibration: DataEntry | None
    evaluation: DataEntry | None
    target: TargetEntry
    machine: Machine
    versions: Mapping[str, str]
    pipeline: str
    passes: tuple[PassEntry, ...]
    seed: int
    threads: int | None
    max_drop: float | None
    bench: BenchSettings | None
    rows: tuple[Row, ...]
    result: ModelEntry
    kernels: KernelReport | None
    verdicts: tuple[Verdict, ...]
    seconds: float
    artifact: ArtifactEntry | None = field(default=None)
    measuring: MeasuringPlan | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the document. Numbers that JSON does not know are the texts inf, -inf, nan."""
        return {"format": self.FORMAT, "version": self.VERSION, **plain_data(self)}

    def to_json(self) -> str:
        """Return the document as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def __str__(self) -> str:
        from irtools.report.table import render

        return render(self.to_dict())


def schema() -> dict[str, Any]:
    """Return the published JSON schema of the document."""
    text = (Path(__file__).parent / "schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
