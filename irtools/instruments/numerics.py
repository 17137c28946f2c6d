"""Compares the numbers before and after every pass, in a child process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from irtools.analysis.data_sizes import DataSizes
from irtools.analysis.rankings import ranked_outputs
from irtools.data import Dataset, has_several_labels, put_at_padding
from irtools.errors import DataError, UnsupportedError, VerificationError
from irtools.instruments.promises import check_runs, same_bits
from irtools.instruments.rounding import (
    own_rounding,
    perturbed_feeds,
    perturbed_model,
)
from irtools.instruments.scores import FidelityFigure
from irtools.measure.drawable import DrawnInputs, check_feeds_of
from irtools.measure.jobs import run_several
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.measure.search import seeds_for
from irtools.metrics import FidelityMeter
from irtools.model import Model, padded_outputs
from irtools.passmanager import Exactness, Instrument, Stage, Step
from irtools.targets import RunnerOptions, Target
from irtools.words import printable

__all__ = ["Numerics"]

_ROUNDING_FACTOR = 4.0
"""Times what rounding alone does to an output that a reassociating pass may do to it: two draws of
a random error differ by more than one of them, and a fusion may round several times more."""
_FUSIONS_ROUND_AT_MOST = 1e-3
"""What the runtime does beyond that is more than rounding: 8-bit products that saturate."""
_SAMPLES = 2
_LIMITS = ChildLimits(seconds=300.0)

Outputs = Mapping[str, np.ndarray]


class Numerics(Instrument):
    """Runs each model on a few seeded feeds and compares with the model before the pass.

    Where nothing that runs can be drawn, real samples are taken; where there are none, the
    numbers are not compared, which the report says. A decoder with
    a cache reads a prompt, one token with a cache, and several.

    Exact passes must give the same bits, reassociating ones at most 1e-5 of relative L2 error, or
    four times what rounding alone does to that output of the model before the pass (see
    `rounding`), where that is more: in deep models, and where an output is a small difference of
    large numbers. Half precision has limits of its own. No pass may put a NaN or infinity where
    there was none. A lossy pass may change sizes that nothing but the data decides (boxes found).
    The run is also the first time that a runtime meets the model, so it happens in a child
    process, with the runtime's own optimizations off.

    Args:
        target: What runs the models.
        threads: Threads; None: the runtime's choice.
        data: Real samples, for models for which none can be drawn.
        drawn: How inputs are drawn.
        feeds: On how many models are compared, at most; None: as many as there are.
        rates: Say how close each model is to the original on these feeds, where no judge does.

    Raises:
        VerificationError: The numbers differ by more than the pass's exactness allows, or the
            runtime does not load the model any more.
    """

    name: ClassVar[str] = "numerics"
    stage: ClassVar[Stage] = Stage.CHECK

    def __init__(
        self,
        target: Target,
        threads: int | None = None,
        data: Dataset | None = None,
        drawn: DrawnInputs | None = None,
        feeds: int | None = None,
        *,
        rates: bool = False,
    ) -> None:
        self._target = target
        self._drawn = drawn
        self._most = feeds
        self._data = data
        self._options = RunnerOptions(threads=threads, exact=True)
        self._seeds: tuple[int, ...] = ()
        self._feeds: list[dict[str, np.ndarray]] = []
        self._known: WeakKeyDictionary[Model, list[Outputs]] = WeakKeyDictionary()
        self._random = False
        self._rates = rates
        self._closeness: FidelityFigure | None = None

    def begin(self, step: Step) -> None:
        drawn = self._drawn or DrawnInputs(
            step.original,
            self._target,
            lambda: step.workspace.path(step.original),
            threads=self._options.threads,
            data=self._data,
        )
        self._drawn = drawn
        trial = drawn.trial()
        self._seeds = seeds_for(step.original.ir)[: self._most]
        number = len(self._seeds)
        if trial is not None:
            self._feeds = trial.feeds[:number]
            first, again = trial.outputs[:number], trial.again[:number]
        elif self._data is not None:
            self._feeds = list(islice(self._data.batches(_SAMPLES), number))
            # The second time shows whether it answers the same.
            *first, again_first = self._run(
                step, step.original, feeds=[*self._feeds, self._feeds[0]]
            )
            again = [again_first]
        else:
            return  # The report says why; structure is verified all the same.
        self._known[step.original] = first
        self._random = not all(
            same_bits(a[name], b[name]) for a, b in zip(first, again, strict=False) for name in a
        )
        if self._random:
            step.figures.notes.append(
                "the model answers differently each time it is asked (random operators), so only "
                "shapes are compared pass by pass"
            )
        self._rate(step, again)

    def after(self, step: Step) -> None:
        if not step.modified or not self._feeds:
            step.figures.put(self._closeness)
            return
        if step.model.companions != step.before.companions:
            # Fewer tokens: ids of the new model are ids of the old one, not the other way round.
            assert self._drawn is not None
            seeds = self._seeds[: len(self._feeds)]
            self._feeds = [check_feeds_of(step.model, n, self._drawn.adapt) for n in seeds]
            self._known.clear()
            self._rates, self._closeness = False, None  # The original has no answers to these.
        before = self._padded(step, self._outputs(step, step.before))
        try:
            after = self._outputs(step, step.model)
        except UnsupportedError as error:
            raise VerificationError(f"the model does not run after the pass: {error}") from error
        exactness = None if self._random else step.pass_.promise
        free = self._free_axes(step, before, after)
        try:
            check_runs(before, after, exactness, free)
        except VerificationError:
            if exactness is not Exactness.REASSOCIATED:
                raise
            rounding = self._own_rounding(step, before)
            limits = {name: _ROUNDING_FACTOR * error for name, error in rounding.items()}
            check_runs(before, after, exactness, free, limits)
            step.figures.notes.append(_told(rounding))
        step.figures.checks.append(self.name)
        self._rate(step, after)

    def _rate(self, step: Step, found: Sequence[Outputs]) -> None:
        """Put the closeness to the original into the figures, where that is asked for."""
        if not self._rates:
            return
        meter = FidelityMeter(
            several_labels=has_several_labels(step.original.ir.metadata_props),
            sized_by_data=DataSizes.of(step.original.ir).shapes,
            ranked=ranked_outputs(step.original.ir),
        )
        expected = self._padded(step, self._known[step.original])
        with suppress(DataError):  # Texts and empty outputs have no distance.
            for wanted, outputs in zip(expected, found, strict=False):
                meter.update(wanted, outputs)
            self._closeness = FidelityFigure.made_of(meter.result())
        step.figures.put(self._closeness)

    def _free_axes(
        self, step: Step, before: Sequence[Outputs], after: Sequence[Outputs]
    ) -> list[dict[str, frozenset[int]]]:
        """Return, run by run, the axes of outputs whose sizes only the data decides."""
        lossy = step.pass_.promise is Exactness.LOSSY
        if not (lossy or self._random) or all(
            y.shape == other[name].shape
            for expected, other in zip(before, after, strict=True)
            for name, y in expected.items()
            if name in other
        ):
            return [{} for _ in before]
        sizes = DataSizes.of(step.before.ir)
        return [
            {
                name: sizes.free_axes(
                    name, y.shape, {key: array.shape for key, array in feeds.items()}
                )
                for name, y in expected.items()
            }
            for feeds, expected in zip(self._feeds, before, strict=True)
        ]

    def _own_rounding(self, step: Step, before: list[Outputs]) -> dict[str, float]:
        moved = self._run(step, perturbed_model(step.before), feeds=perturbed_feeds(self._feeds))
        found = own_rounding(before, [self._padded(step, moved)])
        try:
            options = replace(self._options, exact=False, precision="f32")
            run = self._padded(step, self._run(step, step.before, options))
            fused = own_rounding(before, [run])
        except (DataError, UnsupportedError):
            return found  # What its fusions cannot run, they do not round.
        return {
            name: max(error, min(fused[name], _FUSIONS_ROUND_AT_MOST))
            for name, error in found.items()
        }

    def _padded(self, step: Step, runs: Sequence[Outputs]) -> list[Outputs]:
        """Return what the model before the pass gave, with the padding of the one after it."""
        noted = padded_outputs(step.model.ir)
        return [put_at_padding(o, f, noted) for o, f in zip(runs, self._feeds, strict=True)]

    def _outputs(self, step: Step, model: Model) -> list[Outputs]:
        found = self._known.get(model)
        if found is None:
            found = self._known[model] = self._run(step, model)
        return found

    def _run(
        self,
        step: Step,
        model: Model,
        options: RunnerOptions | None = None,
        feeds: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> list[Outputs]:
        path = step.workspace.path(model)
        answer: list[Outputs] = run_isolated(
            run_several,
            path,
            self._target,
            options or self._options,
            self._feeds if feeds is None else feeds,
            limits=_LIMITS,
            label=f"{self._target.name} on the model",
        )
        return answer


def _told(rounding: Mapping[str, float]) -> str:
    name = max(rounding, key=lambda name: rounding[name])
    worst = rounding[name]
    what = "decides the size" if math.isinf(worst) else f"changes {worst:.2g} of the norm"
    return (
        f"rounding alone {what} of output '{printable(name)}' before this pass; the pass was held "
        f"to {_ROUNDING_FACTOR:g} times as much"
    )
