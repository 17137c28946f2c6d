"""Running models on the samples that they are judged on, and keeping what was measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np

from irtools.analysis.rankings import ranked_outputs
from irtools.data import Batch, Dataset, has_several_labels
from irtools.errors import DataError, UnsupportedError
from irtools.instruments.budget import Budget
from irtools.instruments.parts import PartMaker, Parts
from irtools.instruments.score import Measured
from irtools.measure.cache import OutputCache
from irtools.measure.contest import (
    Asked,
    KeptOutputs,
    KeptScores,
    LazyRunner,
    Outputs,
    Part,
    Tally,
    answers,
    stack_rows,
)
from irtools.measure.levels import LEVELS
from irtools.metrics import (
    FidelityMeter,
    Metric,
    PerSampleMetric,
    Resampled,
    resample_outputs,
    run_dataset,
)
from irtools.model import Model, padded_outputs
from irtools.plugins import Progress
from irtools.targets import Runner, RunnerOptions

__all__ = ["ModelRuns"]

_EXACT = RunnerOptions(exact=True)


class ModelRuns:
    """Runs every model once on each sample that it is judged on.

    Args:
        original: The model before the first pass.
        data: Evaluation data, with labels where there is a metric.
        metrics: Task metrics, the main one first.
        make_runner: Compiles a model as it will be deployed; the original as it is for `exact`.
        progress: Where to report progress.
        maker: Makes parts of the data.
        budget: On how much models are judged.
        cache: Where the original's outputs are kept between runs; None: not kept.
        identity: What decides them besides the data.

    Attributes:
        by_sample: Metrics that keep a row for each sample.
        several: A sample has several labels.
        ranked: Outputs that list what is largest first.
    """

    def __init__(
        self,
        original: Model,
        data: Dataset,
        metrics: Sequence[Metric],
        make_runner: Callable[[Model, RunnerOptions], Runner],
        progress: Progress,
        maker: PartMaker,
        budget: Budget,
        cache: OutputCache | None,
        identity: Mapping[str, object],
    ) -> None:
        self.by_sample = tuple(m for m in metrics if isinstance(m, PerSampleMetric))
        self.several = has_several_labels(original.ir.metadata_props, data.labels)
        self.ranked = ranked_outputs(original.ir)
        self._of_all = tuple(m for m in metrics if not isinstance(m, PerSampleMetric))
        self._original = original
        self._make_runner = make_runner
        self._progress = progress
        self._maker = maker
        self._budget = budget
        known = {**identity, "data": data.digest or data.with_digest().digest}
        self._outputs = KeptOutputs(maker.sample_bytes, cache, known)
        self._kept = KeptScores(cache, known)
        self._parts: Parts | None = None
        self._measured: WeakKeyDictionary[Model, Measured] = WeakKeyDictionary()

    def measured(self, model: Model, *, inner: bool = False) -> Measured:
        """Return what was measured of a model, which is run on the samples that are missing.

        Args:
            inner: The first part of the samples will do for the metrics.
        """
        self.parts  # noqa: B018 - chosen before the model is run.
        found = self._measured.setdefault(model, Measured())
        self._measure(model, found, inner)
        return found

    def rows(self, found: Measured, metric: PerSampleMetric, inner: bool) -> np.ndarray:
        """Return what a metric keeps of each sample; `inner`: of the first part alone."""
        place = self.by_sample.index(metric)
        return stack_rows([rows[place] for rows in (found.rows[:1] if inner else found.rows)])

    @property
    def parts(self) -> Parts:
        """The samples; they are chosen at the first call, by what a run costs."""
        if self._parts is None:
            self._parts = self._plan_parts()
        return self._parts

    @property
    def planned(self) -> Parts | None:
        """The samples; None: nothing was run yet."""
        return self._parts

    def _plan_parts(self) -> Parts:
        """Decide on how many samples models are judged: by what one costs."""
        cost = self._budget.cost or self._outputs.cost()
        if cost is not None:
            self._budget.observe(cost)
            return self._maker.choose(self._budget.plan)
        first = self._maker.first()
        with self._make_runner(self._original, _EXACT) as runner:
            # The first run of a model is slower than all that follow.
            cost = min(self._time(runner, first) for _ in range(2))
            self._budget.observe(cost)
            self._outputs.keep_cost(cost)
            parts = self._maker.choose(self._budget.plan)
            self._outputs.prepare(parts.compared, _EXACT, lambda feeds: map(runner.run, feeds))
        return parts

    def _time(self, runner: Runner, part: Part) -> float:
        batch = next(part.batches())
        started = self._budget.clock()
        runner.run(batch.feeds)
        return (self._budget.clock() - started) / batch.samples

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
        missing = self._missing(found, inner)
        # In this order: what the metric keeps of the first part comes first.
        parts = list(itertools.dropwhile(partial(self._recall, model, found), missing))
        if parts and found.fidelity is None:
            # Before the model is opened, so that one of the two is in memory at a time.
            with self._lazy(self._original, _EXACT) as exact:
                self._outputs.prepare(self.parts.compared, _EXACT, exact.run)
        options = RunnerOptions(optimizations=found.level)
        with self._lazy(model, options) as opened:
            for part in parts:
                self._visit(model, found, part, opened)
            if self._of_all and not found.figures:
                found.figures = self._of_outputs(model, opened.runner)

    def _missing(self, found: Measured, inner: bool) -> list[Part]:
        parts = [self.parts.compared] if found.fidelity is None else []
        if self.by_sample:
            scored = self.parts.scored[:1] if inner else self.parts.scored
            parts += [part for part in scored[len(found.rows) :] if part not in parts]
        return parts

    def _recall(self, model: Model, found: Measured, part: Part) -> bool:
        """Take over what an earlier run has measured; False: there is nothing."""
        asked = self._asked(found, part)
        kept = self._kept.get(model, asked)
        if kept is None:
            return False
        fidelity, rows = kept
        if asked.compared:
            found.fidelity = fidelity
        if asked.metrics:
            found.rows.append(rows)
        return True

    def _asked(self, found: Measured, part: Part) -> Asked:
        """Return whether outputs are compared on some samples, and the metrics to keep rows for."""
        metrics = self.by_sample if part in self.parts.scored else ()
        options = RunnerOptions(optimizations=found.level)
        return Asked(part, options, part is self.parts.compared, metrics)

    def _visit(self, model: Model, found: Measured, part: Part, opened: LazyRunner) -> None:
        """Run a model on some samples, compare its outputs, and keep what metrics need."""
        asked = self._asked(found, part)
        meter = FidelityMeter(
            several_labels=self.several,
            sized_by_data=self._maker.sizes.shapes,
            ranked=self.ranked,
        )
        own = part.data
        if model is not self._original:
            own = part.data.encoded_with(model.companions)
        padded = padded_outputs(self._original.ir, model.ir)
        tally = Tally(own, asked.metrics, meter if asked.compared else None, padded)
        expected = self._reference(part) if asked.compared else itertools.repeat(None)
        done = 0
        what = "the original" if model is self._original else "the model"
        given = self._answers(model, part, own, opened)
        for (batch, taken, outputs), wanted in zip(given, expected, strict=False):
            tally.add(taken, outputs, wanted, batch.keep)
            done += batch.samples
            self._progress.step(f"evaluating {what}", done, len(part))
        if asked.compared:
            found.fidelity = meter.result()
        if asked.metrics:
            found.rows.append(tally.rows)
        self._kept.put(model, asked, found.fidelity if asked.compared else None, tally.rows)

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
        own = self._maker.selected(self.parts.rows).encoded_with(model.companions)
        sizes = self._maker.sizes.without_batch()
        outputs = run_dataset(runner, own, self._maker.batch, sizes)
        return {metric.name: resample_outputs(metric, outputs, own) for metric in self._of_all}


def _told(level: str, error: Exception) -> str:
    how = "switched off" if level == "off" else "at their basic level"
    return (
        f"the runtime runs this model only with its own optimizations {how}; with all of them: "
        f"{error}"
    )
