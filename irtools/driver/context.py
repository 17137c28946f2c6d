"""Puts together what passes may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from irtools.data import Dataset, SyntheticSettings, synthesize
from irtools.errors import DataError
from irtools.measure import BenchSettings, LatencyResult
from irtools.model import Model
from irtools.passmanager import PassContext
from irtools.plugins import NullProgress, Progress
from irtools.statistics.service import StreamingStatistics
from irtools.targets import Runner, RunnerOptions, Target

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.measure.drawable import DrawnInputs

__all__ = ["Calibration", "make_context"]


class Calibration:
    """The calibration data of a run, or data drawn from the model when the first pass asks.

    Attributes:
        given: The data that the caller gave, or None.
        seed: Of data that is drawn.
        drawn: How inputs are drawn so that they run; None: as usual.
        used: The data that passes were given; None as long as none asked.
    """

    def __init__(
        self,
        given: Dataset | None,
        model: Model,
        seed: int = 0,
        drawn: DrawnInputs | None = None,
    ) -> None:
        self.given = given
        self.seed = seed
        self.drawn = drawn
        self._model = model
        self.used: Dataset | None = None

    def get(
        self, model: ir.Model, companions: Mapping[str, bytes] = MappingProxyType({})
    ) -> Dataset:
        """Return the data, in the tokens of a model that has these files beside it.

        Raises:
            DataError: None was given, and none can be drawn from the model's signature.
        """
        if self.used is None:
            self.used = self.given or self._draw()
        if not companions:
            return self.used
        if self.used.synthetic:
            return self._synthesize(model)
        return self.used.encoded_with(companions)

    def _draw(self) -> Dataset:
        try:
            return self._synthesize(self._model)
        except DataError as error:
            raise DataError(f"{error} (--calibrate)") from error

    def _synthesize(self, model: Model | ir.Model) -> Dataset:
        settings = SyntheticSettings(seed=self.seed)
        if self.drawn is None:
            return synthesize(model, settings)
        return self.drawn.synthesize(settings, model)


def make_context(
    target: Target,
    calibration: Calibration,
    *,
    evaluation: Dataset | None = None,
    bench: BenchSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    beside: Mapping[str, Path] = MappingProxyType({}),
) -> PassContext:
    """Make the context of a run.

    Args:
        calibration: Passes choose their mode by what was given; its seed is that of the run.
        bench: How `measure_latency` times models; None: as usual.
        beside: Files beside the model's source, by name.
    """
    shown = progress or NullProgress()

    def make_runner(model: ir.Model, options: RunnerOptions) -> Runner:
        if options.threads is None:
            options = replace(options, threads=threads)
        return target.runner(Model(model), options)

    def make_statistics(model: ir.Model) -> StreamingStatistics:
        data = calibration.get(model, context.companions)
        return StreamingStatistics(model, data, make_runner, progress=shown)

    context = PassContext(
        target=target,
        statistics=make_statistics,
        runner=make_runner,
        measure_latency=_latency_meter(
            target, bench or BenchSettings(threads=threads), shown, calibration.drawn
        ),
        adapt=_adapt(calibration.drawn),
        draw=_draw(calibration.drawn),
        calibration=calibration.given,
        evaluation=evaluation,
        seed=calibration.seed,
        threads=threads,
        progress=shown,
        beside=beside,
    )
    return context


def _adapt(drawn: DrawnInputs | None) -> Callable[[SyntheticSettings], SyntheticSettings]:
    return (lambda settings: settings) if drawn is None else drawn.usable


def _draw(drawn: DrawnInputs | None) -> Callable[[ir.Model, SyntheticSettings], Dataset] | None:
    if drawn is None or not drawn.isolated:
        return None
    return lambda model, settings: drawn.synthesize(settings, model)


def _latency_meter(
    target: Target, bench: BenchSettings, progress: Progress, drawn: DrawnInputs | None
) -> Callable[[Mapping[str, ir.Model]], Mapping[str, LatencyResult]]:
    def time_models(models: Mapping[str, ir.Model]) -> Mapping[str, LatencyResult]:
        from irtools.measure import Contender, measure, target_text
        from irtools.measure.shapes import bench_feeds

        wrapped = {name: Model(model) for name, model in models.items()}
        text = target_text(target)
        one = replace(bench, batch=bench.batch[:1], sequence=bench.sequence[:1])
        # One figure per model: of a decoder that of its prompt, which is what pruning shortens.
        feeds = dict(
            islice(bench_feeds(next(iter(wrapped.values())), one, adapt=_adapt(drawn)).items(), 1)
        )
        contenders = {name: Contender(model, text) for name, model in wrapped.items()}
        return {r.name: r for r in measure(contenders, feeds, one, progress)}

    return time_models
