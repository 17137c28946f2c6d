"""Which texts of a batch are long and which short, computed from a mask when the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from irtools.passes.positions.index_writer import IndexWriter
from irtools.passes.positions.token_index import TokenIndex

__all__ = ["Group", "Lengths"]


@dataclass(frozen=True)
class Group:
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


class Lengths:
    """The nodes that part texts by length, each made when it is first asked for.

    Args:
        writer: Writes into the model.
        tokens: Where tokens lie.
    """

    def __init__(self, writer: IndexWriter, tokens: TokenIndex) -> None:
        self._writer, self._add, self._ints = writer, writer.add, writer.ints
        self._tokens = tokens

    @cached_property
    def long(self) -> Group:
        """Texts that are more than half as long as the longest."""
        is_long = self._add("is_long", [None], "Not", self._is_short, dtype=ir.DataType.BOOL)
        return self._group("long", is_long, self._width)

    @cached_property
    def short(self) -> Group:
        """The others, cut to that half."""
        return self._group("short", self._is_short, self._half)

    def _group(self, name: str, chosen: ir.Value, width: ir.Value) -> Group:
        found = self._add(f"{name}_found", [1, None], "NonZero", chosen)
        texts = self._add(f"{name}_texts", [None], "Reshape", found, self._ints(-1))
        own = self._add(f"{name}_rows", [None] * 2, "Gather", self._tokens.inverse, texts, axis=0)
        axes = self._ints(1)
        tokens = self._add(f"{name}_tokens", [None] * 2, "Slice", own, self._ints(0), width, axes)
        return Group(name, texts, width, tokens)

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
    def any_short(self) -> ir.Value:
        """Bool scalar: a text is short."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        flags = self._add("short_flags", [None], "Cast", self._is_short, dtype=integer, to=integer)
        axes = self._ints(0)
        most = self._add("short_flag", [], "ReduceMax", flags, axes, dtype=integer, keepdims=0)
        return self._add("any_short", [], "Cast", most, dtype=boolean, to=boolean)

    @cached_property
    def is_alone(self) -> ir.Value:
        """Bool scalar: one text without padding."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        own = self._add("token_index_sizes", [2], "Shape", self._tokens.index)
        same = self._add("same_sizes", [2], "Equal", own, self._tokens.sizes, dtype=boolean)
        flags = self._add("same_flags", [2], "Cast", same, dtype=integer, to=integer)
        axes = self._ints(0)
        least = self._add("same_flag", [], "ReduceMin", flags, axes, dtype=integer, keepdims=0)
        return self._add("is_alone", [], "Cast", least, dtype=boolean, to=boolean)

    @cached_property
    def flat_cells(self) -> ir.Value:
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
