"""Floating-point operations of a model at given sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.cost_rules import COST, CostFacts, numbers_in
from irtools.analysis.dims import evaluate
from irtools.analysis.facts import Shape
from irtools.analysis.shapes import SymbolicShapes
from irtools.operators import op_key
from irtools.words import counted

__all__ = ["Costs", "count_flops"]

_MAX_TRIPS = 2**31
"""A loop that says more means `until the condition is false`."""
_MAX_NESTING = 4
_MAX_NAMED = 5


@dataclass(frozen=True)
class Costs:
    """Operations of a model.

    Attributes:
        flops: Nodes that multiply, in the order in which they run, and their operations; a
            multiply-add counts as two. The nodes are of a copy of the model.
        notes: How control flow was counted, and what could not be.
    """

    flops: tuple[tuple[ir.Node, int], ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """Operations of the whole model."""
        return sum(count for _, count in self.flops)


def count_flops(model: ir.Model, sizes: Mapping[str, int]) -> Costs:
    """Count the operations of products, convolutions, attention and recurrent layers.

    Of an If the branch that takes more counts. The body of a Loop counts as many times as its
    constant trip count says, that of a Scan as often as its input is long, and once where neither
    is known. Functions are not counted.

    Args:
        model: The model; it stays as it is.
        sizes: Size of every dynamic axis of the inputs, by its name, or as INPUT.AXIS where it has
            none.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.shape is not None:
            axes = enumerate(value.shape)
            value.shape = ir.Shape([_bound(d, f"{value.name}.{axis}", sizes) for axis, d in axes])
    counter = _Counter(copy, sizes)
    flops = tuple(counter.visit(copy.graph, 1))
    return Costs(flops, tuple(counter.notes()))


class _Counter:
    def __init__(self, model: ir.Model, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._scan_axis = 1 if model.opset_imports.get("", 0) < 9 else 0
        self._shapes = SymbolicShapes.of(model)
        self._branches: Counter[str] = Counter()
        self._bodies: Counter[str] = Counter()
        self._unknown = 0
        self._too_small = 0
        self._unruled: Counter[str] = Counter()
        for _ in range(_MAX_NESTING):
            if not self._shape_bodies(model.graph):
                break
            self._shapes = SymbolicShapes.of(model)

    def visit(self, graph: ir.Graph, times: int) -> list[tuple[ir.Node, int]]:
        """Count the nodes of a graph that runs so many times, bodies included."""
        found: list[tuple[ir.Node, int]] = []
        for node in graph:
            found += self._visit_node(node, times)
        return found

    def notes(self) -> Iterator[str]:
        if self._branches["If"]:
            yield f"of {counted(self._branches['If'], 'If node')} the larger branch is counted"
        for op in ("Loop", "Scan"):
            if self._bodies[op]:
                bodies = counted(self._bodies[op], f"{op} body", f"{op} bodies")
                yield f"{bodies} counted once: the number of rounds is not constant"
        if self._unknown:
            products = counted(self._unknown, "product")
            yield f"{products} not counted: shapes are only known at run time"
            for op, count in sorted(self._shapes.without_rule.items())[:_MAX_NAMED]:
                yield f"{counted(count, 'node')} of {op}: no shape rule, what follows has no shape"
        if self._too_small:
            products = counted(self._too_small, "product")
            yield f"{products} not counted: inputs of these sizes are smaller than the kernels"
        for op, count in self._unruled.most_common(_MAX_NAMED):
            yield f"{counted(count, 'node')} of {op} not counted: no cost rule"

    def _visit_node(self, node: ir.Node, times: int) -> list[tuple[ir.Node, int]]:
        match node.op_type:
            case "If":
                self._branches["If"] += 1
                branches = [self.visit(graph, times) for graph in _bodies(node)]
                return max(branches, key=lambda b: sum(n for _, n in b), default=[])
            case "Loop" | "Scan":
                rounds = self._rounds(node)
                self._bodies[node.op_type] += rounds is None
                own = times * (1 if rounds is None else rounds)
                return [pair for graph in _bodies(node) for pair in self.visit(graph, own)]
            case _:
                return self._count(node, times)

    def _count(self, node: ir.Node, times: int) -> list[tuple[ir.Node, int]]:
        rule = COST.of(node)
        if rule is None:
            self._unruled[op_key(node.domain, node.op_type)] += 1
            return []
        count = rule(node, CostFacts(self._shapes, self._sizes))
        if count is None:
            self._unknown += 1
            return []
        if count and self._has_negative_size(node):
            self._too_small += 1
            return []
        return [(node, count * times)] if count and times else []

    def _has_negative_size(self, node: ir.Node) -> bool:
        shape = self._shapes.shape(node.outputs[0])
        return shape is not None and any((evaluate(dim, self._sizes) or 0) < 0 for dim in shape)

    def _rounds(self, node: ir.Node) -> int | None:
        if node.op_type == "Loop":
            trips = self._shapes.integers(node.inputs[0]) if node.inputs else None
            found = None if trips is None else evaluate(trips.reshape(-1)[0], self._sizes)
            return found if found is not None and 0 <= found < _MAX_TRIPS else None
        scanned = node.attributes.get_int("num_scan_inputs", 1)
        shape = self._shapes.shape(node.inputs[-scanned]) if node.inputs else None
        axes = node.attributes.get_ints("scan_input_axes") or [self._scan_axis]
        if shape is None or not -len(shape) <= axes[0] < len(shape):
            return None
        return evaluate(shape[axes[0]], self._sizes)

    def _shape_bodies(self, graph: ir.Graph) -> bool:
        """Give the bodies of Loop and Scan the shapes that they are called with.

        What a Loop carries is taken to keep the shape in which it starts.
        """
        changed = False
        for node in graph:
            for body in _bodies(node):
                if node.op_type in ("Loop", "Scan"):
                    changed |= self._shape_body(node, body)
                changed |= self._shape_bodies(body)
        return changed

    def _shape_body(self, node: ir.Node, body: ir.Graph) -> bool:
        changed = False
        for value, wanted in zip(body.inputs, self._body_shapes(node), strict=False):
            sizes = None if wanted is None else numbers_in(wanted, self._sizes)
            if sizes is None or (value.shape is not None and value.shape.is_static()):
                continue
            value.shape = ir.Shape(sizes)
            changed = True
        return changed

    def _body_shapes(self, node: ir.Node) -> Iterator[Shape | None]:
        shapes = [self._shapes.shape(value) for value in node.inputs]
        if node.op_type == "Loop":
            yield from [(), (), *shapes[2:]]
            return
        scanned = node.attributes.get_int("num_scan_inputs", 1)
        yield from shapes[:-scanned]
        axes = node.attributes.get_ints("scan_input_axes") or [self._scan_axis] * scanned
        for shape, axis in zip(shapes[-scanned:], axes, strict=False):
            kept = None if shape is None else list(shape)
            if kept:
                del kept[axis]
            yield None if kept is None else tuple(kept)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _bound(dim: int | ir.SymbolicDim, place: str, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim
    return sizes.get(place if dim.value is None else dim.value, dim)
