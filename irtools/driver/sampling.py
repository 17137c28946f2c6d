"""Choosing the next token from the scores of a decoder, and where a text stops."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from irtools.errors import UsageError

__all__ = ["Sampler", "Sampling", "Stops"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, in the order in which Transformers applies it.

    Attributes:
        temperature: Scores are divided by it before one is drawn; 0: the likeliest token.
        top_k: Only the k likeliest are drawn from; 0: all.
        top_p: Only the likeliest that have this probability together (Holtzman et al. 2019).
        repetition_penalty: Scores of tokens that were read or written are divided by it where they
            are positive, else multiplied (Keskar et al. 2019); 1: nothing is changed.
        seed: Same seed, same text.

    Raises:
        UsageError: A value out of range, or one that does nothing without a temperature.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UsageError(f"temperature is {self.temperature:g}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p:g}, expected more than 0 and at most 1")
        if self.top_k < 0:
            raise UsageError(f"top-k is {self.top_k}, expected 0 or more")
        if not self.repetition_penalty > 0:
            raise UsageError(
                f"repetition-penalty is {self.repetition_penalty:g}, expected more than 0"
            )
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise UsageError("top-k and top-p are for sampling: give a temperature above 0, too")


class Sampler:
    """Chooses the tokens of one text.

    Args:
        settings: How.
        prompt: Tokens that were read, [P].
    """

    def __init__(self, settings: Sampling, prompt: np.ndarray) -> None:
        self._settings = settings
        self._seen = {int(token) for token in prompt}
        self._random = np.random.default_rng(settings.seed)

    def choose(self, scores: np.ndarray) -> int:
        """Return the next token.

        Args:
            scores: Logits of the vocabulary, [V].
        """
        token = self._chosen(self._penalized(scores))
        self._seen.add(token)
        return token

    def _penalized(self, scores: np.ndarray) -> np.ndarray:
        penalty = self._settings.repetition_penalty
        if penalty == 1:
            return scores
        found = scores.astype(np.float64)
        seen = sorted(token for token in self._seen if token < len(found))
        found[seen] = np.where(found[seen] > 0, found[seen] / penalty, found[seen] * penalty)
        return found

    def _chosen(self, scores: np.ndarray) -> int:
        settings = self._settings
        if settings.temperature == 0:
            return int(scores.argmax())
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        order = order[: settings.top_k] if settings.top_k else order
        scaled = scores[order].astype(np.float64) / settings.temperature
        shares = np.exp(scaled - scaled[0])
        shares /= shares.sum()
        # The token with which the share is reached is kept.
        kept = int(np.searchsorted(shares.cumsum(), settings.top_p)) + 1
        below = shares[:kept].cumsum()
        drawn = self._random.random() * below[-1]
        return int(order[min(int(np.searchsorted(below, drawn, side="right")), len(below) - 1)])


class Stops:
    """Passes a text on up to the first of some words; what may begin one is held back.

    Args:
        words: The text ends before any of them.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(word for word in words if word)
        self._held = ""

    def add(self, text: str, *, last: bool) -> tuple[str, bool]:
        """Return what can be shown now, and whether a word was found.

        Args:
            text: The next piece.
            last: Nothing follows.
        """
        held = self._held + text
        found = [place for word in self._words if (place := held.find(word)) >= 0]
        if found:
            return held[: min(found)], True
        size = 0 if last else _overlap(held, self._words)
        self._held = held[len(held) - size :]
        return held[: len(held) - size], False


def _overlap(text: str, words: Collection[str]) -> int:
    """Return the length of the longest end of a text that is the beginning of a word."""
    longest = max(map(len, words), default=1) - 1
    sizes = range(min(longest, len(text)), 0, -1)
    return next((n for n in sizes if any(word.startswith(text[-n:]) for word in words)), 0)
