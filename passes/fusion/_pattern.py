"""Walking a graph from an anchor node, with reasons where the walk ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.model import FreshNames

__all__ = [
    "Veto",
    "is_op",
    "last_axis",
    "make_node",
    "only_user",
    "other_input",
    "remove_dead",
    "replace",
    "require",
    "scalar",
]

RULE = "pkg.irtools.rule"
REPLACED = "pkg.irtools.replaced"


class Veto(Exception):  # noqa: N818 - not an error: the answer "no", with its reason
    """A candidate that is left as it is.

    Args:
        reason: Why, as the end of the sentence "did not fuse X: ".
        named: True where the candidate is what the rule looks for and only a condition fails, so
            that the report should mention it.
    """

    def __init__(self, reason: str, *, named: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.named = named


def require(condition: object, reason: str, *, named: bool = True) -> None:
    """Raise a Veto unless the condition holds."""
    if not condition:
        raise Veto(reason, named=named)


def is_op(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value, if it is a standard operator of one of these types."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in op_types:
        return None
    return node


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once; None where others, or the caller, read it too."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The other operand of a binary operator."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds.

    Of two dimensions or more it is none: it could widen what it is combined with.
    """
    tensor = constant_of(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    if len(tensor.shape) > 1:
        return None
    return float(tensor.numpy().reshape(()))


def last_axis(node: ir.Node, rank: int | None) -> bool:
    """Whether a reduction with kept dimensions, or a Softmax, is over the last axis alone."""
    axes: Sequence[int]
    if node.op_type == "Softmax":
        axes = [node.attributes.get_int("axis", _default_axis(node))]
    elif not node.attributes.get_int("keepdims", 1):
        return False
    else:
        axes = _axes(node)
    return len(axes) == 1 and (axes[0] == -1 or (rank is not None and axes[0] == rank - 1))


def _default_axis(node: ir.Node) -> int:
    """Of Softmax: 1 before opset 13, where it also took all axes from there on together."""
    version = None if node.graph is None else node.graph.opset_imports.get("")
    return -1 if version is not None and version >= 13 else 1


def _axes(node: ir.Node) -> Sequence[int]:
    """Axes of a reduction, an attribute or an input; empty where they are not constant."""
    if "axes" in node.attributes:
        return node.attributes["axes"].as_ints()
    tensor = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if tensor is None else [int(axis) for axis in tensor.numpy().reshape(-1)]


@dataclass(frozen=True)
class Source:
    """Where a new node comes from: the node it grows out of and those it replaces."""

    rule: str
    anchor: ir.Node
    replaced: tuple[ir.Node, ...] = ()


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    source: Source,
    names: FreshNames,
    attributes: Mapping[str, object] | None = None,
    outputs: int = 1,
) -> ir.Node:
    """Make a node with a name of its own and the provenance of what it replaces.

    The exporter's metadata (module scopes, stack trace) is that of the anchor.
    """
    stem = _sibling_name(source.anchor.name or source.anchor.op_type, op_type)
    metadata = dict(source.anchor.metadata_props)
    metadata[RULE] = source.rule
    if source.replaced:
        metadata[REPLACED] = ",".join(n.name or n.op_type for n in source.replaced)
    node = ir.node(
        op_type,
        inputs,
        dict(attributes or {}),
        name=names.make(stem),
        metadata_props=metadata,
        num_outputs=outputs,
    )
    for output in node.outputs:
        output.name = names.make(f"{node.name}_output")
    return node


def _sibling_name(name: str, op_type: str) -> str:
    """`/layer.0/self/Softmax` -> `/layer.0/self/Attention`; `node_3` -> `node_3_Attention`."""
    path, slash, _ = name.rpartition("/")
    return f"{path}/{op_type}" if slash else f"{name}_{op_type}"


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let a new node's output take over the name, type and users of an old value."""
    name, old.name = old.name, None
    new.name, new.type, new.shape = name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def remove_dead(nodes: Iterable[ir.Node | None]) -> None:
    """Remove nodes that nothing reads, and whatever was read by them alone."""
    pending = [node for node in nodes if node is not None]
    while pending:
        node = pending.pop()
        if node.graph is None or any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        makers = [v.producer() for v in node.inputs if v is not None]
        node.graph.remove(node, safe=True)
        pending.extend(maker for maker in makers if maker is not None)
