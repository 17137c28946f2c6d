"""Removing channels: the dull half of structured pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.passes.pruning.constants import constant_of
from irtools.passes.pruning.groups import AttributeEdit, ChannelGroup, ShapeEdit, TakeEdit

__all__ = ["Cut", "remove_channels", "set_inputs"]


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
    _shrink(model, removals)
    for cut in cuts:
        for shape_edit in cut.group.shape_edits:
            _edit_shape(shape_edit, len(cut.removed), model.graph)
        for attribute_edit in cut.group.attribute_edits:
            _edit_attribute(attribute_edit, len(cut.removed))
        for take_edit in cut.group.take_edits:
            _take(take_edit, cut.kept, model.graph)
        _forget_shapes(cut)


def _shrink(model: ir.Model, removals: _Removals) -> None:
    made: dict[tuple[ir.Value, str], ir.Value] = {}
    alike: dict[tuple[ir.Value, bytes], ir.Value] = {}
    edited = [node.inputs[position] for node, position in removals]
    shared = {value for value in edited if value is not None and len(value.uses()) > 1}
    for (node, position), axes in removals.items():
        old = node.inputs[position]
        assert old is not None
        key = (old, repr(sorted((axis, sorted(indices)) for axis, indices in axes.items())))
        if key not in made:
            array = _array(old)
            for axis, indices in axes.items():
                array = np.delete(array, sorted(indices), axis=axis)
            if old not in shared:
                made[key] = _new_constant(model.graph, old, array)
            else:
                # Biases of zeros, scales of ones: other units of a shared constant often leave
                # the same numbers, and a copy per layer would take more than was removed.
                contents = (old, _digest(array))
                if contents not in alike:
                    alike[contents] = _new_constant(model.graph, old, array)
                made[key] = alike[contents]
        node.replace_input_with(position, made[key])
    for (old, _), new in made.items():
        _take_place(model.graph, old, new)


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _array(value: ir.Value) -> np.ndarray:
    tensor = constant_of(value)
    assert tensor is not None
    return tensor.numpy()


def _new_constant(graph: ir.Graph, old: ir.Value, array: np.ndarray) -> ir.Value:
    name = _free_name(graph, f"{old.name}_pruned")
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    value.metadata_props.update(old.metadata_props)
    graph.register_initializer(value)
    return value


def _free_name(graph: ir.Graph, wanted: str) -> str:
    name, number = wanted, 1
    while name in graph.initializers:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _drop_unused(graph: ir.Graph, value: ir.Value) -> None:
    if value.uses() or value.is_graph_output():
        return
    producer = value.producer()
    if producer is not None:
        inputs = [v for v in producer.inputs if v is not None]
        graph.remove(producer, safe=True)
        for renamed in inputs:
            _drop_unused(graph, renamed)
    elif value.name is not None and graph.initializers.get(value.name) is value:
        del graph.initializers[value.name]


def _take_place(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Drop a constant without uses and give its name to what replaced it."""
    _drop_unused(graph, old)
    name = old.name
    if name is not None and not old.uses() and name not in graph.initializers:
        new.name = name
        if new.const_value is not None:
            new.const_value.name = name


def set_inputs(graph: ir.Graph, places: Sequence[tuple[ir.Node, int]], array: np.ndarray) -> None:
    """Give a constant input of some nodes new contents; other uses keep the old ones.

    Args:
        graph: The graph of the nodes.
        places: Nodes and which input; all have the same constant.
        array: The contents, cast to the type of the old ones.
    """
    node, position = places[0]
    old = node.inputs[position]
    assert old is not None
    new = _new_constant(graph, old, array.astype(_array(old).dtype))
    for node, position in places:
        node.replace_input_with(position, new)
    _take_place(graph, old, new)


def _edit_shape(edit: ShapeEdit, removed: int, graph: ir.Graph) -> None:
    operand = edit.node.inputs[edit.operand]
    assert operand is not None
    less = removed * edit.factor
    if edit.length is not None:
        edit.node.replace_input_with(edit.operand, _corrected(edit, edit.length, removed, graph))
        return
    if edit.part is None:
        edit.node.replace_input_with(edit.operand, _smaller(graph, operand, edit.element, less))
        _drop_unused(graph, operand)
        return
    concat = operand.producer()
    assert concat is not None
    inputs = list(concat.inputs)
    part = inputs[edit.part]
    assert part is not None
    inputs[edit.part] = _smaller(graph, part, edit.element, less)
    # Other Reshapes, of layers that keep their heads, may share the Concat.
    copy = ir.Node("", "Concat", inputs, attributes=concat.attributes.values(), num_outputs=1)
    copy.outputs[0].type = operand.type
    copy.outputs[0].shape = operand.shape
    concat.append(copy)
    edit.node.replace_input_with(edit.operand, copy.outputs[0])
    if not operand.uses():
        graph.remove(concat, safe=True)


def _smaller(graph: ir.Graph, old: ir.Value, position: int, less: int) -> ir.Value:
    array = _array(old).copy()
    array.reshape(-1)[position] -= less
    return _new_constant(graph, old, array)


def _corrected(edit: ShapeEdit, length: int, removed: int, graph: ir.Graph) -> ir.Value:
    less = removed * edit.factor
    operand = edit.node.inputs[edit.operand]
    assert operand is not None
    if edit.units is None:
        return _combined(edit, "Sub", operand, np.eye(length)[edit.element] * less, graph)
    ones = np.ones(length)
    ones[edit.element] = edit.units
    parts = _combined(edit, "Div", operand, ones, graph)
    ones[edit.element] = edit.units - removed
    return _combined(edit, "Mul", parts, ones, graph)


def _combined(
    edit: ShapeEdit, op: str, operand: ir.Value, array: np.ndarray, graph: ir.Graph
) -> ir.Value:
    other = _new_constant(graph, operand, array.astype(np.int64))
    node = ir.Node("", op, [operand, other], num_outputs=1)
    node.outputs[0].type, node.outputs[0].shape = operand.type, operand.shape
    edit.node.prepend(node)
    return node.outputs[0]


def _edit_attribute(edit: AttributeEdit, removed: int) -> None:
    less = removed * edit.factor
    attributes = edit.node.attributes
    if edit.index is None:
        attributes[edit.name] = ir.AttrInt64(edit.name, attributes.get_int(edit.name, 0) - less)
        return
    numbers = list(attributes.get_ints(edit.name, ()))
    numbers[edit.index] -= less
    attributes[edit.name] = ir.AttrInt64s(edit.name, numbers)


def _take(edit: TakeEdit, kept: Sequence[int], graph: ir.Graph) -> None:
    """Put a Gather of the units that stay in front of an input."""
    value = edit.node.inputs[edit.input]
    assert value is not None
    indices = _new_constant(graph, value, edit.map.indices(kept))
    node = ir.node("Gather", [value, indices], {"axis": edit.axis})
    output = node.outputs[0]
    output.type = value.type
    if value.shape is not None:
        dims = list(value.shape)
        dims[edit.axis] = len(kept) * edit.map.inner * (edit.map.outer or 1)
        output.shape = ir.Shape(dims)
    edit.node.prepend(node)
    edit.node.replace_input_with(edit.input, output)


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
