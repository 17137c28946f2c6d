"""Channel groups: what must be removed together (DepGraph, Fang et al. 2023).

From the output axis of every MatMul, Gemm and Conv the channels are followed through the graph,
forwards and backwards, by one rule per operator (`rules`). What they pass is a *slot*: an axis
of a value together with an `IndexMap`. Where they meet a constant, the constant is a *member*:
written by a root (`out`), read by a sink (`in`), or carried along (`along`).

An operator without a rule blocks the group. It is never guessed to be elementwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes, constant_of
from irtools.passes.pruning.index_map import IndexMap

__all__ = [
    "AttributeEdit",
    "BlockedGroup",
    "BlockedReason",
    "ChannelGroup",
    "ChannelGroups",
    "Kind",
    "Member",
    "ShapeEdit",
    "Slot",
]

Kind: TypeAlias = Literal["heads", "neurons", "channels"]
Role: TypeAlias = Literal["out", "in", "along"]


@dataclass(frozen=True)
class Slot:
    """An axis of a value on which the units of a group lie."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class Member:
    """An axis of a constant input on which the units of a group lie.

    Attributes:
        role: `out`: its units are computed here; `in`: they are summed up here; `along`: they
            are only scaled or shifted.
        data_axis: For `in`: the channel axis of the data input.
    """

    node: ir.Node
    input: int
    axis: int
    map: IndexMap
    role: Role
    data_axis: int | None = None

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.input]
        assert value is not None
        return value


@dataclass(frozen=True)
class ShapeEdit:
    """A size in the constant part of a Reshape's target: `units * factor`.

    Attributes:
        position: Which size of the target.
        part: Input of the Concat that the target is, or None where the target is constant.
        element: Which element of that input, or of the target.
    """

    node: ir.Node
    position: int
    factor: int
    part: int | None
    element: int


@dataclass(frozen=True)
class AttributeEdit:
    """An integer attribute that counts units: `units * factor`."""

    node: ir.Node
    name: str
    factor: int


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are removed together.

    Attributes:
        name: Module that the units belong to, unique within the model.
        kind: What a unit is.
        units: How many there are.
        members: Constants that hold them.
        slots: Values whose shape changes, with their maps.
        shape_edits: Reshape targets to rewrite.
        attribute_edits: Attributes to rewrite.
    """

    name: str
    kind: Kind
    units: int
    members: tuple[Member, ...]
    slots: dict[Slot, IndexMap]
    shape_edits: tuple[ShapeEdit, ...] = ()
    attribute_edits: tuple[AttributeEdit, ...] = ()

    @property
    def roots(self) -> tuple[Member, ...]:
        """Members that compute the units, in the order of the graph."""
        return tuple(m for m in self.members if m.role == "out")

    @property
    def sinks(self) -> tuple[Member, ...]:
        """Members that sum the units up."""
        return tuple(m for m in self.members if m.role == "in")

    @property
    def parameters_per_unit(self) -> int:
        """Parameters that go with one unit; weights of several uses count once."""
        seen: dict[tuple[ir.Value, int], int] = {}
        for m in self.members:
            tensor = constant_of(m.value)
            assert tensor is not None
            length = tensor.shape[m.axis]
            assert isinstance(length, int)
            size = tensor.size // max(length, 1) * (m.map.outer or 1) * m.map.inner
            seen[m.value, m.axis] = size
        return sum(seen.values())


@dataclass(frozen=True)
class BlockedReason:
    """What stands against pruning a group.

    Attributes:
        text: The reason; one text per kind as far as it names nothing.
        op: Operator that it is about; empty for none.
        node: Name of its node.
    """

    text: str
    op: str = ""
    node: str = ""

    def __str__(self) -> str:
        where = f"{self.op} {self.node}".strip()
        return f"{where}: {self.text}" if where else self.text


@dataclass(frozen=True)
class BlockedGroup:
    """A group that cannot be pruned, and why."""

    name: str
    units: int
    reasons: tuple[BlockedReason, ...]


@dataclass(frozen=True)
class ChannelGroups:
    """Every channel group of the main graph, in its order. Subgraphs are left alone."""

    groups: tuple[ChannelGroup, ...]
    blocked: tuple[BlockedGroup, ...]

    @classmethod
    def of(cls, model: ir.Model) -> ChannelGroups:
        """Follow the channels of every MatMul, Gemm and Conv with a constant weight."""
        from irtools.passes.pruning.trace import trace_groups

        return trace_groups(model)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def find(self, name: str) -> ChannelGroup | None:
        """Return the group of that name, or None."""
        return next((g for g in self.groups if g.name == name), None)


@dataclass
class Trace:
    """A group while it is being followed."""

    shapes: SymbolicShapes
    graph: object
    slots: dict[Slot, IndexMap] = field(default_factory=dict)
    members: dict[tuple[ir.Node, int, int], Member] = field(default_factory=dict)
    shape_edits: dict[tuple[ir.Node, int], ShapeEdit] = field(default_factory=dict)
    adaptive: set[tuple[ir.Node, int]] = field(default_factory=set)
    size_uses: set[tuple[ir.Node, int]] = field(default_factory=set)
    attribute_edits: dict[tuple[ir.Node, str], AttributeEdit] = field(default_factory=dict)
    reasons: list[BlockedReason] = field(default_factory=list)
    pending: list[Slot] = field(default_factory=list)
    is_attention: bool = False

    def couple(self, value: ir.Value, axis: int, mapping: IndexMap) -> None:
        """Add a slot. Layouts that contradict each other block the group."""
        slot = Slot(value, axis)
        earlier = self.slots.setdefault(slot, mapping)
        if earlier != mapping:
            self.block(value.producer(), f"two layouts of its channels meet at {value.name}")
        elif slot not in self.pending:
            self.pending.append(slot)

    def add_member(
        self,
        node: ir.Node,
        position: int,
        axis: int,
        mapping: IndexMap,
        role: Role,
        data_axis: int | None = None,
    ) -> None:
        """Add a constant input."""
        member = Member(node, position, axis, mapping, role, data_axis)
        earlier = self.members.setdefault((node, position, axis), member)
        if earlier.map != mapping:
            self.block(node, "two layouts of its channels meet in one weight")

    def block(self, node: ir.Node | None, reason: str) -> None:
        """Note why the group cannot be pruned."""
        found = BlockedReason(reason)
        if node is not None:
            found = BlockedReason(reason, node.op_type, node.name or module_name(node))
        if found not in self.reasons:
            self.reasons.append(found)
