"""Chains of Transpose and Reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.model import nested_graphs
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["MergeLayoutChains"]

_RESHAPING_OPS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class MergeLayoutChains(Pass):
    """Merge chains of Transpose and Reshape into one.

        Transpose(Transpose(x, p), q)        -> Transpose(x, p[q])
        Reshape(Reshape(x, s), t)            -> Reshape(x, t), also after Squeeze, Unsqueeze,
                                                Flatten; where t copies no size of Reshape(x, s)
        Reshape(Transpose(Reshape(x, [N,m,n]), [0,2,1]), [...,n,m])
                                             -> Transpose(x, [..., -1, -2]), for x: [...,m,n]

    The last one is how torch's exporter writes the transpose of K. Shapes must prove it; where
    they do not, the chain stays. Works in the main graph and in nested subgraphs; inner nodes
    that others use stay for them.
    """

    name: ClassVar[str] = "merge-layout-chains"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    statistics: ClassVar = {"num-merged-layout-chains": "chains of Transpose or Reshape merged"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        merged = 0
        for graph in nested_graphs(model.graph):
            for node in graph:
                if node.domain == "":
                    merged += _merge(node, facts)
        preserved = frozenset({SymbolicShapes})
        return PassResult(merged > 0, {"num-merged-layout-chains": merged}, preserved=preserved)


def _merge(node: ir.Node, facts: SymbolicShapes) -> bool:
    if node.op_type == "Transpose":
        return _merge_transposes(node)
    if node.op_type == "Reshape":
        return _swap_last_axes(node, facts) or _merge_reshapes(node, facts)
    return False


def _merge_transposes(node: ir.Node) -> bool:
    inner = _producer(node, {"Transpose"})
    if inner is None:
        return False
    if "perm" not in node.attributes or "perm" not in inner.attributes:
        return False
    outer_perm, inner_perm = (n.attributes["perm"].as_ints() for n in (node, inner))
    node.attributes["perm"] = ir.AttrInt64s("perm", [inner_perm[axis] for axis in outer_perm])
    node.replace_input_with(0, inner.inputs[0])
    return True


def _merge_reshapes(node: ir.Node, facts: SymbolicShapes) -> bool:
    inner = _producer(node, _RESHAPING_OPS)
    target = facts.integers(node.inputs[1])
    if inner is None or target is None or target.ndim != 1:
        return False
    source = facts.shape(inner.inputs[0])
    if not node.attributes.get_int("allowzero", 0) and not _copies_nothing(tuple(target), source):
        return False
    node.replace_input_with(0, inner.inputs[0])
    return True


def _copies_nothing(target: Shape, source: Shape | None) -> bool:
    """Whether a target means the same over `source`: without allowzero a 0 copies a size.

    A symbolic size may be 0 in an empty batch; copying it from its own place is right too.
    """
    for axis, dim in enumerate(target):
        if dim == 0:
            return False
        if isinstance(dim, int):
            continue
        if source is None or axis >= len(source) or source[axis] != dim:
            return False
    return True


def _swap_last_axes(node: ir.Node, facts: SymbolicShapes) -> bool:
    transpose = _producer(node, {"Transpose"})
    first = None if transpose is None else _producer(transpose, {"Reshape"})
    if transpose is None or first is None:
        return False
    perm = transpose.attributes.get_ints("perm")
    shapes = [facts.shape(v) for v in (first.inputs[0], first.outputs[0], node.outputs[0])]
    if perm is None or list(perm) != [0, 2, 1] or not _is_swap(*shapes):
        return False
    (output,) = node.outputs
    graph, source = node.graph, first.inputs[0]
    assert graph is not None and shapes[0] is not None
    rank = len(shapes[0])
    swapped = ir.node(
        "Transpose",
        [source],
        {"perm": [*range(rank - 2), rank - 1, rank - 2]},
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    (result,) = swapped.outputs
    graph.insert_before(node, swapped)
    name, output.name = output.name, None
    result.name, result.type, result.shape = name, output.type, output.shape
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def _is_swap(source: Shape | None, middle: Shape | None, result: Shape | None) -> bool:
    if source is None or middle is None or result is None or len(middle) != 3:
        return False
    rows, columns = source[-2:] if len(source) > 2 else (None, None)
    expected: tuple[Dim | None, ...] = (*source[:-2], columns, rows)
    return rows is not None and middle[1:] == (rows, columns) and result == expected


def _producer(node: ir.Node, kinds: frozenset[str] | set[str]) -> ir.Node | None:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    if producer is None or producer.domain != "" or producer.op_type not in kinds:
        return None
    return producer
