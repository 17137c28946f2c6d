"""Metrics of language models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.errors import DataError
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric
from irtools.words import counted

__all__ = ["Perplexity", "log_likelihoods"]

_IGNORED = -100
_PIECE = 32


class Perplexity(PerSampleMetric):
    """exp of the mean negative log-likelihood of each token given those before it.

    Logits at position t are held against the label at t + 1, as in causal language models. A
    label of -100 does not count. Without a label per token, the input ids are the labels, without
    padding and without the first token of each text, which has none before it.
    """

    name: str = "perplexity"
    larger_is_better: bool = False

    def takes(self, labels: np.ndarray) -> bool:
        """Whether there is one label per token; classes of whole texts say nothing here."""
        return labels.ndim == 2

    def derive_labels(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return the input ids, -100 at padding and at the first token of each text, [N, S]."""
        ids = feeds.get("input_ids")
        mask = feeds.get("attention_mask")
        if ids is None:
            return None
        kept = np.ones(ids.shape, bool)
        if mask is not None and mask.shape == ids.shape:
            kept = mask != 0
        # After padding on the left is a guess made from nothing.
        follows = kept & (kept.cumsum(axis=1) > 1)
        return np.where(follows, ids, _IGNORED).astype(np.int64)

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return summed negative log-likelihood in nats and number of tokens, [N, 2]."""
        logits = find_output(outputs, ("logits", "scores", "output"))
        if logits.ndim != 3 or labels.shape != logits.shape[:2]:
            raise DataError(
                f"perplexity needs logits [N,S,V] and labels [N,S]; found {list(logits.shape)} "
                f"and {list(labels.shape)}"
            )
        if labels.max(initial=0) >= logits.shape[-1]:
            raise DataError(
                f"label {labels.max()} is outside the vocabulary of "
                f"{counted(logits.shape[-1], 'token')}"
            )
        rows = [_sums(x[:-1], y[1:]) for x, y in zip(logits, labels, strict=True)]
        return np.array(rows, np.float64).reshape(-1, 2)

    def finish(self, rows: np.ndarray) -> float:
        """Return the perplexity over all tokens."""
        tokens = rows[:, 1].sum()
        return float(np.exp(rows[:, 0].sum() / tokens)) if tokens else float("nan")


def _sums(logits: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Return the negative log-likelihood in nats and the tokens of one text."""
    places = np.flatnonzero(labels >= 0)
    return -float(log_likelihoods(logits, places, labels[places]).sum()), len(places)


def log_likelihoods(logits: np.ndarray, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the log-likelihood in nats of a token at each of some positions, float64 [n].

    In pieces: in float64 the logits of a text take a megabyte per token.

    Args:
        logits: [S, V].
        places: Positions, [n].
        tokens: What is to be predicted there, [n].
    """
    found = np.zeros(len(places))
    for start in range(0, len(places), _PIECE):
        piece = slice(start, start + _PIECE)
        x = logits[places[piece]].astype(np.float64)
        peak = x.max(axis=-1, keepdims=True)
        log_total = peak[:, 0] + np.log(np.exp(x - peak).sum(axis=-1))
        found[piece] = x[np.arange(len(x)), tokens[piece].astype(np.int64)] - log_total
    return found
