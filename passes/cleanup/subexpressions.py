"""Computing once what is computed twice."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, can_forward
from irtools.model import nested_graphs
from irtools.passes.cleanup.determinism import is_deterministic
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["EliminateCommonSubexpressions"]

_MAX_ELEMENTS = 64


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Merge nodes that apply one operator to the same values with the same attributes.

    Works in the main graph and in each nested subgraph by itself. Random operators, control
    flow, functions and operators of foreign domains stay. Two outputs of the model keep a node
    each. Attributes are compared by their bits, so -0.0 is not 0.0; onnx-ir's pass takes them
    for equal, and merges `Bernoulli` and calls of random functions.
    """

    name: ClassVar[str] = "eliminate-common-subexpressions"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-merged-nodes": "nodes merged into an equal one"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        editor = Editor(model, self.name)
        merged = sum(_merge(graph, editor) for graph in nested_graphs(model.graph))
        preserved = frozenset({SymbolicShapes})
        return PassResult(merged > 0, {"num-merged-nodes": merged}, preserved=preserved)


def _merge(graph: ir.Graph, editor: Editor) -> int:
    seen: dict[Hashable, ir.Node] = {}
    merged = 0
    for node in graph:
        if (key := _key(node)) is None:
            continue
        first = seen.setdefault(key, node)
        if first is not node and _replace(node, first, editor):
            merged += 1
    return merged


def _replace(node: ir.Node, first: ir.Node, editor: Editor) -> bool:
    pairs = list(zip(node.outputs, first.outputs, strict=True))
    if not all(can_forward(old, new) for old, new in pairs):
        return False
    for old, new in pairs:
        editor.forward(old, new)
    editor.remove(node)
    return True


def _key(node: ir.Node) -> Hashable | None:
    """What makes two nodes equal, or None where a node has no equal."""
    if not is_deterministic(node):
        return None
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        frozen = _freeze(attribute)
        if frozen is None:
            return None
        attributes.append((name, frozen))
    inputs = tuple(None if value is None else id(value) for value in node.inputs)
    named = tuple(bool(output.name) for output in node.outputs)
    return (node.op_type, node.overload, inputs, named, tuple(attributes))


def _freeze(attribute: ir.Attr) -> Hashable | None:
    match attribute.type:
        case ir.AttributeType.INT | ir.AttributeType.STRING:
            return (attribute.type, attribute.value)
        case ir.AttributeType.INTS | ir.AttributeType.STRINGS:
            return (attribute.type, tuple(attribute.value))
        case ir.AttributeType.FLOAT:
            return (attribute.type, struct.pack("d", attribute.value))
        case ir.AttributeType.FLOATS:
            return (attribute.type, struct.pack(f"{len(attribute.value)}d", *attribute.value))
        case ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.size > _MAX_ELEMENTS or tensor.dtype == ir.DataType.STRING:
                return None
            return (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        case _:
            return None
