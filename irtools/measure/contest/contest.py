"""One comparison of models in every respect that matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import TypeAlias

import numpy as np

from irtools.data import Dataset, SyntheticSettings, fit_dataset, resolve_sizes
from irtools.errors import DataError, UsageError
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest.base import ContestResult, ContestSettings, Standing
from irtools.measure.contest.entrants import Entrant, check_targets, prepare
from irtools.measure.contest.feeds import (
    Timed,
    check_same_inputs,
    drawing_model,
    shortened,
    timed_feeds,
)
from irtools.measure.contest.outputs import EntrantScore, OutputScores
from irtools.measure.contest.paired import paired_difference
from irtools.measure.drawable import drawn_for, run_with
from irtools.measure.timing import Contender, measure, told_of_few_runs
from irtools.metrics import Metric, check_labels, load_metric
from irtools.plugins import NullProgress, Progress
from irtools.targets import find_target

__all__ = ["Contest", "Timer"]

Timer: TypeAlias = Callable[[Mapping[str, Contender], Timed, BenchSettings], list[LatencyResult]]
"""Times contenders at shapes, as `measure` does."""


class Contest:
    """Compares models with the first of them: outputs, task metric, latency, memory and size.

        contest = Contest(
            {
                "float": Contender(Model.load("a.onnx"), "ort-cpu"),
                "int8": Contender(Path("b.xml"), "openvino-cpu"),
            },
            load_dataset("test.npz", Model.load("a.onnx")),
            ContestSettings(metric="accuracy"),
        )
        for standing in contest.run().standings:
            print(standing.name, standing.evaluation, standing.difference, standing.latency)

    All of them run on the same samples, so metrics are compared sample by sample, and are timed
    in alternating blocks, one process at a time.

    Args:
        contenders: Name to model or compiled file, and what runs it; the first is the baseline.
        data: Samples, with labels where there is a metric; None: nothing is evaluated. A mapping
            gives some contenders their own form of the same samples (another tokenizer); those
            that it does not name take that of the first entry.
        settings: How to compare.
        progress: Where to report how far it is.
        timed_on: What to time on: feeds by label of their shape, or samples for inputs that cannot
            be invented; None: drawn inputs, and the samples of `data` where drawing fails or the
            time depends on the sample.
        timer: What times them, as `measure` does; None: this machine. Another machine's may be
            that of a target that this one cannot time.
    """

    def __init__(
        self,
        contenders: Mapping[str, Contender],
        data: Dataset | Mapping[str, Dataset] | None = None,
        settings: ContestSettings = ContestSettings(),
        progress: Progress | None = None,
        *,
        timed_on: Dataset | Timed | None = None,
        timer: Timer | None = None,
    ) -> None:
        check_targets(contenders, timed=settings.bench is not None and timer is None)
        self._contenders = contenders
        self._data = data
        self._settings = settings
        self._progress = progress or NullProgress()
        self._timed_on = timed_on
        self._timer = timer
        metric = settings.metric
        self._metric: Metric | None = load_metric(metric) if isinstance(metric, str) else metric
        if self._metric is not None and data is None:
            raise UsageError(
                f"metric {self._metric.name!r} needs data to be measured on, and none is given"
            )

    def run(self) -> ContestResult:
        """Compare in every respect that the settings ask for.

        Raises:
            UsageError: Contenders that cannot be compared: other inputs, other outputs.
            DataError: Data that does not fit one of them, or has no labels for the metric.
            UnsupportedError: A runtime refuses a model, or crashes on it.
            LimitError: A run does not end.
        """
        notes: list[str] = []
        with self._ready() as (entrants, data):
            notes += [note for own in data for note in own.notes]
            if self._settings.bench is not None:
                check_same_inputs(entrants)
            scores = list(self._scores(entrants, data, notes)) if data else []
            latency = self._times(entrants, data, notes)
            if few := told_of_few_runs(latency):
                notes.append(few)
        first = scores[0] if scores else None
        standings = tuple(
            _standing(entrant, score, first, latency)
            for entrant, score in zip_longest(entrants, scores)
        )
        samples, source = (len(data[0]), data[0].source) if data else (0, "")
        return ContestResult(standings, samples, source, tuple(dict.fromkeys(notes)))

    def scores(self) -> Iterator[EntrantScore]:
        """Yield the score of each contender as soon as it is there; nothing is timed.

        Raises:
            UsageError: There is no data.
            IrtoolsError: As `run`.
        """
        if self._data is None:
            raise UsageError("there is no data to score models on")
        with self._ready() as (entrants, data):
            yield from self._scores(entrants, data, [])

    def time(self) -> list[LatencyResult]:
        """Time the contenders, and nothing else; empty without `bench` in the settings.

        Raises:
            IrtoolsError: As `run`.
        """
        if self._settings.bench is None:
            return []
        with self._ready() as (entrants, data):
            check_same_inputs(entrants)
            return self._times(entrants, data, [])

    @contextmanager
    def _ready(self) -> Iterator[tuple[list[Entrant], list[Dataset]]]:
        with scratch_folder("contest") as folder:
            entrants = list(prepare(self._contenders, self._settings.threads, folder))
            data = _fitted(entrants, self._data)
            if data and self._settings.samples is not None:
                data = _spread(data, self._settings.samples)
            yield entrants, data

    def _scores(
        self, entrants: Sequence[Entrant], data: Sequence[Dataset], notes: list[str]
    ) -> Iterator[EntrantScore]:
        if self._metric is not None:
            for own in data:
                check_labels(self._metric, own)
        found = OutputScores(
            entrants,
            data,
            self._metric,
            self._settings.seed,
            self._settings.isolation,
            progress=self._progress,
        )
        yield from found
        notes += found.notes

    def _times(
        self, entrants: Sequence[Entrant], data: Sequence[Dataset], notes: list[str]
    ) -> list[LatencyResult]:
        bench = self._settings.bench
        if bench is None:
            return []
        bench = replace(bench, threads=bench.threads or self._settings.threads)
        contenders = {
            entrant.name: replace(self._contenders[entrant.name], model=entrant.path)
            for entrant in entrants
        }

        def timed(feeds: Timed) -> list[LatencyResult]:
            if self._timer is not None:
                return self._timer(contenders, feeds, bench)
            return measure(contenders, feeds, bench, self._progress)

        if self._timed_on is not None and not isinstance(self._timed_on, Dataset):
            return timed(self._timed_on)
        samples = _fitted(entrants, self._timed_on) or data or None
        return self._drawn(entrants, bench, samples, timed, notes)

    def _drawn(
        self,
        entrants: Sequence[Entrant],
        bench: BenchSettings,
        samples: Sequence[Dataset] | None,
        timed: Callable[[Timed], list[LatencyResult]],
        notes: list[str],
    ) -> list[LatencyResult]:
        drawing = drawing_model(entrants)
        lost: list[str] = []

        def run(adapt: Callable[[SyntheticSettings], SyntheticSettings]) -> list[LatencyResult]:
            feeds = timed_feeds(entrants, bench, samples, self._settings.seed, adapt)
            lost[:] = shortened(bench, feeds)
            return timed(feeds)

        sizes = resolve_sizes(drawing.model, self._settings.sizes.items())
        target = find_target(drawing.target)
        with drawn_for(drawing.model, target, sizes, bench.threads) as drawn:
            results = run(drawn.adapt) if drawing.is_file else run_with(drawn, run)
            notes += [*lost, *([drawn.note] if drawn.note else [])]
        return results


def _fitted(
    entrants: Sequence[Entrant], given: Dataset | Mapping[str, Dataset] | None
) -> list[Dataset]:
    """Return the samples as each contender takes them; empty where there are none."""
    if given is None:
        return []
    common = given if isinstance(given, Dataset) else next(iter(given.values()))
    own = {} if isinstance(given, Dataset) else given
    found = [_fit(own.get(entrant.name, common), entrant) for entrant in entrants]
    for entrant, data in zip(entrants, found, strict=True):
        if len(data) != len(found[0]):
            raise DataError(
                f"{entrant.name} has {len(data)} samples and {entrants[0].name} {len(found[0])}: "
                "they must be the same samples"
            )
    return found


def _fit(data: Dataset, entrant: Entrant) -> Dataset:
    try:
        return fit_dataset(data.encoded_with(entrant.model.companions), entrant.model)
    except DataError as error:
        raise DataError(f"{entrant.name}: {error}") from error


def _spread(data: Sequence[Dataset], samples: int) -> list[Dataset]:
    """Return the same samples of all, in whole batches of the contender that takes the most."""
    strictest = max(data, key=lambda one: one.fixed_batch or 1)
    total, count = len(strictest), len(strictest.spread(samples))
    rows = np.arange(count) * total // count
    return [one.select(rows) for one in data]


def _standing(
    entrant: Entrant,
    score: EntrantScore | None,
    first: EntrantScore | None,
    latency: Sequence[LatencyResult],
) -> Standing:
    metric = None if score is None else score.metric
    base = None if first is None or score is first else first.metric
    return Standing(
        entrant.name,
        entrant.target,
        entrant.options.precision,
        entrant.file_bytes,
        tuple(result for result in latency if result.name == entrant.name),
        None if score is None else score.fidelity,
        None if metric is None else metric.evaluation,
        None if metric is None or base is None else paired_difference(base, metric),
    )
