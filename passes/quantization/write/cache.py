"""Writes the rounding of new keys and values before they join a decoder's cache."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import CACHE_TYPES, CacheBlock
from irtools.editing import Editor
from irtools.passes.quantization.ranges.cache_roundings import CacheRounding
from irtools.passes.quantization.ranges.turned_cache import Turned

__all__ = ["round_block"]


def round_block(editor: Editor, block: CacheBlock, rounding: CacheRounding) -> None:
    """Round keys and values of a block to codes and back."""
    for position, how in enumerate((rounding.keys, rounding.values), start=1):
        if isinstance(how, Turned):
            _round_turned(editor, block, position, how)
        else:
            _round(editor, block.attention, position, how, rounding.bits)


def _round(editor: Editor, node: ir.Node, position: int, scale: np.ndarray, bits: int) -> None:
    """Round an input of attention, [B, S, G * D], to codes and back."""
    value = node.inputs[position]
    assert value is not None
    node.replace_input_with(position, _codes_and_back(editor, node, value, scale, bits))


def _codes_and_back(
    editor: Editor, node: ir.Node, value: ir.Value, scale: np.ndarray, bits: int
) -> ir.Value:
    kind = CACHE_TYPES[bits]
    steps = editor.constant(f"{value.name}_scale", scale)
    zeros = editor.constant(f"{value.name}_zero", np.zeros(len(scale), kind.numpy()))
    codes = editor.before(
        node,
        "QuantizeLinear",
        [value, steps, zeros],
        {"axis": 2},
        outputs={f"{value.name}_codes": kind},
        shape=value.shape,
    )
    return editor.before(
        node,
        "DequantizeLinear",
        [codes, steps, zeros],
        {"axis": 2},
        outputs={f"{value.name}_rounded": ir.DataType.FLOAT},
        shape=value.shape,
    )


def _round_turned(editor: Editor, block: CacheBlock, position: int, how: Turned) -> None:
    """Turn keys or values of a block, round them to 4 bits and back, and turn them back."""
    node, rows, turn = block.attention, block.new[position - 1], how.turn
    form = np.array([0, 0, block.heads, 1, block.size], np.int64)
    apart = editor.constant("heads_apart", form)
    joined = editor.constant("heads_joined", np.array([0, 0, block.heads * block.size], np.int64))
    offset = editor.constant(f"{rows.name}_mean", turn.offset)

    def add(op_type: str, value: ir.Value, by: ir.Value, name: str) -> ir.Value:
        outputs = {f"{rows.name}_{name}": ir.DataType.FLOAT}
        return editor.before(node, op_type, [value, by], outputs=outputs)

    def turned(value: ir.Value, matrices: np.ndarray, name: str) -> ir.Value:
        by = editor.constant(("key_turn", "value_turn")[position - 1], matrices)
        made = add("MatMul", add("Reshape", value, apart, f"{name}_apart"), by, f"{name}_by_head")
        return add("Reshape", made, joined, name)

    source = turned(add("Sub", rows, offset, "centered"), turn.forth, "turned")
    if turn.coarse is not None:
        coarse = _codes_and_back(editor, node, source, turn.coarse, 4)
        source = add("Sub", source, coarse, "finer")
    rounded = _codes_and_back(editor, node, source, how.scale, 4)
    back = add("Add", turned(rounded, turn.back, "back"), offset, "restored")
    node.replace_input_with(position, back)
