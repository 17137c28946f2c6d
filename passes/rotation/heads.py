"""Values of attention: a rotation within each head, taken back by the output projection.

    v = x W_v + b,  y = attention(v),  z = y W_o

Attention mixes positions and never channels, so that a rotation R of the d channels of each head
passes it:  W_v <- W_v (I x R),  b <- b (I x R),  W_o <- (I x R)^T W_o  leave z as it is (QuaRot,
Ashkboos et al. 2024). With the same R for all heads, heads that share values need no care. Values
that are outputs or inputs of the model, as in a cache, stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.analysis.orthogonal import Rotation
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, constant_of, require_array, set_contents
from irtools.operators import weight_port
from irtools.passes.rotation.along import along
from irtools.passes.rotation.layout import axis_after, is_layout
from irtools.passes.rotation.stream import Use

__all__ = ["Heads", "find_heads", "rotate_heads"]

_ROTATED = "pkg.irtools.rotated"
"""Noted at a product whose values are rotated."""


@dataclass(frozen=True, eq=False)
class Heads:
    """The values of an attention block.

    Attributes:
        product: The value projection.
        width: d.
        first: Its first output channel that is a value.
        channels: How many are.
        written: The constants with these columns, along an axis.
        read: The constants with rows for them, along an axis.
    """

    product: ir.Node
    width: int
    first: int
    channels: int
    written: tuple[tuple[Use, int], ...]
    read: tuple[tuple[Use, int], ...]

    @property
    def name(self) -> str:
        """Value name of what the product makes."""
        return self.product.outputs[0].name or "?"

    @property
    def count(self) -> int:
        """How many heads there are."""
        return self.channels // self.width


def find_heads(graph: ir.Graph, shapes: SymbolicShapes) -> tuple[list[Heads], int]:
    """Find the values of attention that are not rotated yet.

    Returns:
        Those that nothing else reads, and how many others there are.
    """
    found, others = [], 0
    for node in graph:
        if _ROTATED in node.metadata_props:
            continue
        walk = _Walk(graph, shapes)
        if (heads := walk.heads(node)) is not None:
            found.append(heads)
        else:
            others += walk.are_values
    return found, others


def rotate_heads(editor: Editor, heads: Heads, rotation: Rotation) -> None:
    """Rotate the values of a block in place."""
    for (node, position), axis in heads.written:
        array = require_array(node.inputs[position])
        turned = np.array(array, np.float32)
        part = np.moveaxis(turned, axis, -1)[..., heads.first : heads.first + heads.channels]
        part[...] = _by_head(part, rotation)
        set_contents(editor, [(node, position)], turned, "rotated")
    for (node, position), axis in heads.read:
        array = require_array(node.inputs[position])
        turned = along(array, axis, lambda rows: _by_head(rows, rotation))
        set_contents(editor, [(node, position)], turned, "rotated")
    heads.product.metadata_props[_ROTATED] = "values"


def _by_head(rows: np.ndarray, rotation: Rotation) -> np.ndarray:
    split = rows.reshape(*rows.shape[:-1], -1, rotation.width).astype(np.float64)
    return rotation.turn(split).reshape(rows.shape)


class _NotValuesError(Exception):
    """What a product gives is not only read as values."""


@dataclass(frozen=True)
class _Place:
    """Where channels of values are.

    Attributes:
        axis: Of all heads together, or of the channels of one.
        is_split: Whether heads have an axis of their own.
    """

    axis: int
    is_split: bool


@dataclass
class _Walk:
    graph: ir.Graph
    shapes: SymbolicShapes
    width: int = 0
    attended: bool = False
    are_values: bool = False
    read: dict[tuple[Use, int], None] = field(default_factory=dict)

    def heads(self, node: ir.Node) -> Heads | None:
        """Return the values that a product makes, if it makes values."""
        if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or not node.inputs[1]:
            return None
        weight = _owned(node.inputs[1])
        rank = self.shapes.rank(node.outputs[0])
        if weight is None or len(weight.shape) != 2 or rank is None:
            return None
        for value, written, first, channels in self._starts(node):
            self.width, self.attended = 0, False
            self.read.clear()
            try:
                self._follow(value, _Place(rank - 1, is_split=False))
            except _NotValuesError:
                continue
            if self.attended and self.width > 1 and self.read:
                return Heads(node, self.width, first, channels, written, tuple(self.read))
        return None

    def _starts(
        self, node: ir.Node
    ) -> Iterator[tuple[ir.Value, tuple[tuple[Use, int], ...], int, int]]:
        """Yield what may be values, the constants that make them, and which channels they are."""
        port = weight_port(node)
        if port is None or port.out_axis is None:
            return
        written: list[tuple[Use, int]] = [((node, 1), port.out_axis)]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            written.append(((node, 2), -1))
        value = node.outputs[0]
        uses = list(value.uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add" and not value.is_graph_output():
            written.append(((uses[0].node, 1 - uses[0].idx), -1))
            value = uses[0].node.outputs[0]
        size = (self.shapes.shape(value) or ())[-1:]
        if not size or not isinstance(size[0], int) or not _all_owned(written, size[0]):
            return
        yield value, tuple(written), 0, size[0]
        uses = list(value.uses())
        if len(uses) == 1 and _splits_last(uses[0].node, self.shapes.rank(value)):
            start = 0
            for part in uses[0].node.outputs:
                found = (self.shapes.shape(part) or ())[-1:]
                if not found or not isinstance(found[0], int):
                    return
                yield part, tuple(written), start, found[0]
                start += found[0]

    def _follow(self, value: ir.Value, place: _Place) -> None:
        uses = value.uses()
        if place.is_split and place.axis + 1 == self.shapes.rank(value):
            self.are_values |= any(_takes_values(u.node, u.idx) for u in uses)
        if value.is_graph_output():
            raise _NotValuesError
        for use in uses:
            self._meet(use.node, use.idx, place)

    def _meet(self, node: ir.Node, position: int, place: _Place) -> None:
        if node.graph is not self.graph:
            raise _NotValuesError
        if node.op_type == "Shape":
            return
        if node.op_type == "Reshape" and position == 0:
            self._follow(node.outputs[0], self._reshaped(node, place))
        elif is_layout(node) and position == 0:
            axis = axis_after(node, place.axis, self.shapes)
            if axis is None:
                raise _NotValuesError
            for output in node.outputs:
                self._follow(output, _Place(axis, place.is_split))
        elif node.op_type in ("Attention", "MultiHeadAttention"):
            self._attended(node, position, place)
        elif node.op_type in ("MatMul", "Gemm"):
            self._multiplied(node, position, place)
        else:
            raise _NotValuesError

    def _reshaped(self, node: ir.Node, place: _Place) -> _Place:
        """Heads get an axis of their own, or lose it."""
        x, y = self.shapes.shape(node.inputs[0]), self.shapes.shape(node.outputs[0])
        axis = axis_after(node, place.axis, self.shapes)
        if axis is not None:
            return _Place(axis, place.is_split)
        if x is None or y is None or place.axis != len(x) - 1:
            raise _NotValuesError
        if not place.is_split:
            self._set_width(y[-1])
            if len(y) < 2 or not isinstance(y[-2], int) or y[-2] * self.width != x[-1]:
                raise _NotValuesError
            return _Place(len(y) - 1, is_split=True)
        if len(x) < 2 or not isinstance(x[-2], int) or x[-2] * self.width != y[-1]:
            raise _NotValuesError
        return _Place(len(y) - 1, is_split=False)

    def _attended(self, node: ir.Node, position: int, place: _Place) -> None:
        self.are_values |= position == 2
        shown = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        if position != 2 or shown:
            raise _NotValuesError
        inside = [*node.inputs[3:4], *node.inputs[6:]] if node.domain else node.inputs[4:]
        if any(value is not None for value in inside):
            raise _NotValuesError  # A bias of the operator's own, or a cache.
        rank = self.shapes.rank(node.inputs[2])
        if rank is None or place.axis != rank - 1 or place.is_split != (rank == 4):
            raise _NotValuesError
        if not place.is_split:
            name = "num_heads" if node.domain else "kv_num_heads"
            heads = node.attributes.get_int(name, 0)
            shape = self.shapes.shape(node.inputs[2]) or ()
            if not heads or not isinstance(shape[-1], int) or shape[-1] % heads:
                raise _NotValuesError
            self._set_width(shape[-1] // heads)
        self.attended = True
        self._follow(node.outputs[0], place)

    def _multiplied(self, node: ir.Node, position: int, place: _Place) -> None:
        rank = self.shapes.rank(node.inputs[position])
        if rank is None or place.axis != rank - 1:
            raise _NotValuesError
        if position == 1 and node.op_type == "MatMul" and place.is_split:
            self.attended = True
            self._follow(node.outputs[0], place)
            return
        weight = _owned(node.inputs[1])
        port = weight_port(node)
        plain = node.op_type == "MatMul" or node.attributes.get_int("transA", 0) == 0
        if position or weight is None or port is None or place.is_split or not plain:
            raise _NotValuesError
        if len(weight.shape) != 2 or not self.attended or port.in_axis is None:
            raise _NotValuesError
        self.read[(node, 1), port.in_axis] = None

    def _set_width(self, width: object) -> None:
        if not isinstance(width, int) or (self.width and self.width != width):
            raise _NotValuesError
        self.width = width


def _takes_values(node: ir.Node, position: int) -> bool:
    """Whether a node mixes the positions of an input, or joins it to a cache before one does."""
    if node.op_type == "Concat":
        return any(_takes_values(u.node, u.idx) for v in node.outputs for u in v.uses())
    return (node.op_type, position) in (("MatMul", 1), ("Attention", 2), ("MultiHeadAttention", 2))


def _splits_last(node: ir.Node, rank: int | None) -> bool:
    if node.op_type != "Split" or rank is None:
        return False
    return node.attributes.get_int("axis", 0) % rank == rank - 1


def _owned(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return a float32 constant that one node reads."""
    tensor = constant_of(value)
    if value is None or tensor is None or value.producer() is not None or len(value.uses()) != 1:
        return None
    return tensor if tensor.dtype == ir.DataType.FLOAT and not value.is_graph_output() else None


def _all_owned(written: list[tuple[Use, int]], size: int) -> bool:
    """Whether constants can be changed, and have the channels of a value along their axes."""
    tensors = [constant_of(node.inputs[position]) for (node, position), _ in written]
    return all(
        tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
        and len(tensor.shape) > 0
        and tensor.shape[axis] == size
        for tensor, (_, axis) in zip(tensors, written, strict=True)
    )
