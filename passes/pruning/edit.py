"""Removing channels: the dull half of structured pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import AttributeEdit, ChannelGroup, ShapeEdit, TakeEdit
from irtools.editing import Editor, new_contents, require_weight, take_place

__all__ = ["SUFFIX", "Cut", "remove_channels"]

SUFFIX = "pruned"
"""Of names that constants get next to those they are made of."""


@dataclass(frozen=True)
class Cut:
    """A group and the units of it that stay, ascending."""

    group: ChannelGroup
    kept: tuple[int, ...]

    @property
    def removed(self) -> tuple[int, ...]:
        """Units that go, ascending."""
        kept = set(self.kept)
        return tuple(u for u in range(self.group.units) if u not in kept)


_Removals = dict[tuple[ir.Node, int], dict[int, set[int]]]


def remove_channels(model: ir.Model, cuts: Sequence[Cut]) -> None:
    """Remove units from the model, exactly as if they were zero where they are summed up.

    Every edited use of a constant gets a new initializer (equal edits of one constant share it):
    exporters share equal tensors across layers, and tensors are shared between clones.
    """
    removals: _Removals = {}
    for cut in cuts:
        for member in cut.group.members:
            axes = removals.setdefault((member.node, member.input), {})
            indices = member.map.indices(cut.removed)
            axes.setdefault(member.axis, set()).update(indices.tolist())
    editor = Editor(model, "prune")
    _shrink(editor, removals)
    for cut in cuts:
        for shape_edit in cut.group.shape_edits:
            _edit_shape(shape_edit, len(cut.removed), editor)
        for attribute_edit in cut.group.attribute_edits:
            _edit_attribute(attribute_edit, len(cut.removed))
        for take_edit in cut.group.take_edits:
            _take(take_edit, cut.kept, editor)
        _forget_shapes(cut)


def _shrink(editor: Editor, removals: _Removals) -> None:
    made: dict[tuple[ir.Value, str], ir.Value] = {}
    alike: dict[tuple[ir.Value, bytes], ir.Value] = {}
    edited = [node.inputs[position] for node, position in removals]
    shared = {value for value in edited if value is not None and len(value.uses()) > 1}
    for (node, position), axes in removals.items():
        old = node.inputs[position]
        assert old is not None
        key = (old, repr(sorted((axis, sorted(indices)) for axis, indices in axes.items())))
        if key not in made:
            array = require_weight(old).numpy()
            for axis, indices in axes.items():
                array = np.delete(array, sorted(indices), axis=axis)
            if old not in shared:
                made[key] = new_contents(editor, old, array, SUFFIX)
            else:
                # Biases of zeros, scales of ones: other units of a shared constant often leave
                # the same numbers, and a copy per layer would take more than was removed.
                contents = (old, _digest(array))
                if contents not in alike:
                    alike[contents] = new_contents(editor, old, array, SUFFIX)
                made[key] = alike[contents]
        node.replace_input_with(position, made[key])
    for (old, _), new in made.items():
        take_place(editor, old, new)


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _edit_shape(edit: ShapeEdit, removed: int, editor: Editor) -> None:
    operand = edit.node.inputs[edit.operand]
    assert operand is not None
    less = removed * edit.factor
    if edit.length is not None:
        edit.node.replace_input_with(edit.operand, _corrected(edit, edit.length, removed, editor))
        return
    if edit.part is None:
        edit.node.replace_input_with(edit.operand, _smaller(editor, operand, edit.element, less))
        editor.drop_unread(operand)
        return
    concat = operand.producer()
    assert concat is not None
    inputs = list(concat.inputs)
    part = inputs[edit.part]
    assert part is not None
    inputs[edit.part] = _smaller(editor, part, edit.element, less)
    # Other Reshapes, of layers that keep their heads, may share the Concat.
    copy = editor.after(
        operand,
        "Concat",
        inputs,
        concat.attributes,
        outputs={f"{operand.name}_pruned": operand.dtype},
    )
    edit.node.replace_input_with(edit.operand, copy)
    if not operand.uses():
        editor.remove(concat)


def _smaller(editor: Editor, old: ir.Value, position: int, less: int) -> ir.Value:
    array = require_weight(old).numpy().copy()
    array.reshape(-1)[position] -= less
    return new_contents(editor, old, array, SUFFIX)


def _corrected(edit: ShapeEdit, length: int, removed: int, editor: Editor) -> ir.Value:
    less = removed * edit.factor
    operand = edit.node.inputs[edit.operand]
    assert operand is not None
    if edit.units is None:
        return _combined(edit, "Sub", operand, np.eye(length)[edit.element] * less, editor)
    ones = np.ones(length)
    ones[edit.element] = edit.units
    parts = _combined(edit, "Div", operand, ones, editor)
    ones[edit.element] = edit.units - removed
    return _combined(edit, "Mul", parts, ones, editor)


def _combined(
    edit: ShapeEdit, op: str, operand: ir.Value, array: np.ndarray, editor: Editor
) -> ir.Value:
    other = new_contents(editor, operand, array.astype(np.int64), SUFFIX)
    outputs = {f"{operand.name}_pruned": operand.dtype}
    return editor.before(edit.node, op, [operand, other], outputs=outputs, shape=operand.shape)


def _edit_attribute(edit: AttributeEdit, removed: int) -> None:
    less = removed * edit.factor
    attributes = edit.node.attributes
    if edit.index is None:
        attributes[edit.name] = ir.AttrInt64(edit.name, attributes.get_int(edit.name, 0) - less)
        return
    numbers = list(attributes.get_ints(edit.name, ()))
    numbers[edit.index] -= less
    attributes[edit.name] = ir.AttrInt64s(edit.name, numbers)


def _take(edit: TakeEdit, kept: Sequence[int], editor: Editor) -> None:
    """Put a Gather of the units that stay in front of an input."""
    value = edit.node.inputs[edit.input]
    assert value is not None
    indices = new_contents(editor, value, edit.map.indices(kept), SUFFIX)
    outputs = {f"{value.name}_taken": value.dtype}
    taken = editor.before(
        edit.node, "Gather", [value, indices], {"axis": edit.axis}, outputs=outputs
    )
    if value.shape is not None:
        dims = list(value.shape)
        dims[edit.axis] = len(kept) * edit.map.inner * (edit.map.outer or 1)
        taken.shape = ir.Shape(dims)
    edit.node.replace_input_with(edit.input, taken)


def _forget_shapes(cut: Cut) -> None:
    """Correct the declared sizes of the slots, and forget those that are computed from them."""
    for slot, mapping in cut.group.slots.items():
        shape = slot.value.shape
        if shape is None:
            continue
        dims = list(shape)
        gone = None if mapping.outer is None else len(cut.removed) * mapping.inner * mapping.outer
        size = dims[slot.axis]
        if isinstance(size, int) and gone is not None:
            dims[slot.axis] = size - gone
        else:
            dims[slot.axis] = ir.SymbolicDim(None)
        slot.value.shape = ir.Shape(dims)
