"""The main job, with or without a pipeline."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike, PipelineLike, Watch, as_model
from irtools.driver.optimize import run_job
from irtools.driver.outcome import check_kept, outcomes
from irtools.driver.result import OptimizeResult, Search, make_result
from irtools.driver.session import Session, open_session
from irtools.driver.settings import Settings
from irtools.errors import BudgetError, UnsupportedError, UsageError
from irtools.model import Model, with_sizes
from irtools.passmanager import Instrument, Pipeline, Plan
from irtools.plugins import NullProgress, Progress, registry
from irtools.report.entries import GoalEntry, Row, TriedEntry
from irtools.search.advice import Given, command, next_steps
from irtools.search.climb import Climbed, climb
from irtools.search.errors import SearchError
from irtools.targets import find_target

__all__ = ["optimize"]

_AUTO = "auto"


def optimize(
    model: ModelLike,
    pipeline: PipelineLike | None = None,
    settings: Settings = Settings(),
    *,
    calibration: DataLike | None = None,
    evaluation: DataLike | None = None,
    holdout: DataLike | None = None,
    plans: Sequence[Plan] = (),
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
    cache: Path | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_outlook: Callable[[int, int, float], None] | None = None,
    on_tried: Callable[[TriedEntry], None] | None = None,
    may_fix: Mapping[str, int] | None = None,
    **options: Any,
) -> OptimizeResult:
    """Make a model smaller and faster; every pass is verified, checked and measured.

    With a pipeline that is run. Without one pipelines are tried, cheap and safe ones first, until
    one keeps the goals; without goals what is safe and faster is taken.

        optimize("model.onnx", "cleanup,fuse,int8", calibration="calib.npz")
        optimize("model.onnx", goals="speedup=3,max-drop=1%", calibration="calib.npz",
                 evaluation="test.npz")

    Args:
        model: ONNX file, checkpoint folder, `module:function`, or a model in memory. It never
            changes.
        pipeline: Pipeline text, a pass, a `Pipeline`, or None to have one found.
        settings: How it is run, checked and measured. Without a pipeline the target may be `auto`:
            the first of this machine's targets on which the goals are kept, each next to the
            original on the same target; without goals the one on which the result is fastest.
        calibration: Data for ranges and refits. Without it passes that need data draw it from the
            model's signature, and the report says so.
        evaluation: Data for fidelity, and with labels for the task metric. Without it fidelity is
            measured on the calibration data, or on data drawn from the model's signature.
        holdout: Samples whose figures are quoted where something is chosen by `evaluation`; None:
            one half of that is chosen by and the other quoted, split at random by the seed.
        plans: Plans to replay instead of planning again.
        instruments: Further hooks around every pass.
        progress: Where to show how far long steps are.
        cache: Folder in which the original's outputs are kept between runs; None: not kept.
        on_row: Called with each row of the report as soon as its pass is done.
        on_outlook: Called with the passes done, their number, and the seconds that the rest will
            take: from the start, and after each pass.
        on_tried: Called with each pipeline that was tried.
        may_fix: Sizes of dynamic axes, named as `--fix` names them, that a search may fix: where
            no pipeline keeps the goals without, all are tried with them, each next to the original
            of the same sizes. Without goals the faster result is taken.
        options: Any of the `Settings`, in place of those of `settings`:
            `optimize(model, "int8", target="openvino-cpu", goals="max-drop=1%")`.

    Raises:
        UsageError: Wrong pipeline, target, goals or combination of arguments.
        ModelError: The model cannot be read or is not sound.
        DataError: Data that does not fit the model, or cannot decide the goals.
        UnsupportedError: Not possible on this target.
        VerificationError: A pass broke the model.
        BudgetError: A goal is not kept; a `SearchError` has what was tried.
        PassError: A pass failed unexpectedly; its notes name the reproducer folder.
    """
    started = time.monotonic()
    chosen = settings.changed(options)
    given: dict[str, Any] = {
        "calibration": calibration,
        "evaluation": evaluation,
        "holdout": holdout,
        "cache": cache,
    }
    if pipeline is not None:
        if may_fix:
            raise UsageError("sizes that may be fixed are for a search; a pipeline has --fix")
        if chosen.target == _AUTO:
            raise UsageError("target auto is for a search: leave out the pipeline or name a target")
        watch = Watch(instruments, progress or NullProgress(), on_row, on_outlook)
        return run_job(
            Job.read(model, pipeline, chosen, plans=plans, watch=watch, **given), started
        )
    if plans:
        raise UsageError("a plan is replayed by the pass that made it: name it in a pipeline")
    _check_settings(chosen, evaluated=evaluation is not None)
    source = as_model(model, chosen.loading, progress or NullProgress())
    search = _Search(
        source,
        Given.of(model, calibration, evaluation, holdout),
        chosen,
        given,
        Watch(instruments, progress or NullProgress()),
        on_tried,
    )
    targets = _targets() if chosen.target == _AUTO else [chosen.target]
    variants = [(search, target) for target in targets]
    if may_fix:
        sizes = (*chosen.loading.sizes, *may_fix.items())
        loading = dataclasses.replace(chosen.loading, sizes=sizes)
        other = dataclasses.replace(
            search,
            model=with_sizes(source, may_fix),
            settings=dataclasses.replace(chosen, loading=loading),
            sizes=may_fix,
        )
        variants += [(other, target) for target in targets]
    return _on_any(variants)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a search found on one target."""

    result: OptimizeResult
    milliseconds: float | None


@dataclasses.dataclass(frozen=True)
class _Search:
    """What searches on several targets share; `sizes` are those that it fixed."""

    model: Model
    named: Given
    settings: Settings
    given: dict[str, Any]
    watch: Watch
    on_tried: Callable[[TriedEntry], None] | None
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    before: tuple[TriedEntry, ...] = ()

    def on(self, target: Any) -> _Found:
        """Search on a target.

        Raises:
            SearchError: No pipeline keeps the goals.
        """
        started = time.monotonic()
        settings = dataclasses.replace(self.settings, target=target)
        job = Job.read(self.model, Pipeline(), settings, watch=self.watch, **self.given)
        with open_session(job, searching=True) as session:
            climbed = climb(session, on_tried=self._tell)
            tried = (*self.before, *map(self._named, climbed.tried))
            on_all = self.settings.target == _AUTO
            steps = tuple(next_steps(self.named, job, climbed, on_all=on_all))
            if not climbed.keeps:
                raise SearchError(_missed(climbed), tried, steps)
            return self._finish(session, climbed, Search(tried, "", steps), started)

    def _finish(self, session: Session, climbed: Climbed, search: Search, started: float) -> _Found:
        pipeline = climbed.state.pipeline
        session.job = dataclasses.replace(session.job, pipeline=pipeline)
        quoted = session.quote(climbed.state.steps)
        found = outcomes(session.job.settings.wanted, quoted)
        _confirm(found, search)
        text = command(self.named, session.job, str(pipeline)) if len(pipeline) else ""
        search = dataclasses.replace(search, command=text)
        result = make_result(session, climbed.state.steps, started, found, search)
        latency, _ = quoted.find("latency", None)
        return _Found(result, None if latency is None else latency.value)

    def _tell(self, entry: TriedEntry) -> None:
        if self.on_tried is not None:
            self.on_tried(self._named(entry))

    def _named(self, entry: TriedEntry) -> TriedEntry:
        """Return an entry whose name has the sizes that were fixed."""
        if not self.sizes:
            return entry
        sizes = ", ".join(f"{axis}={size}" for axis, size in self.sizes.items())
        return dataclasses.replace(entry, name=f"{entry.name}, {sizes}")


def _on_any(variants: Sequence[tuple[_Search, Any]]) -> OptimizeResult:
    """Search in each way, on each target: until the goals are kept, without goals in all."""
    best: _Found | None = None
    failed: SearchError | None = None
    before: tuple[TriedEntry, ...] = ()
    for search, target in variants:
        try:
            found = dataclasses.replace(search, before=before).on(target)
        except SearchError as error:
            failed, before = error, error.tried
            continue
        if search.settings.wanted.needing("times", "file"):
            return found.result
        before = found.result.report.tried
        if best is None or (found.milliseconds or 0) < (best.milliseconds or 0):
            best = found
    if best is None:
        assert failed is not None
        raise failed
    report = dataclasses.replace(best.result.report, tried=before)
    return dataclasses.replace(best.result, report=report)


def _targets() -> list[str]:
    """Return the targets that this machine can run, the usual one first."""
    found = []
    for name in sorted(registry.names("irtools.targets"), key=lambda name: name != "ort-cpu"):
        try:
            find_target(name)
        except UnsupportedError:
            continue
        found.append(name)
    return found


def _check_settings(settings: Settings, *, evaluated: bool) -> None:
    if not settings.check and not evaluated:
        raise UsageError(
            "a search compares models with the original: do not switch the checks off, or give "
            "evaluation data"
        )
    if settings.drop_slower:
        raise UsageError("drop-slower is for a pipeline: a search takes nothing that is slower")


def _confirm(found: Sequence[GoalEntry], search: Search) -> None:
    try:
        check_kept(found)
    except BudgetError as error:
        raise SearchError(str(error), search.tried, search.next) from error


def _missed(climbed: Climbed) -> str:
    """Say which goals are not kept, and how near the best state came."""
    goals, seen = climbed.scene.goals, climbed.state.seen
    missed = [goal for goal, answer in goals.answers(seen).items() if answer.value != "yes"]
    near = [f"{goal.name} {goal.shown(seen) or 'not measured'}" for goal in missed]
    pipeline = str(climbed.state.pipeline) or "the original"
    return (
        f"no pipeline keeps {' and '.join(map(str, missed))}; nearest of those tried: {pipeline}, "
        f"with {', '.join(near)}; nothing was written"
    )
