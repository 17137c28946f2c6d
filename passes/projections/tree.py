"""How several values that are made alike are made as one, one after the other along an axis.

Columns of a product do not know of each other: codes, scales, zero points and biases of several
weights are joined along the axis of their columns, and each column keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from irtools.editing import Veto, constant_of, require

__all__ = ["BLOCKS", "Joined", "Made", "Tree", "plan_tree"]

BLOCKS = "com.microsoft"
"""The domain of MatMulNBits."""

_LAST = -1
_BIAS = 5
"""Input of MatMulNBits that is added to its result."""
_SOME = "only some have zero points or a bias"
_FIRST = 0
"""The first axis, however many there are; every other axis is counted from the end."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Constants one after the other; zeros where there is none.

    Attributes:
        values: In order of the products.
        axis: Along which, from the end.
    """

    values: tuple[ir.Value | None, ...]
    axis: int

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Of each along the axis; None where there is none."""
        return tuple(None if v is None else _shape(v)[self.axis] for v in self.values)


@dataclass(frozen=True, eq=False)
class Made:
    """One node in place of several.

    Attributes:
        nodes: In order of the products.
        inputs: What it reads.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[Joined | Made | ir.Value | None, ...]

    @property
    def parts(self) -> Iterator[Made | Joined]:
        """Itself and all that is made for it."""
        yield self
        for part in self.inputs:
            if isinstance(part, Made):
                yield from part.parts
            elif isinstance(part, Joined):
                yield part


Tree: TypeAlias = "Joined | Made | ir.Value | None"
"""How a value for all is made; one that they have in common stands for itself."""

_Values: TypeAlias = "tuple[ir.Value | None, ...]"


def plan_tree(results: Sequence[ir.Value]) -> Made:
    """Return how results are made as one along their last axis. Changes nothing.

    Raises:
        Veto: They are not made alike.
    """
    tree = _Planner().tree(tuple(results), _LAST)
    if not isinstance(tree, Made):
        raise Veto("results that are constant", named=False)
    return tree


class _Planner:
    """Finds how values are made as one; what is read twice is made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[_Values, int], Joined | Made] = {}

    def tree(self, values: _Values, axis: int | None) -> Tree:
        """Return how values are made as one along an axis; None: they must be equal."""
        first = values[0]
        if axis == _FIRST:
            axis = -max((len(_shape(value)) for value in values if constant_of(value)), default=1)
        if axis is None or _is_short(values, axis):
            require(_are_equal(values), "{} differ", _what(values))
            return first
        if all(value is None for value in values):
            return None
        if (values, axis) not in self._known:
            constant = all(v is None or constant_of(v) is not None for v in values)
            make = self._joined if constant else self._made
            self._known[values, axis] = make(values, axis)
        return self._known[values, axis]

    def _joined(self, values: _Values, axis: int) -> Joined:
        found = [value for value in values if value is not None]
        require(len(set(found)) == len(found), "a weight that they have in common")
        forms = set()
        for value in found:
            tensor = constant_of(value)
            assert tensor is not None
            shape = list(tensor.shape.numpy())
            require(len(shape) >= -axis, "a number in place of a bias")
            shape[axis] = -1
            forms.add((tensor.dtype, *shape))
        require(len(forms) == 1, "weights or scales of unlike types or sizes")
        whole = len(found) == len(values)
        require(whole or len(_shape(found[0])) == 1, _SOME)
        return Joined(values, axis)

    def _made(self, values: _Values, axis: int) -> Made:
        nodes = tuple(n for v in values if v is not None and (n := v.producer()) is not None)
        require(len(nodes) == len(values), "something that is not a constant")
        require(len(set(nodes)) == len(nodes), "something that they have in common")
        require(len({_form(node) for node in nodes}) == 1, "unlike operators or attributes")
        axes = _axes(nodes[0], axis)
        width = max(len(node.inputs) for node in nodes)
        rows = [(*node.inputs, *[None] * (width - len(node.inputs))) for node in nodes]
        inputs = list(zip(*rows, strict=True))
        if nodes[0].op_type == "MatMulNBits":
            # Zero points that are left out are not zeros: the middle of what the bits hold.
            require(all(len({v is None for v in part}) == 1 for part in inputs[:_BIAS]), _SOME)
        return Made(
            nodes, tuple(self.tree(part, to) for part, to in zip(inputs, axes, strict=False))
        )


def _form(node: ir.Node) -> tuple[object, ...]:
    """Return what nodes must have in common to be one."""
    attributes = sorted((n, str(a.value)) for n, a in node.attributes.items() if n != "N")
    return (node.domain, node.op_type, node.graph, len(node.outputs), *attributes)


def _axes(node: ir.Node, axis: int) -> tuple[int | None, ...]:
    """Return the axis, from the end, along which each input is joined; None: all read the same.

    Raises:
        Veto: Results of such a node cannot be made as one.
    """
    match node.domain, node.op_type:
        case "", "Add" | "Sub" | "Mul":
            return axis, axis
        case "", "Cast" | "Identity":
            return (axis,)
        case "", "MatMul" if axis == _LAST:
            return None, _LAST
        case "", "MatMulInteger" if axis == _LAST:
            return None, _LAST, None, _LAST
        case "", "Gemm" if axis == _LAST:
            by_rows = node.attributes.get_int("transB", 0)
            return None, -2 if by_rows else _LAST, _LAST
        case "", "DequantizeLinear":
            return _of_scales(node, axis)
        case _, "MatMulNBits" if node.domain == BLOCKS and axis == _LAST:
            # B [N, blocks, bytes]; scales and zero points too start with N, flat or not.
            return None, _FIRST, _FIRST, _FIRST, None, _FIRST
    raise Veto("{} between weight and result", node.op_type)


def _of_scales(node: ir.Node, axis: int) -> tuple[int | None, ...]:
    """Scales lie along one axis of the weight, or are blocks of it in all."""
    if node.attributes.get_int("block_size", 0):
        return axis, axis, axis
    codes = node.inputs[0]
    rank = 0 if codes is None or codes.shape is None else len(codes.shape)
    along = node.attributes.get_int("axis", 1)
    along -= rank if along >= 0 else 0
    return (axis, _LAST, _LAST) if along == axis else (axis, None, None)


def _is_short(values: _Values, axis: int) -> bool:
    """Whether values are broadcast along the axis, so that they have no columns of their own."""
    shapes = [_known_shape(value) for value in values if value is not None]
    return bool(shapes) and all(
        shape is not None and (len(shape) < -axis or shape[axis] == 1) for shape in shapes
    )


def _known_shape(value: ir.Value) -> tuple[object, ...] | None:
    tensor = constant_of(value)
    return None if tensor is None else tuple(tensor.shape.numpy())


def _are_equal(values: _Values) -> bool:
    first = values[0]
    return all(value is first or _content(value) == _content(first) for value in values)


def _content(value: ir.Value | None) -> object:
    """Return what makes constants equal; of other values, they themselves."""
    tensor = constant_of(value)
    if tensor is None:
        return value
    return tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()


def _what(values: _Values) -> str:
    constant = all(constant_of(value) is not None for value in values)
    return "scales of whole weights, or of rows," if constant else "activations"


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    tensor = constant_of(value)
    assert tensor is not None
    return tuple(tensor.shape.numpy())
