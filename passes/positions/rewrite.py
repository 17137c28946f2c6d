"""Making one row where all were made."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, array_of, can_forward, producer_of, require_constant
from irtools.passes.positions.demand import Demand, before_joined, free_results
from irtools.passes.positions.row import Row
from irtools.passes.positions.targets import new_target

__all__ = ["sink"]


def sink(editor: Editor, demand: Demand, facts: SymbolicShapes) -> None:
    """Take rows where `demand` says so, and let its nodes compute those alone."""
    rows: dict[tuple[ir.Value, Row], ir.Value] = {}
    targets = {
        node: new_target(node, row, facts)
        for node, row in demand.nodes.items()
        if node.op_type in ("Expand", "Reshape")
    }
    for (node, index), row in list(demand.cuts):
        value = node.inputs[index]
        assert value is not None
        if (value, row) not in rows:
            rows[value, row] = _take(editor, value, row, facts)
        node.replace_input_with(index, rows[value, row])
    editor.drop_unread(*(value for value, _ in rows))
    spare = [demand.maker(node.inputs[0]) is not None for node in demand.takers]
    for node, row in demand.nodes.items():
        _adjust(editor, node, row, targets.get(node))
    for (node, row), made in zip(demand.takers.items(), spare, strict=True):
        if made:
            _take_only_row(editor, node, row)


def _take(editor: Editor, value: ir.Value, row: Row, facts: SymbolicShapes) -> ir.Value:
    """Return one row of a tensor, along an axis that stays."""
    if row.period is not None:
        return _take_joined(editor, value, row, facts)
    if (only := _before_expand(value, row, facts)) is not None:
        return only
    array = array_of(value)
    if array is not None:
        return editor.constant(f"{value.name}_row", np.take(array, [row.index], row.axis))
    index = editor.constant(f"{value.name}_index", np.asarray([row.index], np.int64))
    return editor.after(
        value,
        "Gather",
        [value, index],
        {"axis": row.axis},
        outputs={f"{value.name}_row": value.dtype},
        shape=_one(value.shape, row),
    )


def _before_expand(value: ir.Value, row: Row, facts: SymbolicShapes) -> ir.Value | None:
    """Return what Expand repeats along the axis alone: it is the row, whichever one is taken."""
    node = producer_of(value, "Expand")
    source = None if node is None else node.inputs[0]
    own, expanded = facts.shape(source), facts.shape(value)
    if own is None or expanded is None or len(own) != len(expanded):
        return None
    differ = [
        axis for axis, sizes in enumerate(zip(own, expanded, strict=True)) if len({*sizes}) > 1
    ]
    return source if differ == [row.axis] else None


def _take_joined(editor: Editor, value: ir.Value, row: Row, facts: SymbolicShapes) -> ir.Value:
    """Return the rows of a tensor that joins batch and positions, taken before it does."""
    node, own = value.producer(), before_joined(value, row, facts)
    assert node is not None and node.inputs[0] is not None and own is not None
    taken = _take(editor, node.inputs[0], own, facts)
    target = editor.constant(f"{value.name}_shape", np.asarray(new_target(node, row, facts)))
    shape = _one(value.shape, row)
    outputs = {f"{value.name}_row": value.dtype}
    return editor.after(taken, "Reshape", [taken, target], outputs=outputs, shape=shape)


def _adjust(editor: Editor, node: ir.Node, row: Row, target: list[int] | None) -> None:
    """Let a node make one row from one row."""
    if target is not None:
        old = node.inputs[1]
        sizes = editor.constant(f"{node.name}_shape", np.asarray(target, np.int64))
        node.replace_input_with(1, sizes)
        node.attributes.pop("allowzero", None)
        editor.drop_unread(old)
    if node.attributes.get_int("is_causal", 0):
        node.attributes.pop("is_causal")
    for index, output in enumerate(node.outputs):
        if index in free_results(node) or output.shape is None:
            continue
        if len(output.shape) > row.axis:
            output.shape = _one(output.shape, row)


def _take_only_row(editor: Editor, node: ir.Node, row: Row) -> None:
    """Let what took one of several rows take the only one."""
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None
    parameters = list(node.inputs[1:])
    if node.op_type == "Gather" and require_constant(parameters[0]).shape.rank() == 0:
        if row.index != 0:
            node.replace_input_with(1, editor.constant(f"{node.name}_index", np.asarray(0)))
    elif can_forward(output, source):
        editor.forward(output, source)
        editor.remove(node)
    else:
        editor.replace(node, "Identity", [source])
    editor.drop_unread(*parameters)


def _one(shape: ir.Shape | None, row: Row) -> ir.Shape | None:
    if shape is None:
        return None
    sizes: list[int | ir.SymbolicDim | None] = list(shape)
    sizes[row.axis] = 1 if row.period is None else None
    return ir.Shape(sizes)
