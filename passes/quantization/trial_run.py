"""What a quantized model keeps of the original's outputs, on a few samples.

Rounding errors of many layers add up, or cancel: whether outputs survive them, no figure of a
single layer says. So the model is run, as it would be written, on some of the calibration data,
that which was held out if any was (`held_out`), or on inputs that are drawn where none was given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.costs import count_flops
from irtools.analysis.data_sizes import DataSizes, steady_values
from irtools.data import Dataset, DrawnFor, SyntheticSettings, padding_mask
from irtools.errors import IrtoolsError
from irtools.measure.memory import memory_limit
from irtools.metrics import FidelityMeter
from irtools.model import Model, infer_shapes
from irtools.passes.quantization.divergence import Divergence
from irtools.passmanager import Decision, PassContext, Plan
from irtools.statistics import expose
from irtools.targets import Feeds, Runner, RunnerOptions
from irtools.words import counted

__all__ = ["Effort", "Session", "TrialRun", "Trials", "flops_of", "largest_tried", "weight_bytes"]

T = TypeVar("T")

_SAMPLES = 16
_DRAWN = 8
_BATCH = 4
"""What is together in a call shares ranges that are found at run time."""
_LARGEST = 2 << 30
"""Bytes of weights above which nothing is tried."""
_COPIES = 4
"""A trial holds the weights so many times: the original's, the copy's that is quantized, what is
handed to the runtime, and what the runtime makes of it."""
_MOST_OUTPUTS = 256 << 20
"""Bytes of outputs that are kept; once they are reached, no further samples are run."""
_WORK = 5e10
"""Operations that the samples may take, or as many as loading the model takes the time of, which
each trial pays anyway; once they are reached, no further samples are run. No clock decides: equal
inputs give equal models, however busy the machine."""
_PER_BYTE = 200
"""Operations that copying, quantizing and loading a byte of weights take the time of."""
_OPTIONS = RunnerOptions(exact=True)


@dataclass(frozen=True)
class Effort:
    """How much a trial may be, where a caller asked for a search; None: as usual.

    Attributes:
        work: Operations that the original may take.
        exact: Without what the runtime rounds by itself, such as activations in front of weights in
            blocks.
    """

    work: float | None = None
    exact: bool = True


@dataclass(frozen=True)
class TrialRun:
    """The original's outputs on a few samples, and what runs others on these.

    Attributes:
        feeds: By call.
        expected: What the original gave: outputs, or tensors in their place where they are chosen
            by places of largest values.
        drawn: The samples were drawn, and are not the caller's.
        samples: How many there are.
        sized_by_data: Outputs whose sizes may change with their values.
        work: Operations of one call, loading included.
        runner: Makes the runner of a model.
        names: What is compared; None: the outputs.
        options: How others run.
        others: What the original gave for outputs in numbers that are not compared, by call.
    """

    feeds: Sequence[Feeds]
    expected: Sequence[Feeds]
    drawn: bool
    samples: int
    sized_by_data: frozenset[str]
    work: int
    runner: Callable[[ir.Model, RunnerOptions], Runner]
    names: tuple[str, ...] | None = None
    options: RunnerOptions = _OPTIONS
    others: Sequence[Feeds] = ()

    @classmethod
    def of(cls, model: ir.Model, ctx: PassContext, effort: Effort = Effort()) -> TrialRun | None:
        """Run the original; None where nothing can be measured, or is to be.

        That is: no data and none that may be drawn, a model of gigabytes or of a quarter of the
        memory, one that does not run.
        """
        if weight_bytes(model) > largest_tried():
            return None
        try:
            data = _samples(model, ctx)
            if data is None:
                return None
            calls: list[Feeds] = []
            outputs: list[Feeds] = []
            samples, work = 0, 0
            loading = _PER_BYTE * weight_bytes(model)
            most = effort.work or max(_WORK, loading)
            size = data.fixed_batch or _together(model, data)
            names = steady_values(model)
            sized = frozenset(DataSizes.of(model).shapes)
            others = () if names is None else tuple(_in_numbers(model, {*names, *sized}))
            shown = None if names is None else (*names, *others)
            with ctx.runner(_shown(model, names), _OPTIONS) as runner:
                for first in range(0, len(data), size):
                    part = data.select(np.arange(first, min(first + size, len(data))))
                    calls += part.batches(size)
                    work = work or sum(flops_of(model, calls[0]).values())
                    outputs += [runner.run(feeds, shown) for feeds in calls[len(outputs) :]]
                    samples += len(part)
                    kept = sum(array.nbytes for found in outputs for array in found.values())
                    if kept > _MOST_OUTPUTS or work * len(calls) > most:
                        break
        except IrtoolsError:
            return None
        apart = [{name: found[name] for name in others} for found in outputs]
        outputs = [
            {name: array for name, array in found.items() if name not in others}
            for found in outputs
        ]
        return cls(
            calls,
            outputs,
            data.synthetic,
            samples,
            sized,
            work + loading,
            ctx.runner,
            names,
            _OPTIONS if effort.exact else RunnerOptions(),
            apart,
        )

    def sqnr_db(self, model: ir.Model) -> float | None:
        """As `Session.sqnr_db`, of a model as it is; None also where it does not run."""
        return self._measured(model, Session.sqnr_db)

    def divergence(self, model: ir.Model) -> float | None:
        """As `Session.divergence`, of a model as it is; None also where it does not run."""
        return self._measured(model, Session.divergence)

    def worst_other(self, model: ir.Model) -> tuple[str, float] | None:
        """As `Session.worst_other`, of a model as it is; None also where it does not run."""
        return self._measured(model, Session.worst_other)

    def _measured(self, model: ir.Model, figure: Callable[[Session], T | None]) -> T | None:
        try:
            with self.session(model) as session:
                return figure(session)
        except IrtoolsError:
            return None

    @contextmanager
    def session(self, model: ir.Model) -> Iterator[Session]:
        """Start the target's runtime on a model.

        Raises:
            UnsupportedError: It does not load it.
        """
        with self.runner(_shown(model, self.names), self.options) as runner:
            yield Session(self, runner)


@dataclass(frozen=True)
class Session:
    """A quantized model that runs, next to what the original gave."""

    trial: TrialRun
    runner: Runner

    def sqnr_db(
        self, weights: Feeds = MappingProxyType({}), *, first: bool = False
    ) -> float | None:
        """Return what the model keeps of the output that suffers most, in decibels.

        Minus infinity where it gives NaN or infinity and the original a number. None where the two
        cannot be compared: outputs whose sizes changed.

        Args:
            weights: Further inputs, in every call.
            first: On the samples of the first call only, which is enough for an order.
        """
        meter = FidelityMeter(sized_by_data=self.trial.sized_by_data)
        calls = slice(0, 1) if first else slice(None)
        try:
            for feeds, expected in zip(
                self.trial.feeds[calls], self.trial.expected[calls], strict=True
            ):
                # A form may have put another tensor in the place of one that is shown.
                kept = {name: a for name, a in expected.items() if name in self.runner.output_names}
                found = self.runner.run({**feeds, **weights}, list(kept))
                meter.update(kept, found, padding_mask(feeds))
            result = meter.result()
        except IrtoolsError:
            return None
        if result.nonfinite:
            return -math.inf
        return None if math.isnan(result.sqnr_db) else result.sqnr_db

    def worst_other(self) -> tuple[str, float] | None:
        """Return which output that is not compared loses most, and what it keeps in decibels.

        None where there is none, or its sizes changed.
        """
        meter = FidelityMeter()
        try:
            for feeds, expected in zip(self.trial.feeds, self.trial.others, strict=True):
                if expected:
                    found = self.runner.run(feeds, list(expected))
                    meter.update(expected, found, padding_mask(feeds))
        except IrtoolsError:
            return None
        kept = {name: figure.sqnr_db for name, figure in meter.by_output().items()}
        return min(kept.items(), key=lambda pair: pair[1], default=None)

    def divergence(
        self, weights: Feeds = MappingProxyType({}), *, first: bool = False
    ) -> float | None:
        """Return how far the outputs are from the original's; None where that is not finite.

        Args:
            weights: Further inputs, in every call.
            first: On the samples of the first call only, which is enough for an order.
        """
        total = Divergence()
        calls = slice(0, 1) if first else slice(None)
        for feeds, expected in zip(
            self.trial.feeds[calls], self.trial.expected[calls], strict=True
        ):
            kept = {name: a for name, a in expected.items() if name in self.runner.output_names}
            found = self.runner.run({**feeds, **weights}, list(kept))
            total.update(kept, found, padding_mask(feeds))
        result = total.result()
        return result if math.isfinite(result) else None


def _in_numbers(model: ir.Model, without: Collection[str]) -> Iterator[str]:
    """Yield the outputs of floating types, but for some."""
    for value in model.graph.outputs:
        is_number = value.dtype is not None and value.dtype.is_floating_point()
        if is_number and value.name and value.name not in without:
            yield value.name


def _shown(model: ir.Model, names: tuple[str, ...] | None) -> ir.Model:
    """Return a copy with tensors as outputs; the model itself where there are none to show."""
    if names is None:
        return model
    typed = model.clone()
    infer_shapes(typed)
    known = {value.name for node in typed.graph for value in node.outputs}
    return expose(typed, [name for name in names if name in known]).model


class Trials:
    """What plans keep, each of them run once, and the original when first asked, if at all.

    Args:
        model: The original.
        ctx: For data and runners.
        applied: Carries a plan out on a copy of the model.
        effort: As in `TrialRun.of`.
        fitted: The caller's samples are those that ranges come from: too few for holding some out.
    """

    def __init__(
        self,
        model: ir.Model,
        ctx: PassContext,
        applied: Callable[[Plan], ir.Model],
        effort: Effort = Effort(),
        *,
        fitted: bool = False,
    ) -> None:
        self._fitted = fitted
        self._model = model
        self._ctx = ctx
        self._applied = applied
        self._effort = effort
        self._kept: list[tuple[Sequence[Decision], float | None]] = []

    @cached_property
    def run(self) -> TrialRun | None:
        """As `TrialRun.of`."""
        return TrialRun.of(self._model, self._ctx, self._effort)

    @property
    def told(self) -> str:
        """How many samples there are, in words."""
        if self.run is None:
            return counted(0, "sample")
        fitted = " that ranges come from, too" if self._fitted and not self.run.drawn else ""
        return counted(self.run.samples, "sample") + fitted

    def kept_db(self, plan: Plan) -> float | None:
        """As `TrialRun.sqnr_db`, of a plan carried out; None also where nothing can be run."""
        for known, kept in self._kept:
            if known is plan.decisions:
                return kept
        found = None if self.run is None else self.run.sqnr_db(self._applied(plan))
        self._kept.append((plan.decisions, found))
        return found

    def divergence(self, plan: Plan) -> float | None:
        """As `TrialRun.divergence`, of a plan carried out; None also where nothing can be run."""
        return None if self.run is None else self.run.divergence(self._applied(plan))

    def table(
        self, what: str, make: Callable[[], Mapping[str, Any]], **key: object
    ) -> Mapping[str, Any]:
        """Return a table of what trials of this model on these samples gave; see `Tables.get`."""
        data = self._ctx.unseen or self._ctx.calibration
        return self._ctx.tables.get(
            what,
            make,
            model=Model(self._model).fingerprint(),
            data=None if data is None else data.with_digest().digest,
            seed=self._ctx.seed,
            effort=self._effort,
            **key,
        )


def _samples(model: ir.Model, ctx: PassContext) -> Dataset | None:
    data = ctx.unseen or ctx.calibration
    if data is not None and not data.synthetic:
        return data.spread(_SAMPLES)
    if ctx.draw is None:
        return None
    settings = SyntheticSettings(samples=_DRAWN, seed=ctx.seed, use=DrawnFor.TRIALS)
    return ctx.draw(model, settings)


def _together(model: ir.Model, data: Dataset) -> int:
    """Return how many samples a call takes: fewer where one of them is much work."""
    work = sum(flops_of(model, next(iter(data.select(np.arange(1)).batches(1)))).values())
    return max(1, min(_BATCH, int(_WORK // max(work, 1))))


def largest_tried() -> int:
    """Return the bytes of weights up to which models are run: 2 GiB, on a machine with 8 or more.

    Never more than a quarter of the memory that the process may use.
    """
    memory = memory_limit()
    return _LARGEST if memory is None else min(_LARGEST, memory // _COPIES)


def flops_of(model: ir.Model, feeds: Feeds) -> dict[str, int]:
    """Return the operations of nodes that multiply, at these inputs, by their first output."""
    sizes = {
        dim.value: size
        for value in model.graph.inputs
        if value.name is not None and value.name in feeds and value.shape is not None
        for dim, size in zip(value.shape, feeds[value.name].shape, strict=False)
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    found: Counter[str] = Counter()
    for node, count in count_flops(model, sizes).flops:
        found[node.outputs[0].name or ""] += count
    return dict(found)


def weight_bytes(model: ir.Model) -> int:
    """Return the size of the weights of the main graph."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
