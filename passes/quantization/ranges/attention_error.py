"""What attention loses if its keys and values are rounded, on a text that was read once.

Moments do not show it all: a few tokens that every query looks at weigh more than the rest, and
theirs are the values that steps by the spread clip.
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

__all__ = ["AttentionSample", "read_attention", "rounded_keys", "rounded_values"]

_TOKENS = 256


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

    def mixed(self, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return what each query mixes of values by such keys, [H, S, D]; it sees no later ones."""
        repeats = len(self.queries) // len(keys)
        later = np.triu(np.full((keys.shape[1],) * 2, -np.inf, np.float32), 1)
        found = []
        for head, queries in enumerate(self.queries):
            scores = self.scale * (queries @ keys[head // repeats].T) + later
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            found.append(weights @ values[head // repeats])
        return np.stack(found)

    def error(self, exact: np.ndarray, keys: np.ndarray, values: np.ndarray) -> float:
        """Return by how much of the whole, squared, the result differs from the exact one."""
        size = float(np.sum(exact**2))
        return float(np.sum((self.mixed(keys, values) - exact) ** 2)) / (size or 1.0)


def rounded_keys(keys: np.ndarray, turn: CacheTurn, scale: np.ndarray) -> np.ndarray:
    """Return keys, [G, S, D], as a cache with codes of 4 bits has them."""
    return turn.restored(rounded_values(turn.turned(keys), scale))


def rounded_values(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return values, [G, S, D], as a cache with codes of 4 bits has them."""
    steps = scale.reshape(len(values), 1, -1)
    return np.asarray(nearest_codes(values, steps, TURNED_BITS) * steps)


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
