"""Decoders, with a key-value cache or without, known by the names of what they take and give.

Exporters agree on them: `input_ids`, `attention_mask` over past and new tokens, `position_ids`,
and for each layer N `past_key_values.N.key` and `.value` [batch, key heads, past, head size], which
the outputs `present.N.key` and `.value` continue. The call with an empty past reads the prompt
(prefill); every call after it reads one token and the cache of the one before (decode). A decoder
without a cache reads the whole text again for every token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "CacheInput",
    "CachedDecoder",
    "PlainDecoder",
    "Reading",
    "TextDecoder",
    "decoder_of",
    "find_decoder",
    "find_text_decoder",
    "is_past",
    "present_of",
    "reading_of",
]

_PAST, _PRESENT = "past_key_values.", "present."
_FIXED = ".encoder."  # Keys and values of cross-attention stay the same through a text.
_IDS = ("input_ids", "decoder_input_ids")
_MASK, _POSITIONS, _LOGITS = "attention_mask", "position_ids", "logits"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class CacheInput:
    """Keys or values of one layer.

    Attributes:
        name: The input.
        present: The output that continues it.
        heads: Key heads.
        size: Size of a head.
        axis: Name of the axis that grows; None where it has none.
    """

    name: str
    present: str
    heads: int
    size: int
    dtype: np.dtype
    axis: str | None


@dataclass(frozen=True)
class CachedDecoder:
    """The inputs and outputs of a decoder with a cache that grows.

    Attributes:
        ids: Input of the new tokens, [B, S].
        axis: Name of its axis S; None where it has none.
        past: Its cache inputs, two per layer.
        mask: Input of the mask over past and new tokens, [B, P + S], or None.
        positions: Input of the new tokens' positions, [B, S], or None.
        dtypes: Element types of these three, by name.
        batch: Texts that it takes at a time; None: any number.
        generates: It gives `logits` and every `present` and needs nothing else, so that it can
            write a text by itself. The decoder of an encoder-decoder cannot.
    """

    ids: str
    axis: str | None
    past: tuple[CacheInput, ...]
    mask: str | None
    positions: str | None
    dtypes: Mapping[str, np.dtype]
    batch: int | None
    generates: bool

    @property
    def logits(self) -> str:
        """Name of the output with a row of scores for every new token, [B, S, V]."""
        return _LOGITS

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a step of generation asks for."""
        return (_LOGITS, *(cache.present for cache in self.past))

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        """Return the cache before the first token."""
        return {c.name: np.zeros((batch, c.heads, 0, c.size), c.dtype) for c in self.past}

    def length(self, past: Arrays) -> int:
        """Return how many tokens a cache holds."""
        return int(next(iter(past.values())).shape[2])

    def feeds(self, ids: np.ndarray, past: Arrays) -> dict[str, np.ndarray]:
        """Return what reads new tokens, none of them padding, after a cache without padding.

        Args:
            ids: New tokens, [B, S].
            past: The cache by input name, [B, heads, P, size] each.
        """
        return self.token_feeds(ids, self.length(past)) | dict(past)

    def token_feeds(self, ids: np.ndarray, read: int) -> dict[str, np.ndarray]:
        """Return new tokens, [B, S], with their mask and positions after `read` tokens."""
        return _token_feeds(self, ids, read)

    def next_past(self, feeds: Arrays, outputs: Arrays) -> dict[str, np.ndarray]:
        """Return the cache for the next call, from what this one gave."""
        return {cache.name: outputs[cache.present] for cache in self.past}


@dataclass(frozen=True)
class PlainDecoder:
    """The inputs of a decoder without a cache; what it has read is the text itself.

    Attributes:
        ids: Input of the text, [B, S].
        mask: Input of its mask, [B, S], or None.
        positions: Input of its positions, [B, S], or None.
        dtypes: Element types of these three, by name.
        batch: Texts that it takes at a time; None: any number.
    """

    ids: str
    mask: str | None
    positions: str | None
    dtypes: Mapping[str, np.dtype]
    batch: int | None

    @property
    def logits(self) -> str:
        """Name of the output with a row of scores for every token, [B, S, V]."""
        return _LOGITS

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a step of generation asks for."""
        return (_LOGITS,)

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        """Return the text before the first token."""
        return {self.ids: np.zeros((batch, 0), self.dtypes[self.ids])}

    def length(self, past: Arrays) -> int:
        """Return how many tokens a text has."""
        return int(past[self.ids].shape[1])

    def feeds(self, ids: np.ndarray, past: Arrays) -> dict[str, np.ndarray]:
        """Return what reads new tokens, [B, S], after a text: all of both."""
        return _token_feeds(self, np.concatenate([past[self.ids], ids], axis=1), 0)

    def next_past(self, feeds: Arrays, outputs: Arrays) -> dict[str, np.ndarray]:
        """Return what has been read after this call."""
        return {self.ids: feeds[self.ids]}


class TextDecoder(Protocol):
    """What continues a text: tokens are fed, and what has been read is passed on."""

    @property
    def ids(self) -> str: ...
    @property
    def mask(self) -> str | None: ...
    @property
    def positions(self) -> str | None: ...
    @property
    def dtypes(self) -> Mapping[str, np.dtype]: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def logits(self) -> str: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def empty(self, batch: int) -> dict[str, np.ndarray]: ...
    def length(self, past: Arrays) -> int: ...
    def feeds(self, ids: np.ndarray, past: Arrays) -> dict[str, np.ndarray]: ...
    def next_past(self, feeds: Arrays, outputs: Arrays) -> dict[str, np.ndarray]: ...


def _token_feeds(decoder: TextDecoder, ids: np.ndarray, read: int) -> dict[str, np.ndarray]:
    """Return ids, [B, S], with mask and positions after `read` tokens, for the decoder."""
    batch, new = ids.shape
    made = {decoder.ids: ids.astype(decoder.dtypes[decoder.ids])}
    if decoder.mask is not None:
        made[decoder.mask] = np.ones((batch, read + new), decoder.dtypes[decoder.mask])
    if decoder.positions is not None:
        places = np.arange(read, read + new, dtype=decoder.dtypes[decoder.positions])
        made[decoder.positions] = np.tile(places, (batch, 1))
    return made


@dataclass(frozen=True)
class Reading:
    """What a run of a decoder does.

    Attributes:
        phase: `prefill` where the cache is empty, else `decode`.
        tokens: New tokens, over the whole batch.
    """

    phase: Literal["prefill", "decode"]
    tokens: int


def find_decoder(model: ir.Model) -> CachedDecoder | None:
    """Return the cache of a model; None where it has none that grows from call to call."""
    inputs, ids = _inputs_of(model)
    past = [_cache_input(value) for name, value in inputs.items() if is_past(name)]
    if ids is None or not past or any(cache is None for cache in past):
        return None
    caches = tuple(cache for cache in past if cache is not None)
    named = [name for name in (ids, _MASK, _POSITIONS) if name in inputs]
    if any(inputs[name].dtype is None for name in named):
        return None
    given = {value.name for value in model.graph.outputs}
    alone = set(inputs) == {*named, *(cache.name for cache in caches)}
    return CachedDecoder(
        ids=ids,
        axis=_axis(inputs[ids], 1),
        past=caches,
        mask=_MASK if _MASK in inputs else None,
        positions=_POSITIONS if _POSITIONS in inputs else None,
        dtypes={name: _numpy(inputs[name]) for name in named},
        batch=_fixed_batch(inputs.values()),
        generates=alone and given >= {_LOGITS, *(cache.present for cache in caches)},
    )


def find_text_decoder(model: ir.Model) -> TextDecoder | None:
    """Return how a model writes a text by itself; None where it does not.

    A decoder without a cache is known by the task in its metadata: its inputs are an encoder's.
    """
    cached = find_decoder(model)
    if cached is not None:
        return cached if cached.generates else None
    inputs, ids = _inputs_of(model)
    if ids is None or model.metadata_props.get("task") != "text-generation":
        return None
    named = [name for name in (ids, _MASK, _POSITIONS) if name in inputs]
    given = {value.name for value in model.graph.outputs}
    if set(inputs) != set(named) or _LOGITS not in given:
        return None
    if any(_is_fixed(inputs[name]) for name in named):
        return None
    return PlainDecoder(
        ids=ids,
        mask=_MASK if _MASK in inputs else None,
        positions=_POSITIONS if _POSITIONS in inputs else None,
        dtypes={name: _numpy(inputs[name]) for name in named},
        batch=_fixed_batch(inputs.values()),
    )


def _inputs_of(model: ir.Model) -> tuple[dict[str, ir.Value], str | None]:
    """Return what a caller feeds by name, and which of it are the tokens."""
    graph = model.graph
    inputs = {v.name or "": v for v in graph.inputs if v.name not in graph.initializers}
    return inputs, next((name for name in _IDS if name in inputs), None)


def _is_fixed(value: ir.Value) -> bool:
    """Whether texts of another length do not fit, or this is unknown."""
    if value.dtype is None or value.shape is None or len(value.shape) != 2:
        return True
    return isinstance(value.shape[1], int)


def is_past(name: str) -> bool:
    """Whether an input of this name is a cache that grows from call to call."""
    return name.startswith(_PAST) and _FIXED not in name


def present_of(name: str) -> str:
    """Return the output that continues a cache input."""
    return name.replace(_PAST, _PRESENT, 1)


def decoder_of(feeds: Arrays) -> CachedDecoder | None:
    """Return the decoder that takes these feeds; None where they hold no cache, or more than one.

    What feeds alone do not tell, names of axes, is left out.
    """
    past = {name: array for name, array in feeds.items() if is_past(name) and array.ndim == 4}
    ids = next((name for name in _IDS if name in feeds), None)
    if ids is None or not past:
        return None
    named = [name for name in (ids, _MASK, _POSITIONS) if name in feeds]
    return CachedDecoder(
        ids=ids,
        axis=None,
        past=tuple(
            CacheInput(name, present_of(name), array.shape[1], array.shape[3], array.dtype, None)
            for name, array in past.items()
        ),
        mask=_MASK if _MASK in feeds else None,
        positions=_POSITIONS if _POSITIONS in feeds else None,
        dtypes={name: feeds[name].dtype for name in named},
        batch=None,
        generates=set(feeds) == {*named, *past},
    )


def reading_of(feeds: Arrays) -> Reading | None:
    """Return what a run on these feeds reads; None where they hold no cache."""
    pasts = [array for name, array in feeds.items() if is_past(name) and array.ndim == 4]
    ids = next((feeds[name] for name in _IDS if name in feeds), None)
    if not pasts or ids is None:
        return None
    return Reading("decode" if pasts[0].shape[2] else "prefill", int(ids.size))


def _cache_input(value: ir.Value) -> CacheInput | None:
    """Return a cache input; None where it is another tensor, or of a fixed length."""
    sizes = None if value.shape is None else list(value.shape)
    if sizes is None or len(sizes) != 4 or value.dtype is None:
        return None
    _, heads, length, size = sizes
    if not isinstance(heads, int) or not isinstance(size, int) or isinstance(length, int):
        return None
    name = value.name or ""
    return CacheInput(name, present_of(name), heads, size, _numpy(value), length.value)


def _axis(value: ir.Value, axis: int) -> str | None:
    if value.shape is None or len(value.shape) <= axis:
        return None
    size = value.shape[axis]
    return None if isinstance(size, int) else size.value


def _numpy(value: ir.Value) -> np.dtype:
    assert value.dtype is not None
    return value.dtype.numpy()


def _fixed_batch(inputs: Iterable[ir.Value]) -> int | None:
    first = [value.shape[0] for value in inputs if value.shape is not None and len(value.shape)]
    return next((size for size in first if isinstance(size, int)), None)
