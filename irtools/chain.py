"""The way from a large model to a small one, link by link: what each is worth on a target."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from irtools._given import read_evaluation
from irtools._optimize import optimize
from irtools.data import DataSettings
from irtools.frontend import load_source
from irtools.measure import BenchSettings, Contender, LatencyResult, measure, target_text
from irtools.measure.shapes import bench_feeds
from irtools.metrics import Evaluation, evaluate, load_metric
from irtools.model import Model
from irtools.passmanager import NullProgress, Progress
from irtools.target import RunnerOptions, Target

__all__ = ["Chain", "ChainSource", "Link", "measure_chain"]


@dataclass(frozen=True)
class ChainSource:
    """A model at the start of a link.

    Attributes:
        source: ONNX file or checkpoint folder.
        data: How data is read for it: its own tokenizer.
    """

    source: str
    data: DataSettings = field(default_factory=DataSettings)


@dataclass(frozen=True)
class Link:
    """One model of a chain on one target.

    Attributes:
        name: `baseline`, `distilled`, ...
        target: What runs it.
        pipeline: Passes that made it of its source; empty for the source itself.
        file_bytes: Size on disk.
        evaluation: The metric on the target's runtime, as it computes by default.
        latency: Against the first link, by shape; empty where nothing was timed.
    """

    name: str
    target: str
    pipeline: str
    file_bytes: int
    evaluation: Evaluation
    latency: tuple[LatencyResult, ...] = ()


@dataclass(frozen=True)
class Chain:
    """What is measured.

    Attributes:
        teacher: The model that the others are compared with.
        student: The one that passes are run on.
        pipelines: Name of a link to the passes that make it of the student.
        calibrate: Data for ranges and refits; `samples` of the student's settings bounds it.
        evaluate: Test data with labels.
        metric: Name of the metric.
    """

    teacher: ChainSource
    student: ChainSource
    pipelines: Mapping[str, str]
    calibrate: str
    evaluate: str
    metric: str
    bench: BenchSettings | None = field(default_factory=BenchSettings)
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class _Made:
    """A link before it is measured."""

    model: Model
    source: ChainSource
    pipeline: str = ""


def measure_chain(
    chain: Chain, targets: Sequence[Target], progress: Progress | None = None
) -> tuple[Link, ...]:
    """Make every model of a chain for every target, and measure it there.

    On one target all models are timed in turns, against the teacher in float32.

    Raises:
        IrtoolsError: As `optimize`.
    """
    shown = progress or NullProgress()
    first = {
        "baseline": _Made(load_source(chain.teacher.source), chain.teacher),
        "distilled": _Made(load_source(chain.student.source), chain.student),
    }
    return tuple(link for target in targets for link in _on_target(chain, first, target, shown))


def _on_target(
    chain: Chain, first: Mapping[str, _Made], target: Target, progress: Progress
) -> list[Link]:
    made = dict(first)
    for name, pipeline in chain.pipelines.items():
        progress.step(f"{name} for {target.name}", 0, 1)
        result = optimize(
            first["distilled"].model,
            pipeline,
            target=target,
            calibration=chain.calibrate,
            data=chain.student.data,
            bench=None,
            seed=chain.seed,
            threads=chain.threads,
            progress=progress,
        )
        made[name] = _Made(result.written, chain.student, pipeline)
    timed = _time(chain, made, target, progress)
    return [
        Link(
            name,
            target.name,
            m.pipeline,
            _file_bytes(m.model),
            _evaluate(chain, m, target),
            timed.get(name, ()),
        )
        for name, m in made.items()
    ]


def _time(
    chain: Chain, made: Mapping[str, _Made], target: Target, progress: Progress
) -> dict[str, tuple[LatencyResult, ...]]:
    if chain.bench is None:
        return {}
    settings = chain.bench
    if settings.threads is None:
        settings = dataclasses.replace(settings, threads=chain.threads)
    feeds = bench_feeds(made["baseline"].model, settings, None, chain.seed)
    text = target_text(target)
    contenders = {name: Contender(m.model, text) for name, m in made.items()}
    found: dict[str, tuple[LatencyResult, ...]] = {}
    for result in measure(contenders, feeds, settings, progress):
        found[result.name] = (*found.get(result.name, ()), result)
    return found


def _evaluate(chain: Chain, made: _Made, target: Target) -> Evaluation:
    # The form that passes wrote has lost its place on the disk, where its tokenizer lies.
    origin = _origin(made)
    data = read_evaluation(chain.evaluate, origin, made.source.data)
    assert data is not None
    with target.runner(made.model, RunnerOptions(threads=chain.threads)) as runner:
        return evaluate(runner, data, load_metric(chain.metric), seed=chain.seed)


def _origin(made: _Made) -> Model:
    """Return the model with the place of its source, for reading data for it."""
    path = Path(made.source.source)
    place = path / "config.json" if path.is_dir() else path
    return Model.from_ir(made.model.ir, place)


def _file_bytes(model: Model) -> int:
    with tempfile.TemporaryDirectory(prefix="irtools-chain-") as folder:
        saved = model.save(Path(folder) / "model.onnx")
        return sum(path.stat().st_size for path in saved.files)
