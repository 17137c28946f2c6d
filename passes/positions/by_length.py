"""Attention of short texts apart from that of long ones, where padding is widest.

Between products padding is gone, but attention takes texts of one length: its cost grows with the
square of the longest. So texts that are at most half as long as the longest go through it apart,
cut to that half, and where attention takes no text at all, those that are at most a quarter as long
once more. Cut or not, a text begins in the first column: its sums are those of the text alone, and
zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import Editor, NodeForm, attribute_values
from irtools.model import note_one_text
from irtools.passes.positions.index_writer import IndexWriter
from irtools.passes.positions.lengths import Group, Lengths
from irtools.passes.positions.region import Region
from irtools.passes.positions.token_index import TokenIndex
from irtools.passes.positions.tokens import Operand, is_joined, is_of_tokens

__all__ = ["SPLIT_OPSET", "ByLength", "find_attention"]

SPLIT_OPSET = 18
"""ReduceMax and ReduceSum take their axes as an input from here on."""

_TWO, _THREE = ("long", "short"), ("long", "middle", "short")
"""Names of the groups of texts."""

_BIASES: Mapping[tuple[str, str], Mapping[int, int]] = MappingProxyType(
    {
        ("", "Attention"): MappingProxyType({3: 4}),
        ("com.microsoft", "MultiHeadAttention"): MappingProxyType({4: 2, 5: 4}),
    }
)
"""Inputs of fused attention that have rows or columns of positions, and their ranks."""


def find_attention(region: Region, facts: SymbolicShapes) -> list[ir.Node]:
    """Return attention that reads tokens alone, and that only tokens are read of."""
    sizes = region.mask.sizes
    nodes = {
        user: None
        for node in region.nodes
        for value in node.outputs
        for user, _ in value.uses()
        if (user.domain, user.op_type) in _BIASES
    }
    return [
        node for node in nodes if _is_of_tokens(node, region, facts) and _is_cut(node, facts, sizes)
    ]


def _is_of_tokens(node: ir.Node, region: Region, facts: SymbolicShapes) -> bool:
    rows = (*node.inputs[:3], node.outputs[0])
    shapes = [facts.shape(value) for value in rows]
    sizes = region.mask.sizes
    if not all(s is not None and len(s) == 3 and is_of_tokens(s, sizes) for s in shapes):
        return False
    if any(shape is not None and is_joined(shape, sizes) for shape in shapes):
        return False
    made = all(value is not None and value.producer() in region.nodes for value in rows[:3])
    only = not any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    output = node.outputs[0]
    read = all(
        user in region.nodes and region.nodes[user].get(index) is Operand.TOKENS
        for user, index in output.uses()
    )
    return made and only and read and not output.is_graph_output()


def _is_cut(node: ir.Node, facts: SymbolicShapes, sizes: tuple[Dim, Dim]) -> bool:
    """Whether it is known how to cut every other input."""
    biases = _BIASES[node.domain, node.op_type]
    for index, value in enumerate(node.inputs[3:], 3):
        if value is None:
            continue
        shape = facts.shape(value)
        if index not in biases or shape is None or len(shape) != biases[index]:
            return False
        rows = shape[1:] if len(shape) == 2 else shape[2:]
        if shape[0] not in (1, sizes[0]) or any(size not in (1, sizes[1]) for size in rows):
            return False
    return True


_Writing = Callable[["ir.Graph | None", NodeForm], ir.Value]
"""Writes nodes into a graph, None: in front of the attention that is replaced, and returns the
result, of which something is known."""


class ByLength:
    """Writes attention of long and of short texts.

    Args:
        editor: Of the model.
        tokens: Where tokens lie.
        facts: Of the model as it was.
        sizes: Of texts and positions.
        guarded: Attention must not be asked for no text at all: there are two groups, an If leaves
            that of short texts out where there is none, and another lets a text without padding
            through as it is.
    """

    def __init__(
        self,
        editor: Editor,
        writer: IndexWriter,
        tokens: TokenIndex,
        facts: SymbolicShapes,
        sizes: tuple[Dim, Dim],
        guarded: bool,
    ) -> None:
        self._editor = editor
        self._add, self._ints = writer.add, writer.ints
        self._facts = facts
        self._sizes = sizes
        self._guarded = guarded
        self._lengths = Lengths(writer, tokens, _TWO if guarded else _THREE)
        self._cut = cache(self._make_cut)

    def attend(self, node: ir.Node) -> ir.Value:
        """Return the rows of tokens [1, T, H] of what attention makes of such rows."""
        shape = self._facts.shape(node.outputs[0])
        assert shape is not None and isinstance(shape[2], int)
        name = f"{node.outputs[0].name}_tokens"
        made: NodeForm = {
            "outputs": {name: element_type(node.outputs[0])},
            "shape": ir.Shape([1, None, shape[2]]),
        }
        target = self._editor.constant(f"{name}_shape", np.asarray([1, -1, shape[2]], np.int64))
        every, long = (
            partial(self._write, node, groups, target)
            for groups in (self._lengths.groups, self._lengths.groups[:1])
        )
        if not self._guarded:
            return every(None, made)
        several = self._either(node, self._lengths.any_short, every, long)
        return self._either(node, self._lengths.is_alone, partial(self._copy, node), several)(
            None, made
        )

    def _either(self, node: ir.Node, condition: ir.Value, yes: _Writing, no: _Writing) -> _Writing:
        """Let an If choose."""

        def write(graph: ir.Graph | None, made: NodeForm) -> ir.Value:
            branches = {}
            name, dtype = f"{node.outputs[0].name}_tokens", element_type(node.outputs[0])
            for branch, inner in (("then_branch", yes), ("else_branch", no)):
                own = ir.Graph([], [], nodes=[], name=self._editor.fresh(f"{name}_{branch}"))
                inside: NodeForm = {**made, "outputs": {f"{name}_{branch}": dtype}}
                own.outputs.append(inner(own, inside))
                branches[branch] = own
            return self._emit(node, graph, "If", [condition], branches, **made)

        return write

    def _copy(self, node: ir.Node, graph: ir.Graph | None, made: NodeForm) -> ir.Value:
        """Write attention as it was: of one text without padding the rows are those of tokens."""
        attributes = attribute_values(node)
        form: NodeForm = {**made, "domain": node.domain}
        return self._emit(node, graph, node.op_type, node.inputs, attributes, **form)

    def _write(
        self,
        node: ir.Node,
        groups: Sequence[Group],
        target: ir.Value,
        graph: ir.Graph | None,
        made: NodeForm,
    ) -> ir.Value:
        """Write attention of each group, and gather the rows of tokens, by the shape [1, -1, H]."""
        emit = partial(self._emit, node, graph)
        parts, none = [], self._ints(0)
        for group in groups:
            name = f"{node.outputs[0].name}_{group.name}"
            rows = [
                emit("Gather", [r, group.tokens], {"axis": 1}, name=name) for r in node.inputs[:3]
            ]
            if group is self._lengths.groups[0]:
                for value, source in zip(rows, node.inputs, strict=False):
                    note_one_text(value, 0, [1, 1, -1, self._width(source)])
            rows = [emit("Squeeze", [value, none], name=name) for value in rows]
            biases = [None if v is None else self._cut(v, group) for v in node.inputs[3:]]
            attributes = attribute_values(node)
            attended = emit(
                node.op_type, [*rows, *biases], attributes, domain=node.domain, name=name
            )
            parts.append(emit("Reshape", [attended, target], name=name))
        joined = parts[0]
        if len(parts) > 1:
            joined = emit("Concat", parts, {"axis": 1})
            note_one_text(joined)
        found = emit("Gather", [joined, self._lengths.flat_cells], {"axis": 1}, **made)
        note_one_text(found)
        return found

    def _width(self, value: ir.Value | None) -> int:
        shape = None if value is None else self._facts.shape(value)
        assert shape is not None and isinstance(shape[2], int)
        return shape[2]

    def _emit(
        self,
        node: ir.Node,
        graph: ir.Graph | None,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        **form: Unpack[NodeForm],
    ) -> ir.Value:
        if graph is None:
            return self._editor.before(node, op_type, inputs, attributes, **form)
        return self._editor.append(graph, op_type, inputs, attributes, **form)

    def _make_cut(self, value: ir.Value, group: Group) -> ir.Value:
        """Return the rows and columns of a mask or bias that a group has."""
        shape, name = self._facts.shape(value), f"{value.name}_{group.name}"
        assert shape is not None
        dtype = element_type(value)
        sizes = [size if isinstance(size, int) else None for size in shape]
        if shape[0] == self._sizes[0] and shape[0] != 1:
            sizes[0] = None
            value = self._add(name, sizes, "Gather", value, group.texts, dtype=dtype, axis=0)
            note_one_text(value)
        first = 1 if len(shape) == 2 else 2
        axes = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
        if not axes:
            return value
        sizes = [None if axis in axes else size for axis, size in enumerate(sizes)]
        ends = group.width
        if len(axes) == 2:
            ends = self._add(f"{name}_ends", [2], "Concat", ends, ends, axis=0)
        starts = self._ints(*[0] * len(axes))
        cut = self._add(name, sizes, "Slice", value, starts, ends, self._ints(*axes), dtype=dtype)
        note_one_text(cut)
        return cut
