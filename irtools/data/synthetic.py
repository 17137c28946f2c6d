"""Data drawn from a model's own signature, for want of real data.

Good enough to trace shapes, to time, and to compare a model with its optimized self. Ranges of
activations learnt from it are a makeshift, which every report says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.data.base import Dataset
from irtools.data.padding import columns_are_fixed
from irtools.data.positions import PositionLimit, longest_sequence
from irtools.data.signature import InputSpec, fixed_batch, required_inputs
from irtools.data.tables import index_consumers, indexed_rows
from irtools.errors import DataError
from irtools.model import Model
from irtools.words import counted

__all__ = ["SyntheticSettings", "draw_feeds", "longest_text", "synthesize"]

# Integers that decide sizes or places cannot be invented.
_STRUCTURAL = frozenset(
    {
        "CenterCropPad",
        "ConstantOfShape",
        "Expand",
        "GatherElements",
        "GatherND",
        "Loop",
        "OneHot",
        "Pad",
        "Range",
        "Reshape",
        "Resize",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "Split",
        "Tile",
        "TopK",
    }
)
_IMAGE_LIMIT = 2.5  # Normalised images lie in about [-2.1, 2.7].


@dataclass(frozen=True)
class SyntheticSettings:
    """What is drawn.

    Attributes:
        samples: Number of samples; rounded up to a multiple of a fixed batch size.
        sequence: Size of a dynamic axis of an integer input, where `sizes` does not name it; less
            where the model holds fewer positions.
        image: Size of a dynamic axis 2 or 3 of an image input.
        sizes: Dynamic axis name to size.
        seed: Same seed, same data.
        vary_lengths: Mask out the ends of some samples, as padding would, and the beginnings of
            some pasts.
        past: Tokens in the cache of a decoder; its keys and values are drawn, too.
    """

    samples: int = 32
    sequence: int = 64
    image: int = 224
    sizes: Mapping[str, int] | None = None
    seed: int = 0
    vary_lengths: bool = True
    past: int = 0


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
    specs = required_inputs(model)
    samples = _count(specs, settings.samples)
    decoder = find_decoder(whole)
    limit = _limit(whole, decoder, settings, samples)
    sequence = settings.sequence if limit is None else limit.length
    wanted = replace(settings, sequence=sequence)
    drawer = _Drawer(wanted, samples, decoder, _new_tokens(specs, decoder, wanted))
    feeds = {spec.name: drawer.draw(spec, values[spec.name]) for spec in specs}
    if not feeds:
        raise DataError("the model has no inputs, so there is nothing to draw")
    return Dataset(
        feeds,
        source="synthetic",
        synthetic=True,
        notes=tuple(_notes(limit, settings.sequence, feeds)),
        fixed_batch=fixed_batch(specs),
        fixed_length=columns_are_fixed(feeds, {spec.name: spec.shape for spec in specs}),
    ).with_digest()


def draw_feeds(
    model: Model | ir.Model, settings: SyntheticSettings = SyntheticSettings()
) -> dict[str, np.ndarray]:
    """Draw what one call is fed: `settings.samples` samples, unless the model insists on a number.

    Raises:
        DataError: As `synthesize`.
    """
    return next(synthesize(model, settings).batches(settings.samples, trim_padding=False))


def _limit(
    model: ir.Model, decoder: CachedDecoder | None, settings: SyntheticSettings, samples: int
) -> PositionLimit | None:
    """Return what keeps sequences shorter than wanted, behind the past that is wanted."""
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


def _count(specs: tuple[InputSpec, ...], wanted: int) -> int:
    fixed = [spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)]
    step = int(np.lcm.reduce(fixed)) if fixed else 1
    return -(-wanted // step) * step if step else wanted


class _Drawer:
    def __init__(
        self,
        settings: SyntheticSettings,
        samples: int,
        decoder: CachedDecoder | None,
        new_tokens: int,
    ) -> None:
        self._settings = settings
        self._samples = samples
        self._new_tokens = new_tokens
        self._decoder = decoder
        self._caches = {} if decoder is None else {cache.name: cache for cache in decoder.past}
        self._rng = np.random.default_rng(settings.seed)
        self._lengths: np.ndarray | None = None
        self._read: np.ndarray | None = None

    def draw(self, spec: InputSpec, value: ir.Value) -> np.ndarray:
        if self._decoder is not None and spec.name in (
            self._decoder.mask,
            self._decoder.positions,
        ):
            return self._of_decoder(spec)
        shape = self._shape(spec)
        if spec.dtype.kind == "f" or spec.dtype.name == "bfloat16":
            return self._floats(spec, shape)
        if spec.dtype.kind not in "iub":
            raise DataError(f"cannot invent values for input {spec}: give data")
        return self._integers(spec, shape, value)

    def _shape(self, spec: InputSpec) -> tuple[int, ...]:
        if not spec.shape:
            what = "has no batch axis" if spec.shape is not None else "has no known rank"
            raise DataError(f"cannot invent values for input {spec}, which {what}: give data")
        sizes = [self._size(spec, axis) for axis in range(1, len(spec.shape))]
        return (self._samples, *sizes)

    def _size(self, spec: InputSpec, axis: int) -> int:
        assert spec.shape is not None
        size = spec.shape[axis]
        if isinstance(size, int):
            return size
        if spec.name in self._caches:
            return self._settings.past
        named = self._settings.sizes or {}
        if size is not None and size in named:
            return named[size]
        if size is not None and "+" in size:
            return sum(self._term(spec, term.strip()) for term in size.split("+"))
        if (
            len(spec.shape) == 4
            and axis >= 2
            and spec.dtype.kind == "f"
            and "past" not in spec.name
        ):
            return self._settings.image
        if size is not None and "past" in size:
            raise DataError(
                f"cannot guess how long '{size}' of input {spec} is: name its size, or give data"
            )
        return self._settings.sequence

    def _term(self, spec: InputSpec, term: str) -> int:
        if term.isdecimal():
            return int(term)
        named = self._settings.sizes or {}
        if term in named:
            return named[term]
        if "past" in term:
            raise DataError(
                f"cannot guess how long '{term}' of input {spec} is: name its size, or give data"
            )
        return self._settings.sequence

    def _floats(self, spec: InputSpec, shape: tuple[int, ...]) -> np.ndarray:
        if "mask" in spec.name:
            return np.ones(shape, spec.dtype)
        drawn = self._rng.standard_normal(shape, dtype=np.float32)
        return drawn.clip(-_IMAGE_LIMIT, _IMAGE_LIMIT).astype(spec.dtype)

    def _integers(self, spec: InputSpec, shape: tuple[int, ...], value: ir.Value) -> np.ndarray:
        if "mask" in spec.name:
            return self._mask(shape).astype(spec.dtype)
        if "position" in spec.name:
            return np.broadcast_to(np.arange(shape[-1], dtype=spec.dtype), shape).copy()
        if "token_type" in spec.name or "segment" in spec.name:
            return np.zeros(shape, spec.dtype)
        rows = indexed_rows(value)
        if rows is None:
            return self._flags(spec, shape, value)
        # The first ids of a vocabulary are padding and other marks that real text hardly has.
        low = 1000 if rows > 4000 else min(3, rows - 1)
        return self._rng.integers(low, rows, shape).astype(spec.dtype)

    def _flags(self, spec: InputSpec, shape: tuple[int, ...], value: ir.Value) -> np.ndarray:
        for node, _ in index_consumers(value):
            if node.op_type in _STRUCTURAL or node.op_type == "Gather":
                raise DataError(
                    f"cannot invent values for input {spec}: {node.op_type} "
                    f"'{node.name}' takes sizes or places from it, and no table says how large "
                    "they may be; give data"
                )
        return self._rng.integers(0, 2, shape).astype(spec.dtype)

    def _of_decoder(self, spec: InputSpec) -> np.ndarray:
        """Return the mask over past and new tokens, or the new tokens' positions by it."""
        assert self._decoder is not None
        if self._read is None:
            new = self._mask((self._samples, self._new_tokens))
            self._read = np.concatenate([self._past_mask(), new], axis=1)
        if spec.name == self._decoder.mask:
            return self._read.astype(spec.dtype)
        # As transformers numbers the positions of a padded batch.
        places = np.maximum(self._read.cumsum(axis=1) - 1, 0)
        return np.asarray(places[:, self._settings.past :], spec.dtype)

    def _past_mask(self) -> np.ndarray:
        past = self._settings.past
        padding = np.zeros(self._samples, np.int64)
        if past and self._settings.vary_lengths:
            padding[1:] = self._rng.integers(0, past, self._samples - 1)
        return (np.arange(past) >= padding[:, None]).astype(np.int64)

    def _mask(self, shape: tuple[int, ...]) -> np.ndarray:
        mask = np.ones(shape, np.int64)
        if len(shape) != 2 or not self._settings.vary_lengths:
            return mask
        if self._lengths is None or self._lengths.max() != shape[1]:
            self._lengths = self._rng.integers(max(1, shape[1] // 4), shape[1] + 1, shape[0])
            self._lengths[0] = shape[1]
        return (np.arange(shape[1]) < self._lengths[:, None]).astype(np.int64)
