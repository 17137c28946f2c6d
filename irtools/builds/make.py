"""Makes one build: runs its pipeline, and writes the folder that a release holds."""

from __future__ import annotations

import json
from pathlib import Path

from irtools.builds.inputs import Inputs
from irtools.builds.matrix import Combination
from irtools.builds.records import BUILD_FILE, BuildRecord, Scores, record_text
from irtools.builds.samples import write_samples
from irtools.builds.settings import pipeline_of, reading_of, settings_of
from irtools.builds.watch import Watch
from irtools.data import resolve_sizes
from irtools.driver.artifact import write_artifact
from irtools.driver.collapse import reject_collapsed
from irtools.driver.inputs import read_evaluation
from irtools.driver.result import OptimizeResult
from irtools.measure.base import LatencyResult
from irtools.report.document import Report
from irtools.report.entries import Row
from irtools.search import optimize

__all__ = ["make_build"]


def make_build(
    one: Combination, inputs: Inputs, folder: Path, cache: Path | None, watch: Watch = Watch()
) -> BuildRecord:
    """Run the pipeline of a build, or find one, and write all that belongs to it to a folder.

    Args:
        one: The build.
        inputs: All that decides it.
        folder: Is there, and empty.
        cache: The store's folder, for outputs and scores of models; None: nothing is kept.

    Raises:
        IrtoolsError: As `irtools.optimize` and `write_artifact`; a line of `irc.toml` is named
            where one is the cause.
    """
    pipeline, settings = pipeline_of(one), settings_of(one)
    data = {
        name: None if text is None else one.located(text)
        for name, text in (
            ("calibration", one.data_table.calibrate),
            ("evaluation", one.evaluate),
        )
    }
    source = one.located(one.model_table.source)
    result = optimize(
        source,
        pipeline,
        settings,
        calibration=data["calibration"],
        evaluation=data["evaluation"],
        progress=watch.progress,
        cache=cache,
        on_row=watch.on_row,
        on_tried=watch.on_tried,
    )
    if settings.check:
        reject_collapsed(result)
    sizes = resolve_sizes(result.model, one.data_table.sizes.items())
    report, files = write_artifact(result, f"{folder}/", source=source, force=True, sizes=sizes)
    _write_classes(result, folder)
    record = _record(one, inputs, result, report, files[0], _samples(one, result, folder, files[0]))
    (folder / BUILD_FILE).write_text(record_text(record), encoding="utf-8")
    return record


def _samples(one: Combination, result: OptimizeResult, folder: Path, main: Path) -> tuple[str, ...]:
    evaluation = one.evaluate
    data = None
    if one.config.release.samples == "data" and evaluation is not None:
        data = read_evaluation(one.located(evaluation), result.original, reading_of(one))
    if data is not None:
        data = data.encoded_with(result.model.companions)
    model, sizes = result.model, resolve_sizes(result.model, one.data_table.sizes.items())
    seed = one.config.measuring.seed
    why = write_samples(folder, main, model, result.target, data, sizes, seed)
    return (why,) if why else ()


def _write_classes(result: OptimizeResult, folder: Path) -> None:
    """Write the names of the classes that the model's metadata has, unless a file has them."""
    classes = result.report.model.classes or {}
    numbers = [str(number) for number in range(len(classes))]
    known = any((folder / name).exists() for name in ("classes.json", "config.json"))
    if classes and not known and set(classes) == set(numbers):
        names = [classes[number] for number in numbers]
        (folder / "classes.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


def _record(
    one: Combination,
    inputs: Inputs,
    result: OptimizeResult,
    report: Report,
    main: Path,
    notes: tuple[str, ...],
) -> BuildRecord:
    interface = result.deployed.interface
    used = (report.calibration, report.evaluation)
    return BuildRecord(
        name=one.name,
        source=one.model_table.source,
        source_sha256=report.model.sha256,
        result_sha256=report.result.sha256,
        main=main.name,
        created=report.created,
        inputs=inputs,
        pipeline=report.pipeline,
        scores=_scores(report),
        interface={
            "inputs": tuple(map(str, interface.inputs)),
            "outputs": tuple(map(str, interface.outputs)),
        },
        datasets=tuple(
            dict.fromkeys((Path(d.source).name, d.sha256, d.samples) for d in used if d is not None)
        ),
        task=report.model.task,
        notes=(*(report.artifact.notes if report.artifact else ()), *notes),
    )


def _scores(report: Report) -> Scores:
    first, last = report.rows[0], report.rows[-1]
    metric, before, fidelity = last.metric, first.metric, last.fidelity
    size = report.artifact.bytes if report.artifact else last.size.file_bytes
    before_ms = _first_latency(first)
    after = _first_latency(last)
    ratio = None if after is None else after.speedup
    sqnr = None if fidelity is None else float(fidelity.sqnr_db)
    return Scores(
        original_bytes=first.size.file_bytes,
        bytes=size,
        metric=None if metric is None else metric.name,
        larger_is_better=True if metric is None else metric.larger_is_better,
        original=None if before is None else float(before.value),
        value=None if metric is None else float(metric.value),
        low=None if metric is None else float(metric.low),
        high=None if metric is None else float(metric.high),
        samples=0 if metric is None else metric.samples,
        agreement=None if fidelity is None else fidelity.agreement,
        sqnr_db=sqnr if sqnr is None or abs(sqnr) < float("inf") else str(sqnr),
        shape="" if after is None else after.shape,
        original_ms=None if before_ms is None else before_ms.median_ms,
        median_ms=None if after is None else after.median_ms,
        speedup=None if ratio is None else (ratio.value, ratio.low, ratio.high),
    )


def _first_latency(row: Row) -> LatencyResult | None:
    """Return the latency at the first shape."""
    results: tuple[LatencyResult, ...] = () if row.latency is None else row.latency.results
    return results[0] if results else None
