"""What a pass may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

from irtools.errors import DataError, FileError
from irtools.passmanager.tables import Tables
from irtools.plugins import NullProgress, Progress

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from irtools.data import Dataset, SyntheticSettings
    from irtools.measure.base import BenchSettings
    from irtools.model import Model
    from irtools.passmanager.kept import StatisticsCache
    from irtools.passmanager.resources import Calibration, MeasuresLatency
    from irtools.statistics import StatisticsService
    from irtools.targets import Feeds, Runner, RunnerOptions, Target

__all__ = ["Analysis", "PassContext"]

A = TypeVar("A", bound="Analysis")


class Analysis(Protocol):
    """A fact about a model, computed from it and never changed: `MyAnalysis.of(model)`."""

    @classmethod
    def of(cls: type[A], model: ir.Model) -> A: ...


class MakesStatistics(Protocol):
    """Makes the statistics service of a model as it is now."""

    def __call__(self, model: ir.Model, rows: np.ndarray | None = None, /) -> StatisticsService: ...


def _as_usual(settings: SyntheticSettings) -> SyntheticSettings:
    return settings


def _no_feeds(model: ir.Model) -> tuple[str, Feeds]:
    raise DataError("max-latency needs a run: this context draws no inputs")


@dataclass
class PassContext:
    """What a pass may ask for. There are no globals below it.

    Attributes:
        target: What the model is optimized for.
        calibration: Data for ranges and refits; None where none was given. `statistics` then
            draws synthetic data from the model's signature.
        evaluation: Labelled data for the task metric, or None.
        seed: Seed of every random choice.
        threads: Threads for running models; None leaves it to the runtime.
        progress: Where to report the progress of a long step.
        statistics: Returns the statistics service of a model, over `calibration` or its samples at
            `rows`. Of a model with the same content it is the same service, with the answers that
            it has.
        runner: Compiles a model as it is for the target and returns its runner.
        source_files: Files next to the model's source, by name (`tokenizer.json`, `config.json`).
        companions: Those of them that earlier passes have replaced, with their content.
        adapt: Puts the sizes on which this model runs into settings for drawing inputs.
        draw: Draws samples on which this model runs; None where no model is to be run on drawn
            ones.
        measure_latency: Times several models against each other on the target,
            interleaved, at the benchmark's first shape; model name to result. Roughly: in short
            blocks, until a ratio is known to 5 %. Decoding: a decoder with a cache reads one token
            more in place of its prompt.
        forget_statistics: Releases answers that `statistics` keeps. The manager calls it when
            the model has changed for good.
        timed_feeds: Returns the inputs of the run that a bound on the latency is about, with a
            label: the benchmark's first shape, of a decoder with a cache one token more.
        calibrating: Knows which calibration data was used, for the report; None: not asked.
        tables: What passes measure to decide by, which trials of a search would measure again.
        unseen: Samples that `calibration` is without, to judge by what was made of it; None: none
            were held out (`holding_out`).
    """

    target: Target
    statistics: MakesStatistics
    runner: Callable[[ir.Model, RunnerOptions], Runner]
    measure_latency: MeasuresLatency
    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    seed: int = 0
    threads: int | None = None
    progress: Progress = field(default_factory=NullProgress)
    adapt: Callable[[SyntheticSettings], SyntheticSettings] = _as_usual
    draw: Callable[[ir.Model, SyntheticSettings], Dataset] | None = None
    source_files: Mapping[str, Path] = field(default_factory=dict)
    companions: Mapping[str, bytes] = field(default_factory=dict)
    forget_statistics: Callable[[], None] = lambda: None
    timed_feeds: Callable[[ir.Model], tuple[str, Feeds]] = _no_feeds
    calibrating: Calibration | None = None
    tables: Tables = field(default_factory=Tables)
    unseen: Dataset | None = None
    _given: tuple[Dataset | None, Dataset | None] | None = field(default=None, repr=False)
    _analyses: dict[type, object] = field(default_factory=dict, repr=False)
    _analysed: int = 0

    @classmethod
    def for_model(
        cls,
        model: Model,
        target: Target | str = "ort-cpu",
        *,
        calibration: Dataset | None = None,
        evaluation: Dataset | None = None,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> PassContext:
        """Make a context for running passes over a model by themselves.

        Args:
            model: What the passes will run on: data that is drawn fits its signature.
            target: A target, or its name (`ort-cpu:isa=vnni`).
            calibration: Data for ranges and refits; None: drawn when a pass asks for statistics.
            evaluation: Labelled data for the task metric.
            seed: Seed of every random choice.
            threads: Threads for running models; None leaves it to the runtime.
            progress: Where to report how far a long step is.

        Raises:
            UnknownNameError: There is no such target.
        """
        from irtools.passmanager.resources import Calibration
        from irtools.targets import find_target

        found = find_target(target) if isinstance(target, str) else target
        given = Calibration(calibration, model, seed)
        return cls.for_run(found, given, evaluation=evaluation, threads=threads, progress=progress)

    @classmethod
    def for_run(
        cls,
        target: Target,
        calibration: Calibration,
        *,
        evaluation: Dataset | None = None,
        bench: BenchSettings | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        source_files: Mapping[str, Path] = MappingProxyType({}),
        kept: StatisticsCache | None = None,
        tables: Tables | None = None,
        searching: bool = False,
    ) -> PassContext:
        """Make the context of a whole run.

        Args:
            target: What the model is optimized for.
            calibration: Passes choose their mode by what was given; its seed is that of the run.
            evaluation: Labelled data for the task metric.
            bench: How `measure_latency` times models; None: as usual.
            threads: Threads for running models; None leaves it to the runtime.
            progress: Where to report how far a long step is.
            source_files: Files next to the model's source, by name.
            kept: Where statistics are kept between runs; None: nowhere.
            tables: Where passes find what an earlier one measured; None: they begin with nothing.
            searching: Many pipelines are run, most of which begin alike: statistics of several
                models are remembered.
        """
        from irtools.measure.base import BenchSettings
        from irtools.passmanager.resources import (
            SharedStatistics,
            adapter,
            drawer,
            feeds_maker,
            latency_meter,
            runner_maker,
        )

        shown = progress or NullProgress()
        drawn = calibration.drawn
        make_runner = runner_maker(target, threads)
        settings = bench or BenchSettings(threads=threads)

        shared = SharedStatistics(calibration, make_runner, shown, kept, searching=searching)
        context: PassContext = cls(
            target=target,
            statistics=lambda model, rows=None: shared.of(model, context.companions, rows),
            runner=make_runner,
            measure_latency=latency_meter(target, settings, shown, drawn),
            timed_feeds=feeds_maker(settings, calibration.given, drawn),
            adapt=adapter(drawn),
            draw=drawer(drawn),
            calibration=calibration.given,
            evaluation=evaluation,
            seed=calibration.seed,
            threads=threads,
            progress=shown,
            source_files=source_files,
            forget_statistics=shared.forget,
            calibrating=calibration,
            tables=tables or Tables(),
        )
        return context

    def holding_out(self, rows: np.ndarray) -> PassContext:
        """Return a context for one pass, whose calibration data and statistics lack some samples.

        Args:
            rows: Their places in `calibration`; they become `unseen`.
        """
        import numpy as np

        assert self.calibration is not None
        rest = np.setdiff1d(np.arange(len(self.calibration)), rows)
        return replace(
            self,
            calibration=self.calibration.select(rest),
            statistics=lambda model, _=None: self.statistics(model, rest),
            unseen=self.calibration.select(rows),
        )

    def companion(self, name: str) -> bytes | None:
        """Return the content of a file next to the model as it is now; None: there is none.

        Raises:
            FileError: It cannot be read.
        """
        if name in self.companions:
            return self.companions[name]
        path = self.source_files.get(name)
        if path is None:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror or error}") from error

    def adopt(self, companions: Mapping[str, bytes]) -> None:
        """Make ready for a model with these companions: text is tokenized as it needs it.

        The manager calls it before each pass.
        """
        if companions == self.companions:
            return
        if self._given is None:
            self._given = (self.calibration, self.evaluation)
        self.companions = companions
        self.calibration, self.evaluation = (
            None if data is None else data.encoded_with(companions) for data in self._given
        )

    def analysis(self, kind: type[A], model: ir.Model) -> A:
        """Return an analysis of the model; computed once until a pass modifies it."""
        if self._analysed != id(model):
            self._analyses.clear()
            self._analysed = id(model)
        found = self._analyses.get(kind)
        if found is None:
            found = self._analyses[kind] = kind.of(model)
        assert isinstance(found, kind)
        return found

    def drop_analyses(self, preserved: Iterable[type] = ()) -> None:
        """Forget every analysis that is not preserved. The manager calls it after a pass."""
        kept = frozenset(preserved)
        for kind in [k for k in self._analyses if k not in kept]:
            del self._analyses[kind]
