"""Where tokens lie among positions, computed from a mask when the model runs."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx_ir as ir

from irtools.model import mark_token_flags
from irtools.passes.positions.index_writer import IndexWriter
from irtools.passes.positions.padding.analysis import Mask

__all__ = ["TokenIndex"]

_END = np.iinfo(np.int64).max


class TokenIndex:
    """The nodes that count tokens, each made when it is first asked for.

    The first position of every text counts as a token whatever the mask says: so no text is empty,
    and what reads the first position alone finds what it found.

    Args:
        writer: Writes into the model.
        mask: What is padding.
        step: What the number of rows is a multiple of; rows after the last token repeat the first.
    """

    def __init__(self, writer: IndexWriter, mask: Mask, step: int = 1) -> None:
        self._writer = writer
        self._mask = mask
        self._step = step
        self._shape = list(mask.value.shape or (None, None))

    @cached_property
    def seen(self) -> ir.Value:
        """Bool [B, S]: what the mask says, true at tokens."""
        value, add, boolean = self._mask.value, self._writer.add, ir.DataType.BOOL
        if self._mask.padding:
            seen = add("is_token", self._shape, "Not", value, dtype=boolean)
        else:
            seen = add("is_token", self._shape, "Cast", value, dtype=boolean, to=int(boolean))
        mark_token_flags(seen)
        return seen

    @cached_property
    def flags(self) -> ir.Value:
        """Int64 [B, S]: 1 at tokens and at the first position of each text, else 0."""
        add, ints = self._writer.add, self._writer.ints
        to = int(ir.DataType.INT64)
        flags = add("token_flags", self._shape, "Cast", self.seen, to=to)
        rest = add("later_flags", [None, None], "Slice", flags, ints(1), ints(_END), ints(1))
        first = self._writer.scalar(1)
        return add("first_and_flags", self._shape, "Pad", rest, ints(0, 1, 0, 0), first)

    @cached_property
    def found(self) -> ir.Value:
        """Int64 [1, tokens]: where each token lies among the B S positions, ascending."""
        return self._writer.add("token_index", [1, None], "NonZero", self._flat_flags)

    @cached_property
    def index(self) -> ir.Value:
        """Int64 [1, T]: the same, and the first position once more for each row up to a step."""
        if self._step == 1:
            return self.found
        add, ints, step = self._writer.add, self._writer.ints, self._step
        sizes = add("found_sizes", [2], "Shape", self.found)
        number = add("found_number", [1], "Gather", sizes, ints(1), axis=0)
        up = add("found_and_step", [1], "Add", number, ints(step - 1))
        steps = add("steps", [1], "Div", up, ints(step))
        rows = add("rows_of_steps", [1], "Mul", steps, ints(step))
        more = add("more_rows", [1], "Sub", rows, number)
        pads = add("row_pads", [4], "Concat", ints(0, 0, 0), more, axis=0)
        return add("whole_steps_index", [1, None], "Pad", self.found, pads, self._writer.scalar(0))

    @cached_property
    def flat_index(self) -> ir.Value:
        """Int64 [T]: the same."""
        every = self._writer.ints(-1)
        return self._writer.add("flat_token_index", [None], "Reshape", self.index, every)

    @cached_property
    def flat_inverse(self) -> ir.Value:
        """Int64 [B S]: which token lies at each position; at padding, the token before it."""
        axis, one = self._writer.scalar(0), self._writer.scalar(1)
        number = self._writer.add("token_number", [None], "CumSum", self._flat_flags, axis)
        return self._writer.add("flat_token_at", [None], "Sub", number, one)

    @cached_property
    def inverse(self) -> ir.Value:
        """Int64 [B, S]: the same."""
        return self._writer.add("token_at", self._shape, "Reshape", self.flat_inverse, self.sizes)

    @cached_property
    def flat_texts(self) -> ir.Value:
        """Int64 [T]: which text each row is of."""
        return self._writer.add("token_text", [None], "Div", self.flat_index, self.length)

    @cached_property
    def flat_places(self) -> ir.Value:
        """Int64 [T]: the position of each row in its text."""
        return self._writer.add("token_place", [None], "Mod", self.flat_index, self.length)

    @cached_property
    def length(self) -> ir.Value:
        """Int64 scalar: S."""
        one = self._writer.scalar(1)
        return self._writer.add("positions", [], "Gather", self.sizes, one)

    @cached_property
    def _flat_flags(self) -> ir.Value:
        every = self._writer.ints(-1)
        return self._writer.add("flat_token_flags", [None], "Reshape", self.flags, every)

    @cached_property
    def sizes(self) -> ir.Value:
        """Int64 [2]: B and S."""
        return self._writer.add("mask_sizes", [2], "Shape", self._mask.value)
