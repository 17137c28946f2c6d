"""Following channels through the graph until nothing is left to follow."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes, constant_of
from irtools.passes.pruning.groups import (
    BlockedGroup,
    BlockedReason,
    ChannelGroup,
    ChannelGroups,
    Kind,
    Slot,
    Trace,
)
from irtools.passes.pruning.index_map import IndexMap
from irtools.passes.pruning.rules import Port, Refine, rule_of

__all__ = ["trace_groups"]

_ROOT_OPS = ("MatMul", "Gemm", "Conv")
_MAX_REFINEMENTS = 4


def trace_groups(model: ir.Model) -> ChannelGroups:
    """Find the groups of a model; see `ChannelGroups.of`."""
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
    return _without_shared(groups, blocked)


def _multiplies(node: ir.Node) -> bool:
    if node.op_type not in _ROOT_OPS or node.domain != "" or len(node.inputs) < 2:
        return False
    weight = constant_of(node.inputs[1])
    if weight is None:
        return False
    if node.op_type == "Conv":
        return node.attributes.get_int("group", 1) == 1
    return len(weight.shape) == 2 and constant_of(node.inputs[0]) is None


def _root_slot(node: ir.Node, shapes: SymbolicShapes) -> tuple[int, int]:
    """Return axis and size of the channels that a root computes."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        axis, size = 1, weight.shape[0]
    else:
        transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
        axis = (shapes.rank(node.outputs[0]) or 2) - 1
        size = weight.shape[0 if transposed else 1]
    assert isinstance(size, int)
    return axis, size


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


def _follow_slot(slot: Slot, mapping: IndexMap, trace: Trace) -> None:
    value = slot.value
    producer = value.producer()
    if value.is_graph_output():
        trace.block(producer, f"its channels are the model's output {value.name}")
    if producer is None:
        trace.block(None, f"its channels come from {value.name}, which is no constant")
        return
    _meet(Port(producer, False, list(producer.outputs).index(value), slot.axis, mapping), trace)
    for node, position in value.uses():
        _meet(Port(node, True, position, slot.axis, mapping), trace)


def _meet(port: Port, trace: Trace) -> None:
    node = port.node
    if node.graph is not trace.graph:
        trace.block(node, "it lies in another graph")
        return
    rule = rule_of(node)
    if rule is None:
        trace.block(node, "no channel rule for this operator")
    else:
        rule(port, trace)


def _check(trace: Trace) -> None:
    """Refuse what only the whole trace shows."""
    for node, position in sorted(trace.size_uses, key=lambda item: item[1]):
        if Slot(node.outputs[0], position) not in trace.slots:
            trace.block(node, "it writes the number of channels on an axis that has none")
    for node, position in trace.adaptive - trace.size_uses:
        trace.block(node, f"size {position} of its target is computed from elsewhere")
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
    )


def _kind(trace: Trace) -> Kind:
    if trace.is_attention:
        return "heads"
    if any(m.node.op_type == "Conv" and m.role == "out" for m in trace.members.values()):
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


def _without_shared(groups: list[ChannelGroup], blocked: list[BlockedGroup]) -> ChannelGroups:
    """Block groups whose matrices serve elsewhere too: pruning one use would copy the matrix."""
    kept: list[ChannelGroup] = []
    for group in groups:
        nodes = {m.node for m in group.members}
        shared = [
            m.value
            for m in group.members
            if m.role != "along" and any(user not in nodes for user, _ in m.value.uses())
        ]
        if shared:
            reason = BlockedReason(f"weight {shared[0].name} is also used elsewhere")
            blocked.append(BlockedGroup(group.name, group.units, (reason,)))
        else:
            kept.append(group)
    return ChannelGroups(tuple(kept), tuple(blocked))
