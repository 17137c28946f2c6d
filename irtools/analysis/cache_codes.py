"""New keys and values of a decoder that are rounded to a few bits before they join its cache.

    k  ->  QuantizeLinear (per channel, no zero point)  ->  DequantizeLinear  ->  Attention

Any runtime reads that. One that keeps the codes in its cache computes the same numbers, in a cache
of fewer bytes. Attention takes packed heads, [B, S, G * D], so that a scale per channel is one per
head and channel.

Keys and values may be turned before they are rounded, and back after it:

    k  ->  x = (k - m) T  ->  x - r(x)  ->  QuantizeLinear  ->  DequantizeLinear  ->  . B + m

with T and B of each head and m per channel. Some columns of T may be there twice: what the first
leaves over when it is rounded, x - r(x), is rounded in the second, with a finer step; r is zero
elsewhere. A cache of codes c holds c ~ x - r(x), and with queries q B^T the scores of a query are
all lower by its product with m, which softmax does not see. Weights of attention add up to 1, so
that what it mixes of such codes of values, times B and moved by m, is what it mixes of values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_turn import CacheTurn
from irtools.analysis.decoder import find_decoder
from irtools.editing import array_of, constant_of, producer_of

__all__ = [
    "CACHE_BITS",
    "CACHE_GROUP",
    "CACHE_TYPES",
    "CacheBlock",
    "CacheCodes",
    "cache_blocks",
    "codes_of",
]

CACHE_TYPES = {8: ir.DataType.INT8, 4: ir.DataType.INT4}
"""Bits of a code to its type."""
CACHE_BITS = "cache_bits"
"""Metadata of a model whose cache the runtime is to keep in so many bits: of keys and of values."""
CACHE_GROUP = "cache_group_size"
"""Metadata of such a model: how many numbers of a head share a scale."""
_CHANNELS = 2
_KEY, _PAST_KEY = 1, 4


@dataclass(frozen=True, eq=False)
class CacheCodes:
    """How keys or values are rounded.

    Attributes:
        source: What is rounded, [B, S, G * D].
        plain: The keys or values that it was made of; itself where they are not turned.
        bits: Of a code.
        scale: Width of a step, float32 [G * D].
        turn: How the source was made of them; None: it is the keys or values.
    """

    source: ir.Value
    plain: ir.Value
    bits: int
    scale: np.ndarray
    turn: CacheTurn | None = None


@dataclass(frozen=True, eq=False)
class CacheBlock:
    """Attention over packed heads that joins new keys and values to its cache.

    Attributes:
        attention: The node.
        heads: Key heads, G.
        size: Size of a head, D.
    """

    attention: ir.Node
    heads: int
    size: int

    @property
    def new(self) -> tuple[ir.Value, ir.Value]:
        """New keys and values, [B, S, G * D]."""
        key, value = self.attention.inputs[_KEY : _KEY + 2]
        assert key is not None and value is not None
        return key, value

    @property
    def queries(self) -> tuple[ir.Value, int]:
        """Queries, [B, S, H * D], and how many heads, H, they have."""
        query = self.attention.inputs[0]
        assert query is not None
        return query, self.attention.attributes.get_int("q_num_heads", 0)

    @property
    def names(self) -> tuple[str, str]:
        """Cache inputs of keys and values."""
        key, value = self.attention.inputs[_PAST_KEY : _PAST_KEY + 2]
        assert key is not None and value is not None
        return key.name or "", value.name or ""


def cache_blocks(model: ir.Model) -> tuple[CacheBlock, ...]:
    """Return the attention blocks of a decoder that keep its whole cache, in their order.

    Empty where some of the cache is kept otherwise, where heads are not packed, and for decoders
    that do not write text by themselves.
    """
    decoder = find_decoder(model)
    if decoder is None or not decoder.generates:
        return ()
    sizes = {cache.name: (cache.heads, cache.size) for cache in decoder.past}
    blocks, joined = [], set()
    for node in model.graph:
        past = [value.name for value in node.inputs[_PAST_KEY : _PAST_KEY + 2] if value is not None]
        if node.op_type != "Attention" or node.domain or not past:
            continue
        if not node.attributes.get_int("q_num_heads", 0) or not set(past) <= set(sizes):
            return ()
        if len({sizes[name or ""] for name in past}) > 1 or len(past) < 2:
            return ()
        joined.update(past)
        blocks.append(CacheBlock(node, *sizes[past[0] or ""]))
    return tuple(blocks) if joined == set(sizes) else ()


def codes_of(value: ir.Value | None) -> CacheCodes | None:
    """Return how keys or values are rounded; None where they are not, or in another way."""
    restored = producer_of(value, "Add")
    if restored is None:
        return _rounded(value)
    back = _turned_by(restored.inputs[0])
    found = None if back is None else _rounded(back.source)
    if back is None or found is None:
        return None
    finer = producer_of(found.source, "Sub")
    coarse = None if finer is None else _rounded(finer.inputs[1])
    if finer is not None and (coarse is None or coarse.source is not finer.inputs[0]):
        return None
    forth = _turned_by(found.source if coarse is None else coarse.source)
    moved = None if forth is None else producer_of(forth.source, "Sub")
    if forth is None or moved is None or moved.inputs[0] is None:
        return None
    offset, other = array_of(moved.inputs[1]), array_of(restored.inputs[1])
    if offset is None or other is None or not np.array_equal(offset, other):
        return None
    if coarse is not None and coarse.bits != found.bits:
        return None
    turn = CacheTurn(offset, forth.by, back.by, None if coarse is None else coarse.scale)
    return replace(found, plain=moved.inputs[0], turn=turn)


@dataclass(frozen=True, eq=False)
class _ByHead:
    """A product of each head, of packed heads, with a matrix of its own, [G, D, D]."""

    source: ir.Value
    by: np.ndarray


def _turned_by(value: ir.Value | None) -> _ByHead | None:
    joined = producer_of(value, "Reshape")
    product = None if joined is None else producer_of(joined.inputs[0], "MatMul")
    apart = None if product is None else producer_of(product.inputs[0], "Reshape")
    if product is None or apart is None or apart.inputs[0] is None:
        return None
    by = array_of(product.inputs[1])
    return None if by is None or by.ndim != 3 else _ByHead(apart.inputs[0], by)


def _rounded(value: ir.Value | None) -> CacheCodes | None:
    back = producer_of(value, "DequantizeLinear")
    forth = producer_of(back.inputs[0], "QuantizeLinear") if back is not None else None
    if back is None or forth is None or forth.inputs[0] is None:
        return None
    scales = [array_of(node.inputs[1]) for node in (forth, back)]
    zeros = [array_of(node.inputs[2]) if len(node.inputs) > 2 else None for node in (forth, back)]
    kind = constant_of(forth.inputs[2]) if len(forth.inputs) > 2 else None
    bits = next((b for b, known in CACHE_TYPES.items() if kind and known == kind.dtype), None)
    if bits is None or any(zero is None or np.any(zero.astype(np.int8)) for zero in zeros):
        return None
    if any(node.attributes.get_int("axis", 1) != _CHANNELS for node in (forth, back)):
        return None
    first, second = scales
    if first is None or second is None or first.ndim != 1 or not np.array_equal(first, second):
        return None
    return CacheCodes(forth.inputs[0], forth.inputs[0], bits, first)
