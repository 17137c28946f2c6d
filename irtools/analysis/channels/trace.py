"""Following channels through the graph until nothing is left to follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from irtools.analysis.channels.groups import (
    NO_RULE,
    BlockedGroup,
    BlockedReason,
    ChannelGroup,
    GroupAxis,
    Kind,
    Member,
    Role,
    Trace,
)
from irtools.analysis.channels.index_map import IndexMap
from irtools.analysis.channels.rules import CHANNELS, WEIGHTED_OPS, Port, Refine
from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import require_weight, weight_of
from irtools.operators import weight_port

__all__ = ["ChannelGroups"]

_MAX_REFINEMENTS = 4
_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class ChannelGroups:
    """Every channel group of the main graph, in its order. Subgraphs are left alone."""

    groups: tuple[ChannelGroup, ...]
    blocked: tuple[BlockedGroup, ...]

    @classmethod
    def of(cls, model: ir.Model) -> ChannelGroups:
        """Follow the channels of every MatMul, Gemm and Conv with a constant weight."""
        return _trace_groups(model)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def find(self, name: str) -> ChannelGroup | None:
        """Return the group of that name, or None."""
        return next((g for g in self.groups if g.name == name), None)


def _trace_groups(model: ir.Model) -> ChannelGroups:
    shapes = SymbolicShapes.of(model)
    groups: list[ChannelGroup] = []
    blocked: list[BlockedGroup] = []
    seen: set[ir.Node] = set()
    taken: set[str] = set()
    for node in model.graph:
        if node in seen or not _multiplies(node):
            continue
        if shapes.rank(node.outputs[0]) is None:
            reason = BlockedReason("the rank of its result is not known", node.op_type)
            blocked.append(BlockedGroup(_unique(module_name(node), taken), 0, (reason,)))
            continue
        trace, units = _trace(node, shapes)
        seen.update(m.node for m in trace.members.values() if m.role == "out")
        name = _unique(_name(node, trace), taken)
        _check(trace)
        if trace.reasons:
            blocked.append(BlockedGroup(name, units, tuple(trace.reasons)))
        else:
            groups.append(_finished(name, units, trace))
    return _joined_by_weights(groups, blocked)


def _multiplies(node: ir.Node) -> bool:
    if node.op_type not in WEIGHTED_OPS or node.domain != "" or len(node.inputs) < 2:
        return False
    weight = weight_of(node.inputs[1])
    if weight is None:
        return False
    if node.op_type in _CONVOLUTIONS:
        return node.attributes.get_int("group", 1) == 1
    return len(weight.shape) == 2 and weight_of(node.inputs[0]) is None


def _root_slot(node: ir.Node, shapes: SymbolicShapes) -> tuple[int, int]:
    """Return axis and size of the channels that a root computes."""
    port = weight_port(node)
    assert port is not None and port.out_axis is not None
    weight = require_weight(node.inputs[port.input])
    size = weight.shape[port.out_axis]
    assert isinstance(size, int)
    return 1 if node.op_type in _CONVOLUTIONS else (shapes.rank(node.outputs[0]) or 2) - 1, size


def _trace(node: ir.Node, shapes: SymbolicShapes) -> tuple[Trace, int]:
    axis, size = _root_slot(node, shapes)
    first: tuple[Trace, int] | None = None
    pending = [IndexMap(size)]
    for _ in range(_MAX_REFINEMENTS):
        if not pending:
            break
        mapping = pending.pop(0)
        trace = Trace(shapes, node.graph)
        trace.couple(node.outputs[0], axis, mapping)
        try:
            _follow_all(trace)
        except Refine as request:
            finer = [mapping.grouped(*c) for c in request.candidates]
            pending[:0] = finer
            continue
        if not trace.reasons:
            return trace, mapping.units
        first = first or (trace, mapping.units)
    if first is None:
        trace = Trace(shapes, node.graph)
        trace.block(node, "no unit fits all operators that its channels pass")
        first = trace, size
    return first


def _follow_all(trace: Trace) -> None:
    at = 0
    while at < len(trace.pending):
        slot = trace.pending[at]
        at += 1
        _follow_slot(slot, trace.slots[slot], trace)


def _follow_slot(slot: GroupAxis, mapping: IndexMap, trace: Trace) -> None:
    value = slot.value
    producer = value.producer()
    if value.is_graph_output():
        trace.block(producer, f"its channels are the model's output {value.name}")
    if producer is None:
        what = "an input" if value.is_graph_input() else "a constant that no rule takes"
        trace.block(None, f"its channels come from {value.name}, {what}")
        return
    _meet(Port(producer, False, list(producer.outputs).index(value), slot.axis, mapping), trace)
    for node, position in value.uses():
        _meet(Port(node, True, position, slot.axis, mapping), trace)


def _meet(port: Port, trace: Trace) -> None:
    node = port.node
    if node.graph is not trace.graph:
        trace.block(node, "it is in another graph")
        return
    rule = CHANNELS.of(node)
    if rule is None:
        trace.block(node, NO_RULE)
    else:
        rule(port, trace)


def _check(trace: Trace) -> None:
    """Refuse what only the whole trace shows."""
    for node, position in sorted(trace.size_uses, key=lambda item: item[1]):
        if GroupAxis(node.outputs[0], position) not in trace.slots:
            trace.block(node, "it writes the number of channels on an axis that has none")
    for (node, axis), edit in trace.adaptive.items():
        if (node, axis) in trace.size_uses:
            continue
        if edit is None:
            trace.block(node, f"size {axis} of its target is computed from elsewhere")
        else:
            trace.edit_size(edit)
    for key, take in list(trace.take_edits.items()):
        # What turned out to be coupled after all gets narrower by itself.
        value = take.node.inputs[take.input]
        if value is not None and GroupAxis(value, take.axis) in trace.slots:
            del trace.take_edits[key]
    if not trace.reasons and not any(m.role == "in" for m in trace.members.values()):
        trace.block(None, "nothing sums its channels up")


def _finished(name: str, units: int, trace: Trace) -> ChannelGroup:
    members = tuple(trace.members.values())
    return ChannelGroup(
        name,
        _kind(trace),
        units,
        members,
        dict(trace.slots),
        tuple(trace.shape_edits.values()),
        tuple(trace.attribute_edits.values()),
        tuple(trace.take_edits.values()),
    )


def _kind(trace: Trace) -> Kind:
    if trace.is_attention:
        return "heads"
    if any(m.node.op_type in _CONVOLUTIONS and m.role == "out" for m in trace.members.values()):
        return "channels"
    return "neurons"


def _name(node: ir.Node, trace: Trace) -> str:
    """Return the module of the root; of attention, the module that query and key share."""
    name = module_name(node)
    if trace.is_attention:
        roots = [module_name(m.node) for m in trace.members.values() if m.role == "out"]
        common = _common_prefix([r.split(".") for r in roots])
        return ".".join(common) or name
    return name


def _common_prefix(names: list[list[str]]) -> list[str]:
    shared = []
    for parts in zip(*names, strict=False):
        if len(set(parts)) != 1:
            break
        shared.append(parts[0])
    return shared


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}#{number}"
    taken.add(candidate)
    return candidate


def _joined_by_weights(groups: list[ChannelGroup], blocked: list[BlockedGroup]) -> ChannelGroups:
    """Join groups that use the same matrices, as layers that share their weights do.

    Pruning one use alone would copy the matrix. Where not all uses agree, all groups that have
    it are blocked.
    """
    kept: list[ChannelGroup] = []
    for family in _families(groups):
        reason = _disagreement(family)
        if reason is None:
            kept.append(_joined(family))
        else:
            blocked.extend(BlockedGroup(g.name, g.units, (reason,)) for g in family)
    return ChannelGroups(tuple(kept), tuple(blocked))


def _families(groups: list[ChannelGroup]) -> list[list[ChannelGroup]]:
    """Put groups together that have a shared matrix in the same role."""
    families: list[tuple[set[tuple[ir.Value, Role]], list[ChannelGroup]]] = []
    for group in groups:
        shared = {(m.value, m.role) for m in _shared_members(group)}
        touched = [f for f in families if f[0] & shared]
        families = [f for f in families if not f[0] & shared]
        joined = [g for _, members in touched for g in members]
        families.append((shared.union(*(f[0] for f in touched)), [*joined, group]))
    return [members for _, members in families]


def _shared_members(group: ChannelGroup) -> list[Member]:
    # What is carried along, such as a bias, is copied on write; matrices are not.
    return [
        m for m in group.members if m.role != "along" and len({n for n, _ in m.value.uses()}) > 1
    ]


def _disagreement(family: list[ChannelGroup]) -> BlockedReason | None:
    users: dict[tuple[ir.Value, Role], set[ir.Node]] = {}
    places: dict[tuple[ir.Value, Role], tuple[int, IndexMap]] = {}
    members = [m for g in family for m in _shared_members(g)]
    for m in members:
        users.setdefault((m.value, m.role), set()).add(m.node)
    for m in members:
        place = m.axis, m.map
        agrees = places.setdefault((m.value, m.role), place) == place
        if not agrees or {n for n, _ in m.value.uses()} != users[m.value, m.role]:
            return BlockedReason(f"weight {m.value.name} is also used elsewhere")
    if len({(g.units, g.kind) for g in family}) > 1:
        return BlockedReason(f"weight {members[0].value.name} holds different units elsewhere")
    return None


def _joined(family: list[ChannelGroup]) -> ChannelGroup:
    first, *others = family
    if not others:
        return first
    return replace(
        first,
        members=tuple(m for g in family for m in g.members),
        slots={slot: mapping for g in family for slot, mapping in g.slots.items()},
        shape_edits=tuple(e for g in family for e in g.shape_edits),
        attribute_edits=tuple(e for g in family for e in g.attribute_edits),
        take_edits=tuple(e for g in family for e in g.take_edits),
    )
