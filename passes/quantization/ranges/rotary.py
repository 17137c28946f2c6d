"""How far rotary embedding turns keys within the positions that a decoder was trained on.

    (x, y) at position p  ->  gain * r (cos(a + p t), sin(a + p t)),   r, a of (x, y), t of the pair

Ranges of channels on short texts do not show what later positions turn a pair into; the norm r of a
pair holds anywhere, but slow pairs, which carry large means, are turned by a fraction of a radian
in all, and would get steps that are too wide. What t is follows from cosine and sine of two
neighbouring positions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from irtools.editing import array_of, producer_of
from irtools.errors import FileError
from irtools.files import context_length
from irtools.passmanager import PassContext
from irtools.statistics import expose
from irtools.targets import RunnerOptions

__all__ = ["Rotation", "Turning", "find_rotation", "turnings"]

_FULL = 2 * math.pi


@dataclass(frozen=True, eq=False)
class Rotation:
    """Rotary embedding of the keys or queries of a block.

    Attributes:
        source: What is rotated, [B, S, heads * D].
        pairs: Channels that are turned together.
        tables: Cosine and sine, [P, D / 2] or [B, S, D / 2].
    """

    source: ir.Value
    pairs: tuple[tuple[int, int], ...]
    tables: tuple[ir.Value, ir.Value]

    def pairs_of(self, size: int) -> tuple[tuple[int, int], ...]:
        """Return the pairs of the first head, of such a size."""
        return tuple(pair for pair in self.pairs if max(pair) < size)


@dataclass(frozen=True, eq=False)
class Turning:
    """How tables turn pairs of channels.

    Attributes:
        step: Radians of each pair from one position to the next, [D / 2].
        gain: What the pairs are multiplied by.
        trained: On how many positions the network was trained; None: it is not known.
    """

    step: np.ndarray
    gain: float
    trained: int | None

    @property
    def angles(self) -> np.ndarray:
        """Radians of each pair over all positions, [D / 2]: a full turn where they are unknown."""
        if self.trained is None:
            return np.full(len(self.step), _FULL)
        return np.asarray(np.minimum(self.step * (self.trained - 1), _FULL))


def find_rotation(value: ir.Value, heads: int, size: int) -> Rotation | None:
    """Return the rotary embedding that gives keys or queries; None where there is none.

    Args:
        value: They, [B, S, heads * size].
        heads: How many heads they have.
        size: Of a head.
    """
    node = producer_of(value, "RotaryEmbedding")
    other = producer_of(value, "RotaryEmbedding", domain="com.microsoft")
    if node is not None:
        source, cos, sin = node.inputs[:3]
    elif other is not None:
        node = other
        source, _, cos, sin = other.inputs[:4]
    else:
        return None
    if source is None or cos is None or sin is None:
        return None
    turned = node.attributes.get_int("rotary_embedding_dim", 0) or size
    half = turned // 2
    if node.attributes.get_int("interleaved", 0):
        inside = [(2 * i, 2 * i + 1) for i in range(half)]
    else:
        inside = [(i, i + half) for i in range(half)]
    starts = range(0, heads * size, size)
    pairs = tuple((start + x, start + y) for start in starts for x, y in inside)
    return Rotation(source, pairs, (cos, sin))


def turnings(
    model: ir.Model, rotations: Iterable[Rotation], ctx: PassContext
) -> Mapping[ir.Value, Turning]:
    """Return how keys are turned, by cosine table."""
    tables = dict.fromkeys(rotation.tables for rotation in rotations)
    trained = _trained(ctx)
    found: dict[ir.Value, Turning] = {}
    for (cos, _), rows in zip(tables, _rows(model, tables, ctx), strict=True):
        first, second = (row[0] + 1j * row[1] for row in rows)
        step = np.abs(np.angle(second * first.conj()))
        found[cos] = Turning(step, float(np.abs(first).max()), trained)
    return found


def _rows(
    model: ir.Model, tables: Iterable[tuple[ir.Value, ir.Value]], ctx: PassContext
) -> Iterator[list[np.ndarray]]:
    """Yield cosine and sine, [2, D / 2], of two neighbouring positions."""
    tables = list(tables)
    names = [v.name or "" for pair in tables for v in pair if array_of(v) is None]
    seen: Mapping[str, np.ndarray] = {}
    start = 0
    if names:
        batch = next(ctx.statistics(model).batches())
        start = _neighbours(batch.keep)
        with ctx.runner(expose(model, names).model, RunnerOptions(precision="f32")) as runner:
            seen = runner.run(batch.feeds, names)
    for pair in tables:
        arrays = [array_of(value) for value in pair]
        if all(array is not None for array in arrays):
            yield [np.stack([a[p] for a in arrays if a is not None]) for p in (0, 1)]
            continue
        rows = [seen[value.name or ""][0] for value in pair]
        end = min(start + 1, len(rows[0]) - 1)
        yield [np.stack([row[place] for row in rows]) for place in (start, end)]


def _neighbours(keep: np.ndarray | None) -> int:
    """Return the first of two tokens in a row that are not padding."""
    if keep is None:
        return 0
    places = np.flatnonzero(keep[0])
    return next((int(a) for a, b in pairwise(places) if b == a + 1), 0)


def _trained(ctx: PassContext) -> int | None:
    content = ctx.companion("config.json")
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError as error:
        raise FileError(f"cannot read config.json next to the model: {error}") from error
    return context_length(found) if isinstance(found, dict) else None
