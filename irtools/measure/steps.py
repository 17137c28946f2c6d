"""What is timed as one run: a call of the model, or one more token of a text that it keeps.

Imports nothing but numpy, so that a child process costs little time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from irtools.analysis.decoder import CachedDecoder, decoder_of, reading_of
from irtools.errors import DataError, UnsupportedError
from irtools.targets import Feeds, KeepsTexts, TextState, begin_text

if TYPE_CHECKING:
    from irtools.targets import Runner

__all__ = ["TimedStep", "step_of"]

_LEAST_GROWTH = 8
_GROWTH = 32
"""A text is timed while it grows by one part in so many, and then begun again."""


class TimedStep(Protocol):
    """One run, as often as it is wanted."""

    def prepare(self) -> None:
        """Do what is not timed."""

    def run(self) -> None:
        """Run once."""


def step_of(runner: Runner, feeds: Feeds) -> TimedStep:
    """Return how a run on these feeds is timed.

    Where a runner keeps the cache of a decoder, decoding is timed as it is used: token by token,
    the cache where it is. Every other run is a call.
    """
    reading, decoder = reading_of(feeds), decoder_of(feeds)
    if reading is None or decoder is None or not isinstance(runner, KeepsTexts):
        return _Call(runner, feeds)
    if reading.phase != "decode" or not decoder.generates:
        return _Call(runner, feeds)
    return _Decoding(runner, decoder, feeds)


class _Call:
    def __init__(self, runner: Runner, feeds: Feeds) -> None:
        self._runner, self._feeds = runner, feeds

    def prepare(self) -> None:
        pass

    def run(self) -> None:
        self._runner.run(self._feeds)


class _Decoding:
    def __init__(self, runner: Runner, decoder: CachedDecoder, feeds: Feeds) -> None:
        self._runner, self._decoder = runner, decoder
        self._ids = feeds[decoder.ids]
        self._past = {cache.name: feeds[cache.name] for cache in decoder.past}
        self._length = decoder.length(self._past)
        self._longest = self._length + max(self._length // _GROWTH, _LEAST_GROWTH)
        self._text: TextState | None = None

    def prepare(self) -> None:
        if self._text is None or self._text.length >= self._longest:
            self._text = self._begun()

    def run(self) -> None:
        assert self._text is not None
        try:
            self._text.read(self._ids)
        except DataError:
            if self._text.length == self._length:
                raise
            # The positions that the model holds end here, and the text grows no further.
            self._longest = self._text.length
            self._text = self._begun()
            self._text.read(self._ids)

    def _begun(self) -> TextState:
        """Return a text after the cache; where it cannot be taken up, after as many tokens."""
        rows = len(self._ids)
        try:
            return begin_text(self._runner, self._decoder, rows, self._past)
        except UnsupportedError:
            text = begin_text(self._runner, self._decoder, rows)
            text.read(np.tile(self._ids[:, :1], (1, self._decoder.length(self._past))))
            return text
