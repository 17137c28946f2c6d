"""Running a model on drawn inputs, and the search for others where it does not run on them.

Happens in a child process where a pipeline is checked: some sizes make a runtime crash.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import find_decoder
from irtools.data import SyntheticSettings, draw_feeds
from irtools.errors import DataError, IrtoolsError, UnsupportedError
from irtools.measure.candidates import candidates
from irtools.model import Model
from irtools.targets import Feeds, Runner, RunnerOptions, Target

__all__ = ["SEEDS", "Outputs", "run_trial", "small_settings"]

_SEARCH_SECONDS = 20.0
_FINITE_SECONDS = 4.0
"""For finite outputs, which some models never have: a mask of minus infinity is an output, too."""
_MOST_TRIES = 2000
_OF_SAMPLES = 6
_SAMPLES = 2
SEEDS = (0, 1, 2)
_SEQUENCE = 16
_IMAGE = 64
_OF_DECODERS = {0: (_SEQUENCE, 0), 1: (1, 7), 2: (4, 5)}
"""New tokens and tokens in the cache, by seed."""

Outputs = Mapping[str, np.ndarray]
T = TypeVar("T")


def small_settings(model: ir.Model, seed: int) -> SyntheticSettings:
    """Return what is drawn for comparing numbers: little, for decoders with and without a cache."""
    settings = SyntheticSettings(samples=_SAMPLES, sequence=_SEQUENCE, image=_IMAGE, seed=seed)
    if find_decoder(model) is None:
        return settings
    new, past = _OF_DECODERS[seed]
    return replace(settings, sequence=new, past=past)


def run_trial(
    target: Target,
    source: Path | Model,
    options: RunnerOptions,
    feeds: Sequence[Feeds],
    full: Feeds | None,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """Run a model on feeds; where that fails, search for others. Happens in a child process.

    Others are searched for, but not for long, where outputs are NaN or infinite, too: a graph
    without nodes and an empty sequence have no mean, and a comparison of such outputs says little.

    Args:
        target: What runs it.
        source: The model.
        options: How.
        feeds: Those to compare numbers on; empty where none could be drawn as usual.
        full: One more that must run; its outputs are not kept.
        given: What the caller settled, by the names of `SyntheticSettings`.
        known: Sizes of real samples; where there are any, only those are tried.
        seconds: What the feeds may take; once they are over, no further ones are run.

    Returns:
        `outputs` by feed that was run, those of a second run as `again`, `changes` to the
        settings (empty: the feeds that were given ran) with the `fault` of the usual ones, and
        `reason`: empty, or why nothing runs.
    """
    with target.runner(source, options) as runner:
        try:
            outputs = list(_within(seconds, (_run(runner, one) for one in feeds)))
            if full is not None:
                _run(runner, full)
            reason = "" if feeds else "they cannot be drawn from the signature"
        except (DataError, UnsupportedError) as error:
            outputs, reason = [], str(error)
        if not reason and any(_says_nothing(one) for one in outputs):
            reason = "the outputs have no elements"
        finite = not reason and not all(map(_is_finite, outputs))
        if not reason and not finite:
            return _answer(outputs, [_run(runner, one) for one in feeds[: len(outputs)]])
        model = source if isinstance(source, Model) else Model.load(source)
        changes, found = _search(model, runner, given, known, seconds, finite=finite)
        if found:
            settings = replace(small_settings(model.ir, 0), **changes)
            again = _attempt(model, runner, settings, SEEDS[: len(found)])
            fault = "give NaN or infinity" if finite else "do not run"
            return _answer(found, again, changes, fault)
        if finite:
            return _answer(outputs, [_run(runner, one) for one in feeds[: len(outputs)]])
        if outputs:  # They have no elements, and others would not have any.
            return _answer(outputs, outputs)
        return {**_answer([], []), "reason": _why(reason)}


def _answer(
    outputs: Sequence[Outputs],
    again: Sequence[Outputs],
    changes: Mapping[str, Any] = MappingProxyType({}),
    fault: str = "",
) -> dict[str, Any]:
    return {
        "outputs": list(outputs),
        "again": list(again),
        "changes": dict(changes),
        "reason": "",
        "fault": fault,
    }


def _why(reason: str) -> str:
    return (
        f"no inputs were found on which the model runs (with the usual ones: {reason}); name sizes "
        "(--size AXIS=N), or give data"
    )


def _search(
    model: Model,
    runner: Runner,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float,
    *,
    finite: bool,
) -> tuple[dict[str, Any], list[Outputs]]:
    """Return the changes and the outputs of the first candidate that runs, with finite outputs."""

    def attempt(settings: SyntheticSettings) -> list[Outputs]:
        outputs = _attempt(model, runner, settings, seconds=seconds)
        return outputs if not finite or all(map(_is_finite, outputs)) else []

    deadline = time.monotonic() + (_FINITE_SECONDS if finite else _SEARCH_SECONDS)
    tried: set[str] = set()
    base = replace(small_settings(model.ir, 0), **{k: v for k, v in given.items() if v is not None})
    for number, settings in enumerate(candidates(model.ir, base, known)):
        if time.monotonic() > deadline or number > _MOST_TRIES or (known and number > _OF_SAMPLES):
            break
        changes = _changes(settings)
        if repr(changes) in tried:
            continue
        tried.add(repr(changes))
        outputs = attempt(settings)
        if not outputs:
            continue
        # It may have been the size alone: several samples at a time cost less.
        several = replace(settings, together=base.together)
        more = attempt(several) if several != settings else []
        if more:
            return _changes(several), more
        return changes, outputs
    return {}, []


def _changes(settings: SyntheticSettings) -> dict[str, Any]:
    names = ("sizes", "together", "calls", "values", "rank")
    return {name: getattr(settings, name) for name in names}


def _attempt(
    model: Model,
    runner: Runner,
    settings: SyntheticSettings,
    seeds: Sequence[int] = SEEDS,
    seconds: float = float("inf"),
) -> list[Outputs]:
    """Return the outputs on the feeds; empty where some do not run, or give nothing."""

    def outputs_of(seed: int) -> Outputs:
        small = small_settings(model.ir, seed)
        one = replace(settings, seed=seed, sequence=small.sequence, past=small.past)
        # Measuring runs single samples as well: what counts its rows must hold for one.
        _run(runner, draw_feeds(model, replace(one, samples=1)))
        return _run(runner, draw_feeds(model, one))

    try:
        outputs = list(_within(seconds, map(outputs_of, seeds)))
    except (IrtoolsError, MemoryError, ValueError):
        return []  # Not this one: a size of 0, a rank that does not fit a name's meaning.
    return [] if any(_says_nothing(one) for one in outputs) else outputs


def _within(seconds: float, found: Iterator[T]) -> Iterator[T]:
    """Yield at least one, and no more once so many seconds are over."""
    deadline = time.monotonic() + seconds
    for one in found:
        yield one
        if time.monotonic() > deadline:
            return


def _run(runner: Runner, feeds: Feeds) -> dict[str, np.ndarray]:
    return {name: _sendable(array) for name, array in runner.run(feeds).items()}


def _says_nothing(outputs: Outputs) -> bool:
    """Whether no output has an element."""
    return bool(outputs) and not any(np.asarray(array).size for array in outputs.values())


def _is_finite(outputs: Outputs) -> bool:
    return all(np.isfinite(y).all() for y in outputs.values() if y.dtype.kind == "f")


def _sendable(array: np.ndarray) -> np.ndarray:
    """Types that numpy's own file format does not know travel in one that holds their values."""
    if array.dtype.kind == "O":
        return array.astype(str)
    return array if array.dtype.isbuiltin else array.astype(np.float32)
