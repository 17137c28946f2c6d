"""Texts of a batch in groups by their length, found from a mask when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
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

    Texts of the first group have the width of the longest, those of each later group half of the
    width before; each text is in the last group that it fits into.

    Args:
        writer: Writes into the model.
        tokens: Where tokens lie.
        names: Of the groups, two or more.
    """

    def __init__(self, writer: IndexWriter, tokens: TokenIndex, names: Sequence[str]) -> None:
        self._writer, self._add, self._ints = writer, writer.add, writer.ints
        self._tokens = tokens
        self._names = names

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All texts, the longest first."""
        parts = zip(self._names, self._chosen, self._widths, strict=True)
        return tuple(self._group(name, chosen, width) for name, chosen, width in parts)

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
    def _widths(self) -> tuple[ir.Value, ...]:
        """Int64 [1] for each group: positions up to the last token of all texts, halved."""
        last = self._add("last_of_all", [1], "ReduceMax", self._last, self._ints(0), keepdims=1)
        longest = self._add("longest", [1], "Add", last, self._ints(1))
        parts = (
            self._add(f"{name}_width", [1], "Div", longest, self._ints(2**halvings))
            for halvings, name in enumerate(self._names[1:], 1)
        )
        return (longest, *parts)

    @cached_property
    def _fitting(self) -> tuple[ir.Value, ...]:
        """Bool [B] for each group but the first: the text fits into it."""
        parts = zip(self._names[1:], self._widths[1:], strict=True)
        return tuple(
            self._add(f"fits_{name}", [None], "Less", self._last, width, dtype=ir.DataType.BOOL)
            for name, width in parts
        )

    @cached_property
    def _chosen(self) -> tuple[ir.Value, ...]:
        """Bool [B] for each group: the text is in it. What fits into one fits into those before."""
        boolean, fitting = ir.DataType.BOOL, self._fitting
        others = [
            self._add(f"too_long_for_{name}", [None], "Not", fits, dtype=boolean)
            for name, fits in zip(self._names[1:], fitting, strict=True)
        ]
        between = (
            self._add(f"is_{name}", [None], "And", fits, other, dtype=boolean)
            for name, fits, other in zip(self._names[1:], fitting, others[1:], strict=False)
        )
        return (others[0], *between, fitting[-1])

    @cached_property
    def any_short(self) -> ir.Value:
        """Bool scalar: a text is in the last group."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        short = self._chosen[-1]
        flags = self._add("short_flags", [None], "Cast", short, dtype=integer, to=integer)
        axes = self._ints(0)
        most = self._add("short_flag", [], "ReduceMax", flags, axes, dtype=integer, keepdims=0)
        return self._add("any_short", [], "Cast", most, dtype=boolean, to=boolean)

    @cached_property
    def is_alone(self) -> ir.Value:
        """Bool scalar: one text without padding."""
        integer, boolean = ir.DataType.INT32, ir.DataType.BOOL
        own = self._add("token_index_sizes", [2], "Shape", self._tokens.found)
        same = self._add("same_sizes", [2], "Equal", own, self._tokens.sizes, dtype=boolean)
        flags = self._add("same_flags", [2], "Cast", same, dtype=integer, to=integer)
        axes = self._ints(0)
        least = self._add("same_flag", [], "ReduceMin", flags, axes, dtype=integer, keepdims=0)
        return self._add("is_alone", [], "Cast", least, dtype=boolean, to=boolean)

    @cached_property
    def flat_cells(self) -> ir.Value:
        """Int64 [T]: where each row lies among those of the groups, one after the other."""
        add, axis, none = self._add, self._writer.scalar(0), self._ints(0)
        starts, before = [], None
        for name, chosen, width in zip(self._names, self._chosen, self._widths, strict=True):
            rows = add(f"{name}_rows_of_text", [None], "Where", chosen, width, none)
            start = add("rows_before", [None], "CumSum", rows, axis, exclusive=1)
            starts.append(start if before is None else add("start", [None], "Add", start, before))
            every = add(f"all_{name}_rows", [1], "ReduceSum", rows, none, keepdims=1)
            before = every if before is None else add("rows", [1], "Add", before, every)
        start = starts[-1]
        for chosen, own in reversed(list(zip(self._chosen[:-1], starts[:-1], strict=True))):
            start = add("text_start", [None], "Where", chosen, own, start)
        own = add("token_start", [None], "Gather", start, self._tokens.flat_texts, axis=0)
        return add("token_cell", [None], "Add", own, self._tokens.flat_places)
