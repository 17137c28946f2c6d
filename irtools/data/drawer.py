"""Draws one input after the other, as its name, its type and its use in the graph suggest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod

import numpy as np
import onnx_ir as ir

from irtools.analysis.decoder import CachedDecoder
from irtools.analysis.tables import index_consumers, indexed_rows
from irtools.data.layout import Layout
from irtools.data.named import named_value
from irtools.data.signature import InputSpec
from irtools.errors import DataError
from irtools.operators import find_op

__all__ = ["DrawnFor", "Drawer", "SyntheticSettings"]

# Of integers that decide sizes; a large one would ask for memory without end.
_LARGEST_SIZE = 4
_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")
_BYTES = 256
_MOST_ELEMENTS = 1 << 28
_IMAGE_RANK = 3
_CHANNELS = (1, 3, 4)
_IMAGE_LIMIT = 2.5  # Normalised images lie in about [-2.1, 2.7].


class DrawnFor(IntEnum):
    """What samples are for: those that judge are neither those that were fitted to nor each other.

    Attributes:
        FIGURES: What a report quotes, and times.
        RANGES: What passes collect statistics of: nothing is compared on what it covers.
        TRIALS: What passes decide by.
    """

    FIGURES = 0
    RANGES = 1
    TRIALS = 2


@dataclass(frozen=True)
class SyntheticSettings:
    """What is drawn.

    Attributes:
        samples: Number of samples; rounded up to a multiple of a fixed batch size.
        sequence: Size of a dynamic axis of an integer input, where `sizes` does not name it; less
            where the model holds fewer positions.
        image: Size of a dynamic axis 2 or 3 of an image input.
        sizes: Dynamic axis to size, by its name or as INPUT.AXIS (`audio.1`).
        seed: Same seed, same data.
        use: What they are for; samples of two uses have nothing in common.
        vary_lengths: Mask out the ends of some samples, as padding would, and the beginnings of
            some pasts.
        past: Tokens in the cache of a decoder; its keys and values are drawn, too.
        together: Most samples that one call is fed; None: any number.
        calls: Each sample is one call with inputs in their full shape, the first axis included.
        values: Integer input or mask to the one value that it holds everywhere.
        rank: Rank of inputs that do not state theirs; None: they cannot be drawn.
    """

    samples: int = 32
    sequence: int = 64
    image: int = 224
    sizes: Mapping[str, int] | None = None
    seed: int = 0
    use: DrawnFor = DrawnFor.FIGURES
    vary_lengths: bool = True
    past: int = 0
    together: int | None = None
    calls: bool = False
    values: Mapping[str, int] | None = None
    rank: int | None = None


def _is_image(spec: InputSpec) -> bool:
    """Whether an input has the shape of images: rank 4, or 3 with channels that are stated."""
    if spec.shape is None or "past" in spec.name:
        return False
    if spec.dtype.kind != "f" and spec.dtype != np.uint8:
        return False
    if "mask" in spec.name and spec.shape[1:3] == (1, 1):
        return False  # One row for all heads and queries of an attention.
    if len(spec.shape) == _IMAGE_RANK:
        return spec.shape[0] == _CHANNELS[1] or (
            spec.dtype == np.uint8 and spec.shape[-1] in _CHANNELS
        )
    return len(spec.shape) == _IMAGE_RANK + 1


class Drawer:
    """Draws the inputs of one dataset, in order.

    Args:
        settings: What is wanted.
        samples: Samples in all.
        specs: All inputs.
        layout: Where their samples lie.
        decoder: The model as a decoder with a cache, or None.
        new_tokens: Tokens of a sample that a decoder reads.
    """

    def __init__(
        self,
        settings: SyntheticSettings,
        samples: int,
        specs: Sequence[InputSpec],
        layout: Layout,
        decoder: CachedDecoder | None,
        new_tokens: int,
    ) -> None:
        self._settings = settings
        self._samples = samples
        self._specs = specs
        self._layout = layout
        self._new_tokens = new_tokens
        self._decoder = decoder
        self._caches = {} if decoder is None else {cache.name: cache for cache in decoder.past}
        self._rng = np.random.default_rng((settings.seed, settings.use))
        self._lengths: np.ndarray | None = None
        self._read: np.ndarray | None = None
        self._drawn_sizes: dict[str, tuple[int, ...]] | None = None

    def draw(self, spec: InputSpec, value: ir.Value) -> np.ndarray:
        """Return one input, samples along axis 0.

        Raises:
            DataError: No sensible values can be invented; says why.
        """
        if self._decoder is not None and spec.name in (
            self._decoder.mask,
            self._decoder.positions,
        ):
            return self._of_decoder(spec)
        shape = self._shape(spec)
        fixed = (self._settings.values or {}).get(spec.name)
        if fixed is not None:
            return np.full(shape, fixed, spec.dtype)
        if spec.dtype.kind == "O":
            return self._texts(shape)
        if spec.dtype.kind not in "iubf" and spec.dtype.name != "bfloat16":
            raise DataError(f"cannot invent values for input {spec}: give data")
        named = named_value(spec, self._specs, self._all_sizes())
        if named is not None and "mask" not in spec.name:
            return np.broadcast_to(np.asarray(named, spec.dtype), shape).copy()
        if spec.dtype.kind in "iub":
            return self._integers(spec, shape, value)
        return self._floats(spec, shape)

    def _all_sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes of one sample of each input; of states none, they count nothing."""
        if self._drawn_sizes is None:
            decoder = self._decoder
            silent = set() if decoder is None else {*self._caches, decoder.mask, decoder.positions}
            self._drawn_sizes = {
                spec.name: ()
                if self._layout.axes.get(spec.name) or spec.name in silent
                else self._shape(spec)[1:]
                for spec in self._specs
            }
        return self._drawn_sizes

    def _shape(self, spec: InputSpec) -> tuple[int, ...]:
        if spec.shape is None:
            raise DataError(f"cannot invent values for input {spec}, which has no known rank")
        batch = self._layout.axes.get(spec.name)
        sizes = [1 if axis == batch else self._size(spec, axis) for axis in range(len(spec.shape))]
        shape = (self._samples, *(sizes[1:] if batch == 0 else sizes))
        if prod(shape) > _MOST_ELEMENTS:
            raise DataError(
                f"drawing input {spec} would take {prod(shape)} elements: name smaller sizes "
                "(--size AXIS=N), or give data"
            )
        return shape

    def _size(self, spec: InputSpec, axis: int) -> int:
        assert spec.shape is not None
        size = spec.shape[axis]
        if isinstance(size, int):
            return size
        if spec.name in self._caches:
            return self._settings.past
        named = self._settings.sizes or {}
        for key in (f"{spec.name}.{axis}", size):
            if key is not None and key in named:
                return named[key]
        if size is not None and "+" in size:
            return sum(self._term(spec, term.strip()) for term in size.split("+"))
        if _is_image(spec):
            return self._image_size(spec, axis)
        if size is not None and "past" in size:
            raise DataError(
                f"cannot guess how long '{size}' of input {spec} is: name its size, or give data"
            )
        return self._settings.sequence

    def _image_size(self, spec: InputSpec, axis: int) -> int:
        assert spec.shape is not None
        sides = len(spec.shape) - 3  # Of [C, H, W] and [N, C, H, W].
        if spec.shape[-1] in _CHANNELS and spec.shape[sides] not in _CHANNELS:
            return self._settings.image  # Channels are last.
        return self._settings.image if axis > sides else _CHANNELS[1]

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
        if len(shape) == 1 or (self._layout.is_whole(spec.name) and len(shape) <= 2):
            # Rates, temperatures, factors and levels of noise: small numbers above 0. Networks
            # take logarithms and roots of them.
            return self._rng.uniform(0.25, 1.0, shape).astype(spec.dtype)
        drawn = self._rng.standard_normal(shape, dtype=np.float32)
        return drawn.clip(-_IMAGE_LIMIT, _IMAGE_LIMIT).astype(spec.dtype)

    def _texts(self, shape: tuple[int, ...]) -> np.ndarray:
        chosen = self._rng.integers(0, len(_WORDS), (2, *shape))
        first, second = np.array(_WORDS, object)[chosen]
        return np.asarray(first + " " + second, object)

    def _integers(self, spec: InputSpec, shape: tuple[int, ...], value: ir.Value) -> np.ndarray:
        if "mask" in spec.name:
            read = self._mask(shape)
            # Flags that mark padding are PyTorch's, numbers (Keras) mark what is read.
            return (1 - read if _marks_padding(spec) else read).astype(spec.dtype)
        if "position" in spec.name:
            return np.broadcast_to(np.arange(shape[-1], dtype=spec.dtype), shape).copy()
        if "token_type" in spec.name or "segment" in spec.name:
            return np.zeros(shape, spec.dtype)
        rows = indexed_rows(value)
        if rows is None:
            return self._numbers(spec, shape, value)
        # The first ids of a vocabulary are padding and other marks that real text hardly has.
        low = 1000 if rows > 4000 else min(3, rows - 1)
        return self._rng.integers(low, rows, shape).astype(spec.dtype)

    def _numbers(self, spec: InputSpec, shape: tuple[int, ...], value: ir.Value) -> np.ndarray:
        """Return integers that look up nothing: bytes, a size, places, or flags."""
        if spec.dtype == np.uint8 and len(shape) > _IMAGE_RANK:
            return self._rng.integers(0, _BYTES, shape).astype(spec.dtype)
        if any(_decides_sizes(node, index) for node, index in index_consumers(value)):
            return np.full(shape, self._rng.integers(1, _LARGEST_SIZE + 1), spec.dtype)
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


def _marks_padding(spec: InputSpec) -> bool:
    return spec.dtype.kind == "b" and "pad" in spec.name.lower()


def _decides_sizes(node: ir.Node, index: int) -> bool:
    """Whether an input of a node says how large its results are."""
    op = find_op(node.domain, node.op_type)
    return op is not None and index in op.size_inputs
