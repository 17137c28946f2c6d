"""What attention loses if its keys and values are rounded, on a text that was read once.

Moments do not show it all: a few tokens that every query looks at weigh more than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import CacheBlock
from irtools.analysis.cache_turn import TURNED_BITS, CacheTurn, nearest_codes
from irtools.passmanager import PassContext
from irtools.statistics import expose
from irtools.targets import RunnerOptions

__all__ = ["AttentionSample", "read_attention", "rounded_rows"]

_TOKENS = 256
_SINK = 0.5


@dataclass(frozen=True, eq=False)
class AttentionSample:
    """What the attention of one block reads, of one text.

    Attributes:
        queries: [H, S, D].
        keys: [G, S, D].
        values: [G, S, D].
        scale: Of the scores.
    """

    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    scale: float

    def weights(self, keys: np.ndarray) -> np.ndarray:
        """Return how much each query looks at such keys, [H, S, S]; it sees no later ones."""
        repeats = len(self.queries) // len(keys)
        later = np.triu(np.full((keys.shape[1],) * 2, -np.inf, np.float32), 1)
        found = []
        for head, queries in enumerate(self.queries):
            scores = self.scale * (queries @ keys[head // repeats].T) + later
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            found.append(weights / weights.sum(axis=1, keepdims=True))
        return np.stack(found)

    def mixed(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return what each query mixes of values by such weights, [H, S, D]."""
        repeated = np.repeat(values, len(weights) // len(values), axis=0)
        mixed: np.ndarray = np.matmul(weights, repeated)
        return mixed

    def error(self, exact: np.ndarray, weights: np.ndarray, values: np.ndarray) -> float:
        """Return by how much of the whole, squared, the result differs from the exact one."""
        size = float(np.sum(exact**2))
        return float(np.sum((self.mixed(weights, values) - exact) ** 2)) / (size or 1.0)

    def sinks(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return key and value, [G, D] each, of a token that each head's queries look at most.

        It is the first that is looked at at least half as much as any other: what the first token
        of a text is mostly like is the same in all texts.
        """
        heads = range(len(self.keys))
        looked = weights.reshape(len(heads), -1, weights.shape[-1]).sum(axis=1)
        place = np.argmax(looked >= _SINK * looked.max(axis=1, keepdims=True), axis=1)
        return self.keys[heads, place], self.values[heads, place]


def rounded_rows(rows: np.ndarray, turn: CacheTurn, scale: np.ndarray) -> np.ndarray:
    """Return keys or values, [G, S, D], as a cache with codes of 4 bits has them."""
    steps = scale.reshape(len(rows), 1, -1)
    return turn.restored(nearest_codes(turn.turned(rows), steps, TURNED_BITS) * steps)


def read_attention(
    model: ir.Model, blocks: Sequence[CacheBlock], ctx: PassContext
) -> Mapping[CacheBlock, AttentionSample]:
    """Read the first calibration text, as far as it is needed."""
    batch = next(iter(ctx.statistics(model).batches()))
    values = {id(v): v for b in blocks for v in (b.queries[0], *b.new)}
    names = {key: value.name or "" for key, value in values.items()}
    with ctx.runner(
        expose(model, list(names.values())).model, RunnerOptions(precision="f32")
    ) as runner:
        seen = runner.run(batch.feeds, list(names.values()))
    kept = slice(None) if batch.keep is None else batch.keep[0]

    def heads(value: ir.Value, size: int) -> np.ndarray:
        rows = seen[names[id(value)]][0][kept][:_TOKENS]
        return np.asarray(rows.reshape(len(rows), -1, size).transpose(1, 0, 2))

    return {
        block: AttentionSample(
            heads(block.queries[0], block.size),
            heads(block.new[0], block.size),
            heads(block.new[1], block.size),
            block.attention.attributes.get_float("scale", 0.0) or block.size**-0.5,
        )
        for block in blocks
    }
