"""The way from a large model to a small one, stage by stage: score, size and speed of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from irtools.data import Dataset, DataSettings
from irtools.driver.inputs import read_evaluation
from irtools.driver.job import Job, Watch
from irtools.driver.optimize import run_job
from irtools.driver.settings import Settings
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest import Contest, ContestSettings, paired_difference
from irtools.measure.interval import speedup
from irtools.measure.shapes import branches
from irtools.measure.timing import Contender
from irtools.metrics import Difference, Evaluation, Fidelity, Resampled
from irtools.model import Model
from irtools.plugins import NullProgress, Progress
from irtools.sources import load_source
from irtools.targets import RunnerOptions, Target, target_text

__all__ = [
    "Chain",
    "ChainSource",
    "Link",
    "ChainStage",
    "StageScore",
    "judge_models",
    "make_model",
    "measure_chain",
    "ratios_on_target",
    "time_models",
]


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
class ChainStage:
    """A link that is to be made and measured.

    Attributes:
        name: `baseline`, `distilled`, ...
        target: What runs it.
        source: What it is made of.
        pipeline: Passes that make it; empty for the source itself.
        precision: Arithmetic of the runtime where it offers a choice; None: as it does by default.
    """

    name: str
    target: Target
    source: ChainSource
    pipeline: str = ""
    precision: str | None = None


@dataclass(frozen=True)
class Chain:
    """What is measured.

    Attributes:
        stages: The links. Latency is compared with the first of the same target, decisions with
            the first of all.
        calibrate: Data for ranges and refits; `samples` of a source's settings bounds it.
        evaluate: Test data with labels.
        metric: Name of the metric.
        bench: How links are timed; None: not at all.
        seed: Seed of every random choice.
        threads: Threads for running models; None: the CPU quota.
    """

    stages: tuple[ChainStage, ...]
    calibrate: str
    evaluate: str
    metric: str
    bench: BenchSettings | None = field(default_factory=BenchSettings)
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class StageScore:
    """Metric of one stage and its agreement with the first.

    Attributes:
        evaluation: The metric on the target's runtime.
        agreement: Share of the test samples that are decided as the first stage decides them;
            None where outputs are not scores.
        difference: Metric less that of the first stage, sample by sample; None for the first.
    """

    evaluation: Evaluation
    agreement: float | None
    difference: Difference | None = None


@dataclass(frozen=True)
class Link:
    """One model of a chain on one target.

    Attributes:
        name: Of its stage, as the four that follow.
        target: Name of the target.
        pipeline: Empty for the source itself.
        precision: None: as the runtime does by default.
        file_bytes: Size on disk.
        score: Its metric and agreement.
        latency: Against the first link of the target, by shape; empty where nothing was timed.
    """

    name: str
    target: str
    pipeline: str
    precision: str | None
    file_bytes: int
    score: StageScore
    latency: tuple[LatencyResult, ...] = ()


def measure_chain(chain: Chain, progress: Progress | None = None) -> tuple[Link, ...]:
    """Make every model of a chain, and measure it.

    Raises:
        IrtoolsError: As `optimize`.
    """
    shown = progress or NullProgress()
    models = _make_models(chain, shown)
    data = _test_data(chain, models)
    standings = _contest(chain, models, data, shown).run().standings
    timed = ratios_on_target(chain, [standing.latency for standing in standings])
    return tuple(
        Link(
            stage.name,
            stage.target.name,
            stage.pipeline,
            stage.precision,
            standing.file_bytes,
            _stage_score(standing.fidelity, standing.evaluation, standing.difference),
            latency,
        )
        for stage, standing, latency in zip(chain.stages, standings, timed, strict=True)
    )


def _stage_score(
    fidelity: Fidelity | None, evaluation: Evaluation | None, difference: Difference | None
) -> StageScore:
    assert fidelity is not None and evaluation is not None
    return StageScore(evaluation, fidelity.agreement, difference)


def _make_models(chain: Chain, progress: Progress) -> list[Model]:
    sources: dict[str, Model] = {}
    models = []
    for stage in chain.stages:
        source = stage.source.source
        if source not in sources:
            sources[source] = load_source(source)
        models.append(make_model(stage, sources[source], chain, progress))
    return models


def make_model(stage: ChainStage, source: Model, chain: Chain, progress: Progress) -> Model:
    """Run the passes of a stage over its source; returns the form that its target takes."""
    if not stage.pipeline:
        return source
    progress.step(f"{stage.name} for {stage.target.name}", 0, 1)
    settings = Settings(
        target=stage.target,
        data=stage.source.data,
        bench=None,
        seed=chain.seed,
        threads=chain.threads,
    )
    watch = Watch(progress=progress)
    job = Job.read(source, stage.pipeline, settings, calibration=chain.calibrate, watch=watch)
    return run_job(job).deployed


def judge_models(chain: Chain, models: Sequence[Model], progress: Progress) -> Iterator[StageScore]:
    """Run every model over the test data, and yield its score as soon as it is there.

    Raises:
        DataError: The data does not fit a model, or has no labels.
    """
    first: Resampled | None = None
    for score in _contest(chain, models, _test_data(chain, models), progress).scores():
        assert score.metric is not None
        gap = None if first is None else paired_difference(first, score.metric)
        yield _stage_score(score.fidelity, score.metric.evaluation, gap)
        first = first or score.metric


def time_models(
    chain: Chain, models: Sequence[Model], progress: Progress
) -> list[tuple[LatencyResult, ...]]:
    """Time all models in alternating blocks, whatever runs them, against the first one.

    Where one of them branches, all run real samples of the test data, one after the other.
    """
    # Drawn inputs need no test data, which takes time to read.
    data = _test_data(chain, models) if any(map(branches, models)) else None
    results = _contest(chain, models, data, progress).time()
    return [tuple(r for r in results if r.name == name) for name in _names(chain)]


def _contest(
    chain: Chain, models: Sequence[Model], data: Mapping[str, Dataset] | None, progress: Progress
) -> Contest:
    contenders = {
        name: Contender(model, target_text(stage.target), RunnerOptions(precision=stage.precision))
        for name, stage, model in zip(_names(chain), chain.stages, models, strict=True)
    }
    settings = ContestSettings(
        chain.bench,
        None if data is None else chain.metric,
        chain.seed,
        chain.threads,
        # Training and passes have run these models before.
        isolation="none",
    )
    return Contest(contenders, data, settings, progress)


def _names(chain: Chain) -> list[str]:
    return [f"{number} {stage.name}" for number, stage in enumerate(chain.stages)]


def _test_data(chain: Chain, models: Sequence[Model]) -> dict[str, Dataset]:
    """Return the test data as each stage's own tokenizer reads it."""
    stages = zip(_names(chain), chain.stages, models, strict=True)
    return {name: _read(chain, stage, model) for name, stage, model in stages}


def _read(chain: Chain, stage: ChainStage, model: Model) -> Dataset:
    # The form that passes wrote has lost its place on the disk, where its tokenizer is.
    path = Path(stage.source.source)
    origin = Model.from_ir(model.ir, path / "config.json" if path.is_dir() else path)
    settings = stage.source.data
    with scratch_folder("chain") as folder:
        for name, content in model.companions.items():
            (folder / name).write_bytes(content)
        if "tokenizer.json" in model.companions:
            settings = dataclasses.replace(settings, tokenizer=folder)
        data = read_evaluation(chain.evaluate, origin, settings)
    assert data is not None
    return data


def ratios_on_target(
    chain: Chain, timed: Sequence[tuple[LatencyResult, ...]]
) -> list[tuple[LatencyResult, ...]]:
    """Return the results with ratios against the first link that the same target runs."""
    first: dict[str, tuple[LatencyResult, ...]] = {}
    found = []
    for stage, own in zip(chain.stages, timed, strict=True):
        bases = first.setdefault(target_text(stage.target), own)
        found.append(tuple(_against(r, base) for r, base in zip(own, bases, strict=True)))
    return found


def _against(result: LatencyResult, base: LatencyResult) -> LatencyResult:
    if result is base:
        return dataclasses.replace(result, speedup=None)
    ratio = speedup(base.block_medians_ms, result.block_medians_ms)
    return dataclasses.replace(result, speedup=ratio)
