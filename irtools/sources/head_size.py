"""The size of a head that a decoder's cache leaves open.

    past_key_values.0.key  [batch, 3, past, kv_cache_dim]  ->  [batch, 3, past, 64]

The builder of onnxruntime-genai writes a name there, as a cache of codes is narrower than a head.
Such a model takes one size alone, which its attention knows: channels of the query over heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.errors import UnsupportedError
from irtools.files import read_settings

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["with_head_size"]

_SIZE_AXIS = 3
_CACHE_INPUTS = {"GroupQueryAttention": slice(3, 5), "Attention": slice(4, 6)}
_HEADS = {"GroupQueryAttention": "num_heads", "Attention": "q_num_heads"}


def with_head_size(model: Model) -> Model:
    """Return a copy of a decoder with the head size of its cache; the model where it has one.

    The size follows from the attention that reads the cache; else from `genai_config.json` or
    `config.json` next to the model's file.

    Raises:
        UnsupportedError: Neither says it.
    """
    from irtools.model import with_sizes

    open_axes = list(_open_axes(model.ir))
    if not open_axes:
        return model
    found = set(_by_attention(model.ir))
    size = found.pop() if len(found) == 1 else _by_settings(model.source)
    if size is None:
        value, axis = open_axes[0]
        raise UnsupportedError(
            f"{value.name} leaves the size of a head open, as axis {axis}, and nothing says it: "
            f"fix it, for a size of 64 by `irc export MODEL.onnx --fix {axis}=64 -o DIR/`"
        )
    return with_sizes(model, {axis: size for _, axis in open_axes})


def _open_axes(model: ir.Model) -> Iterator[tuple[ir.Value, str]]:
    """Yield cache inputs whose head size is open, and what `with_sizes` calls it."""
    import onnx_ir as ir

    from irtools.analysis.decoder import is_past

    for value in model.graph.inputs:
        if value.name is None or not is_past(value.name) or value.shape is None:
            continue
        if len(value.shape) == _SIZE_AXIS + 1 and not isinstance(value.shape[_SIZE_AXIS], int):
            dim = value.shape[_SIZE_AXIS]
            named = dim.value if isinstance(dim, ir.SymbolicDim) else None
            yield value, named or f"{value.name}.{_SIZE_AXIS}"


def _by_attention(model: ir.Model) -> Iterator[int]:
    """Yield the sizes of heads by the attention nodes that read a cache in float32 or float16."""
    from irtools.analysis.decoder import is_past
    from irtools.analysis.shapes import SymbolicShapes

    facts = SymbolicShapes.of(model)
    for node in model.graph:
        cache = node.inputs[_CACHE_INPUTS.get(node.op_type, slice(0))]
        if not any(value is not None and is_past(value.name or "") for value in cache):
            continue
        shape = facts.shape(node.inputs[0])
        heads = node.attributes.get_int(_HEADS[node.op_type], 0)
        if node.op_type == "GroupQueryAttention" and len(node.inputs) > 1 and not node.inputs[1]:
            heads += 2 * node.attributes.get_int("kv_num_heads", 0)  # Packed into the query.
        types = {value.dtype.name for value in cache if value is not None and value.dtype}
        if types & _CODES:
            continue
        if shape and len(shape) == _SIZE_AXIS and heads and isinstance(shape[-1], int):
            yield shape[-1] // heads


_CODES = frozenset({"INT8", "UINT8"})
"""Types of caches of codes, whose rows may be narrower than a head."""


def _by_settings(source: Path | None) -> int | None:
    if source is None:
        return None
    folder = source.parent
    decoder = read_settings(folder / "genai_config.json").get("model", {}).get("decoder", {})
    settings = read_settings(folder / "config.json")
    heads, width = settings.get("num_attention_heads"), settings.get("hidden_size")
    whole = width // heads if isinstance(heads, int) and isinstance(width, int) and heads else None
    for size in (decoder.get("head_size"), settings.get("head_dim"), whole):
        if isinstance(size, int):
            return size
    return None
