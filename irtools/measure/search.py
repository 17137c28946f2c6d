"""The search for drawn inputs on which a model runs, where the usual ones fail."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from irtools.analysis.decoder import find_decoder
from irtools.data import SyntheticSettings, draw_feeds
from irtools.errors import IrtoolsError
from irtools.measure.candidates import candidates
from irtools.measure.outputs import Outputs, is_finite, says_nothing, within
from irtools.model import Model
from irtools.targets import Runner

__all__ = ["search", "seeds_for", "small_settings"]


_SEARCH_SECONDS = 20.0
_FINITE_SECONDS = 4.0
"""For finite outputs, which some models never have: a mask of minus infinity is an output, too."""
_MOST_TRIES = 2000
_OF_SAMPLES = 6
_SAMPLES = 2
_SEQUENCE = 16
_IMAGE = 64
_OF_DECODERS = {0: (_SEQUENCE, 0), 1: (1, 7), 2: (4, 5)}
"""New tokens and tokens in the cache, by seed."""


def seeds_for(model: ir.Model) -> tuple[int, ...]:
    """Return the seeds of the feeds that are compared: two, and what a decoder reads in turn."""
    return (0, 1) if find_decoder(model) is None else tuple(_OF_DECODERS)


def small_settings(model: ir.Model, seed: int) -> SyntheticSettings:
    """Return what is drawn for comparing numbers: little, for decoders with and without a cache."""
    settings = SyntheticSettings(samples=_SAMPLES, sequence=_SEQUENCE, image=_IMAGE, seed=seed)
    if find_decoder(model) is None:
        return settings
    new, past = _OF_DECODERS[seed]
    return replace(settings, sequence=new, past=past)


def search(
    model: Model,
    runner: Runner,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float,
    *,
    finite: bool,
) -> tuple[dict[str, Any], list[Outputs], list[Outputs]]:
    """Search for inputs on which a model runs.

    Args:
        model: The model.
        runner: What runs it.
        given: What the caller settled, by the names of `SyntheticSettings`.
        known: Sizes of real samples; where there are any, only those are tried.
        seconds: What the feeds of one candidate may take.
        finite: Outputs must be finite as well.

    Returns:
        The changes to the usual settings, the outputs on the feeds drawn so, and those of a second
        run of the first; nothing where nothing was found.
    """
    changes, found = _first_that_runs(model, runner, given, known, seconds, finite=finite)
    if not found:
        return {}, [], []
    settings = replace(small_settings(model.ir, 0), **changes)
    return changes, found, _attempt(model, runner, settings, seeds_for(model.ir)[:1])


def _first_that_runs(
    model: Model,
    runner: Runner,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float,
    *,
    finite: bool,
) -> tuple[dict[str, Any], list[Outputs]]:
    """Return the changes and the outputs of the first candidate that runs."""

    seeds = seeds_for(model.ir)

    def attempt(settings: SyntheticSettings) -> list[Outputs]:
        outputs = _attempt(model, runner, settings, seeds, seconds)
        return outputs if not finite or all(map(is_finite, outputs)) else []

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
    seeds: Sequence[int],
    seconds: float = float("inf"),
) -> list[Outputs]:
    """Return the outputs on the feeds; empty where some do not run, or give nothing."""

    def outputs_of(seed: int) -> Outputs:
        small = small_settings(model.ir, seed)
        one = replace(settings, seed=seed, sequence=small.sequence, past=small.past)
        # Measuring runs single samples as well: what counts its rows must hold for one.
        runner.run(draw_feeds(model, replace(one, samples=1)))
        return runner.run(draw_feeds(model, one))

    try:
        outputs = list(within(seconds, map(outputs_of, seeds)))
    except (IrtoolsError, MemoryError, ValueError):
        return []  # Not this one: a size of 0, a rank that does not fit a name's meaning.
    return [] if any(says_nothing(one) for one in outputs) else outputs
