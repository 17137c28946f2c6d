"""Inputs that run: drawn as usual where that works, else in sizes that a search has found.

What a signature says of an input is often not enough: sizes must be multiples of 32 or of a hop
length, a reflection must be shorter than what it reflects, one sample at a time is all that an
export took. Only a run shows it. So the usual inputs are run once, in a child process, which
every checked run of a pipeline does anyway; where they fail, the same process goes on with other
sizes until some run or the time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import find_decoder
from irtools.data import (
    Dataset,
    SyntheticSettings,
    draw_feeds,
    open_axes,
    required_inputs,
    synthesize,
)
from irtools.errors import DataError, UnsupportedError
from irtools.files import scratch_folder
from irtools.measure.outputs import Outputs
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.measure.search import seeds_for, small_settings
from irtools.measure.trial import run_trial
from irtools.model import Model
from irtools.targets import Feeds, RunnerOptions, Target

__all__ = ["DrawnInputs", "Trial", "check_feeds_of", "drawn_for", "run_with"]

_LIMITS = ChildLimits(seconds=300.0)
_FEEDS_SECONDS = 2.0
"""What a run on all feeds may take: there are two to begin with and one or two for every pass. The
feeds of a decoder differ in kind, so it runs on all of them."""

_SLOW_SECONDS = 5.0
"""A run of a sample that takes longer: dozens of them follow. A model that speaks makes minutes of
sound of random tokens."""

T = TypeVar("T")


@dataclass(frozen=True)
class Trial:
    """Feeds on which the original was run, and what it gave; the second time for the first."""

    feeds: list[dict[str, np.ndarray]]
    outputs: list[Outputs]
    again: list[Outputs]


@dataclass
class _Found:
    """What a child process found: the outputs on feeds that run, and how they are drawn."""

    outputs: list[Outputs]
    again: list[Outputs]
    changes: dict[str, Any]
    reason: str = ""
    fault: str = ""
    full_seconds: float = 0.0


def check_feeds_of(
    model: Model, seed: int, adapt: Callable[[SyntheticSettings], SyntheticSettings]
) -> dict[str, np.ndarray]:
    """Draw the small feeds on which numbers are compared before and after a pass.

    Raises:
        DataError: They cannot be drawn.
    """
    return draw_feeds(model, adapt(small_settings(model.ir, seed)))


class DrawnInputs:
    """How the inputs of one run are drawn. Found out when first asked, then kept.

    Args:
        model: The model before the first pass.
        target: What runs it.
        path: Gives a file with the model.
        threads: Threads for running it.
        sizes: Sizes that the caller chose, by open axis; `""`: of the batch.
        data: Real samples. Their sizes are tried first, and where they do not help, it is up to
            callers to take the samples.
        isolated: Run the model in a child process, on a file. Else it runs in this one, as it is in
            memory, and not at all where it takes tokens only, which hardly ever fail.
        further: More inputs will be drawn than those on which numbers are compared, for calibration
            or timing: one of that size must run as well.

    Attributes:
        isolated: As given.
        reason: Why no inputs can be drawn that run; empty where some can, or as long as no one
            has asked.
        note: What a reader must know of the sizes; empty where they are the usual ones.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        path: Callable[[], Path],
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        data: Dataset | None = None,
        isolated: bool = True,
        further: bool = True,
    ) -> None:
        self._model = model
        self.isolated = isolated
        self._further = further
        self._target = target
        self._path = path
        self._options = RunnerOptions(threads=threads, exact=True)
        given = dict(sizes or {})
        self._changes: dict[str, Any] = {"together": given.pop("", None), "sizes": given}
        self._data = data
        self._trial: Trial | None = None
        self._settled = False
        self._refused: UnsupportedError | None = None
        self.reason = ""
        self.note = ""

    def adapt(self, settings: SyntheticSettings) -> SyntheticSettings:
        """Return settings with the sizes that run in place of the usual ones."""
        changes = {name: value for name, value in self._changes.items() if value is not None}
        sizes = {**changes.pop("sizes", {}), **(settings.sizes or {})}
        return replace(settings, **changes, sizes=sizes or None)

    def settle(self) -> None:
        """Find out how inputs are drawn that run; costs nothing from the second time on.

        Raises:
            UnsupportedError: The target does not load the model.
            LimitError: The model takes too much time or memory.
        """
        if self._refused is not None:
            raise self._refused
        if self._settled:
            return
        self._settled = True
        if not self.isolated and _takes_tokens_only(self._model):
            return
        try:
            feeds = self._feeds()
            full = self._full()
        except (DataError, UnsupportedError) as error:
            feeds, full = [], None
            self.reason = str(error)
        if not feeds and not _has_tensors(self._model):
            return
        found = self._run(feeds, full)
        if found.reason:
            self.reason = found.reason
            return
        self.reason = ""
        if found.changes:
            self._adopt(found.changes, found.fault)
            feeds = self._feeds()
        elif found.full_seconds > _SLOW_SECONDS:
            self._shorten(found.full_seconds)
        # A slow model was run on the first feeds only.
        self._trial = Trial(feeds[: len(found.outputs)], found.outputs, found.again)

    def trial(self) -> Trial | None:
        """Return the feeds for comparing numbers and the model's outputs; None: nothing runs."""
        self.settle()
        return self._trial

    def usable(self, settings: SyntheticSettings) -> SyntheticSettings:
        """As `adapt`, once it is known what runs.

        Raises:
            DataError: Nothing does; says why.
        """
        self.settle()
        if self.reason:
            raise DataError(self.reason)
        return self.adapt(settings)

    def synthesize(self, settings: SyntheticSettings, model: Model | ir.Model) -> Dataset:
        """Draw a dataset that runs.

        Raises:
            DataError: None can be drawn; says why.
        """
        return synthesize(model, self.usable(settings))

    def pin(self) -> None:
        """Keep to the sizes that are known to run: larger ones that were asked for do not."""
        usual = SyntheticSettings()
        axes = (axis for axis in open_axes(self._model) if not axis.is_batch)
        sizes = {axis.key: usual.image if axis.of_image else usual.sequence for axis in axes}
        self._adopt({"sizes": {**sizes, **self._changes["sizes"]}})

    def _shorten(self, seconds: float) -> None:
        """Draw all inputs as short as those on which numbers are compared, which ran as well."""
        usual, short = SyntheticSettings().sequence, small_settings(self._model.ir, 0).sequence
        if self._data is not None or usual <= short:
            return
        sizes = {
            axis.key: short
            for axis in open_axes(self._model)
            if not axis.is_batch and not axis.of_image and axis.key not in self._changes["sizes"]
        }
        if sizes:
            self._adopt(
                {"sizes": {**sizes, **self._changes["sizes"]}}, f"take {seconds:.0f} s a run"
            )

    def _feeds(self) -> list[dict[str, np.ndarray]]:
        seeds = seeds_for(self._model.ir)
        return [check_feeds_of(self._model, seed, self.adapt) for seed in seeds]

    def _full(self) -> dict[str, np.ndarray] | None:
        """Return one sample of the size that calibration draws; None for decoders."""
        if not self._further or find_decoder(self._model.ir) is not None:
            return None
        return draw_feeds(self._model, self.adapt(SyntheticSettings(samples=1)))

    def _run(self, feeds: Sequence[Feeds], full: Feeds | None) -> _Found:
        known = _sizes_of(self._data, self._model)
        seconds = _FEEDS_SECONDS if find_decoder(self._model.ir) is None else float("inf")
        arguments = (self._options, feeds, full, self._changes, known, seconds)
        try:
            if self.isolated:
                answer = run_isolated(
                    run_trial,
                    self._target,
                    self._path(),
                    *arguments,
                    limits=_LIMITS,
                    label=f"{self._target.name} on the model",
                )
            else:
                answer = run_trial(self._target, self._model, *arguments)
        except UnsupportedError as error:
            if "crashed with" not in str(error):
                self._refused = error
                raise
            return _Found([], [], {}, str(error))
        return _Found(**answer)

    def _adopt(self, changes: Mapping[str, Any], fault: str = "do not run") -> None:
        self._changes = {**self._changes, **changes}
        self.note = f"inputs are drawn with {_described(self._changes)}: the usual ones {fault}"


@contextmanager
def drawn_for(
    model: Model, target: Target, sizes: Mapping[str, int], threads: int | None = None
) -> Iterator[DrawnInputs]:
    """Give the drawn inputs of a model that no pipeline runs on; it is written when needed.

    Args:
        sizes: As `DrawnInputs` takes them.
    """
    with scratch_folder("drawn") as folder:
        yield DrawnInputs(
            model,
            target,
            lambda: model.save(folder / "model.onnx").files[0],
            threads=threads,
            sizes=sizes,
        )


def run_with(
    drawn: DrawnInputs, action: Callable[[Callable[[SyntheticSettings], SyntheticSettings]], T]
) -> T:
    """Do something with drawn inputs; where it fails, once more with sizes on which they run.

    Args:
        drawn: How inputs are drawn.
        action: What to do, given what puts the sizes into settings.

    Raises:
        DataError: No inputs were found on which the model runs.
        IrtoolsError: What the action raised, where sizes are not the cause.
    """
    try:
        return action(drawn.adapt)
    except (DataError, UnsupportedError) as error:
        drawn.settle()
        if drawn.reason:
            raise DataError(drawn.reason) from error
        if not drawn.note:
            drawn.pin()
        try:
            return action(drawn.adapt)
        except (DataError, UnsupportedError):
            raise error from None


def _described(changes: Mapping[str, Any]) -> str:
    by_size: dict[int, list[str]] = {}
    for key, size in (changes.get("sizes") or {}).items():
        by_size.setdefault(size, []).append(key)
    parts = ["=".join([*keys, str(size)]) for size, keys in by_size.items()]
    parts += [f"{name} {value} everywhere" for name, value in (changes.get("values") or {}).items()]
    if changes.get("rank") is not None:
        parts.append(f"rank {changes['rank']}")
    if changes.get("calls"):
        parts.append("a call per sample")
    elif changes.get("together") is not None:
        parts.append("one sample at a time" if changes["together"] == 1 else "few at a time")
    return ", ".join(parts) or "other values"


def _takes_tokens_only(model: Model) -> bool:
    """Whether all inputs are token ids, masks and positions [N, S], or a decoder's."""
    if find_decoder(model.ir) is not None:
        return True
    if not _has_tensors(model):
        return False
    specs = required_inputs(model)
    return all(s.dtype.kind in "iu" and s.shape is not None and len(s.shape) == 2 for s in specs)


def _has_tensors(model: Model) -> bool:
    return all(
        isinstance(value.type, ir.TensorType)
        for value in model.ir.graph.inputs
        if value.name not in model.ir.graph.initializers
    ) and bool(len(model.ir.graph.inputs))


def _sizes_of(data: Dataset | None, model: Model) -> dict[str, int]:
    """Return the sizes of open axes that real samples have."""
    if data is None or not len(data):
        return {}
    call = data.feeds_of(np.arange(1))
    found = {}
    for axis in open_axes(model):
        name, place = axis.places[0]
        if not axis.is_batch and name in call and call[name].ndim > place:
            found[axis.key] = call[name].shape[place]
    return found
