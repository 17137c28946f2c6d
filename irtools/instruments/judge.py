"""How good a model is on data, compared with the original. Every model is run once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from irtools.analysis.rankings import told_of_ranked
from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.goals import Goals, Interval, Observed
from irtools.instruments.budget import Budget
from irtools.instruments.decisions import Decisions
from irtools.instruments.early import is_hopeless
from irtools.instruments.parts import PartMaker
from irtools.instruments.runs import ModelRuns
from irtools.instruments.score import Measured, ModelScore, figures_of, interval_of
from irtools.instruments.scores import MetricFigure
from irtools.measure.cache import OutputCache
from irtools.measure.contest import loss_of_draws, loss_of_rows, loss_of_shares
from irtools.measure.effort import Workload
from irtools.metrics import Fidelity, Metric, PerSampleMetric, SingleLabel, resample_rows
from irtools.model import Model
from irtools.plugins import Progress
from irtools.targets import Runner, RunnerOptions

__all__ = ["Judge", "ModelScore"]


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
        self._unseen = unseen
        scored = bool(self._metrics)
        self._runs = ModelRuns(
            original,
            data,
            self._metrics,
            make_runner,
            progress,
            PartMaker(original, data, scored=scored, whole=whole),
            budget or Budget(work=Workload(samples=len(data), scored=whole or scored)),
            cache,
            identity or {},
        )

    @property
    def what(self) -> str:
        """What the main loss is measured in."""
        if self._metrics:
            return str(self._metrics[0].name)
        return "agreement on all labels" if self._runs.several else "top-1 agreement"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the report must know of the samples, once something was scored."""
        parts = self._runs.planned
        if parts is None:
            return ()
        found = [("fidelity", len(parts.compared))]
        if parts.scored:
            found.append((self.what, sum(map(len, parts.scored))))
        ranked = self._runs.ranked
        return (*((told_of_ranked(ranked),) if ranked else ()), *self._counted(found))

    def _counted(self, found: Sequence[tuple[str, int]]) -> Iterator[str]:
        yield from (
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
        found = self._runs.measured(model, inner=inner)
        assert found.fidelity is not None
        inner = inner and len(found.rows) < len(self._runs.parts.scored)
        main, *others = (self._figure(found, metric, inner) for metric in self._metrics or (None,))
        kept = tuple(figure for figure in others if figure is not None)
        return ModelScore(found.fidelity, main, kept, tuple(found.notes))

    def decisions(self, model: Model) -> Decisions | None:
        """Return which answers differ from the original's; None: they are not one class each.

        Both models have been run on all samples before.
        """
        by_class = (m for m in self._runs.by_sample if isinstance(m, SingleLabel))
        if (metric := next(by_class, None)) is None:
            return None
        found = [self._runs.measured(one) for one in (self._original, model)]
        before, after = (self._runs.rows(one, metric, False) for one in found)
        if before.shape[1] != 2 or before.shape != after.shape:
            return None
        order = np.concatenate([part.order for part in self._runs.parts.scored])
        return Decisions.compare(order, before, after) if len(order) == len(before) else None

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
        found = loss_of_shares(falls, self._reach)
        return Interval(1.0 - fidelity.agreement, found.low, found.high)

    def _loss(self, model: Model, metric: Metric, inner: bool) -> Interval:
        found = [self._runs.measured(one, inner=inner) for one in (self._original, model)]
        if not isinstance(metric, PerSampleMetric):
            first, own = (one.figures[metric.name] for one in found)
            return loss_of_draws(first, own, self._reach)
        before, after = (self._runs.rows(one, metric, inner) for one in found)
        return loss_of_rows(metric, before, after, self._reach)

    @property
    def _reach(self) -> float:
        """Samples to be quoted that a loss is expected on: no more than the plan measures."""
        finite = bool(self._metrics) and math.isfinite(self._unseen)
        return min(self._unseen, self._runs.parts.planned) if finite else self._unseen

    def _is_hopeless(self, model: Model, goals: Goals) -> bool:
        bounds = {g.metric or self.what: g.bound for g in goals.of("max-drop") if not g.relative}
        return is_hopeless(self._runs, self._original, model, bounds)

    def _figure(self, found: Measured, metric: Metric | None, inner: bool) -> MetricFigure | None:
        if metric is None:
            return None
        if isinstance(metric, PerSampleMetric):
            resampled = resample_rows(metric, self._runs.rows(found, metric, inner))
        else:
            resampled = found.figures[metric.name]
        return MetricFigure.made_of(resampled.evaluation)
