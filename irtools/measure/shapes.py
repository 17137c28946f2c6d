"""Feeds of the sizes that a benchmark asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from irtools.analysis.decoder import CachedDecoder, find_decoder, reading_of
from irtools.data import (
    InputSpec,
    Layout,
    SyntheticSettings,
    draw_feeds,
    find_layout,
    longest_text,
    required_inputs,
)
from irtools.errors import DataError, UsageError
from irtools.files import context_length, read_settings
from irtools.measure.base import BenchSettings
from irtools.targets import Feeds

if TYPE_CHECKING:
    from irtools.data import Dataset
    from irtools.model import Model

__all__ = ["bench_feeds", "branches", "sample_feeds"]

_SAMPLES = 32


def bench_feeds(
    model: Model,
    settings: BenchSettings,
    data: Dataset | None = None,
    seed: int = 0,
    adapt: Callable[[SyntheticSettings], SyntheticSettings] = lambda settings: settings,
) -> dict[str, Feeds]:
    """Return feeds for every batch and sequence size of `settings`, by label.

    Values are drawn from the signature, at full length: padding would time less than the shape
    says. Sizes that the model fixes stay as they are, so two settings may give one shape. Where
    nothing can be drawn, real samples are taken, at the length that they have.

    A decoder with a cache does two kinds of work, and has feeds for both: `prefill` reads a prompt
    with an empty cache, and `decode` one token with a cache of `settings.past` tokens.

    Args:
        model: The model.
        settings: The sizes.
        data: Real samples, for inputs that cannot be invented.
        seed: Seed of the drawn values.
        adapt: Puts sizes on which the model runs in place of those that do not; raises DataError
            where none do.

    Raises:
        DataError: Nothing can be drawn and there is no data.
        UsageError: `settings.past` goes beyond the positions that a decoder was trained on.
    """
    specs = required_inputs(model)
    decoder = find_decoder(model.ir)
    layout = find_layout(model)
    found: dict[str, Feeds] = {}
    for batch in settings.batch:
        plain = SyntheticSettings(samples=batch, seed=seed, vary_lengths=False)
        for sequence in _trained_lengths(model, decoder, settings.sequence):
            feeds = _draw(model, replace(plain, sequence=sequence), data, adapt)
            found.setdefault(_label(specs, layout, feeds, decoder), feeds)
        for step in _decode_steps(model, decoder, settings, plain):
            feeds = _draw(model, step, data, adapt)
            found.setdefault(_label(specs, layout, feeds, decoder), feeds)
    return found


def branches(model: Model) -> bool:
    """Whether a model may need more time for one sample than for another.

    A decoder with a cache is timed by lengths all the same: its samples know of no decode.
    """
    from irtools.model import subgraphs

    if find_decoder(model.ir) is not None:
        return False
    return any(True for node in model.ir.graph for _ in subgraphs(node))


def sample_feeds(data: Dataset, settings: BenchSettings) -> dict[str, list[Feeds]]:
    """Return real samples to time alternately, for models whose work depends on the sample.

    Args:
        data: Where they come from; some are taken, evenly spread over it.
        settings: The batch sizes.
    """
    found: dict[str, list[Feeds]] = {}
    for batch in settings.batch:
        turns: list[Feeds] = list(data.spread(_SAMPLES * batch).batches(batch))
        found[f"batch={batch} {len(turns)} alternating samples"] = turns
    return found


def _decode_steps(
    model: Model, decoder: CachedDecoder | None, settings: BenchSettings, plain: SyntheticSettings
) -> Iterator[SyntheticSettings]:
    """Yield how one token is drawn with each length of the cache that leaves room for it."""
    if decoder is None:
        return
    _refuse_untrained(model, settings.past or ())
    if decoder.axis is None:
        one = replace(plain, sequence=1)
    else:
        # Other axes keep their length: what an encoder gave, for one.
        one = replace(plain, sequence=settings.sequence[0], sizes={decoder.axis: 1})
    trained = _trained(model)
    for wanted in settings.past or settings.sequence:
        limit = longest_text(model.ir, wanted + 1, plain.samples)
        limit = trained if limit is None else limit
        past = wanted if limit is None else min(wanted, limit - 1)
        yield replace(one, past=past)


def _trained(model: Model) -> int | None:
    """Return on how many positions a network was trained; None: unsaid."""
    if model.source is None:
        return None
    folder = model.source if model.source.is_dir() else model.source.parent
    return context_length(read_settings(folder / "config.json"))


def _trained_lengths(
    model: Model, decoder: CachedDecoder | None, lengths: Iterable[int]
) -> Iterator[int]:
    """Yield lengths of a prompt, no longer than a text of the network can be."""
    trained = None if decoder is None else _trained(model)
    for length in lengths:
        yield length if trained is None else min(length, trained)


def _refuse_untrained(model: Model, past: Iterable[int]) -> None:
    """Refuse lengths of a cache that no text of the network can have."""
    trained, longest = _trained(model), max(past, default=0)
    if model.source is not None and trained is not None and longest >= trained:
        raise UsageError(
            f"{longest} tokens in the cache leave no position for another: {model.source.name} was "
            f"trained on {trained} (its config.json); expected at most {trained - 1}"
        )


def _draw(
    model: Model,
    wanted: SyntheticSettings,
    data: Dataset | None,
    adapt: Callable[[SyntheticSettings], SyntheticSettings],
) -> Feeds:
    try:
        return draw_feeds(model, adapt(wanted))
    except DataError:
        if data is None or not len(data):
            raise
        rows = np.arange(data.fixed_batch or wanted.samples) % len(data)
        return data.feeds_of(rows)


def _label(
    specs: tuple[InputSpec, ...],
    layout: Layout,
    feeds: Feeds,
    decoder: CachedDecoder | None = None,
) -> str:
    reading = None if decoder is None else reading_of(feeds)
    if decoder is not None and reading is not None and reading.phase == "decode":
        cache = feeds[decoder.past[0].name]
        return f"decode batch={len(cache)} past={cache.shape[2]}"
    sizes = [feeds[name].shape[axis] for name, axis in layout.axes.items() if feeds[name].ndim]
    batch = f"batch={sizes[0] if sizes else 1}"
    lengths = [
        feeds[spec.name].shape[1]
        for spec in specs
        if spec.dtype.kind in "iu" and feeds[spec.name].ndim == 2
    ]
    phase = "" if reading is None else reading.phase
    return " ".join([phase, batch, *(f"sequence={length}" for length in lengths[:1])]).strip()
