"""Data drawn from a model's own signature, where there is no real data.

Good enough to trace shapes, to time, and to compare a model with its optimized self. Ranges of
activations learnt from it are rough, as every report says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.analysis.positions import PositionLimit, longest_sequence
from irtools.analysis.tables import indexed_rows
from irtools.data.arrange import is_constant
from irtools.data.base import Dataset
from irtools.data.drawer import Drawer, DrawnFor, SyntheticSettings
from irtools.data.layout import Layout, find_layout
from irtools.data.padding import columns_are_fixed, find_columns
from irtools.data.signature import InputSpec, required_inputs
from irtools.errors import DataError
from irtools.model import Model
from irtools.words import counted

__all__ = [
    "DrawnFor",
    "SyntheticSettings",
    "draw_feeds",
    "layout_for",
    "longest_text",
    "synthesize",
]


def synthesize(
    model: Model | ir.Model, settings: SyntheticSettings = SyntheticSettings()
) -> Dataset:
    """Draw a dataset for the model: ids inside their table, masks of ones, images in range.

    The cache of a decoder is empty unless `settings.past` says otherwise.

    Raises:
        DataError: An input for which no sensible values can be invented; says why.
    """
    whole = model.ir if isinstance(model, Model) else model
    values = {value.name: value for value in whole.graph.inputs}
    specs = _with_ranks(required_inputs(model), settings)
    layout = layout_for(whole, settings)
    fixed = layout.fixed or settings.together
    samples = settings.samples if fixed is None else -(-settings.samples // fixed) * fixed
    decoder = find_decoder(whole)
    limit = _limit(whole, decoder, settings, samples)
    sequence = settings.sequence if limit is None else limit.length
    wanted = replace(settings, sequence=sequence)
    new_tokens = _new_tokens(specs, decoder, wanted)
    drawer = Drawer(wanted, samples, specs, layout, decoder, new_tokens)
    feeds = {spec.name: drawer.draw(spec, values[spec.name]) for spec in specs}
    if not feeds:
        raise DataError("the model has no inputs, so there is nothing to draw")
    alone = frozenset(name for name in feeds if layout.is_whole(name))
    if fixed is not None and fixed > 1:  # Samples of one call share what is fed whole.
        feeds |= {name: np.repeat(feeds[name][::fixed], fixed, axis=0) for name in alone}
    if fixed is None and not all(is_constant(feeds[name]) for name in alone):
        fixed = 1
    shapes = {spec.name: spec.shape for spec in specs}
    batched = {name: array for name, array in feeds.items() if name not in alone}
    return Dataset(
        feeds,
        source="synthetic data",
        synthetic=True,
        notes=tuple(_notes(limit, settings.sequence, feeds)),
        fixed_batch=fixed,
        fixed_length=columns_are_fixed(batched, shapes),
        columns=find_columns(batched, shapes),
        whole=alone,
        inner=layout.inner(),
    ).with_digest()


def layout_for(model: Model | ir.Model, settings: SyntheticSettings) -> Layout:
    """Return how samples that are drawn make up a call: as the model states, or one call each."""
    found = find_layout(model)
    return replace(found, axes={}, fixed=1) if settings.calls else found


def _with_ranks(specs: tuple[InputSpec, ...], settings: SyntheticSettings) -> tuple[InputSpec, ...]:
    """Give inputs whose rank the model does not state the one that is tried."""
    if settings.rank is None:
        return specs
    shape = (None,) * settings.rank
    return tuple(replace(spec, shape=shape) if spec.shape is None else spec for spec in specs)


def draw_feeds(
    model: Model | ir.Model, settings: SyntheticSettings = SyntheticSettings()
) -> dict[str, np.ndarray]:
    """Draw what one call is fed: `settings.samples` samples, unless the model insists on a number.

    Inputs that are fed whole are those of the first sample.

    Raises:
        DataError: As `synthesize`.
    """
    drawn = synthesize(model, settings)
    fixed = layout_for(model, settings).fixed or settings.together or settings.samples
    return drawn.feeds_of(np.arange(min(fixed, len(drawn))))


def _limit(
    model: ir.Model, decoder: CachedDecoder | None, settings: SyntheticSettings, samples: int
) -> PositionLimit | None:
    """Return what keeps sequences shorter than wanted, after the past that is wanted."""
    if decoder is None:
        return longest_sequence(model, settings.sequence, samples, settings.sizes)
    past = {cache.axis: settings.past for cache in decoder.past if cache.axis is not None}
    found = longest_sequence(model, settings.sequence, samples, {**(settings.sizes or {}), **past})
    stored = _stored_positions(model, decoder)
    left = settings.sequence if stored is None else stored - settings.past
    if stored is None or not 0 < left < (settings.sequence if found is None else found.length):
        return found
    return PositionLimit(left, decoder.positions or "", stored)


def _new_tokens(
    specs: tuple[InputSpec, ...], decoder: CachedDecoder | None, settings: SyntheticSettings
) -> int:
    """Return the tokens of a sample that a decoder reads now."""
    ids = [spec.shape for spec in specs if decoder is not None and spec.name == decoder.ids]
    size = ids[0][1] if ids and ids[0] is not None and len(ids[0]) == 2 else None
    if isinstance(size, int):
        return size
    return (settings.sizes or {}).get(size or "", settings.sequence)


def _stored_positions(model: ir.Model, decoder: CachedDecoder) -> int | None:
    """Return the rows of the table that the input of positions indexes."""
    inputs = {value.name: value for value in model.graph.inputs}
    return None if decoder.positions is None else indexed_rows(inputs[decoder.positions])


def longest_text(model: ir.Model, wanted: int, batch: int) -> int | None:
    """Return the most tokens up to `wanted` for which a model holds positions; None: as many."""
    settings = SyntheticSettings(sequence=wanted)
    limit = _limit(model, find_decoder(model), settings, batch)
    return None if limit is None else limit.length


def _notes(
    limit: PositionLimit | None, wanted: int, feeds: Mapping[str, np.ndarray]
) -> Iterator[str]:
    if limit is not None and any(limit.length in array.shape[1:] for array in feeds.values()):
        yield (
            f"synthetic sequences are {limit.length} long, not {wanted}: the model holds no more "
            f"positions ({limit.table}: {counted(limit.rows, 'row')})"
        )
