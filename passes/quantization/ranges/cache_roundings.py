"""How keys and values of a decoder's cache are rounded, by calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import CacheBlock
from irtools.passes.quantization.ranges.attention_error import (
    AttentionSample,
    read_attention,
    rounded_rows,
)
from irtools.passes.quantization.ranges.rotary import (
    Rotation,
    Turning,
    find_rotation,
    turnings,
)
from irtools.passes.quantization.ranges.turned_cache import Turned, turned_keys, turned_values
from irtools.passmanager import PassContext
from irtools.statistics import HeadGram, TurnedPeak, Want

__all__ = ["CacheRounding", "narrow_roundings", "wide_roundings"]

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class CacheRounding:
    """How the cache of a block is rounded.

    Attributes:
        bits: Of keys and values.
        keys: The step of each channel, float32 [G * D], or how keys are turned, too.
        values: The same of values.
        error: What attention loses on a text, of its whole, squared.
    """

    bits: int
    keys: np.ndarray | Turned
    values: np.ndarray | Turned
    error: float = 0.0


def wide_roundings(
    model: ir.Model, blocks: Sequence[CacheBlock], ctx: PassContext
) -> Iterator[CacheRounding]:
    """Yield how the cache of each block is rounded in 8 bits."""
    found = [_Sources.of(block) for block in blocks]
    known = turnings(model, (one.rotation for one in found if one.rotation), ctx)
    wants = [one.peaks(known) for one in found]
    answers = ctx.statistics(model).collect(want for both in wants for want in both)
    for one, both in zip(found, wants, strict=True):
        turning = one.turning(known)
        gain = 1.0 if turning is None else turning.gain
        keys, values = (np.asarray(answers[want]) for want in both)
        yield CacheRounding(8, _peak_step(keys * gain, 8), _peak_step(values, 8))


def narrow_roundings(
    model: ir.Model, blocks: Sequence[CacheBlock], ctx: PassContext
) -> list[CacheRounding]:
    """Return how the cache of each block is rounded in 4 bits."""
    found = [_Sources.of(block) for block in blocks]
    known = turnings(model, (one.rotation for one in found if one.rotation), ctx)
    answers = ctx.statistics(model).collect(want for one in found for want in one.moments)
    samples = read_attention(model, blocks, ctx)
    return [
        _turned(one, one.turning(known), [np.asarray(answers[w]) for w in one.moments], samples[b])
        for one, b in zip(found, blocks, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Sources:
    """What must be known to round the cache of a block.

    Attributes:
        block: It.
        rotation: What turns its keys; None: nothing does.
        keys: They, before they are rotated.
        queries: Those that meet them, before they are rotated.
    """

    block: CacheBlock
    rotation: Rotation | None
    keys: ir.Value
    queries: ir.Value

    @classmethod
    def of(cls, block: CacheBlock) -> _Sources:
        (key, _), (query, heads) = block.new, block.queries
        rotation = find_rotation(key, block.heads, block.size)
        turned = None if rotation is None else find_rotation(query, heads, block.size)
        return cls(
            block,
            rotation,
            key if rotation is None else rotation.source,
            query if turned is None else turned.source,
        )

    def turning(self, known: Mapping[ir.Value, Turning]) -> Turning | None:
        """Return how far keys are turned, by cosine table."""
        return None if self.rotation is None else known[self.rotation.tables[0]]

    def peaks(self, known: Mapping[ir.Value, Turning]) -> tuple[Want, Want]:
        """Largest magnitudes of keys, at all positions, and of values."""
        of_keys = _peak(self.rotation, self.turning(known), self.block.heads)
        return _want(self.keys, of_keys), _want(self.block.new[1], TurnedPeak())

    @property
    def moments(self) -> tuple[Want, Want, Want]:
        """Moments of keys and of queries, before they are rotated, and of values."""
        gram = HeadGram(self.block.size)
        return (
            _want(self.keys, gram),
            _want(self.queries, gram),
            _want(self.block.new[1], gram),
        )


def _turned(
    of: _Sources, turning: Turning | None, moments: Sequence[np.ndarray], sample: AttentionSample
) -> CacheRounding:
    """Return how to round in 4 bits, as a text loses least by."""
    keys, queries, values = moments
    pairs = () if of.rotation is None else of.rotation.pairs_of(of.block.size)
    weights = sample.weights(sample.keys)
    exact = sample.mixed(weights, sample.values)
    key, value = sample.sinks(weights)
    movable = not of.block.attention.attributes.get_float("softcap", 0.0)

    def weights_of(one: Turned) -> np.ndarray:
        return sample.weights(rounded_rows(sample.keys, one.turn, one.scale))

    def values_of(one: Turned) -> np.ndarray:
        return rounded_rows(sample.values, one.turn, one.scale)

    of_keys = min(
        turned_keys(keys, queries, pairs, turning, key if movable else None),
        key=lambda one: sample.error(exact, weights_of(one), sample.values),
    )
    of_values = min(
        turned_values(values, value),
        key=lambda one: sample.error(exact, weights, values_of(one)),
    )
    error = sample.error(exact, weights_of(of_keys), values_of(of_values))
    return CacheRounding(4, of_keys, of_values, error)


def _peak(rotation: Rotation | None, turning: Turning | None, heads: int) -> TurnedPeak:
    if rotation is None or turning is None:
        return TurnedPeak()
    every = tuple(float(angle) for angle in np.tile(turning.angles, heads))
    return TurnedPeak(rotation.pairs, every)


def _peak_step(peak: np.ndarray, bits: int) -> np.ndarray:
    # A peak may be nearly half a step beyond the last code; at a half, runtimes differ.
    step = np.asarray(peak, np.float64) / (2 ** (bits - 1) - 0.55)
    return np.where(step > _SMALLEST, step, 1.0).astype(np.float32)


def _want(value: ir.Value, reduction: TurnedPeak | HeadGram) -> Want:
    assert value.name is not None
    return Want(value.name, reduction)
