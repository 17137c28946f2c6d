"""Decoders whose attention joins new keys and values to its cache in the buffer that holds it.

    Attention(q, k, v, mask, past_key, past_value)
      ->  GroupQueryAttention(q, k, v, past_key, past_value, seqlens_k, total, attention_bias=mask)

Attention copies the whole cache into a new one at every step. GroupQueryAttention writes new tokens
into its present output, and where that is bound to the buffer of the past, nothing is copied. The
buffer may then be longer than the text: how much of it counts is `total`, the length of the mask.
Measured on one thread, 9 heads of 64 over 3 with 4,096 tokens: 0.46 ms in place of 0.69; fed and
returned as arrays 1.1. So the form is for runners that bind buffers: ours, and onnxruntime-genai.

Keys and values that are rounded to codes before they join the cache (the pass `kv`) are handed over
as they are, with their scales: the kernel rounds them itself, and keeps the codes of the whole
cache, [B, G, P, D] in int8 or [B, G, P, D / 2] with two codes of 4 bits to a byte. Where keys and
values are turned before it, queries are turned against the keys, and what attention returns is
turned back. The numbers are the same.

Every row has as many tokens as the mask is long, and the mask says which of them count: texts may
be padded anywhere, as in the portable form. The kernel refuses to read several tokens after a cache
in a batch of several texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import CacheCodes, codes_of
from irtools.analysis.cache_turn import CacheTurn
from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.backends.onnxruntime.coded_cache import SHARED_CACHE, CodedCache, note_codes
from irtools.editing import Editor, Place

__all__ = ["share_caches"]

_FORM = "shared-cache"
_ATTENTION_INPUTS = 6
_UNKNOWN = frozenset({"qk_matmul_output_mode", "softmax_precision"})
_LENGTH_AXIS = 2


@dataclass(frozen=True)
class _Lengths:
    """int32 [B] and int32 []: tokens of each row less one, and of the longest row."""

    last: ir.Value
    total: ir.Value


def share_caches(editor: Editor, model: ir.Model) -> dict[str, int]:
    """Rewrite the attention of a decoder in place; all of it or nothing.

    Nothing where its cache is read by anything but attention with an added mask, or goes from
    attention to anything but the outputs.

    Returns:
        Blocks that were rewritten, by the name of the form.
    """
    decoder = find_decoder(model)
    if decoder is None or not decoder.generates or decoder.mask is None:
        return {}
    inputs = {value.name: value for value in model.graph.inputs}
    past = [inputs[cache.name] for cache in decoder.past]
    lengths = [node for value in past for node in _length_readers(value)]
    facts = SymbolicShapes.of(model)
    blocks = [node for node in model.graph if _is_block(node, facts)]
    if {id(value) for node in blocks for value in node.inputs[4:6]} != set(map(id, past)):
        return {}
    known = {id(node) for node in (*blocks, *lengths)}
    if any(id(node) not in known for value in past for node in value.consumers()):
        return {}
    _share(editor, model, decoder, blocks, lengths)
    model.metadata_props[SHARED_CACHE] = "true"
    return {_FORM: len(blocks)}


def _is_block(node: ir.Node, facts: SymbolicShapes) -> bool:
    """Whether a node is attention over packed heads with an added mask and a cache of its own."""
    if node.op_type != "Attention" or node.domain or len(node.inputs) != _ATTENTION_INPUTS:
        return False
    if any(value is None for value in node.inputs) or len(node.outputs) != 3:
        return False
    _, _, _, mask, key, value = node.inputs
    assert key is not None and value is not None
    shape = facts.shape(mask)
    # The kernel does not broadcast a mask along positions.
    is_whole = shape is not None and len(shape) == 4 and 1 not in shape[2:]
    is_float = all(element_type(v) is ir.DataType.FLOAT for v in (mask, key, value))
    goes_out = all(v.is_graph_output() and not v.uses() for v in node.outputs[1:])
    return (
        is_whole
        and is_float
        and goes_out
        and key.is_graph_input()
        and key.shape == value.shape
        and not node.attributes.get_int("is_causal", 0)
        and node.attributes.get_int("q_num_heads", 0) > 0
        and not _UNKNOWN & set(node.attributes)
    )


def _length_readers(past: ir.Value) -> list[ir.Node]:
    """Nodes that ask how many tokens a cache holds, or for sizes that do not grow."""
    return [
        node for node in past.consumers() if node.op_type == "Shape" and _axes(node) is not None
    ]


def _axes(shape: ir.Node) -> range | None:
    """Return which axes of a cache a Shape reads: one, or none of them its length; else None."""
    start = shape.attributes.get_int("start", 0)
    end = shape.attributes.get_int("end", 4)
    axes = range(start % 4, end if end >= 0 else end + 4)
    return axes if len(axes) == 1 or _LENGTH_AXIS not in axes else None


def _share(
    editor: Editor,
    model: ir.Model,
    decoder: CachedDecoder,
    blocks: Sequence[ir.Node],
    lengths: Sequence[ir.Node],
) -> None:
    inputs = {value.name: value for value in model.graph.inputs}
    ids, mask = inputs[decoder.ids], inputs[decoder.mask or ""]
    first = editor.first((*blocks, *lengths))
    place = Place(editor.by(_FORM), first)
    total = place.value("Shape", [mask], {"start": 1, "end": 2})
    new = place.value("Shape", [ids], {"start": 1, "end": 2})
    past = place.value("Sub", [total, new])
    total_int32 = place.value("Cast", [total], {"to": ir.DataType.INT32})
    scalar = place.value("Squeeze", [total_int32])
    last = place.value("Sub", [total_int32, place.constant(np.array([1], np.int32))])
    rows = place.value("Shape", [ids], {"start": 0, "end": 1})
    made = _Lengths(place.value("Expand", [last, rows]), scalar)
    for node in lengths:
        if _axes(node) == range(_LENGTH_AXIS, _LENGTH_AXIS + 1):
            # A buffer is longer than what it holds.
            editor.forward(node.outputs[0], past)
            editor.remove(node)
    found = [coded for node in blocks for coded in _replace(editor, node, made)]
    note_codes(model, found)


def _replace(editor: Editor, node: ir.Node, lengths: _Lengths) -> tuple[CodedCache, ...]:
    """Put the kernel in the place of attention; returns its caches that hold codes."""
    query, key, value, mask, past_key, past_value = node.inputs
    key_codes, value_codes = codes_of(key), codes_of(value)
    attributes: dict[str, object] = {
        "num_heads": node.attributes.get_int("q_num_heads", 0),
        "kv_num_heads": node.attributes.get_int("kv_num_heads", 0),
        # The mask says all; a causal one twice would not be faster.
        "causal": 0,
    }
    if "scale" in node.attributes:
        attributes["scale"] = node.attributes.get_float("scale", 0.0)
    if node.attributes.get_float("softcap", 0.0):
        attributes["softcap"] = node.attributes.get_float("softcap", 0.0)
    # After the lengths: rotary tables and positions; the rotation stays a node of its own.
    inputs = [query, key, value, past_key, past_value, lengths.last, lengths.total]
    inputs += [None, None, None, mask]
    if key_codes is None or value_codes is None or key_codes.bits != value_codes.bits:
        editor.replace(node, "GroupQueryAttention", inputs, attributes, domain="com.microsoft")
        return ()
    assert past_key is not None and past_value is not None
    caches = (
        _coded(past_key, node.outputs[1], key_codes),
        _coded(past_value, node.outputs[2], value_codes),
    )
    inputs[1:3] = [key_codes.source, value_codes.source]
    if key_codes.turn is not None:
        assert query is not None
        inputs[0] = _turn_against(editor, node, query, key_codes.turn.back)
    scales = [editor.constant(f"{c.name}.scale", c.scale[None, :, None]) for c in caches]
    attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
    attributes["kv_cache_bit_width"] = key_codes.bits
    made = editor.replace(
        node,
        "GroupQueryAttention",
        [*inputs, None, *scales],
        attributes,
        domain="com.microsoft",
    )
    editor.drop_unread(key, value)
    if value_codes.turn is not None:
        _turn_back(editor, made, value_codes.turn)
    for past, present, cache in zip((past_key, past_value), made.outputs[1:], caches, strict=True):
        _hold_codes(past, cache)
        _hold_codes(present, cache)
    return caches


def _turn_against(editor: Editor, node: ir.Node, query: ir.Value, back: np.ndarray) -> ir.Value:
    """Turn queries, [B, S, H * D], against the keys that they meet.

    Args:
        back: What turns those back, [G, D, D].
    """
    apart, joined = _forms(editor, node, back, "queries")
    turn = editor.constant("query_turn", np.ascontiguousarray(back.transpose(0, 2, 1)))
    name, kind = query.name or "query", ir.DataType.FLOAT
    made = editor.before(node, "Reshape", [query, apart], outputs={f"{name}_apart": kind})
    made = editor.before(node, "MatMul", [made, turn], outputs={f"{name}_by_head": kind})
    return editor.before(node, "Reshape", [made, joined], outputs={f"{name}_turned": kind})


def _turn_back(editor: Editor, node: ir.Node, turn: CacheTurn) -> None:
    """Turn back what attention mixes of turned values, and move it: weights add up to 1."""
    mixed = node.outputs[0]
    readers = tuple(mixed.uses())
    apart, joined = _forms(editor, node, turn.back, "mixed")
    heads, size = node.attributes.get_int("num_heads", 0), turn.back.shape[1]
    offset = turn.offset.reshape(-1, size)
    repeated = np.repeat(offset, heads // len(offset), axis=0).reshape(-1)
    steps = (
        ("Reshape", apart, "apart"),
        ("MatMul", editor.constant("value_turn", turn.back), "by_head"),
        ("Reshape", joined, "back"),
        ("Add", editor.constant("value_mean", repeated), "restored"),
    )
    made = mixed
    for op_type, by, suffix in steps:
        outputs = {f"{mixed.name or 'mixed'}_{suffix}": ir.DataType.FLOAT}
        made = editor.after(made, op_type, [made, by], outputs=outputs)
    for reader, position in readers:
        reader.replace_input_with(position, made)
    if mixed.is_graph_output():
        editor.replace_output(mixed, made)


def _forms(editor: Editor, node: ir.Node, turn: np.ndarray, name: str) -> tuple[ir.Value, ir.Value]:
    """Return the shapes of query heads by the head that they meet, and of packed heads."""
    groups, size, _ = turn.shape
    heads = node.attributes.get_int("q_num_heads", 0) or node.attributes.get_int("num_heads", 0)
    apart = np.array([0, 0, groups, heads // groups, size], np.int64)
    joined = np.array([0, 0, heads * size], np.int64)
    return editor.constant(f"{name}_apart", apart), editor.constant(f"{name}_joined", joined)


def _coded(past: ir.Value, present: ir.Value, codes: CacheCodes) -> CodedCache:
    heads = None if past.shape is None else past.shape[1]
    assert isinstance(heads, int)
    scale = codes.scale.reshape(heads, -1)
    return CodedCache(past.name or "", present.name or "", codes.bits, scale, codes.turn)


def _hold_codes(value: ir.Value, cache: CodedCache) -> None:
    """Declare that a cache input or output holds codes."""
    assert value.shape is not None
    batch, heads, length, _ = value.shape
    value.type = ir.TensorType(ir.DataType.from_numpy(cache.dtype))
    value.shape = ir.Shape([batch, heads, length, cache.width])
