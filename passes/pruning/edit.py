"""Removing channels: the dull half of structured pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import AttributeEdit, ChannelGroup, ShapeEdit

__all__ = ["Cut", "remove_channels", "set_input"]


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
            _edit_shape(shape_edit, len(cut.kept), model.graph)
        for attribute_edit in cut.group.attribute_edits:
            _edit_attribute(attribute_edit, len(cut.kept))
        _forget_shapes(cut)


def _shrink(model: ir.Model, removals: _Removals) -> None:
    made: dict[tuple[ir.Value, str], ir.Value] = {}
    for (node, position), axes in removals.items():
        old = node.inputs[position]
        assert old is not None
        key = (old, repr(sorted((axis, sorted(indices)) for axis, indices in axes.items())))
        if key not in made:
            array = _array(old)
            for axis, indices in axes.items():
                array = np.delete(array, sorted(indices), axis=axis)
            made[key] = _new_constant(model.graph, old, array)
        node.replace_input_with(position, made[key])
    for (old, _), new in made.items():
        _take_place(model.graph, old, new)


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
        graph.remove(producer, safe=True)
    elif value.name is not None and value.name in graph.initializers:
        del graph.initializers[value.name]


def _take_place(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Drop a constant without uses and give its name to what replaced it."""
    _drop_unused(graph, old)
    name = old.name
    if name is not None and not old.uses() and name not in graph.initializers:
        new.name = name
        if new.const_value is not None:
            new.const_value.name = name


def set_input(graph: ir.Graph, node: ir.Node, position: int, array: np.ndarray) -> None:
    """Give a constant input of a node new contents; other uses keep the old ones."""
    old = node.inputs[position]
    assert old is not None
    old_array = _array(old)
    new = _new_constant(graph, old, array.astype(old_array.dtype))
    node.replace_input_with(position, new)
    _take_place(graph, old, new)


def _edit_shape(edit: ShapeEdit, units: int, graph: ir.Graph) -> None:
    target = edit.node.inputs[1]
    assert target is not None
    size = units * edit.factor
    if edit.part is None:
        edit.node.replace_input_with(1, _with_size(graph, target, edit.element, size))
        _drop_unused(graph, target)
        return
    concat = target.producer()
    assert concat is not None
    inputs = list(concat.inputs)
    part = inputs[edit.part]
    assert part is not None
    inputs[edit.part] = _with_size(graph, part, edit.element, size)
    # Other Reshapes, of layers that keep their heads, may share the Concat.
    copy = ir.Node("", "Concat", inputs, attributes=concat.attributes.values(), num_outputs=1)
    copy.outputs[0].type = target.type
    copy.outputs[0].shape = target.shape
    concat.append(copy)
    edit.node.replace_input_with(1, copy.outputs[0])
    if not target.uses():
        graph.remove(concat, safe=True)


def _with_size(graph: ir.Graph, old: ir.Value, position: int, size: int) -> ir.Value:
    array = _array(old).copy()
    array.reshape(-1)[position] = size
    return _new_constant(graph, old, array)


def _edit_attribute(edit: AttributeEdit, units: int) -> None:
    edit.node.attributes[edit.name] = ir.AttrInt64(edit.name, units * edit.factor)


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
