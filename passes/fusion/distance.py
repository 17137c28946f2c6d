"""Index tensors [.., S, S] that depend on the distance of row and column alone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Place, Veto, producer_of, scalar_of

__all__ = ["Distance", "find_distance"]

_ELEMENTWISE = frozenset(
    {"Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater"}
    | {"GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg"}
    | {"Not", "Or", "Sign", "Sub", "Where"}
)
_LAYOUT = frozenset({"Expand", "Reshape", "Squeeze", "Unsqueeze"})
_REASON = "its index is not known to depend on the distance of two tokens alone"


@dataclass(frozen=True)
class Distance:
    """f of an index f(i - j).

    Attributes:
        nodes: The operators of f, in order.
        base: i - j, [S,S].
        output: f(i - j).
        same: Values that hold what another does, with axes of size 1 more or less.
    """

    nodes: tuple[ir.Node, ...]
    base: ir.Value
    output: ir.Value
    same: dict[ir.Value, ir.Value]

    def of(self, make: Place, distances: ir.Value) -> ir.Value:
        """Make f(distances), [n] for [n]."""
        made: dict[ir.Value, ir.Value] = {self.base: distances}
        for node in self.nodes:
            inputs = [self._found(value, made) for value in node.inputs]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            made[node.outputs[0]] = make.shared(node.op_type, inputs, attributes)
        result = self._found(self.output, made)
        assert result is not None
        return result

    def _found(self, value: ir.Value | None, made: dict[ir.Value, ir.Value]) -> ir.Value | None:
        while value is not None and value in self.same:
            value = self.same[value]
        return None if value is None else made.get(value, value)


def find_distance(value: ir.Value | None, length: Dim, facts: SymbolicShapes) -> Distance:
    """Follow an index up to the distance of row and column.

    Raises:
        Veto: It may depend on something else.
    """
    same: dict[ir.Value, ir.Value] = {}
    nodes: dict[ir.Node, None] = {}
    bases: set[ir.Value] = set()
    assert value is not None
    _visit(value, length, facts, same, nodes, bases, set())
    if len(bases) != 1:
        raise Veto(_REASON)
    (base,) = bases
    return Distance(tuple(nodes), base, value, same)


def _visit(
    value: ir.Value,
    length: Dim,
    facts: SymbolicShapes,
    same: dict[ir.Value, ir.Value],
    nodes: dict[ir.Node, None],
    bases: set[ir.Value],
    seen: set[ir.Value],
) -> None:
    """Sort what an index is made of, operands before operators."""
    if value in seen or scalar_of(value) is not None:
        return
    seen.add(value)
    node = value.producer()
    shape = facts.shape(value)
    if node is None or node.domain != "" or shape is None or shape[-2:] != (length, length):
        raise Veto(_REASON)
    if _is_distance(node, length, facts):
        bases.add(value)
    elif node.op_type in _LAYOUT:
        source = node.inputs[0]
        inner = facts.shape(source)
        # The two last axes stay what they are; those before are copies of one another.
        if source is None or inner is None or any(size != 1 for size in inner[:-2]):
            raise Veto(_REASON)
        _visit(source, length, facts, same, nodes, bases, seen)
        same[value] = source
    elif node.op_type in _ELEMENTWISE:
        for operand in node.inputs:
            if operand is not None:
                _visit(operand, length, facts, same, nodes, bases, seen)
        nodes[node] = None
    else:
        raise Veto(_REASON)


def _is_distance(node: ir.Node, length: Dim, facts: SymbolicShapes) -> bool:
    """Whether a node is Sub(0..S-1 as a column, 0..S-1 as a row)."""
    if node.op_type != "Sub":
        return False
    shapes = ((length, 1), (1, length))
    for value, expected in zip(node.inputs, shapes, strict=True):
        shape = facts.shape(value)
        if shape is None or shape[-2:] != expected or any(size != 1 for size in shape[:-2]):
            return False
        while (layout := producer_of(value, "Reshape", "Unsqueeze")) is not None:
            value = layout.inputs[0]
        count = producer_of(value, "Range")
        if count is None or scalar_of(count.inputs[0]) != 0 or scalar_of(count.inputs[2]) != 1:
            return False
    return True
