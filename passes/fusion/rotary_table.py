"""Tables of cos and sin as the operator RotaryEmbedding wants them: half as wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Place, Veto, constant_of, producer_of, require_constant, scalar_of
from irtools.passes.fusion.sizes import size_of

__all__ = ["HalfTable", "expanded_batch", "half_table", "squeezed"]

_MAX_DEPTH = 8
_FUNCTIONS = ("Cos", "Sin", "Cast", "Unsqueeze")
"""Operators that act on every element, or on axes before the last, alike."""


@dataclass(frozen=True)
class HalfTable:
    """A table whose second half repeats its first.

    Attributes:
        path: Nodes to repeat on the first half, from the one next to the output upward.
        root: Where the path ends: what the first half is, or the constant to cut.
        is_whole: Whether `root` is a constant of full width.
        batch: Size of its first axis; 1 where it has none of its own.
        rank: Its rank: [B,1,S,D], [1,S,D] or [S,D].
    """

    path: tuple[ir.Node, ...]
    root: ir.Value
    is_whole: bool
    batch: Dim
    rank: int

    def build(self, make: Place) -> ir.Value:
        """Make the first half; nodes are shared by all that ask for the same."""
        value = self.root
        if self.is_whole:
            tensor = require_constant(self.root)
            array = tensor.numpy()
            value = make.constant(np.ascontiguousarray(array[..., : array.shape[-1] // 2]))
        for node in reversed(self.path):
            inputs = [value, *node.inputs[1:]]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            value = make.shared(node.op_type, inputs, attributes)
        return value


def half_table(value: ir.Value, name: str, facts: SymbolicShapes) -> HalfTable:
    """Follow a table up to where its halves are seen to be equal.

    Raises:
        Veto: They are not known to be.
    """
    shape = facts.shape(value)
    assert shape is not None
    batch: Dim = shape[0] if len(shape) == 4 else 1
    path: list[ir.Node] = []
    current: ir.Value | None = value
    rank = len(shape)
    split = producer_of(value, "Unsqueeze")
    if split is not None and rank == 4 and facts.rank(split.inputs[0]) == 3:
        # The caller saw that axis 1 is 1, which is then what was added, or one like it.
        current, rank = split.inputs[0], 3
    for _ in range(_MAX_DEPTH):
        tensor = constant_of(current)
        if tensor is not None and current is not None:
            array = tensor.numpy()
            first, second = np.split(array, 2, axis=-1)
            if not np.array_equal(first, second):
                break
            return HalfTable(tuple(path), current, True, batch, rank)
        twice = producer_of(current, "Concat")
        if twice is not None and current is not None:
            last = (facts.rank(current) or 0) - 1
            is_last = twice.attributes.get_int("axis", 0) in (-1, last)
            if is_last and len(twice.inputs) == 2 and twice.inputs[0] is twice.inputs[1]:
                assert twice.inputs[0] is not None
                return HalfTable(tuple(path), twice.inputs[0], False, batch, rank)
            break
        node = None if current is None else current.producer()
        if node is None or not _repeatable(node, facts):
            break
        path.append(node)
        current = node.inputs[0]
    raise Veto("the second half of {} is not known to repeat its first", name)


def _repeatable(node: ir.Node, facts: SymbolicShapes) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "Unsqueeze":
        axes = facts.integers(node.inputs[1]) if len(node.inputs) > 1 else None
        rank = facts.rank(node.outputs[0])
        if axes is None or rank is None:
            return False
        return all(isinstance(a, int) and a % rank < rank - 1 for a in axes.reshape(-1).tolist())
    if node.op_type == "Gather":
        table = constant_of(node.inputs[0])
        return (
            table is not None and len(table.shape) == 2 and not node.attributes.get_int("axis", 0)
        )
    if node.op_type in ("Mul", "Div"):
        return scalar_of(node.inputs[1]) is not None
    return node.op_type in _FUNCTIONS


def squeezed(make: Place, table: ir.Value, rank: int) -> ir.Value:
    """Return a table of rotary embedding [B,1,S,D], [B,S,D] or [S,D] as [B,S,D]."""
    if rank == 4:
        return make.shared("Squeeze", [table, make.integers([1])])
    return make.shared("Unsqueeze", [table, make.integers([0])]) if rank == 2 else table


def expanded_batch(make: Place, table: ir.Value, x: ir.Value, batch: Dim) -> ir.Value:
    """Return a table [1,S,D] as [B,S,D], with the batch size of x."""
    sizes = [size_of(make, x, 0, batch), make.integers([1]), make.integers([1])]
    target = make.shared("Concat", sizes, {"axis": 0})
    return make.shared("Expand", [table, target])
