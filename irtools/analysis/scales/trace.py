"""Following scales through the graph until every tensor that they reach is accounted for.

From the input of a product the scale is followed by one rule per operator (`rules`), back to what
can be divided by it (*dividing* members: the gain of a normalization, the columns of a weight) and
forth to what can be multiplied by it (the rows of weights). What a rule cannot prove it refuses,
with one of the reasons of `REASONS`; then nothing is scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.analysis.refusal import ReasonedRefusal
from irtools.analysis.scales.units import Layout, Units, aligned
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import constant_of, producer_of
from irtools.operators import op_key

__all__ = [
    "FLOATS",
    "REASONS",
    "Member",
    "NeedsChoice",
    "Port",
    "Refusal",
    "Rule",
    "ScaledProduct",
    "Trace",
]

Reason: TypeAlias = Literal[
    "output", "input", "operator", "product", "shared", "subgraph", "shape", "type"
]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "output": "an output of the model shows the channels",
        "input": "the caller of the model gives the channels",
        "operator": "an operator lets no scale pass",
        "product": "the channels are multiplied by another activation",
        "shared": "another node reads the same weight in another way",
        "subgraph": "a branch, a loop or a function reads the channels",
        "shape": "it is not known where the channels lie",
        "type": "a weight is not of a floating-point type",
    }
)
"""Why a scale cannot be moved; each input of a product that stays as it is has one of them."""

FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


class Refusal(ReasonedRefusal[Reason]):
    """The scale cannot be moved exactly."""

    reasons = REASONS


class NeedsChoice(Exception):  # noqa: N818 - a request to start again, not an error
    """One of several inputs of a node must take the scale: any of them is exact."""

    def __init__(self, node: ir.Node, choices: tuple[int, ...]) -> None:
        super().__init__(node.name)
        self.node = node
        self.choices = choices


@dataclass(frozen=True)
class Member:
    """A constant that changes: it is multiplied by s[layout] ** power.

    Attributes:
        node: The node that reads it.
        input: Which input of the node it is.
        layout: Broadcasts to it, or it to the layout.
        power: 1 for what is multiplied, -1 for what is divided.
    """

    node: ir.Node
    input: int
    layout: Layout
    power: Literal[1, -1]

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = constant_of(self.node.inputs[self.input])
        assert tensor is not None
        return tensor


@dataclass(frozen=True)
class ScaledProduct:
    """A product whose input is divided and whose weight is multiplied.

    Attributes:
        node: MatMul, Gemm or Conv.
        holder: The node that reads the stored weight: the product, or a Transpose.
        input: Which input of `holder` it is.
        units: Unit of every input channel, [K]; of a Conv, over all its groups.
        axis: Channel axis of the activation, as statistics are collected along it.
    """

    node: ir.Node
    holder: ir.Node
    input: int
    units: np.ndarray
    axis: int

    @property
    def activation(self) -> ir.Value:
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def weight(self) -> ir.Value:
        value = self.holder.inputs[self.input]
        assert value is not None
        return value


@dataclass(frozen=True)
class Port:
    """Where a layout meets a node.

    Attributes:
        node: The node.
        is_input: Whether it is an input of the node.
        position: Which one.
        layout: Of the value there.
    """

    node: ir.Node
    is_input: bool
    position: int
    layout: Layout

    @property
    def value(self) -> ir.Value:
        value = (self.node.inputs if self.is_input else self.node.outputs)[self.position]
        assert value is not None
        return value

    def refuse(self, reason: Reason) -> Refusal:
        """Return the refusal of this node."""
        return Refusal(reason, op_key(self.node.domain, self.node.op_type))


Rule: TypeAlias = "Callable[[Port, Trace], None]"
"""Couples the other ports of a node to one of them, or raises `Refusal`."""


@dataclass
class Trace:
    """Scales while they are being followed.

    Attributes:
        shapes: Of the model.
        choices: Node to the input that takes the scale, where several could.
        layouts: Values that are divided.
        members: Constants that change.
        products: Products whose inputs are divided.
        pending: Values whose neighbours have not been looked at.
    """

    shapes: SymbolicShapes
    graph: ir.Graph
    choices: dict[ir.Node, int] = field(default_factory=dict)
    units: Units = field(default_factory=Units)
    layouts: dict[ir.Value, Layout] = field(default_factory=dict)
    members: dict[tuple[ir.Node, int, int], Member] = field(default_factory=dict)
    products: dict[ir.Node, ScaledProduct] = field(default_factory=dict)
    pending: list[ir.Value] = field(default_factory=list)

    def couple(self, value: ir.Value | None, layout: Layout) -> None:
        """Divide a value that is computed."""
        if value is None or self.units.is_fixed(layout):
            return
        rank = self.shapes.rank(value)
        found = None if rank is None else aligned(layout, rank)
        if found is None:
            raise Refusal("shape", value.name or "?")
        found = self._fitted(value, found)
        earlier = self.layouts.get(value)
        if earlier is None:
            self.layouts[value] = found
            self.pending.append(value)
            return
        self.units.unite(earlier, found)
        self.layouts[value] = np.broadcast_arrays(earlier, found)[0]

    def operand(self, port: Port, position: int, layout: Layout) -> None:
        """Divide an input of a node, whether it is constant or computed."""
        value = port.node.inputs[position]
        if value is None:
            return
        if constant_of(value) is None:
            self.couple(value, layout)
        else:
            self.scale(port.node, position, layout, -1)

    def scale(self, node: ir.Node, position: int, layout: Layout, power: Literal[1, -1]) -> None:
        """Multiply or divide a constant input of a node."""
        value = node.inputs[position]
        tensor = constant_of(value)
        if value is None or tensor is None or tensor.dtype not in FLOATS:
            quantized = producer_of(value, "DequantizeLinear") is not None or tensor is not None
            name = op_key(node.domain, node.op_type)
            raise Refusal("type" if quantized else "product", name)
        key = (node, position, power)
        earlier = self.members.get(key)
        if earlier is not None:
            self.units.unite(earlier.layout, layout)
        self.members[key] = Member(node, position, layout, power)

    def multiply(self, port: Port, product: ScaledProduct, layout: Layout) -> None:
        """Multiply the rows of a product's weight; its input is divided."""
        self.scale(product.holder, product.input, layout, 1)
        self.products[port.node] = product

    def carry(self, port: Port) -> None:
        """Note that this input of a node carries the scale on its own, and no other input does."""
        if self.choices.setdefault(port.node, port.position) != port.position:
            raise port.refuse("product")

    def chosen(self, port: Port, choices: tuple[int, ...]) -> int:
        """Return which input of a node takes the scale of its output."""
        found = self.choices.get(port.node)
        if found is None:
            if len(choices) == 1:
                self.choices[port.node] = choices[0]
                return choices[0]
            raise NeedsChoice(port.node, choices)
        return found

    def _fitted(self, value: ir.Value, layout: Layout) -> Layout:
        """Unite units along axes on which a value has one element."""
        shape = self.shapes.shape(value) or ()
        for axis, (size, units) in enumerate(zip(shape, layout.shape, strict=True)):
            if units == 1 or size == units:
                continue
            if size != 1:
                raise Refusal("shape", value.name or "?")
            layout = self.units.reduce(layout, axis)
        return layout
