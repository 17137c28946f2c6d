"""The way from a large model to a small one, link by link: what each is worth where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from irtools.data import Dataset, DataSettings
from irtools.data.labels import has_several_labels
from irtools.driver.inputs import read_evaluation
from irtools.driver.optimize import optimize
from irtools.measure import BenchSettings, Contender, LatencyResult, measure, target_text
from irtools.measure.interval import speedup
from irtools.measure.shapes import bench_feeds, branches, sample_feeds
from irtools.metrics import Evaluation, evaluate_outputs, fidelity, load_metric, run_dataset
from irtools.model import Model
from irtools.plugins import NullProgress, Progress
from irtools.scratch import scratch_folder
from irtools.sources import load_source
from irtools.targets import RunnerOptions, Target

__all__ = [
    "Chain",
    "ChainSource",
    "Link",
    "Stage",
    "Worth",
    "judge_models",
    "make_model",
    "measure_chain",
    "ratios_on_target",
    "saved_bytes",
    "time_models",
]

Arrays = Mapping[str, np.ndarray]

_BATCH = 16


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
class Stage:
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

    stages: tuple[Stage, ...]
    calibrate: str
    evaluate: str
    metric: str
    bench: BenchSettings | None = field(default_factory=BenchSettings)
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Worth:
    """What a link decides.

    Attributes:
        evaluation: The metric on the target's runtime.
        agreement: Share of the test samples that are decided as the first link decides them;
            None where outputs are no scores.
    """

    evaluation: Evaluation
    agreement: float | None


@dataclass(frozen=True)
class Link:
    """One model of a chain on one target.

    Attributes:
        name: Of its stage, as the four that follow.
        target: Name of the target.
        pipeline: Empty for the source itself.
        precision: None: as the runtime does by default.
        file_bytes: Size on disk.
        worth: What it decides.
        latency: Against the first link of the target, by shape; empty where nothing was timed.
    """

    name: str
    target: str
    pipeline: str
    precision: str | None
    file_bytes: int
    worth: Worth
    latency: tuple[LatencyResult, ...] = ()


def measure_chain(chain: Chain, progress: Progress | None = None) -> tuple[Link, ...]:
    """Make every model of a chain, and measure it.

    Raises:
        IrtoolsError: As `optimize`.
    """
    shown = progress or NullProgress()
    models = _make_models(chain, shown)
    worths = list(judge_models(chain, models, shown))
    timed = ratios_on_target(chain, time_models(chain, models, shown))
    return tuple(
        Link(
            stage.name,
            stage.target.name,
            stage.pipeline,
            stage.precision,
            saved_bytes(model),
            worth,
            latency,
        )
        for stage, model, worth, latency in zip(chain.stages, models, worths, timed, strict=True)
    )


def _make_models(chain: Chain, progress: Progress) -> list[Model]:
    sources: dict[str, Model] = {}
    models = []
    for stage in chain.stages:
        source = stage.source.source
        if source not in sources:
            sources[source] = load_source(source)
        models.append(make_model(stage, sources[source], chain, progress))
    return models


def make_model(stage: Stage, source: Model, chain: Chain, progress: Progress) -> Model:
    """Run the passes of a stage over its source; returns the form that its target takes."""
    if not stage.pipeline:
        return source
    progress.step(f"{stage.name} for {stage.target.name}", 0, 1)
    return optimize(
        source,
        stage.pipeline,
        target=stage.target,
        calibration=chain.calibrate,
        data=stage.source.data,
        bench=None,
        seed=chain.seed,
        threads=chain.threads,
        progress=progress,
    ).written


def judge_models(chain: Chain, models: Sequence[Model], progress: Progress) -> Iterator[Worth]:
    """Run every model over the test data, and yield what it is worth.

    Raises:
        DataError: The data does not fit a model, or has no labels.
    """
    first: Arrays | None = None
    for stage, model in zip(chain.stages, models, strict=True):
        progress.step(f"evaluating {stage.name} on {stage.target.name}", 0, 1)
        data = _test_data(chain, stage, model)
        outputs = _run(chain, stage, model, data)
        first = first or outputs
        several = has_several_labels(model.ir.metadata_props, data.labels)
        figures = fidelity(first, outputs, several_labels=several)
        metric = load_metric(chain.metric)
        evaluation = evaluate_outputs(outputs, data, metric, chain.seed)
        yield Worth(evaluation, figures.agreement)


def _test_data(chain: Chain, stage: Stage, model: Model) -> Dataset:
    # The form that passes wrote has lost its place on the disk, where its tokenizer lies.
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


def _run(chain: Chain, stage: Stage, model: Model, data: Dataset) -> Arrays:
    options = RunnerOptions(threads=chain.threads, precision=stage.precision)
    with stage.target.runner(model, options) as runner:
        return run_dataset(runner, data, _BATCH)


def time_models(
    chain: Chain, models: Sequence[Model], progress: Progress
) -> list[tuple[LatencyResult, ...]]:
    """Time all models in turns, whatever runs them, against the first one.

    Where one of them branches, all run real samples of the test data, in turns.
    """
    if chain.bench is None:
        return [() for _ in models]
    settings = chain.bench
    if settings.threads is None:
        settings = dataclasses.replace(settings, threads=chain.threads)
    feeds = _timed_feeds(chain, models, settings)
    contenders = {
        f"{number} {stage.name}": Contender(
            model, target_text(stage.target), RunnerOptions(precision=stage.precision)
        )
        for number, (stage, model) in enumerate(zip(chain.stages, models, strict=True))
    }
    results = measure(contenders, feeds, settings, progress)
    return [tuple(r for r in results if r.name == name) for name in contenders]


def _timed_feeds(
    chain: Chain, models: Sequence[Model], settings: BenchSettings
) -> Mapping[str, Arrays | Sequence[Arrays]]:
    for stage, model in zip(chain.stages, models, strict=True):
        if branches(model):
            # Its time depends on the sample.
            return sample_feeds(_test_data(chain, stage, model), settings)
    # Ids of the smallest vocabulary are ids of all others.
    drawn = (bench_feeds(model, settings, None, chain.seed) for model in models)
    return min(drawn, key=_largest_id)


def _largest_id(feeds_by_shape: Mapping[str, Arrays]) -> int:
    arrays = [array for feeds in feeds_by_shape.values() for array in feeds.values()]
    return max((int(a.max(initial=0)) for a in arrays if a.dtype.kind in "iu"), default=0)


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


def saved_bytes(model: Model) -> int:
    """Return the bytes that a model takes on the disk."""
    with scratch_folder("chain") as folder:
        saved = model.save(folder / "model.onnx")
        return sum(path.stat().st_size for path in saved.files)
