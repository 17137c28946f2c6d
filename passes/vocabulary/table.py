"""The embedding table behind the token ids, with fewer rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.tables import index_consumers
from irtools.editing import Editor, constant_of, require_constant

__all__ = ["Refusal", "TokenTable", "find_table", "gives_tokens", "keep_rows", "put_map"]

# Operators that look at the sizes of the ids only.
_SIZES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Refusal:
    """Why a model has no table to trim.

    Attributes:
        counter: Under which it is counted.
        reason: In words.
    """

    counter: str
    reason: str


@dataclass(frozen=True, eq=False)
class TokenTable:
    """An input of token ids and what is looked up by it.

    Attributes:
        ids: The graph input.
        lookups: Gather nodes, all of tables with `rows` rows that nobody else reads.
        rows: Tokens that the model knows.
        reads_values: Other nodes compute with the ids themselves, such as positions that are
            counted from padding.
    """

    ids: ir.Value
    lookups: tuple[ir.Node, ...]
    rows: int
    reads_values: bool


def find_table(model: ir.Model) -> TokenTable | Refusal:
    """Find the table that the token ids of a model index: the largest one, behind `input_ids`."""
    found = [table for value in model.graph.inputs if (table := _table_of(value)) is not None]
    if not found:
        return Refusal("num-skipped-no-table", "no input indexes a constant table")
    named = [table for table in found if table.ids.name == "input_ids"]
    table = max(named or found, key=lambda t: t.rows)
    if any(node.graph is not model.graph for node in table.lookups):
        return Refusal("num-skipped-subgraph", "tokens are looked up inside a subgraph")
    own = set(table.lookups)
    for node in table.lookups:
        weight = node.inputs[0]
        assert weight is not None
        others = [use.node for use in weight.uses() if use.node not in own]
        if others or weight.is_graph_output():
            reader = (others[0].name or others[0].op_type) if others else "an output"
            return Refusal(
                "num-skipped-tied",
                f"the table {weight.name!r} is also read by {reader!r}: fewer rows would change "
                "what the model puts out",
            )
    return table


def keep_rows(table: TokenTable, kept: np.ndarray) -> None:
    """Keep some rows of every table.

    Args:
        kept: Numbers of the rows, ascending.
    """
    for weight in dict.fromkeys(node.inputs[0] for node in table.lookups):
        assert weight is not None and weight.name is not None
        old = require_constant(weight)
        rows = np.ascontiguousarray(old.numpy()[kept])
        _put(weight, ir.Tensor(rows, old.dtype, name=weight.name))


def put_map(model: ir.Model, table: TokenTable, numbers: np.ndarray) -> None:
    """Put a lookup of new numbers in front of every lookup.

    Args:
        numbers: int32 [rows], the new number of each old one.
    """
    editor = Editor(model, "trim-vocabulary")
    value = editor.constant(f"{table.ids.name}_map", numbers)
    made: dict[ir.Value, ir.Value] = {}
    for node in editor.in_order(table.lookups):
        old = node.inputs[1]
        assert old is not None
        if old not in made:
            made[old] = editor.before(
                node,
                "Gather",
                [value, old],
                name=f"{value.name}/Gather",
                outputs={f"{old.name}_mapped": ir.DataType.INT32},
                shape=old.shape,
            )
        node.replace_input_with(1, made[old])


def gives_tokens(model: ir.Model, ids: ir.Value) -> bool:
    """Whether an output has a place for each token, so that its shape follows the tokens."""
    length = ids.shape[1] if ids.shape is not None and ids.shape.rank() == 2 else None
    if not isinstance(length, ir.SymbolicDim) or length.value is None:
        return any(v.shape is None or v.shape.rank() > 2 for v in model.graph.outputs)
    return any(
        v.shape is None
        or any(
            # The first axis has no name where it is the batch; where it is the tokens, it has.
            isinstance(d, ir.SymbolicDim) and (d.value == length.value or (axis and not d.value))
            for axis, d in enumerate(v.shape)
        )
        for v in model.graph.outputs
    )


def _table_of(value: ir.Value) -> TokenTable | None:
    lookups, rows = [], []
    reads_values = False
    for node, index in index_consumers(value):
        size = _rows(node, index)
        if size is not None:
            lookups.append(node)
            rows.append(size)
        elif node.op_type not in _SIZES:
            reads_values = True
    if not rows:
        return None
    chosen = [node for node, size in zip(lookups, rows, strict=True) if size == max(rows)]
    return TokenTable(value, tuple(chosen), max(rows), reads_values or len(chosen) < len(rows))


def _rows(node: ir.Node, index: int) -> int | None:
    if node.op_type != "Gather" or node.domain != "" or index != 1:
        return None
    tensor = constant_of(node.inputs[0])
    if tensor is None or len(tensor.shape) < 2 or node.attributes.get_int("axis", 0) != 0:
        return None
    return int(tensor.shape.numpy()[0])


def _put(weight: ir.Value, tensor: ir.Tensor) -> None:
    shape: Sequence[int] = tensor.shape.numpy()
    if weight.is_initializer():
        weight.const_value = tensor
    else:
        node = weight.producer()
        assert node is not None
        node.attributes.clear()
        node.attributes["value"] = ir.AttrTensor("value", tensor)
    weight.shape = ir.Shape(shape)
