"""Texts that are read on, token by token, with what has been read kept where the runtime wants it.

A stateless step hands a decoder's cache in and out as arrays. A runner that can do better says so
by `begin_text`; writing and timing text then take that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from irtools.errors import DataError
from irtools.targets.signature import check_feeds

if TYPE_CHECKING:
    from irtools.analysis.decoder import CachedDecoder, TextDecoder
    from irtools.targets.base import Runner
    from irtools.targets.signature import Feeds

__all__ = ["FedText", "KeepsTexts", "TextState", "begin_text", "text_decoder_of"]


class TextState(Protocol):
    """What a decoder has read so far.

    Attributes:
        length: Tokens that have been read, in each row.
    """

    length: int

    @property
    def cache_bytes(self) -> int | None:
        """Memory of the keys and values, room for more included; None: the runtime hides it."""

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read new tokens without padding after those before.

        Args:
            ids: [B, S].

        Returns:
            Logits of the new tokens, [B, S, V].

        Raises:
            DataError: The runtime cannot run the model on them.
        """


@runtime_checkable
class KeepsTexts(Protocol):
    """A runner that keeps a cache itself."""

    def begin_text(self, decoder: CachedDecoder, past: Feeds) -> TextState:
        """Begin a text after a cache, [B, heads, P, size] each, by input name."""


def begin_text(
    runner: Runner, decoder: TextDecoder, batch: int, past: Feeds | None = None
) -> TextState:
    """Begin a text, in the runtime's own way where it has one.

    Args:
        runner: The model.
        decoder: Its inputs and outputs.
        batch: Rows of the text.
        past: A cache to begin after; None: an empty one.

    Raises:
        DataError: The cache is that of another model, or of other texts.
        UnsupportedError: The runtime takes up no cache.
    """
    from irtools.analysis.decoder import CachedDecoder

    if past is not None and isinstance(decoder, CachedDecoder):
        past = _checked(past, runner, decoder, batch)
    before = decoder.empty(batch) if past is None else past
    if isinstance(decoder, CachedDecoder) and isinstance(runner, KeepsTexts):
        return runner.begin_text(decoder, before)
    return FedText(runner, decoder, before)


def _checked(past: Feeds, runner: Runner, decoder: CachedDecoder, batch: int) -> Feeds:
    """Return a cache that fits the model: its layers, heads, and one length for all."""
    names = {cache.name for cache in decoder.past}
    fits = check_feeds([slot for slot in runner.slots if slot.name in names], past)
    lengths = sorted({array.shape[2] for array in fits.values()})
    rows = {len(array) for array in fits.values()}
    if len(lengths) > 1:
        raise DataError(
            f"the cache holds {lengths[0]} tokens in one layer and {lengths[-1]} in another: "
            "expected the same in all"
        )
    if rows != {batch}:
        raise DataError(f"the cache is of {min(rows - {batch})} texts, expected {batch}")
    return fits


class FedText:
    """A text whose cache is fed at every step; of a decoder without one, all that was read.

    Args:
        runner: The model.
        decoder: Its inputs and outputs.
        past: What has been read.
    """

    def __init__(self, runner: Runner, decoder: TextDecoder, past: Feeds) -> None:
        self._runner = runner
        self._decoder = decoder
        self._past: Mapping[str, np.ndarray] = past
        self.length = decoder.length(past)

    @property
    def cache_bytes(self) -> int | None:
        """Memory of the arrays."""
        return sum(array.nbytes for array in self._past.values())

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read new tokens; see `TextState.read`."""
        feeds = self._decoder.feeds(ids, self._past)
        found = self._runner.run(feeds, self._decoder.outputs)
        self._past = self._decoder.next_past(feeds, found)
        self.length += ids.shape[1]
        logits = found[self._decoder.logits]
        if logits.ndim != 3:
            raise DataError(
                f"the model gives logits of shape {list(logits.shape)}, expected 3 axes"
            )
        return logits[:, -ids.shape[1] :]


def text_decoder_of(runner: Runner) -> CachedDecoder | None:
    """Return how a compiled model continues a text, by the names of what it takes and gives.

    None where it does not by itself, or has no cache that grows.
    """
    from irtools.analysis.decoder import decoder_of

    slots = {slot.name: slot for slot in runner.slots if slot.required}
    feeds = {}
    for name, slot in slots.items():
        if slot.dtype is None or slot.shape is None:
            return None
        feeds[name] = np.zeros([size or 0 for size in slot.shape], slot.dtype)
    found = decoder_of(feeds)
    if found is None or not found.generates or not set(found.outputs) <= set(runner.output_names):
        return None
    return found
