"""How good a model is on data, compared with the original. Every model is run once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from irtools.analysis.data_sizes import DataSizes
from irtools.data import Batch, Dataset, has_several_labels, plan_batches, required_inputs
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.goals import Goals, Interval, Observed
from irtools.instruments.budget import Budget
from irtools.instruments.early import surely_loses
from irtools.instruments.score import Measured, ModelScore, figures_of, interval_of
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
    loss_of_draws,
    loss_of_rows,
    loss_of_shares,
    output_bytes,
    stack_rows,
)
from irtools.measure.effort import Workload
from irtools.measure.levels import LEVELS
from irtools.metrics import (
    Fidelity,
    FidelityMeter,
    Metric,
    PerSampleMetric,
    Resampled,
    resample_outputs,
    resample_rows,
    run_dataset,
)
from irtools.model import Model, padded_outputs
from irtools.plugins import Progress
from irtools.targets import Runner, RunnerOptions

__all__ = ["Judge", "ModelScore"]

_BATCH = 16
_OUTPUT_BYTES = 64 << 20
_REFERENCE_BYTES = 128 << 20
_EXACT = RunnerOptions(exact=True)


class Judge:
    """Scores models against the original on the same data, and remembers the scores.

    Fidelity is measured on some of the data, evenly spread, and the metric on as much as the
    plan of the budget says, in two parts: the first is for models between passes, and finds
    broken ones before the rest is run.

    Args:
        original: The model before the first pass.
        data: Evaluation data, with labels where there is a metric.
        metric: The main task metric, or None.
        make_runner: Compiles a model as it will be deployed; the original as it is for `exact`.
        progress: Where to report progress.
        whole: Use as much of the data without a metric too, because a limit on the loss hangs
            on it.
        budget: On how much models are judged; by default on all.
        cache: Where the original's outputs are kept between runs; None: not kept.
        identity: What decides them besides the data.
        others: Further metrics, measured in the same runs.
        unseen: Samples on which figures will be quoted that are not among these; the interval of a
            loss is that of the loss to be expected there. Infinite: these are the samples.

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
        others: Sequence[Metric] = (),
        unseen: float = math.inf,
    ) -> None:
        self.data = data
        self._original = original
        self._metrics = (*(() if metric is None else (metric,)), *others)
        self._by_sample = tuple(m for m in self._metrics if isinstance(m, PerSampleMetric))
        self._of_all = tuple(m for m in self._metrics if not isinstance(m, PerSampleMetric))
        self._unseen = unseen
        self._make_runner = make_runner
        self._progress = progress
        self._whole = whole
        self._budget = budget or Budget(work=_all_of(data, whole or bool(self._metrics)))
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
        self._measured: WeakKeyDictionary[Model, Measured] = WeakKeyDictionary()

    @property
    def what(self) -> str:
        """What the main loss is measured in."""
        if self._metrics:
            return str(self._metrics[0].name)
        return "agreement on all labels" if self._several else "top-1 agreement"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report must know of the samples, once something was scored."""
        if self._compared is None:
            return ()
        found = [("fidelity", len(self._compared))]
        if self._scored:
            found.append((self.what, sum(map(len, self._scored))))
        return tuple(
            f"{what} is measured on {count} of the {len(self.data)} samples of {self.data.source}, "
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
        found = self._measured.setdefault(model, Measured())
        self._measure(model, found, inner)
        assert found.fidelity is not None
        inner = inner and len(found.rows) < len(self._scored)
        main, *others = (self._figure(found, metric, inner) for metric in self._metrics or (None,))
        kept = tuple(figure for figure in others if figure is not None)
        return ModelScore(found.fidelity, main, kept, tuple(found.notes))

    def observe(self, model: Model, goals: Goals | None = None) -> Observed:
        """Return metrics and losses against the original, for goals to decide on.

        A loss is the difference of a metric (0.01: one point of accuracy), relative to the
        original's for a metric of which less is better (perplexity), and without labels the share
        of answers whose largest logit, or whose set of labels, is another one.

        Args:
            goals: Where one of them is surely broken by the first part of the samples, the model
                is not run on the rest, and the figures are those of that part.

        Raises:
            UsageError: There are neither labels nor class scores, so that nothing can be lost.
        """
        inner = goals is not None and self._is_hopeless(model, goals)
        score = self.score(model, inner=inner)
        if not self._metrics:
            return Observed({f"loss:{self.what}": self._flips(score.fidelity)})
        base = self.score(self._original, inner=inner)
        first, own = (figures_of(one) for one in (base, score))
        losses = {f"loss:{m.name}": self._loss(model, m, inner) for m in self._metrics}
        before = {f"loss:{name}": Interval.exact(f.value) for name, f in first.items()}
        return Observed(
            {**losses, **{f"metric:{name}": interval_of(f) for name, f in own.items()}},
            {**before, **{f"metric:{name}": interval_of(f) for name, f in first.items()}},
        )

    def _flips(self, fidelity: Fidelity) -> Interval:
        if fidelity.agreement is None:
            raise UsageError(
                "max-drop needs a metric with labelled evaluation data, or a model whose "
                "output is a row of class scores"
            )
        falls = np.zeros(fidelity.samples)
        falls[: round((1 - fidelity.agreement) * fidelity.samples)] = 1
        found = loss_of_shares(falls, self._unseen)
        return Interval(1.0 - fidelity.agreement, found.low, found.high)

    def _loss(self, model: Model, metric: Metric, inner: bool) -> Interval:
        found = [self._measured[one] for one in (self._original, model)]
        if not isinstance(metric, PerSampleMetric):
            first, own = (one.figures[metric.name] for one in found)
            return loss_of_draws(first, own, self._unseen)
        before, after = (self._rows(one, metric, inner) for one in found)
        return loss_of_rows(metric, before, after, self._unseen)

    def _rows(self, found: Measured, metric: PerSampleMetric, inner: bool) -> np.ndarray:
        place = self._by_sample.index(metric)
        return stack_rows([rows[place] for rows in (found.rows[:1] if inner else found.rows)])

    def _is_hopeless(self, model: Model, goals: Goals) -> bool:
        """Whether a metric surely falls by more than its bound, by the first part of the data."""
        self._plan_parts()
        bounds = {
            goal.metric or self.what: goal.bound
            for goal in goals.of("max-drop")
            if not goal.relative
        }
        watched = [metric for metric in self._by_sample if metric.name in bounds]
        if len(self._scored) < 2 or not watched:
            return False
        for one in (self._original, model):
            self.score(one, inner=True)
        return any(self._surely_loses(model, metric, bounds[metric.name]) for metric in watched)

    def _surely_loses(self, model: Model, metric: PerSampleMetric, bound: float) -> bool:
        before, after = (
            metric.scores(self._rows(self._measured[one], metric, inner=True))
            for one in (self._original, model)
        )
        return before is not None and after is not None and surely_loses(before, after, bound)

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
        if not self._metrics:
            count = plan.metric_samples if self._whole else min(plan.fidelity_samples, most)
            return self._part(self._spread(count))
        rows = self._spread(plan.metric_samples)
        if math.isfinite(self._unseen):
            self._unseen = min(self._unseen, plan.metric_samples)
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

    def _measure(self, model: Model, found: Measured, inner: bool) -> None:
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

    def _measure_at(self, model: Model, found: Measured, inner: bool) -> None:
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
            if self._of_all and not found.figures:
                found.figures = self._of_outputs(model, opened.runner)

    def _missing(self, found: Measured, inner: bool) -> list[Part]:
        assert self._compared is not None
        parts = [self._compared] if found.fidelity is None else []
        if self._by_sample:
            scored = self._scored[:1] if inner else self._scored
            parts += [part for part in scored[len(found.rows) :] if part not in parts]
        return parts

    def _recall(self, model: Model, found: Measured, part: Part) -> bool:
        """Take over what an earlier run has measured; False: there is nothing."""
        compared, metrics = self._asked(part)
        options = RunnerOptions(optimizations=found.level)
        kept = self._kept.get(model, part, options, compared, metrics)
        if kept is None:
            return False
        fidelity, rows = kept
        if compared:
            found.fidelity = fidelity
        if metrics:
            found.rows.append(rows)
        return True

    def _asked(self, part: Part) -> tuple[bool, tuple[PerSampleMetric, ...]]:
        """Return whether outputs are compared on some samples, and the metrics to keep rows for."""
        return part is self._compared, self._by_sample if part in self._scored else ()

    def _visit(self, model: Model, found: Measured, part: Part, opened: LazyRunner) -> None:
        """Run a model on some samples, compare its outputs, and keep what metrics need."""
        compared, metrics = self._asked(part)
        meter = FidelityMeter(several_labels=self._several, sized_by_data=self._sizes.shapes)
        own = part.data
        if model is not self._original:
            own = part.data.encoded_with(model.companions)
        padded = padded_outputs(self._original.ir, model.ir)
        tally = Tally(own, metrics, meter if compared else None, padded)
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
        if metrics:
            found.rows.append(tally.rows)
        options = RunnerOptions(optimizations=found.level)
        fidelity = found.fidelity if compared else None
        self._kept.put(model, part, options, fidelity, metrics, tally.rows)

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

    def _of_outputs(self, model: Model, runner: Runner) -> dict[str, Resampled]:
        """Return metrics that need the outputs of all samples at once."""
        rows = np.sort(np.concatenate([part.rows for part in self._scored]))
        data = self.data if len(rows) == len(self.data) else self.data.select(rows)
        own = data.encoded_with(model.companions)
        outputs = run_dataset(runner, own, self._batch, self._sizes.without_batch())
        return {metric.name: resample_outputs(metric, outputs, own) for metric in self._of_all}

    def _figure(self, found: Measured, metric: Metric | None, inner: bool) -> MetricFigure | None:
        if metric is None:
            return None
        if isinstance(metric, PerSampleMetric):
            resampled = resample_rows(metric, self._rows(found, metric, inner))
        else:
            resampled = found.figures[metric.name]
        return MetricFigure.made_of(resampled.evaluation)


def _told(level: str, error: Exception) -> str:
    how = "switched off" if level == "off" else "at their basic level"
    return (
        f"the runtime runs this model only with its own optimizations {how}; with all of them: "
        f"{error}"
    )


def _spread_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Return some of the rows, evenly spread: files are often sorted by class."""
    if count >= len(rows):
        return rows
    return rows[np.arange(count) * len(rows) // count]


def _all_of(data: Dataset, scored: bool) -> Workload:
    return Workload(samples=len(data), scored=scored)
