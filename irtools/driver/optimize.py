"""The main job: run a pipeline over a model, measured and checked pass by pass.

The module has a name of its own, so that `irtools.optimize` is always the function.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from irtools.data import Dataset, DataSettings, SyntheticSettings
from irtools.data.axes import with_sizes
from irtools.driver.context import Calibration, make_context
from irtools.driver.inputs import DataLike, choose_metric, read_calibration, read_evaluation
from irtools.driver.make import (
    data_entry,
    make_rows,
    model_entry,
    pass_entries,
    target_entry,
    utc_now,
)
from irtools.driver.rows import Rows
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.instruments import (
    AccuracyGuard,
    Benchmark,
    FidelityAndMetric,
    Greedy,
    Judge,
    Numerics,
    Reproducer,
    Sizes,
    Verification,
)
from irtools.instruments.budget import Budget
from irtools.instruments.outlook import Outlook
from irtools.measure import BenchSettings, cpu_quota, refuse_foreign, target_text
from irtools.measure.cache import OutputCache
from irtools.measure.drawable import DrawnInputs
from irtools.measure.effort import Effort, TimedModels, Workload
from irtools.measure.machine import machine, versions
from irtools.metrics import Metric
from irtools.model import Model
from irtools.passmanager import Exactness, Pass, Pipeline, Plan, PlanningPass, pass_text
from irtools.passmanager.manager import PassManager
from irtools.passmanager.requirements import plan_prepared
from irtools.passmanager.step import Instrument, Step
from irtools.passmanager.workspace import Workspace
from irtools.plugins import NullProgress, Progress
from irtools.report import Level, Report, Row, Verdict
from irtools.report.saturation import remark_on_saturation
from irtools.report.verdicts import (
    judge_run,
    remark_on_data,
    remark_on_drawn,
    remark_on_equal,
    remark_on_form,
)
from irtools.sources import LoadOptions, find_frontend, load_source
from irtools.targets import KernelReport, Runner, RunnerOptions, Target, find_target, lowered

__all__ = ["OptimizeResult", "make_plan", "optimize"]

_DRAWN, _DRAWN_FEW = 32, 8
"""Samples that are drawn to compare models on."""
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json")

ModelLike: TypeAlias = "str | os.PathLike[str] | Model | ir.Model | onnx.ModelProto"
PipelineLike: TypeAlias = "str | Pass | Pipeline"


@dataclass(frozen=True)
class OptimizeResult:
    """What came out.

    Attributes:
        model: The optimized model in standard operators, with the exporter's notes: what further
            passes want.
        written: The same in the form that was timed and that `irc` writes: with the target's own
            operators unless `portable`, without the exporter's notes.
        report: Everything that was measured; prints as a table.
        plans: Plan of each planning pass as it was applied, by pass text.
        original: The model that went in, as it was read.
        target: What it was optimized for.
    """

    model: Model
    written: Model
    report: Report
    plans: Mapping[str, Plan]
    original: Model
    target: Target = field(repr=False)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per pass, the original first."""
        return self.report.rows


@dataclass(frozen=True)
class _Job:
    """The arguments of `optimize`, read and checked."""

    model: Model
    pipeline: Pipeline
    target: Target
    calibration: Dataset | None
    evaluation: Dataset | None
    metric: str | Metric | None
    bench: BenchSettings | None
    new_tokens: int
    max_drop: float | None
    seed: int
    threads: int | None
    drop_slower: bool
    check: bool
    portable: bool
    reproducer: bool
    plans: Mapping[str, Plan]
    progress: Progress
    sizes: Mapping[str, int]
    effort: Effort
    timed: TimedModels | None
    cache: OutputCache | None
    on_row: Callable[[Row], None] | None
    on_outlook: Callable[[int, int, float], None] | None

    @property
    def judges(self) -> bool:
        """Whether models are compared and scored on data: a check, unless it was asked for."""
        asked = (self.evaluation, self.max_drop, self.metric)
        return self.check or any(one is not None for one in asked)


def optimize(
    model: ModelLike,
    pipeline: PipelineLike,
    *,
    loading: LoadOptions = LoadOptions(),
    target: str | Target = "ort-cpu",
    calibration: DataLike | None = None,
    evaluation: DataLike | None = None,
    data: DataSettings = DataSettings(),
    metric: str | Metric | None = None,
    bench: BenchSettings | None = BenchSettings(),
    new_tokens: int = 32,
    max_drop: float | None = None,
    drop_slower: bool = False,
    seed: int = 0,
    threads: int | None = None,
    check: bool = True,
    portable: bool = False,
    reproducer: bool = True,
    plans: Sequence[Plan] = (),
    instruments: Sequence[Instrument] = (),
    progress: Progress | None = None,
    effort: str | float | Effort = "normal",
    timed: TimedModels | None = None,
    cache: Path | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_outlook: Callable[[int, int, float], None] | None = None,
) -> OptimizeResult:
    """Run a pipeline over a copy of a model; each pass is verified, checked and measured.

    Args:
        model: ONNX file, checkpoint folder, `module:function`, or a model in memory. It never
            changes.
        pipeline: Pipeline text, a pass, or a `Pipeline`.
        loading: How a source that is no ONNX file becomes a model: task, cache, adapters.
        target: What to optimize for, such as `ort-cpu` or `ort-cpu:isa=avx2`.
        calibration: Data for ranges and refits. Without it passes that need data draw it from the
            model's signature, and the report says so.
        evaluation: Data for fidelity, and with labels for the task metric. Without it fidelity is
            measured on the calibration data, or on data drawn from the model's signature.
        data: How data is read that is given as a path; `samples` bounds the calibration data, and
            `synthetic.sizes` are the sizes at which inputs are drawn.
        metric: Name of a metric or `module:function`; None: what labels of the evaluation data
            ask for, `multilabel-f1-micro` for rows of 0/1 and `accuracy` for classes.
        bench: How to time models against the original; None: not at all. What is left at its
            default follows from the effort.
        new_tokens: Tokens that a decoder with a cache writes to each prompt, to compare its text
            with the original's; 0: none.
        max_drop: Largest loss of the metric against the original (0.01: one point of accuracy),
            or of top-1 agreement without labels. Passes that lose more are drawn back.
        drop_slower: Undo lossy passes that make the model slower than it was.
        seed: Seed of every random choice.
        threads: Threads for running models; None: the CPU quota.
        check: Compare the numbers before and after each pass in a child process, and the result
            with the original. Without it only data given for evaluation is run.
        portable: Keep to standard operators in what is written and timed, so that other runtimes
            read it too. The target's own operators are faster on it.
        reproducer: Write a folder for `irc reproduce` when a pass fails.
        plans: Plans to replay instead of planning anew.
        instruments: Further hooks around every pass.
        progress: Where to tell how far long steps are.
        effort: How much time measuring may take: `quick`, `normal`, `thorough`, or seconds. On
            how much is measured is planned from the cost of one run of the model.
        timed: Which models are timed: after `each` pass, at the `end` of passes in a row that
            promise the same function, or the `last` one; None: by the effort.
        cache: Folder in which the original's outputs are kept between runs; None: nowhere.
        on_row: Called with each row of the report as soon as its pass is done.
        on_outlook: Called with the passes done, their number, and the seconds that the rest will
            take: from the start, and after each pass.

    Raises:
        UsageError: Wrong pipeline, target or combination of arguments.
        ModelError: The model cannot be read or is not sound.
        DataError: Data that does not fit the model.
        UnsupportedError: Not possible on this target.
        VerificationError: A pass broke the model.
        PassError: A pass failed in a way nobody foresaw; its notes name the reproducer folder.
    """
    started = time.monotonic()
    passes = pipeline if isinstance(pipeline, Pipeline) else Pipeline(pipeline)
    found_target = find_target(target) if isinstance(target, str) else target
    _check_budget(max_drop)
    if new_tokens < 0:
        raise UsageError(f"new-tokens is {new_tokens}, expected 0 or more")
    if drop_slower and bench is None:
        raise UsageError("drop-slower needs the benchmark, which is switched off")
    if drop_slower:
        refuse_foreign(found_target, "drop-slower")
    planned = effort if isinstance(effort, Effort) else Effort.parse(effort)
    source = _as_model(model, loading)
    job = _Job(
        model=source,
        pipeline=passes,
        target=found_target,
        calibration=read_calibration(calibration, source, data),
        evaluation=read_evaluation(evaluation, source, data),
        metric=metric,
        bench=_with_threads(bench, threads),
        new_tokens=new_tokens,
        max_drop=max_drop,
        seed=seed,
        threads=threads,
        drop_slower=drop_slower,
        check=check,
        portable=portable,
        reproducer=reproducer,
        plans={plan.pass_text: plan for plan in plans},
        progress=progress or NullProgress(),
        sizes=with_sizes(source, (data.synthetic.sizes or {}).items()),
        effort=planned,
        timed="none" if bench is None else timed,
        cache=None if cache is None else OutputCache(cache),
        on_row=on_row,
        on_outlook=on_outlook,
    )
    return _run(job, instruments, started)


def _run(job: _Job, extra: Sequence[Instrument], started: float) -> OptimizeResult:
    with Workspace(partial(lowered, target=job.target, portable=job.portable)) as workspace:
        drawn = DrawnInputs(
            job.model,
            job.target,
            partial(workspace.path, job.model),
            threads=job.threads,
            sizes=job.sizes,
            data=job.evaluation or job.calibration,
            isolated=job.check,
        )
        calibration = Calibration(job.calibration, job.model, job.seed, drawn)
        ctx = make_context(
            job.target,
            calibration,
            evaluation=job.evaluation,
            bench=job.bench,
            threads=job.threads,
            progress=job.progress,
            beside=_beside(job.model, job.calibration, job.evaluation),
        )
        data = _judged_on(job, drawn) if job.judges else None
        metric = choose_metric(job.metric, job.evaluation, data, job.model) if job.judges else None
        budget = Budget(job.effort, _workload(job, data, metric), job.timed)
        judge = None if data is None else _make_judge(job, workspace, data, metric, budget)
        hooks = (*_instruments(job, judge, budget, drawn), *extra, *_live(job, budget))
        manager = PassManager(job.pipeline, hooks, job.plans)
        steps = manager.run(job.model, ctx, workspace)
        written = workspace.written(steps[-1].model)
        kernels = _kernels(job, written) if job.check or job.bench is not None else None
    report = _report(job, steps, written, kernels, calibration.used, judge, budget, drawn)
    plans = {s.text: s.result.plan for s in steps if s.result.plan is not None}
    finished = dataclasses.replace(report, seconds=time.monotonic() - started)
    return OptimizeResult(steps[-1].model, written, finished, plans, job.model, job.target)


def _workload(job: _Job, data: Dataset | None, metric: Metric | None) -> Workload:
    lossy = [p.exactness is Exactness.LOSSY for p in job.pipeline]
    # A row of passes that keep the function ends before a lossy pass, or with the pipeline.
    rows = sum(not here and coming for here, coming in pairwise([*lossy, True]))
    return Workload(
        samples=0 if data is None else len(data),
        evaluated=1 + sum(lossy),
        timed=sum(lossy) + rows,
        scored=metric is not None or job.max_drop is not None,
        drawn=data is not None and data.synthetic,
    )


def _live(job: _Job, budget: Budget) -> Iterator[Instrument]:
    if job.on_row is not None:
        yield Rows(job.on_row)
    if job.on_outlook is not None:
        kinds = [p.exactness for p in job.pipeline]
        outlook = Outlook(kinds, budget, job.model.num_parameters, job.check, job.on_outlook)
        outlook.start()
        yield outlook


def _instruments(
    job: _Job, judge: Judge | None, budget: Budget, drawn: DrawnInputs
) -> Iterator[Instrument]:
    """The one nearest to the pass first: what is broken must not be timed."""
    yield Verification()
    if job.check:
        feeds = budget.plan.numerics_feeds
        yield Numerics(job.target, job.threads, job.evaluation or job.calibration, drawn, feeds)
    if judge is not None and job.max_drop is not None:
        yield AccuracyGuard(judge, job.max_drop, budget)
    if job.bench is not None:
        data = job.evaluation or job.calibration
        yield Benchmark(
            job.target,
            budget.plan.bench(job.bench),
            data,
            job.seed,
            drop_slower=job.drop_slower,
            timed=budget.plan.timed,
            adapt=drawn.usable,
        )
    yield Sizes()
    if job.check:
        yield Greedy(
            job.target,
            job.threads,
            job.evaluation or job.calibration,
            new_tokens=job.new_tokens,
            seed=job.seed,
            budget=budget,
        )
    if judge is not None:
        lossy = [i for i, p in enumerate(job.pipeline, 1) if p.exactness is Exactness.LOSSY]
        yield FidelityAndMetric(judge, budget, max(lossy, default=0))
    if job.reproducer:
        yield Reproducer()


def _make_judge(
    job: _Job, workspace: Workspace, data: Dataset, metric: Metric | None, budget: Budget
) -> Judge:
    threads = job.threads or cpu_quota()

    def make_runner(model: Model, options: RunnerOptions) -> Runner:
        # The reference runs as it is; the others in the form that is written. That of the original
        # is wanted nowhere else.
        if options.exact:
            form = model
        elif model is job.model:
            form = lowered(model, job.target, portable=job.portable)
        else:
            form = workspace.written(model)
        return job.target.runner(form, dataclasses.replace(options, threads=threads))

    kept = None if data.synthetic else job.cache  # Drawn samples are few.
    return Judge(
        job.model,
        data,
        metric,
        make_runner,
        job.progress,
        whole=job.max_drop is not None,
        budget=budget,
        cache=kept,
        identity=None if kept is None else _identity(job, threads),
    )


def _identity(job: _Job, threads: int) -> dict[str, object]:
    """What decides the outputs of the original, besides the data."""
    return {
        "model": job.model.fingerprint(),
        "target": target_text(job.target),
        "runtime": job.target.version(),
        "cpu": machine().cpu,
        "threads": threads,
        "portable": job.portable,
        "versions": sorted(versions().items()),
    }


def _judged_on(job: _Job, drawn: DrawnInputs) -> Dataset | None:
    """Data to compare models on; None where none was given and none can be drawn that runs."""
    data = job.evaluation or job.calibration
    if data is not None:
        return data
    # Without a lossy pass there is only the runtime's own rounding to see.
    lossy = any(p.exactness is Exactness.LOSSY for p in job.pipeline)
    settings = SyntheticSettings(samples=_DRAWN if lossy else _DRAWN_FEW, seed=job.seed)
    try:
        return drawn.synthesize(settings, job.model)
    except (DataError, UnsupportedError) as error:
        if job.max_drop is not None:
            raise DataError(f"max-drop needs data to be measured on: {error}") from error
        return None


def _kernels(job: _Job, model: Model) -> KernelReport | None:
    """Count what the runtime chooses for a model."""
    with job.target.runner(model, RunnerOptions(threads=job.threads)) as runner:
        return runner.kernels()


def _report(
    job: _Job,
    steps: Sequence[Step],
    written: Model,
    kernels: KernelReport | None,
    calibration: Dataset | None,
    judge: Judge | None,
    budget: Budget,
    drawn: DrawnInputs,
) -> Report:
    rows = make_rows(steps)
    calibrated, evaluated = (
        data_entry(calibration),
        data_entry(None if judge is None else judge.data),
    )
    return Report(
        created=utc_now(),
        model=model_entry(job.model),
        calibration=calibrated,
        evaluation=evaluated,
        target=target_entry(job.target),
        machine=machine(),
        versions=versions(),
        pipeline=str(job.pipeline),
        passes=pass_entries(job.pipeline),
        seed=job.seed,
        threads=job.threads,
        max_drop=job.max_drop,
        bench=None if job.bench is None else budget.plan.bench(job.bench),
        rows=rows,
        result=model_entry(written, "result"),
        kernels=kernels,
        verdicts=judge_run(
            rows,
            kernels,
            calibrated,
            evaluated,
            {pass_text(p): p.statistics for p in job.pipeline},
            (
                *(Verdict(Level.NOTE, note) for note in job.model.notes),
                *remark_on_data(calibration, None if judge is None else judge.data),
                *remark_on_drawn(drawn.note),
                *remark_on_equal(
                    rows,
                    [p.exactness is Exactness.LOSSY for p in job.pipeline],
                    judge is not None and judge.data.synthetic,
                ),
                *remark_on_form(written.ir, job.target),
                *remark_on_saturation(job.model.ir, written.ir, job.target),
            ),
            "" if job.evaluation or job.calibration else drawn.reason,
        ),
        seconds=0.0,
        measuring=budget.plan,
    )


def _beside(model: Model, *data: Dataset | None) -> dict[str, Path]:
    """Return the files beside a model, by name: tokenizer, configuration and such.

    Where text was given, they are those of the tokenizer that encoded it.
    """
    for texts in (one.texts for one in data if one is not None):
        if texts is not None and texts.tokenizer is not None:
            beside = (texts.tokenizer.with_name(name) for name in _TOKENIZER_FILES)
            found = {path.name: path for path in beside if path.is_file()}
            return {**found, "tokenizer.json": texts.tokenizer}
    if model.source is None or not model.source.exists():
        return {}
    source = str(model.source)
    return {path.name: path for path in find_frontend(source).companions(source)}


def _as_model(source: ModelLike, loading: LoadOptions) -> Model:
    match source:
        case Model():
            return source
        case str() | os.PathLike():
            return load_source(os.fspath(source), loading)
        case ir.Model():
            return Model.from_ir(source)
        case onnx.ModelProto():
            return Model.from_proto(source)
    raise UsageError(
        f"the model is a {type(source).__name__}, expected a path, irtools.Model, "
        "onnx_ir.Model or onnx.ModelProto"
    )


def _with_threads(bench: BenchSettings | None, threads: int | None) -> BenchSettings | None:
    if bench is None or bench.threads is not None:
        return bench
    return dataclasses.replace(bench, threads=threads)


def _check_budget(max_drop: float | None) -> None:
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise UsageError(f"max-drop is {max_drop:g}, expected 0 to 1 (0.01 or 1%)")


def make_plan(
    model: ModelLike,
    pipeline: PipelineLike,
    *,
    loading: LoadOptions = LoadOptions(),
    target: str | Target = "ort-cpu",
    calibration: DataLike | None = None,
    data: DataSettings = DataSettings(),
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Return what the last pass of a pipeline would decide; those before it are run.

    Args:
        model: As in `optimize`, like the others.

    Raises:
        UsageError: The last pass makes no plan.
        IrtoolsError: As `optimize`.
    """
    passes = pipeline if isinstance(pipeline, Pipeline) else Pipeline(pipeline)
    *first, last = passes
    if not isinstance(last, PlanningPass):
        raise UsageError(f"pass {last.name!r} makes no plan: it decides nothing")
    found = find_target(target) if isinstance(target, str) else target
    source = _as_model(model, loading)
    given = read_calibration(calibration, source, data)
    with Workspace() as workspace:
        drawn = DrawnInputs(
            source,
            found,
            partial(workspace.path, source),
            threads=threads,
            sizes=with_sizes(source, (data.synthetic.sizes or {}).items()),
        )
        ctx = make_context(
            found,
            Calibration(given, source, seed, drawn),
            threads=threads,
            progress=progress,
            beside=_beside(source, given),
        )
        steps = PassManager(Pipeline(*first), (Verification(),)).run(source, ctx, workspace)
        ctx.drop_analyses()
        ctx.adopt(steps[-1].model.companions)
        plan = plan_prepared(last, steps[-1].model.clone().ir, ctx)
    return dataclasses.replace(plan, notes=(*source.notes, *plan.notes))
