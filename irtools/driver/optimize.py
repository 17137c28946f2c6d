"""The main job: run a pipeline over a model, measured and checked pass by pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from irtools.driver.inputs import DataLike
from irtools.driver.job import Job, ModelLike, PipelineLike, Watch
from irtools.driver.outcome import check_kept, outcomes
from irtools.driver.result import OptimizeResult, make_result
from irtools.driver.session import open_session
from irtools.driver.settings import Settings
from irtools.measure.sandbox import children_ahead
from irtools.passmanager import Instrument, Plan
from irtools.plugins import NullProgress, Progress
from irtools.report.entries import Row
from irtools.targets import target_text

__all__ = ["optimize"]


def optimize(
    model: ModelLike,
    pipeline: PipelineLike,
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
    **options: Any,
) -> OptimizeResult:
    """Run a pipeline over a copy of a model; each pass is verified, checked and measured.

    Args:
        model: ONNX file, checkpoint folder, `module:function`, or a model in memory. It never
            changes.
        pipeline: Pipeline text, a pass, or a `Pipeline`.
        settings: How it is run, checked and measured.
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
        options: Any of the `Settings`, in place of those of `settings`:
            `optimize(model, "int8", target="openvino-cpu", goals="max-drop=1%")`.

    Raises:
        UsageError: Wrong pipeline, target or combination of arguments.
        ModelError: The model cannot be read or is not sound.
        DataError: Data that does not fit the model.
        UnsupportedError: Not possible on this target.
        VerificationError: A pass broke the model.
        BudgetError: A goal is not kept.
        PassError: A pass failed unexpectedly; its notes name the reproducer folder.
    """
    started = time.monotonic()
    watch = Watch(instruments, progress or NullProgress(), on_row, on_outlook)
    chosen = settings.changed(options)
    with children_ahead(target_text(chosen.find_target())):
        job = Job.read(
            model, pipeline, chosen, calibration, evaluation, holdout, plans, cache, watch
        )
        return _run(job, started)


def _run(job: Job, started: float) -> OptimizeResult:
    with open_session(job) as session:
        steps = session.run(job.pipeline)
        found = outcomes(job.settings.wanted, session.quoted(steps))
        check_kept(found)
        return make_result(session, steps, started, found)
