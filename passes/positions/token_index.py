"""Where tokens lie among positions, computed from a mask when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.positions.padding.analysis import Mask

__all__ = ["TokenIndex"]


class TokenIndex:
    """The nodes that count tokens, each made when it is first asked for.

    The first position of every text counts as a token whatever the mask says: so no text is empty,
    and what reads the first position alone finds what it found.

    Args:
        editor: Of the model.
        mask: What is padding.
    """

    def __init__(self, editor: Editor, mask: Mask) -> None:
        self._editor = editor
        self._mask = mask

    @cached_property
    def seen(self) -> ir.Value:
        """Bool [B, S]: what the mask says, true at tokens."""
        value = self._mask.value
        outputs = {"is_token": ir.DataType.BOOL}
        if self._mask.padding:
            return self._editor.after(value, "Not", [value], outputs=outputs)
        to_bool = {"to": int(ir.DataType.BOOL)}
        return self._editor.after(value, "Cast", [value], to_bool, outputs=outputs)

    @cached_property
    def index(self) -> ir.Value:
        """Int64 [1, T]: where each token lies among the B S positions, ascending."""
        return self._add("token_index", [1, None], "NonZero", self._flags)

    @cached_property
    def flat_index(self) -> ir.Value:
        """Int64 [T]: the same."""
        return self._add("token_index_flat", [None], "Reshape", self.index, self._all)

    @cached_property
    def flat_inverse(self) -> ir.Value:
        """Int64 [B S]: which token lies at each position; at padding, the token before it."""
        zero = self._editor.constant("token_axis", np.asarray(0, np.int64))
        one = self._editor.constant("token_first", np.asarray(1, np.int64))
        number = self._add("token_number", [None], "CumSum", self._flags, zero)
        return self._add("token_at_flat", [None], "Sub", number, one)

    @cached_property
    def inverse(self) -> ir.Value:
        """Int64 [B, S]: the same."""
        flat, sizes = self.flat_inverse, self._sizes
        return self._add("token_at", self._mask.value.shape, "Reshape", flat, sizes)

    @cached_property
    def positions(self) -> ir.Value:
        """Int64 [T]: the position of each token in its text."""
        last = self._editor.constant("position_axis", np.asarray(1, np.int64))
        length = self._add("positions", [], "Gather", self._sizes, last)
        return self._add("token_position", [None], "Mod", self.flat_index, length)

    @cached_property
    def _flags(self) -> ir.Value:
        """Int64 [B S]: 1 at tokens and at the first position of each text."""
        outputs = {"token_flags": ir.DataType.INT64}
        to_int = {"to": int(ir.DataType.INT64)}
        flags = self._editor.after(self.seen, "Cast", [self.seen], to_int, outputs=outputs)
        second, end, axis = (
            self._editor.constant(name, np.asarray([number], np.int64))
            for name, number in (("second", 1), ("end", np.iinfo(np.int64).max), ("axis", 1))
        )
        rest = self._add("token_flags_rest", [None, None], "Slice", flags, second, end, axis)
        widths = self._editor.constant("widths", np.asarray([0, 1, 0, 0], np.int64))
        one = self._editor.constant("first_is_token", np.asarray(1, np.int64))
        every = self._add("token_flags_all", flags.shape, "Pad", rest, widths, one)
        return self._add("token_flags_flat", [None], "Reshape", every, self._all)

    @cached_property
    def _sizes(self) -> ir.Value:
        return self._add("positions_shape", [2], "Shape", self._mask.value)

    @cached_property
    def _all(self) -> ir.Value:
        return self._editor.constant("all", np.asarray([-1], np.int64))

    def _add(
        self,
        name: str,
        shape: ir.Shape | Sequence[int | None] | None,
        op_type: str,
        *inputs: ir.Value,
    ) -> ir.Value:
        sizes = None if shape is None else ir.Shape(shape)
        outputs = {name: ir.DataType.INT64}
        return self._editor.after(inputs[0], op_type, inputs, outputs=outputs, shape=sizes)
