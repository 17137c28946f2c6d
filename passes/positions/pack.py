"""Letting nodes compute tokens alone.

    index   [1, T]   where each token lies among the B S positions; more than tokens where
                     T is to be a multiple of a step
    inverse [B, S]   which token lies at each position; at padding, the token before it

A tensor [B, S, H] becomes [1, T, H], one long text, so that nodes stay as they are but for the
targets of a Reshape. What leaves for nodes that need all positions is gathered by `inverse`: at
padding it repeats a token of the same text, which is finite as long as that token is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import Editor, array_of
from irtools.model import note_one_text
from irtools.passes.positions.by_length import ByLength
from irtools.passes.positions.index_writer import IndexWriter
from irtools.passes.positions.padding.base import Number
from irtools.passes.positions.padding.lookups import slices_first, takes_first
from irtools.passes.positions.region import Region
from irtools.passes.positions.token_index import TokenIndex
from irtools.passes.positions.tokens import Operand, is_joined

__all__ = ["MIN_OPSET", "Wanted", "pack"]

MIN_OPSET = 13
"""Pad and Where take integers from here on."""


@dataclass(frozen=True)
class Wanted:
    """What a rewrite is to make.

    Attributes:
        region: What runs on tokens alone.
        fills: Results of the model to what they hold at padding from now on.
        attention: Attention that is to run by length of the texts.
        guarded: As in `ByLength`.
        step: As in `TokenIndex`.
    """

    region: Region
    fills: Mapping[ir.Value, Number]
    attention: Sequence[ir.Node] = ()
    guarded: bool = True
    step: int = 1


def pack(editor: Editor, wanted: Wanted, facts: SymbolicShapes) -> None:
    """Rewrite a model.

    Args:
        editor: Of the model.
        wanted: What is to be made.
        facts: Of the model as it is.
    """
    region, packer = wanted.region, _Packer(editor, wanted, facts)
    made = [output for node in region.nodes for output in node.outputs]
    for value in made:
        # What has a shape needs a type, where the exporter wrote neither.
        if value.type is None and (dtype := element_type(value)) is not None:
            value.type = ir.TensorType(dtype)
    for node in wanted.attention:
        packer.attend_by_length(node)
    for value, number in wanted.fills.items():
        packer.fill_result(value, number)
    for value in made:
        packer.unpack(value)
    for node, operands in region.nodes.items():
        for index, operand in operands.items():
            read = node.inputs[index]
            assert read is not None
            if operand is Operand.POSITIONS:
                node.replace_input_with(index, packer.of_positions(read, node))
            elif read.producer() not in region.nodes:
                node.replace_input_with(index, packer.of_tokens(read))
        packer.adjust(node)
    editor.drop_unread(*wanted.attention)
    editor.graph.sort()


class _Packer:
    def __init__(self, editor: Editor, wanted: Wanted, facts: SymbolicShapes) -> None:
        region, writer = wanted.region, IndexWriter(editor)
        self._editor = editor
        self._region = region
        self._facts = facts
        self._tokens = TokenIndex(writer, region.mask, wanted.step)
        self._by_length = ByLength(
            editor, writer, self._tokens, facts, region.mask.sizes, wanted.guarded
        )
        self._packed: dict[ir.Value, ir.Value] = {}
        self._rows = cache(self._make_rows)
        nodes = region.nodes
        self._others = {
            value: [
                use
                for use in value.uses()
                if use.node not in wanted.attention
                and (use.node not in nodes or use.idx not in nodes[use.node])
            ]
            for node in nodes
            for value in node.outputs
        }
        """Readers of results that are not packed themselves, before anything is rewritten."""

    def unpack(self, value: ir.Value) -> None:
        """Give a result of a node that computes tokens alone to readers that need all positions."""
        left = [use for use in self._others[value] if not self._take_first(use.node, value)]
        if not left and not value.is_graph_output():
            return
        whole = self._filled(self._spread(value), value, self._region.fills[value])
        for user, index in left:
            user.replace_input_with(index, whole)
        if value.is_graph_output():
            self._editor.replace_output(value, whole, left=f"{value.name}_tokens")

    def attend_by_length(self, node: ir.Node) -> None:
        """Let attention run on texts of two lengths."""
        self._packed[node.outputs[0]] = self._by_length.attend(node)

    def fill_result(self, value: ir.Value, number: Number) -> None:
        """Let a result of the model hold a number at padding."""
        whole = self._spread(value) if value.producer() in self._region.nodes else value
        filled = self._filled(whole, value, number)
        self._editor.replace_output(value, filled, left=f"{value.name}_tokens")

    def of_tokens(self, value: ir.Value) -> ir.Value:
        """Return the rows of tokens of a tensor that has one for every position."""
        if value not in self._packed:
            joined = is_joined(self._shape(value), self._region.mask.sizes)
            index = self._tokens.flat_index if joined else self._tokens.index
            self._packed[value] = self._gather(self._rows(value), index, value, "tokens")
        return self._packed[value]

    def of_positions(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """Return a row for each token of a tensor that has one for each position."""
        own, result = len(self._shape(value)), len(self._shape(node.outputs[0]))
        axis = 1 - (result - own)
        sizes: list[int | ir.SymbolicDim | None] = list(value.shape or [None] * own)
        sizes[axis] = None
        rows = self._editor.after(
            value,
            "Gather",
            [value, self._tokens.flat_places],
            {"axis": axis},
            outputs={f"{value.name}_tokens": element_type(value)},
            shape=ir.Shape(sizes),
        )
        note_one_text(rows)
        return rows

    def adjust(self, node: ir.Node) -> None:
        """Let a node make the rows of tokens of their rows."""
        for output in node.outputs:
            shape = self._facts.shape(output)
            if shape is None:
                continue
            joined, own = is_joined(shape, self._region.mask.sizes), self._row(shape)
            output.shape = ir.Shape([None, *own] if joined else [1, None, *own])
            if node.op_type in ("Expand", "Reshape") and node.domain == "":
                tokens = 1 if node.op_type == "Expand" else -1
                target = np.asarray([tokens, *own] if joined else [1, tokens, *own], np.int64)
                old = node.inputs[1]
                node.replace_input_with(1, self._editor.constant(f"{node.name}_shape", target))
                node.attributes.pop("allowzero", None)
                self._editor.drop_unread(old)

    def _take_first(self, node: ir.Node, value: ir.Value) -> bool:
        """Let a reader of the first position of every text find it among the tokens."""
        if node.domain != "" or node.op_type not in ("Gather", "Slice"):
            return False
        shape = self._shape(value)
        axis = node.attributes.get_int("axis", 0) % len(shape)
        if node.op_type == "Gather" and (axis != 1 or not takes_first(node.inputs[1])):
            return False
        if node.op_type == "Slice" and not slices_first(node):
            return False
        if is_joined(shape, self._region.mask.sizes):
            return False
        inverse, parameters = self._tokens.inverse, node.inputs[1:]
        rows = self._editor.before(
            node,
            node.op_type,
            [inverse, *parameters],
            {"axis": 1} if node.op_type == "Gather" else {},
            outputs={f"{node.outputs[0].name}_index": ir.DataType.INT64},
        )
        note_one_text(rows, None, self._first_of_one(node))
        self._editor.replace(node, "Gather", [self._rows(value), rows], {"axis": 0})
        return True

    @staticmethod
    def _first_of_one(node: ir.Node) -> list[int]:
        """Return the shape of the index of the first position of one text."""
        taken = array_of(node.inputs[1]) if node.op_type == "Gather" else None
        return [1, 1] if taken is None else [1, *taken.shape]

    def _spread(self, value: ir.Value) -> ir.Value:
        """Return a tensor that has a row for every position, of one that has them for tokens."""
        joined = is_joined(self._shape(value), self._region.mask.sizes)
        inverse = self._tokens.flat_inverse if joined else self._tokens.inverse
        return self._gather(self._rows(value), inverse, value, "positions", value.shape)

    def _filled(self, whole: ir.Value, value: ir.Value, number: Number | None) -> ir.Value:
        """Return a tensor with a number at padding."""
        if number is None:
            return whole
        dtype = element_type(value) or ir.DataType.FLOAT
        fill = self._editor.constant("at_padding", np.asarray(number, dtype.numpy()))
        seen = self._seen(self._shape(value))
        name = f"{value.name}_filled"
        filled = self._editor.after(
            whole, "Where", [seen, whole, fill], outputs={name: dtype}, shape=value.shape
        )
        note_one_text(filled, 1)
        return filled

    def _seen(self, shape: Shape) -> ir.Value:
        seen, ones = self._tokens.seen, [1] * len(self._row(shape))
        joined = is_joined(shape, self._region.mask.sizes)
        if not ones and not joined:
            return seen
        target = [-1, *ones] if joined else [0, 0, *ones]
        sizes = self._editor.constant("seen_shape", np.asarray(target, np.int64))
        return self._editor.after(
            seen,
            "Reshape",
            [seen, sizes],
            outputs={"is_token_row": ir.DataType.BOOL},
            shape=ir.Shape([None] * len(target)),
        )

    def _make_rows(self, value: ir.Value) -> ir.Value:
        """Return a tensor whose first axis is tokens, or all positions of all texts."""
        shape = self._shape(value)
        if is_joined(shape, self._region.mask.sizes):
            return value
        own = self._row(shape)
        sizes = self._editor.constant(f"{value.name}_rows_shape", np.asarray([-1, *own], np.int64))
        return self._editor.after(
            value,
            "Reshape",
            [value, sizes],
            outputs={f"{value.name}_rows": element_type(value)},
            shape=ir.Shape([None, *own]),
        )

    def _gather(
        self,
        rows: ir.Value,
        index: ir.Value,
        value: ir.Value,
        what: str,
        shape: ir.Shape | None = None,
    ) -> ir.Value:
        joined = is_joined(self._shape(value), self._region.mask.sizes)
        own = self._row(self._shape(value))
        found = self._editor.after(
            rows,
            "Gather",
            [rows, index],
            {"axis": 0},
            outputs={f"{value.name}_{what}": element_type(value)},
            shape=shape or ir.Shape([None, *own] if joined else [1, None, *own]),
        )
        note_one_text(found, 0, None if joined else [1, -1, *own])
        return found

    def _row(self, shape: Shape) -> list[int]:
        sizes: Sequence[object] = shape[1 if is_joined(shape, self._region.mask.sizes) else 2 :]
        return [size for size in sizes if isinstance(size, int)]

    def _shape(self, value: ir.Value) -> Shape:
        shape = self._facts.shape(value)
        assert shape is not None
        return shape
