"""Channel groups: what must be removed together (DepGraph, Fang et al. 2023).

From the output axis of every MatMul, Gemm and Conv the channels are followed through the graph,
forwards and backwards, by one rule per operator (`rules`). What they pass is a *slot*: an axis
of a value together with an `IndexMap`. Where they meet a constant, the constant is a *member*:
written by a root (`out`), read by a sink (`in`), or carried along (`along`).

An operator without a rule blocks the group. It is never guessed to be elementwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeAlias

import onnx_ir as ir

from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import require_weight
from irtools.operators import op_key

__all__ = [
    "NO_RULE",
    "AttributeEdit",
    "BlockedGroup",
    "BlockedReason",
    "ChannelGroup",
    "Kind",
    "Member",
    "Role",
    "ShapeEdit",
    "GroupAxis",
    "TakeEdit",
    "removed_parameters",
]

NO_RULE = "no channel rule for this operator"
"""The reason of groups that an operator without a rule blocks."""

Kind: TypeAlias = Literal["heads", "neurons", "channels"]
Role: TypeAlias = Literal["out", "in", "along"]


@dataclass(frozen=True)
class GroupAxis:
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
    """A size that an operand of a node writes down: it falls by `factor` per removed unit.

    Attributes:
        operand: Input of the node that holds the size: the target of Reshape, Expand or Resize,
            the parts of Split.
        element: Which element of the operand; with `part`, of that input of its Concat.
        part: Input of the Concat that the operand is, or None where the operand is constant.
        length: Elements of an operand that is neither constant nor a Concat although its numbers
            are known; a Sub corrects it.
        units: Instead of falling by a number, the size is a multiple of these and of what is only
            known when the model runs (batch and heads merged into one axis); it is scaled.
    """

    node: ir.Node
    operand: int
    element: int
    factor: int
    part: int | None = None
    length: int | None = None
    units: int | None = None


@dataclass(frozen=True)
class AttributeEdit:
    """An integer attribute that counts elements: it falls by `factor` per removed unit.

    Attributes:
        index: Which number, of an attribute that is a list.
    """

    node: ir.Node
    name: str
    factor: int
    index: int | None = None


@dataclass(frozen=True)
class TakeEdit:
    """An input that has the units but does not come from them: a Gather takes those that stay.

    Relative position biases are such values, made from a table once for all layers. Following
    them would tie the heads of all layers together.
    """

    node: ir.Node
    input: int
    axis: int
    map: IndexMap


@dataclass(frozen=True)
class ChannelGroup:
    """Units that are removed together.

    Attributes:
        name: Module that the units belong to, unique within the model.
        kind: What a unit is.
        units: How many there are.
        members: Constants that hold them.
        slots: Values whose shape changes, with their maps.
        shape_edits: Written sizes to correct.
        attribute_edits: Attributes to correct.
        take_edits: Inputs of which a part is taken.
    """

    name: str
    kind: Kind
    units: int
    members: tuple[Member, ...]
    slots: dict[GroupAxis, IndexMap]
    shape_edits: tuple[ShapeEdit, ...] = ()
    attribute_edits: tuple[AttributeEdit, ...] = ()
    take_edits: tuple[TakeEdit, ...] = ()

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
            tensor = require_weight(m.value)
            length = tensor.shape[m.axis]
            assert isinstance(length, int)
            size = tensor.size // max(length, 1) * (m.map.outer or 1) * m.map.inner
            seen[m.value, m.axis] = size
        return sum(seen.values())


def removed_parameters(
    groups: Iterable[ChannelGroup], removed: Mapping[str, Sequence[int]] | None
) -> int:
    """Count the elements that constants of groups lose, each once.

    Args:
        groups: The groups.
        removed: Group name to units that go; None: everything that the groups hold.
    """
    gone: dict[ir.Value, dict[int, set[int]]] = {}
    for group in groups:
        units = range(group.units) if removed is None else removed.get(group.name, ())
        for m in group.members:
            indices = gone.setdefault(m.value, {}).setdefault(m.axis, set())
            indices.update(m.map.indices(units).tolist())
    total = 0
    for value, axes in gone.items():
        tensor = require_weight(value)
        shape = tuple(tensor.shape.numpy())
        left = [n - len(axes.get(axis, ())) for axis, n in enumerate(shape)]
        total += prod(shape) - prod(left)
    return total


@dataclass(frozen=True)
class BlockedReason:
    """What prevents pruning a group.

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


@dataclass
class Trace:
    """A group while it is being followed.

    Attributes:
        adaptive: (node, output axis) of targets that are computed when the model runs, with the
            edit that they need where they do not follow the channels by themselves.
        size_uses: (node, output axis) of targets that follow the size of a slot.
    """

    shapes: SymbolicShapes
    graph: object
    slots: dict[GroupAxis, IndexMap] = field(default_factory=dict)
    members: dict[tuple[ir.Node, int, int], Member] = field(default_factory=dict)
    shape_edits: dict[tuple[ir.Node, int, int | None, int], ShapeEdit] = field(default_factory=dict)
    adaptive: dict[tuple[ir.Node, int], ShapeEdit | None] = field(default_factory=dict)
    size_uses: set[tuple[ir.Node, int]] = field(default_factory=set)
    attribute_edits: dict[tuple[ir.Node, str, int | None], AttributeEdit] = field(
        default_factory=dict
    )
    take_edits: dict[tuple[ir.Node, int, int], TakeEdit] = field(default_factory=dict)
    reasons: list[BlockedReason] = field(default_factory=list)
    pending: list[GroupAxis] = field(default_factory=list)
    is_attention: bool = False

    def couple(self, value: ir.Value, axis: int, mapping: IndexMap) -> None:
        """Add a slot. Layouts that contradict each other block the group."""
        slot = GroupAxis(value, axis)
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
        """Add a constant input. One whose axis the units do not fill blocks the group."""
        tensor = require_weight(node.inputs[position])
        fitted = mapping.fitted(tensor.shape.numpy()[axis])
        if fitted is None:
            self.block(node, "its channels do not fill the axis of the weight that they meet")
            return
        member = Member(node, position, axis, fitted, role, data_axis)
        earlier = self.members.setdefault((node, position, axis), member)
        if earlier.map != fitted:
            self.block(node, "two layouts of its channels meet in one weight")

    def edit_size(self, edit: ShapeEdit) -> None:
        """Note a size to correct."""
        self.shape_edits[edit.node, edit.operand, edit.part, edit.element] = edit

    def edit_attribute(self, edit: AttributeEdit) -> None:
        """Note an attribute to correct."""
        self.attribute_edits[edit.node, edit.name, edit.index] = edit

    def block(self, node: ir.Node | None, reason: str) -> None:
        """Note why the group cannot be pruned."""
        found = BlockedReason(reason)
        if node is not None:
            key = op_key(node.domain, node.op_type)
            found = BlockedReason(reason, key, node.name or module_name(node))
        if found not in self.reasons:
            self.reasons.append(found)
