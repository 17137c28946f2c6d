"""Texts that are read on, token by token, with what has been read kept where the runtime wants it.

A stateless step hands a decoder's cache in and out as arrays. A runner that can do better says so
by `begin_text`; writing and timing text then take that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from irtools.errors import DataError

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
    """
    from irtools.analysis.decoder import CachedDecoder

    before = decoder.empty(batch) if past is None else past
    if isinstance(decoder, CachedDecoder) and isinstance(runner, KeepsTexts):
        return runner.begin_text(decoder, before)
    return FedText(runner, decoder, before)


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
