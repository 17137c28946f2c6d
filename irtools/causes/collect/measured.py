"""Facts that are measured when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from irtools.analysis.pairing import Pairing, node_ids, pair_models
from irtools.causes.collect.answers import chosen_classes, padding_use
from irtools.causes.collect.exits import exit_uses
from irtools.causes.collect.grids import grid_uses
from irtools.causes.collect.settings import CollectSettings, ComparedOn
from irtools.causes.facts import (
    ChosenClasses,
    ExitUse,
    GridUse,
    PaddingUse,
    Subject,
    Threads,
    Times,
)
from irtools.data import Dataset, SyntheticSettings, resolve_sizes, synthesize
from irtools.errors import DataError, LimitError, UnsupportedError, UsageError
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings
from irtools.measure.contest import Contender, Contest, ContestSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.divergence import Comparison, compare_models
from irtools.measure.drawable import drawn_for, run_with
from irtools.measure.jobs import report_kernels
from irtools.measure.own_machine import why_not_timed
from irtools.measure.profile import Profile, profile_model
from irtools.measure.sandbox import run_isolated
from irtools.measure.shapes import bench_feeds, branches, sample_feeds
from irtools.model import Model
from irtools.targets import Feeds, KernelReport, RunnerOptions, Target, target_text

__all__ = ["MeasuredFacts"]

T = TypeVar("T")

_ALL_NODES = 1 << 30
_FAILURES = (DataError, LimitError, UnsupportedError, UsageError)


class MeasuredFacts:
    """Facts about two models on a target. Each is measured once, when it is first read.

    What cannot be measured is None, with a note that says why.

    Args:
        first: The one to compare with.
        second: The one that is explained.
        target: What runs both.
        samples: The data.
        settings: How much is measured.

    Attributes:
        notes: What a reader of the findings should know.
    """

    def __init__(
        self,
        first: Subject,
        second: Subject,
        target: Target,
        samples: ComparedOn = ComparedOn(),
        settings: CollectSettings = CollectSettings(),
    ) -> None:
        self.first = first
        self.second = second
        self.target = target
        self.notes: list[str] = []
        self._samples = samples
        self._settings = settings
        bench = settings.bench or BenchSettings()
        self._threads = bench.threads or cpu_quota()

    @property
    def data(self) -> str | None:
        """What the caller called the evaluation data."""
        return self._samples.name

    @cached_property
    def pairing(self) -> Pairing:
        """The nodes of both models, paired."""
        return pair_models(self.first.model.ir, self.second.model.ir)

    @cached_property
    def times(self) -> Times | None:
        """Latency of both, alternating."""
        return self._try("latency", self._measure) if self._is_timed else None

    @cached_property
    def profiles(self) -> tuple[Profile, Profile] | None:
        """Times of single nodes, by the runtime's own profiler."""
        return self._try("profile", self._profile) if self._is_timed else None

    @cached_property
    def kernels(self) -> tuple[KernelReport, KernelReport] | None:
        """Kernels that the runtime chose."""
        return self._try("kernels", self._count_kernels)

    @cached_property
    def threads(self) -> Threads | None:
        """Threads, and what more of them than CPUs cost."""
        quota = cpu_quota()
        if self._threads <= quota or self.times is None:
            return Threads(self._threads, quota)
        found = self._try("latency at the quota", lambda: self._measure(quota))
        return Threads(self._threads, quota, None if found is None else found.second_ms)

    @cached_property
    def comparison(self) -> Comparison | None:
        """Numbers of both, tensor by tensor."""
        return self._try("numbers", self._compare)

    @cached_property
    def decisions(self) -> ChosenClasses | None:
        """The classes that both choose on all of the evaluation data."""
        data, compared = self._samples.evaluation, self.comparison
        if data is None or compared is None:
            return None
        if all(one.agreement is None for one in compared.outputs.values()):
            return None
        return self._try(
            "answers",
            lambda: chosen_classes(
                self.first.model, self.second.model, data, self.target, self._options
            ),
        )

    @cached_property
    def grids(self) -> tuple[GridUse, ...]:
        """What the data puts on the grids of the second model."""
        data, calibration = self._samples.evaluation, self._samples.calibration
        if data is None:
            return ()
        model, pairing = self.second.model, self.pairing
        found = self._try(
            "ranges",
            lambda: grid_uses(model, pairing, data, calibration, self.target, self._threads),
        )
        return found or ()

    @cached_property
    def padding(self) -> PaddingUse | None:
        """What padding changes."""
        data = self._samples.evaluation
        if data is None or self.comparison is None:
            return None
        return self._try(
            "padding",
            lambda: padding_use(
                self.first.model, self.second.model, data, self.target, self._options
            ),
        )

    @cached_property
    def exits(self) -> tuple[ExitUse, ...]:
        """How many samples leave at each exit of the second model."""
        data = self._samples.evaluation
        if data is None or not branches(self.second.model):
            return ()
        model = self.second.model
        found = self._try("exits", lambda: exit_uses(model, data, self.target, self._options))
        return found or ()

    @property
    def _options(self) -> RunnerOptions:
        return RunnerOptions(threads=self._threads)

    @cached_property
    def _is_timed(self) -> bool:
        if self._settings.bench is None:
            return False
        why = why_not_timed(self.target)
        if why:
            self.notes.append(f"nothing was timed: {why}")
        return not why

    def _try(self, what: str, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except _FAILURES as error:
            self.notes.append(f"no {what}: {error}")
            return None

    def _measure(self, threads: int | None = None) -> Times:
        assert self._settings.bench is not None
        bench = replace(self._settings.bench, threads=threads or self._threads)
        text = target_text(self.target)
        contenders = {
            "first": Contender(self.first.model, text),
            "second": Contender(self.second.model, text),
        }
        settings = ContestSettings(bench, seed=self._settings.seed, sizes=self._settings.sizes)
        data = self._samples.evaluation
        found = Contest(contenders, data, settings, self._settings.progress).time()
        first, second = found[:2]
        assert second.speedup is not None
        return Times(first.shape, first.median_ms, second.median_ms, second.speedup)

    def _profile(self) -> tuple[Profile, Profile]:
        def run(shape: str, feeds: Feeds) -> tuple[Profile, Profile]:
            first, second = (
                profile_model(
                    _named(one.model),
                    self.target,
                    feeds,
                    shape=shape,
                    data="",
                    runs=self._settings.runs,
                    threads=self._threads,
                    top=_ALL_NODES,
                )
                for one in (self.first, self.second)
            )
            return first, second

        assert self._settings.bench is not None
        bench, data = self._settings.bench, self._samples.evaluation
        if data is not None and branches(self.second.model):
            shape, turns = next(iter(sample_feeds(data, bench).items()))
            return run(shape, turns[0])
        model = self.first.model
        sizes = resolve_sizes(model, self._settings.sizes.items())
        with drawn_for(model, self.target, sizes, self._threads) as drawn:
            return run_with(
                drawn,
                lambda adapt: run(
                    *next(iter(bench_feeds(model, bench, data, self._settings.seed, adapt).items()))
                ),
            )

    def _count_kernels(self) -> tuple[KernelReport, KernelReport]:
        first, second = (self._kernels_of(one) for one in (self.first, self.second))
        return first, second

    def _kernels_of(self, subject: Subject) -> KernelReport:
        with scratch_folder("kernels") as folder:
            path = folder / "model.onnx"
            _named(subject.model).save(path, scratch=True)
            found = run_isolated(
                report_kernels, path, target_text(self.target), self._options,
                label=f"{self.target.name} on {subject.name}",
            )  # fmt: skip
        return KernelReport(
            found["counts"],
            found["int8"],
            tuple(found["float_fallbacks"]),
            found["fused_attention"],
            found["providers"],
        )

    def _compare(self) -> Comparison:
        first, data = self.first.model, self._samples.evaluation

        def run(samples: Dataset) -> Comparison:
            return compare_models(
                first, self.second.model, samples, self.target, layers=True, threads=self._threads
            )

        if data is not None:
            return run(data.spread(self._settings.samples))
        usual = SyntheticSettings(samples=self._settings.samples, seed=self._settings.seed)
        sizes = resolve_sizes(first, self._settings.sizes.items())
        with drawn_for(first, self.target, sizes, self._threads) as drawn:
            return run_with(drawn, lambda adapt: run(synthesize(first, adapt(usual))))


def _named(model: Model) -> Model:
    """Return a copy whose nodes have the names by which profiles are joined."""
    copy = model.clone()
    for node, name in node_ids(copy.ir).items():
        node.name = name
    return copy
