"""What a context is made of: calibration data, runners and latencies on a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from irtools.data import Dataset, DrawnFor, SyntheticSettings, synthesize
from irtools.errors import DataError
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.model import Model
from irtools.passmanager.kept import KeptStatistics, StatisticsCache
from irtools.plugins import Progress
from irtools.statistics import StatisticsService, StreamingStatistics
from irtools.targets import Feeds, Runner, RunnerOptions, Target

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.measure.drawable import DrawnInputs

__all__ = [
    "Calibration",
    "MeasuresLatency",
    "SharedStatistics",
    "adapter",
    "drawer",
    "feeds_maker",
    "latency_meter",
    "runner_maker",
]

_REMEMBERED = 4
"""Models whose statistics a search remembers, each with no more than its memory limit allows."""

_ROUGH: Mapping[str, Any] = {
    "rounds": 3,
    "block_seconds": 0.3,
    "max_seconds": 12.0,
    "width": 0.05,
}

_Asked: TypeAlias = "tuple[str, Mapping[str, bytes], bytes | None]"
"""Fingerprint of a model, the files next to it, and the rows of the data."""


class MeasuresLatency(Protocol):
    """Times several models against each other on the target; see `PassContext`."""

    def __call__(
        self, models: Mapping[str, ir.Model], /, *, rough: bool = False, decoding: bool = False
    ) -> Mapping[str, LatencyResult]: ...


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
        """Return the data, in the tokens of a model that has these files next to it.

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
        settings = SyntheticSettings(seed=self.seed, use=DrawnFor.RANGES)
        if self.drawn is None:
            return synthesize(model, settings)
        return self.drawn.synthesize(settings, model)


class SharedStatistics:
    """Statistics of the model that was asked about last, for every pass that asks.

    A search asks again about models that many pipelines begin with: it remembers several.

    Answers go by names of tensors, so a clone gets those of its original, and each trial of the
    accuracy guard those of the plan. What counts as the same model is its content.

    Args:
        calibration: The data.
        make_runner: Compiles a model and returns its runner.
        progress: Where to report progress.
        kept: Where answers are kept between runs; None: nowhere.
        searching: The answers about the last models are remembered when a model changes for good.
    """

    def __init__(
        self,
        calibration: Calibration,
        make_runner: Callable[[ir.Model, RunnerOptions], Runner],
        progress: Progress,
        kept: StatisticsCache | None = None,
        *,
        searching: bool = False,
    ) -> None:
        self._calibration = calibration
        self._make_runner = make_runner
        self._progress = progress
        self._kept = kept
        self._most = _REMEMBERED if searching else 1
        self._searching = searching
        self._services: list[tuple[_Asked, StatisticsService]] = []

    def of(
        self, model: ir.Model, companions: Mapping[str, bytes], rows: np.ndarray | None = None
    ) -> StatisticsService:
        """Return the service of a model as it is now; later changes to it are not observed.

        Args:
            model: Whose tensors are asked for.
            companions: Files next to it: text is tokenized as it needs it.
            rows: Places of the samples that are looked at; None: all of them.

        Raises:
            DataError: No data was given, and none can be drawn from the model's signature.
        """
        asked = (Model(model).fingerprint(), companions, None if rows is None else rows.tobytes())
        found = next((service for known, service in self._services if known == asked), None)
        if found is None:
            data = self._calibration.get(model, companions)
            data = data if rows is None else data.select(rows)
            make = partial(
                StreamingStatistics, model.clone(), data, self._make_runner, progress=self._progress
            )
            found = make() if self._kept is None else self._from_kept(asked[0], data, make)
        others = [pair for pair in self._services if pair[0] != asked]
        self._services = [(asked, found), *others][: self._most]
        return found

    def _from_kept(
        self, fingerprint: str, data: Dataset, make: Callable[[], StatisticsService]
    ) -> StatisticsService:
        assert self._kept is not None
        # The digest is that of the data as it was read; tokens of another tokenizer differ.
        identity = {"model": fingerprint, "data": data.with_digest().digest}
        return KeptStatistics(make, self._kept, identity, (len(data), data.synthetic))

    def forget(self) -> None:
        """Release the answers, unless a search may ask again: the model has changed for good."""
        if not self._searching:
            self._services.clear()


def runner_maker(
    target: Target, threads: int | None
) -> Callable[[ir.Model, RunnerOptions], Runner]:
    """Return what compiles a model for a target, with `threads` where its options say none."""

    def make_runner(model: ir.Model, options: RunnerOptions) -> Runner:
        if options.threads is None:
            options = replace(options, threads=threads)
        return target.runner(Model(model), options)

    return make_runner


def adapter(drawn: DrawnInputs | None) -> Callable[[SyntheticSettings], SyntheticSettings]:
    """Return what puts the sizes on which a model runs into settings for drawing inputs."""
    return (lambda settings: settings) if drawn is None else drawn.usable


def drawer(
    drawn: DrawnInputs | None,
) -> Callable[[ir.Model, SyntheticSettings], Dataset] | None:
    """Return what draws samples on which a model runs; None where none is to run on drawn ones."""
    if drawn is None or not drawn.isolated:
        return None
    return lambda model, settings: drawn.synthesize(settings, model)


def feeds_maker(
    bench: BenchSettings, data: Dataset | None, drawn: DrawnInputs | None
) -> Callable[[ir.Model], tuple[str, Feeds]]:
    """Return what makes the inputs of the run that a bound on the latency is about."""

    def make(model: ir.Model) -> tuple[str, Feeds]:
        from irtools.measure.shapes import bench_feeds

        one = replace(bench, batch=bench.batch[:1], sequence=bench.sequence[:1])
        found = bench_feeds(Model(model), one, data, adapt=adapter(drawn))
        label = _decoding(found)
        return label, found[label]

    return make


def _decoding(found: Mapping[str, Feeds]) -> str:
    """Return the first size at which a decoder reads one token more; of others the first one."""
    return next((label for label in found if label.startswith("decode")), next(iter(found)))


def latency_meter(
    target: Target, bench: BenchSettings, progress: Progress, drawn: DrawnInputs | None
) -> MeasuresLatency:
    """Return what times several models against each other, alternating, on the target."""

    def time_models(
        models: Mapping[str, ir.Model], *, rough: bool = False, decoding: bool = False
    ) -> Mapping[str, LatencyResult]:
        from irtools.measure.shapes import bench_feeds
        from irtools.measure.timing import Contender, measure
        from irtools.targets import target_text

        wrapped = {name: Model(model) for name, model in models.items()}
        text = target_text(target)
        one = replace(bench, batch=bench.batch[:1], sequence=bench.sequence[:1])
        if rough:
            one = replace(one, **_ROUGH)
        found = bench_feeds(next(iter(wrapped.values())), one, adapt=adapter(drawn))
        label = _decoding(found) if decoding else next(iter(found))
        feeds = {label: found[label]}
        contenders = {name: Contender(model, text) for name, model in wrapped.items()}
        return {r.name: r for r in measure(contenders, feeds, one, progress)}

    return time_models
