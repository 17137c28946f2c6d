"""Attention of short texts apart from that of long ones, where padding is widest.

Between products padding is gone, but attention takes texts of one length: its cost grows with the
square of the longest. So texts that are at most half as long as the longest go through it apart,
cut to that half. Cut or not, a text begins in the first column: its sums are those of the text
alone, and zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import Editor, NodeForm, attribute_values
from irtools.passes.positions.index_writer import IndexWriter
from irtools.passes.positions.region import Region
from irtools.passes.positions.token_index import TokenIndex
from irtools.passes.positions.tokens import Operand, is_joined, is_of_tokens

__all__ = ["SPLIT_OPSET", "ByLength", "find_attention"]

SPLIT_OPSET = 18
"""ReduceMax and ReduceSum take their axes as an input from here on."""

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


@dataclass(frozen=True)
class _Group:
    """Some of the texts.

    Attributes:
        name: Of the group.
        texts: Int64 [G]: which ones.
        width: Int64 [1]: columns that hold their tokens.
        tokens: Int64 [G, width]: which token lies at each position.
    """

    name: str
    texts: ir.Value
    width: ir.Value
    tokens: ir.Value


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
        guarded: Attention must not be asked for no text at all: an If leaves that of short texts
            out where there is none, and another lets a text without padding through as it is.
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
        self._writer = writer
        self._tokens = tokens
        self._facts = facts
        self._sizes = sizes
        self._guarded = guarded
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
        both, long = (
            partial(self._write, node, groups, target)
            for groups in ((self._long, self._short), (self._long,))
        )
        if not self._guarded:
            return both(None, made)
        several = self._either(node, self._any_short, both, long)
        return self._either(node, self._is_alone, partial(self._copy, node), several)(None, made)

    def _either(self, node: ir.Node, condition: ir.Value, yes: _Writing, no: _Writing) -> _Writing:
        """Let an If choose."""

        def write(graph: ir.Graph | None, made: NodeForm) -> ir.Value:
            branches = {}
            ((name, dtype),) = made["outputs"].items()
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
        groups: Sequence[_Group],
        target: ir.Value,
        graph: ir.Graph | None,
        made: NodeForm,
    ) -> ir.Value:
        """Write attention of each group, and gather the rows of tokens, by the shape [1, -1, H]."""
        emit = partial(self._emit, node, graph)
        parts, none = [], self._ints(0)
        for group in groups:
            name = f"{node.outputs[0].name}_{group.name}"
            found = [
                emit("Gather", [r, group.tokens], {"axis": 1}, name=name) for r in node.inputs[:3]
            ]
            rows = [emit("Squeeze", [value, none], name=name) for value in found]
            biases = [None if v is None else self._cut(v, group) for v in node.inputs[3:]]
            attributes = attribute_values(node)
            attended = emit(
                node.op_type, [*rows, *biases], attributes, domain=node.domain, name=name
            )
            parts.append(emit("Reshape", [attended, target], name=name))
        joined = parts[0] if len(parts) == 1 else emit("Concat", parts, {"axis": 1})
        return emit("Gather", [joined, self._flat_cells], {"axis": 1}, **made)

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

    def _make_cut(self, value: ir.Value, group: _Group) -> ir.Value:
        """Return the rows and columns of a mask or bias that a group has."""
        shape, name = self._facts.shape(value), f"{value.name}_{group.name}"
        assert shape is not None
        dtype = element_type(value)
        sizes = [size if isinstance(size, int) else None for size in shape]
        if shape[0] == self._sizes[0] and shape[0] != 1:
            sizes[0] = None
            value = self._add(name, sizes, "Gather", value, group.texts, dtype=dtype, axis=0)
        first = 1 if len(shape) == 2 else 2
        axes = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
        if not axes:
            return value
        sizes = [None if axis in axes else size for axis, size in enumerate(sizes)]
        ends = group.width
        if len(axes) == 2:
            ends = self._add(f"{name}_ends", [2], "Concat", ends, ends, axis=0)
        starts = self._ints(*[0] * len(axes))
        return self._add(name, sizes, "Slice", value, starts, ends, self._ints(*axes), dtype=dtype)

    @property
    def _add(self) -> Callable[..., ir.Value]:
        return self._writer.add

    @property
    def _ints(self) -> Callable[..., ir.Value]:
        return self._writer.ints

    @cached_property
    def _long(self) -> _Group:
        is_long = self._add("is_long", [None], "Not", self._is_short, dtype=ir.DataType.BOOL)
        return self._group("long", is_long, self._width)

    @cached_property
    def _short(self) -> _Group:
        return self._group("short", self._is_short, self._half)

    def _group(self, name: str, chosen: ir.Value, width: ir.Value) -> _Group:
        found = self._add(f"{name}_found", [1, None], "NonZero", chosen)
        texts = self._add(f"{name}_texts", [None], "Reshape", found, self._ints(-1))
        own = self._add(f"{name}_rows", [None] * 2, "Gather", self._tokens.inverse, texts, axis=0)
        axes = self._ints(1)
        tokens = self._add(f"{name}_tokens", [None] * 2, "Slice", own, self._ints(0), width, axes)
        return _Group(name, texts, width, tokens)

    @cached_property
    def _last(self) -> ir.Value:
        """Int64 [B]: the last token of each text."""
        zero, one = self._writer.scalar(0), self._writer.scalar(1)
        places = self._add("places", [None], "Range", zero, self._tokens.length, one)
        taken = self._add("taken_places", [None] * 2, "Mul", self._tokens.flags, places)
        return self._add("last_token", [None], "ReduceMax", taken, self._ints(1), keepdims=0)

    @cached_property
    def _width(self) -> ir.Value:
        """Int64 [1]: positions up to the last token of all texts."""
        last = self._add("last_of_all", [1], "ReduceMax", self._last, self._ints(0), keepdims=1)
        return self._add("longest", [1], "Add", last, self._ints(1))

    @cached_property
    def _half(self) -> ir.Value:
        return self._add("half_of_longest", [1], "Div", self._width, self._ints(2))

    @cached_property
    def _is_short(self) -> ir.Value:
        boolean = ir.DataType.BOOL
        return self._add("is_short", [None], "Less", self._last, self._half, dtype=boolean)

    @cached_property
    def _any_short(self) -> ir.Value:
        """Bool scalar."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        flags = self._add("short_flags", [None], "Cast", self._is_short, dtype=integer, to=integer)
        axes = self._ints(0)
        most = self._add("short_flag", [], "ReduceMax", flags, axes, dtype=integer, keepdims=0)
        return self._add("any_short", [], "Cast", most, dtype=boolean, to=boolean)

    @cached_property
    def _is_alone(self) -> ir.Value:
        """Bool scalar: one text without padding."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        own = self._add("token_index_sizes", [2], "Shape", self._tokens.index)
        same = self._add("same_sizes", [2], "Equal", own, self._tokens.sizes, dtype=boolean)
        flags = self._add("same_flags", [2], "Cast", same, dtype=integer, to=integer)
        axes = self._ints(0)
        least = self._add("same_flag", [], "ReduceMin", flags, axes, dtype=integer, keepdims=0)
        return self._add("is_alone", [], "Cast", least, dtype=boolean, to=boolean)

    @cached_property
    def _flat_cells(self) -> ir.Value:
        """Int64 [T]: the row of each token, of the long texts first and then of the short."""
        add, none, short = self._add, self._ints(0), self._is_short
        rows = [
            add("long_rows", [None], "Where", short, none, self._width),
            add("short_rows", [None], "Where", short, self._half, none),
        ]
        axis = self._writer.scalar(0)
        starts = [add("rows_before", [None], "CumSum", own, axis, exclusive=1) for own in rows]
        all_long = add("all_long_rows", [1], "ReduceSum", rows[0], self._ints(0), keepdims=1)
        after_long = add("rows_before", [None], "Add", starts[1], all_long)
        start = add("text_start", [None], "Where", short, after_long, starts[0])
        own = add("token_start", [None], "Gather", start, self._tokens.flat_texts, axis=0)
        return add("token_cell", [None], "Add", own, self._tokens.flat_places)
