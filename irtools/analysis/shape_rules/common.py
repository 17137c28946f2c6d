"""What the shape rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim, SymbolicSize, multiply, symbol
from irtools.analysis.facts import Shape, ShapeFacts

__all__ = [
    "Rule",
    "axes_of",
    "broadcast",
    "input_at",
    "int_attribute",
    "ints_attribute",
    "minimum",
    "number",
    "numbers",
    "product",
    "unknown",
    "unknown_shape",
]

Rule = Callable[[ir.Node, ShapeFacts], Sequence[Shape | None]]
"""From a node to the shapes of its outputs, None where the rank is not known."""


def unknown(node: ir.Node, axis: int, output: int = 0) -> SymbolicSize:
    """An unknown size, different from every other."""
    return symbol(f"?{node.outputs[output].name}.{axis}")


def unknown_shape(node: ir.Node, rank: int, output: int = 0) -> Shape:
    """A shape of which only the rank is known."""
    return tuple(unknown(node, axis, output) for axis in range(rank))


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input, or None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute or its default."""
    return node.attributes.get_int(name, default)


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """A list attribute or None."""
    found = node.attributes.get_ints(name)
    return None if found is None else tuple(found)


def number(value: ir.Value | None, facts: ShapeFacts) -> Dim | None:
    """The only element of an integer tensor, or None."""
    found = facts.integers(value)
    return found.reshape(-1)[0] if found is not None and found.size == 1 else None


def numbers(value: ir.Value | None, facts: ShapeFacts) -> tuple[Dim, ...] | None:
    """The elements of an integer vector, or None."""
    found = facts.integers(value)
    return None if found is None or found.ndim != 1 else tuple(found)


def axes_of(node: ir.Node, facts: ShapeFacts) -> tuple[int, ...] | None:
    """Axes of Squeeze, Unsqueeze and reductions: an attribute before opset 13 or 18, an input
    after. An empty tuple where there are none, None where they are not constant."""
    if (found := ints_attribute(node, "axes")) is not None:
        return found
    if input_at(node, 1) is None:
        return ()
    values = facts.integers(node.inputs[1])
    if values is None or not all(isinstance(v, int) for v in values.reshape(-1)):
        return None
    return tuple(values.reshape(-1).tolist())


def product(dims: Sequence[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for dim in dims:
        total = multiply(total, dim)
    return total


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else symbol(f"?min({a}; {b})")


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that numpy broadcasting gives."""
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(_broadcast_dim([s[axis] for s in padded]) for axis in range(rank))


def _broadcast_dim(dims: Sequence[Dim]) -> Dim:
    distinct: list[Dim] = []
    for dim in dims:
        if dim != 1 and dim not in distinct:
            distinct.append(dim)
    if len(distinct) <= 1:
        return distinct[0] if distinct else 1
    for dim in distinct:
        # A number above 1 decides: the others are that number or 1. So does n against
        # min(n, c), because c < n would not broadcast.
        if isinstance(dim, int) or all(d == dim or _is_minimum_of(d, dim) for d in distinct):
            return dim
    return symbol(f"?broadcast({', '.join(sorted(map(str, distinct)))})")


def _is_minimum_of(dim: Dim, other: Dim) -> bool:
    if not isinstance(dim, SymbolicSize):
        return False
    name = str(dim)
    return name.startswith(f"?min({other}; ") or (
        name.startswith("?min(") and name.endswith(f"; {other})")
    )
