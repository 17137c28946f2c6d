"""How good a model is on data, compared with the original. Every model is run once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from irtools.analysis.data_sizes import DataSizes
from irtools.data import Batch, Dataset, has_several_labels, plan_batches, required_inputs
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.instruments.budget import Budget
from irtools.instruments.early import surely_loses
from irtools.instruments.scores import MetricFigure
from irtools.measure.cache import OutputCache
from irtools.measure.contest import (
    KeptOutputs,
    KeptScores,
    LazyRunner,
    Outputs,
    Part,
    Tally,
    answers,
    output_bytes,
    stack_rows,
)
from irtools.measure.effort import Workload
from irtools.measure.levels import LEVELS, Level
from irtools.metrics import (
    Fidelity,
    FidelityMeter,
    Metric,
    PerSampleMetric,
    evaluate,
    resample_rows,
)
from irtools.model import Model, padded_outputs
from irtools.plugins import Progress
from irtools.targets import Runner, RunnerOptions

__all__ = ["Judge", "ModelScore"]

_BATCH = 16
_OUTPUT_BYTES = 64 << 20
_REFERENCE_BYTES = 128 << 20
_EXACT = RunnerOptions(exact=True)


@dataclass(frozen=True)
class ModelScore:
    """Fidelity and task metric of one model.

    Attributes:
        fidelity: Closeness to the original run exactly (float32, no optimizations).
        metric: The task metric; None without labels.
        notes: What a reader must know of how it was measured.
    """

    fidelity: Fidelity
    metric: MetricFigure | None
    notes: tuple[str, ...] = ()


@dataclass
class _Measured:
    """What was measured of a model so far.

    Attributes:
        rows: What the metric keeps of each sample, by part: the inner ones, then the rest.
        figure: A metric that is not a sum over samples.
        level: How far the runtime's own optimizations go.
    """

    fidelity: Fidelity | None = None
    rows: list[np.ndarray] = field(default_factory=list)
    figure: MetricFigure | None = None
    level: Level = "all"
    notes: list[str] = field(default_factory=list)


class Judge:
    """Scores models against the original on the same data, and remembers the scores.

    Fidelity is measured on some of the data, evenly spread, and the metric on as much as the
    plan of the budget says, in two parts: the first is for models between passes, and finds
    broken ones before the rest is run.

    Args:
        original: The model before the first pass.
        data: Evaluation data, with labels where there is a metric.
        metric: The task metric, or None.
        make_runner: Compiles a model as it will be deployed; the original as it is for `exact`.
        progress: Where to report progress.
        whole: Use as much of the data without a metric too, because a limit on the loss hangs
            on it.
        budget: On how much models are judged; by default on all.
        cache: Where the original's outputs are kept between runs; None: not kept.
        identity: What decides them besides the data.

    Attributes:
        data: The samples that are used at most.
    """

    def __init__(
        self,
        original: Model,
        data: Dataset,
        metric: Metric | None,
        make_runner: Callable[[Model, RunnerOptions], Runner],
        progress: Progress,
        *,
        whole: bool = False,
        budget: Budget | None = None,
        cache: OutputCache | None = None,
        identity: Mapping[str, object] | None = None,
    ) -> None:
        self.data = data
        self._original = original
        self._metric = metric
        self._make_runner = make_runner
        self._progress = progress
        self._whole = whole
        self._budget = budget or Budget(work=_all_of(data, whole or metric is not None))
        self._sizes = DataSizes.of(original.ir)
        self._sample_bytes = output_bytes(original, data)
        self._several = has_several_labels(original.ir.metadata_props, data.labels)
        # Sizes that differ from sample to sample do not fit into one array.
        most = 1 if self._sizes.shapes else _BATCH
        self._batch = max(1, min(most, _OUTPUT_BYTES // self._sample_bytes))
        known = {**(identity or {}), "data": data.digest or data.with_digest().digest}
        self._outputs = KeptOutputs(self._sample_bytes, cache, known)
        self._kept = KeptScores(cache, known)
        self._compared: Part | None = None
        self._scored: tuple[Part, ...] = ()
        self._measured: WeakKeyDictionary[Model, _Measured] = WeakKeyDictionary()

    @property
    def what(self) -> str:
        """What `drop` is measured in."""
        if self._metric is not None:
            return self._metric.name
        return "agreement on all labels" if self._several else "top-1 agreement"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report must know of the samples, once something was scored."""
        if self._compared is None:
            return ()
        found = [("fidelity", len(self._compared))]
        if self._scored:
            found.append((self.what, sum(map(len, self._scored))))
        source = "synthetic data" if self.data.synthetic else self.data.source
        return tuple(
            f"{what} is measured on {count} of the {len(self.data)} samples of {source}, "
            "evenly spread"
            for what, count in found
            if count < len(self.data)
        )

    def score(self, model: Model, *, inner: bool = False) -> ModelScore:
        """Return fidelity and metric of a model; it must not change afterwards.

        Args:
            inner: The metric may be measured on fewer samples: the model is none of those that
                the report compares.
        """
        self._plan_parts()
        found = self._measured.setdefault(model, _Measured())
        self._measure(model, found, inner)
        assert found.fidelity is not None
        inner = inner and len(found.rows) < len(self._scored)
        return ModelScore(found.fidelity, self._figure(found, inner), tuple(found.notes))

    def drop(self, model: Model, limit: float | None = None) -> float:
        """Return the loss against the original; 0 or less where there is none.

        It is the difference of the metric (0.01: one point of accuracy), relative to the
        original's for a metric of which less is better (perplexity), and without labels the share
        of answers whose largest logit, or whose set of labels, is another one.

        Args:
            limit: Loss above which the exact figure is of no interest: a model that surely loses
                more by the first part of the samples is not run on the rest.

        Raises:
            UsageError: There are neither labels nor class scores, so that nothing can be lost.
        """
        if limit is not None and self._is_hopeless(model, limit):
            metrics = (self.score(m, inner=True).metric for m in (self._original, model))
            base, own = (_known(metric).value for metric in metrics)
            return base - own
        score = self.score(model)
        if score.metric is None:
            if score.fidelity.agreement is None:
                raise UsageError(
                    "max-drop needs a metric with labelled evaluation data, or a model whose "
                    "output is a row of class scores"
                )
            return 1.0 - score.fidelity.agreement
        base = _known(self.score(self._original).metric).value
        if score.metric.larger_is_better:
            return base - score.metric.value
        return (score.metric.value - base) / abs(base) if base else float("inf")

    def _is_hopeless(self, model: Model, limit: float) -> bool:
        self._plan_parts()
        metric = self._metric
        if not isinstance(metric, PerSampleMetric) or len(self._scored) < 2:
            return False
        scores = []
        for one in (self._original, model):
            self.score(one, inner=True)
            scores.append(metric.scores(self._measured[one].rows[0]))
        before, after = scores
        return before is not None and after is not None and surely_loses(before, after, limit)

    # What is run on what.

    def _plan_parts(self) -> None:
        """Decide on how many samples models are judged: by what one costs."""
        if self._compared is not None:
            return
        cost = self._budget.cost or self._outputs.cost()
        if cost is not None:
            self._budget.observe(cost)
            self._compared = self._choose_parts()
            return
        first = self._part(np.zeros(1, np.int64))
        with self._make_runner(self._original, _EXACT) as runner:
            # The first run of a model is slower than all that follow.
            cost = min(self._time(runner, first) for _ in range(2))
            self._budget.observe(cost)
            self._outputs.keep_cost(cost)
            self._compared = self._choose_parts()
            self._outputs.prepare(self._compared, _EXACT, lambda feeds: map(runner.run, feeds))

    def _time(self, runner: Runner, part: Part) -> float:
        batch = next(part.batches())
        started = self._budget.clock()
        runner.run(batch.feeds)
        return (self._budget.clock() - started) / batch.samples

    def _choose_parts(self) -> Part:
        """Choose the samples of the metric; return those of fidelity."""
        plan = self._budget.plan
        most = max(1, _REFERENCE_BYTES // self._sample_bytes)
        if self._metric is None:
            count = plan.metric_samples if self._whole else min(plan.fidelity_samples, most)
            return self._part(self._spread(count))
        rows = self._spread(plan.metric_samples)
        inner = _spread_rows(rows, self._whole_batches(plan.inner_samples))
        rest = np.setdiff1d(rows, inner)
        self._scored = tuple(self._part(part) for part in (inner, rest) if len(part))
        if plan.fidelity_samples >= len(inner):
            return self._scored[0]
        few = self._whole_batches(min(plan.fidelity_samples, most))
        return self._part(_spread_rows(inner, few))

    def _spread(self, count: int) -> np.ndarray:
        return _spread_rows(np.arange(len(self.data)), self._whole_batches(count))

    def _whole_batches(self, count: int) -> int:
        step = self.data.fixed_batch or 1
        return max(count // step, 1) * step

    def _part(self, rows: np.ndarray) -> Part:
        step = self.data.fixed_batch or 1
        if len(rows) < step:
            rows = np.arange(min(step, len(self.data)))
        data = self.data if len(rows) == len(self.data) else self.data.select(rows)
        plan = plan_batches(data, required_inputs(self._original), skip_empty=False)
        return Part(plan, self._batch, rows)

    # Measuring.

    def _measure(self, model: Model, found: _Measured, inner: bool) -> None:
        """Measure what is missing.

        Where the runtime's own optimizations break the original, it runs with as many of them as
        it bears, and so do the models made from it.
        """
        first: Exception | None = None
        for level in LEVELS[LEVELS.index(found.level) :]:
            found.level = level
            try:
                self._measure_at(model, found, inner)
            except (DataError, UnsupportedError) as error:
                first = first or error
                if not self._is_excused(model):
                    raise
            else:
                if first is not None:
                    found.notes.append(_told(level, first))
                return
        assert first is not None
        raise first

    def _is_excused(self, model: Model) -> bool:
        """Whether the runtime is to blame: the original runs as it is, and not as it optimizes."""
        original = self._measured.get(self._original)
        return model is self._original or (original is not None and original.level != "all")

    def _measure_at(self, model: Model, found: _Measured, inner: bool) -> None:
        assert self._compared is not None
        missing = self._missing(found, inner)
        # In this order: what the metric keeps of the first part comes first.
        parts = list(itertools.dropwhile(partial(self._recall, model, found), missing))
        if parts and found.fidelity is None:
            # Before the model is opened, so that one of the two is in memory at a time.
            with self._lazy(self._original, _EXACT) as exact:
                self._outputs.prepare(self._compared, _EXACT, exact.run)
        options = RunnerOptions(optimizations=found.level)
        with self._lazy(model, options) as opened:
            for part in parts:
                self._visit(model, found, part, opened)
            if self._metric is not None and not self._by_sample and found.figure is None:
                found.figure = self._of_outputs(model, opened.runner)

    def _missing(self, found: _Measured, inner: bool) -> list[Part]:
        assert self._compared is not None
        parts = [self._compared] if found.fidelity is None else []
        if self._by_sample:
            scored = self._scored[:1] if inner else self._scored
            parts += [part for part in scored[len(found.rows) :] if part not in parts]
        return parts

    def _recall(self, model: Model, found: _Measured, part: Part) -> bool:
        """Take over what an earlier run has measured; False: there is nothing."""
        compared, metric = self._asked(part)
        options = RunnerOptions(optimizations=found.level)
        kept = self._kept.get(model, part, options, compared, metric)
        if kept is None:
            return False
        fidelity, rows = kept
        if compared:
            found.fidelity = fidelity
        if rows is not None:
            found.rows.append(rows)
        return True

    def _asked(self, part: Part) -> tuple[bool, PerSampleMetric | None]:
        """Return whether outputs are compared on some samples, and the metric to keep rows for."""
        scored = part in self._scored and isinstance(self._metric, PerSampleMetric)
        metric = self._metric if scored else None
        return part is self._compared, metric if isinstance(metric, PerSampleMetric) else None

    def _visit(self, model: Model, found: _Measured, part: Part, opened: LazyRunner) -> None:
        """Run a model on some samples, compare its outputs, and keep what the metric needs."""
        compared, metric = self._asked(part)
        meter = FidelityMeter(several_labels=self._several, sized_by_data=self._sizes.shapes)
        own = part.data
        if model is not self._original:
            own = part.data.encoded_with(model.companions)
        padded = padded_outputs(self._original.ir, model.ir)
        tally = Tally(own, metric, meter if compared else None, padded)
        expected = self._reference(part) if compared else itertools.repeat(None)
        done = 0
        what = "the original" if model is self._original else "the model"
        given = self._answers(model, part, own, opened)
        for (batch, taken, outputs), wanted in zip(given, expected, strict=False):
            tally.add(taken, outputs, wanted, batch.keep)
            done += batch.samples
            self._progress.step(f"evaluating {what}", done, len(part))
        if compared:
            found.fidelity = meter.result()
        if metric is not None:
            found.rows.append(tally.rows)
        options = RunnerOptions(optimizations=found.level)
        rows = None if metric is None else found.rows[-1]
        self._kept.put(model, part, options, found.fidelity if compared else None, metric, rows)

    def _answers(
        self, model: Model, part: Part, own: Dataset, opened: LazyRunner
    ) -> Iterator[tuple[Batch, Batch, Outputs]]:
        if model is self._original:
            options = RunnerOptions(optimizations=self._measured[model].level)
            for batch, outputs in self._outputs.batches(part, options, opened.run):
                yield batch, batch, outputs
        else:
            data = None if own is part.data else own
            yield from answers(part, opened.run, data)

    def _lazy(self, model: Model, options: RunnerOptions) -> LazyRunner:
        return LazyRunner(partial(self._make_runner, model, options))

    def _reference(self, part: Part) -> Iterator[Outputs]:
        """Yield the original's exact outputs; it runs along where they are too large to be kept."""
        with self._lazy(self._original, _EXACT) as exact:
            for _, outputs in self._outputs.batches(part, _EXACT, exact.run):
                yield outputs

    @property
    def _by_sample(self) -> bool:
        return isinstance(self._metric, PerSampleMetric)

    def _of_outputs(self, model: Model, runner: Runner) -> MetricFigure:
        """Return a metric that needs the outputs of all samples at once."""
        assert self._metric is not None
        rows = np.sort(np.concatenate([part.rows for part in self._scored]))
        data = self.data if len(rows) == len(self.data) else self.data.select(rows)
        found = evaluate(
            runner,
            data.encoded_with(model.companions),
            self._metric,
            self._batch,
            without_batch=self._sizes.without_batch(),
        )
        return MetricFigure.made_of(found)

    def _figure(self, found: _Measured, inner: bool) -> MetricFigure | None:
        metric = self._metric
        if not isinstance(metric, PerSampleMetric):
            return found.figure
        whole = stack_rows(found.rows[:1] if inner else found.rows)
        return MetricFigure.made_of(resample_rows(metric, whole).evaluation)


def _told(level: str, error: Exception) -> str:
    how = "switched off" if level == "off" else "at their basic level"
    return (
        f"the runtime runs this model only with its own optimizations {how}; with all of them: "
        f"{error}"
    )


def _known(figure: MetricFigure | None) -> MetricFigure:
    assert figure is not None
    return figure


def _spread_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return some of the rows, evenly spread: files are often sorted by class."""
    if count >= len(rows):
        return rows
    return rows[np.arange(count) * len(rows) // count]


def _all_of(data: Dataset, scored: bool) -> Workload:
    return Workload(samples=len(data), scored=scored)
