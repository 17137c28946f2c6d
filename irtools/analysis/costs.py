"""Floating-point operations of a model at given sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import evaluate
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.words import counted

__all__ = ["Costs", "count_flops"]

_MAX_TRIPS = 2**31
"""A loop that says more means `until the condition is false`."""
_MAX_NESTING = 4


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
        sizes: Size of every named dynamic axis of the inputs.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_bound(dim, sizes) for dim in value.shape])
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
        rule = _RULES.get(node.op_type)
        if rule is None:
            return []
        count = rule(node, _Facts(self._shapes, self._sizes))
        if count is None:
            self._unknown += 1
            return []
        return [(node, count * times)] if count and times else []

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
        """Tell the bodies of Loop and Scan the shapes that they are called with.

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
            sizes = None if wanted is None else _numbers(wanted, self._sizes)
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


@dataclass(frozen=True)
class _Facts:
    """Shapes in numbers."""

    shapes: SymbolicShapes
    sizes: Mapping[str, int]

    def shape(self, value: ir.Value | None) -> list[int] | None:
        found = self.shapes.shape(value)
        return None if found is None else _numbers(found, self.sizes)


Rule = Callable[[ir.Node, _Facts], int | None]


def _matmul(left: int, right: int) -> Rule:
    """[..., M, K] x [..., K, N]; the operands are inputs number `left` and `right`."""

    def count(node: ir.Node, facts: _Facts) -> int | None:
        a, b = facts.shape(node.inputs[left]), facts.shape(node.inputs[right])
        if not a or not b:
            return None
        rows = a[-1:] if node.attributes.get_int("transA", 0) and len(a) > 1 else a[-2:-1]
        depth = math.prod(a[-2:]) // math.prod(rows) if math.prod(rows) else 0
        columns = math.prod(b[-2:]) // depth if depth and len(b) > 1 else 1
        batch = _broadcast(a[:-2], b[:-2])
        return 2 * math.prod([*batch, *rows]) * depth * columns

    return count


def _matmul_n_bits(node: ir.Node, facts: _Facts) -> int | None:
    a, columns = facts.shape(node.inputs[0]), node.attributes.get_int("N", 0)
    return None if not a else 2 * math.prod(a) * columns


def _conv(weight: int) -> Rule:
    def count(node: ir.Node, facts: _Facts) -> int | None:
        w, out = facts.shape(node.inputs[weight]), facts.shape(node.outputs[0])
        return None if w is None or out is None else 2 * math.prod(w[1:]) * math.prod(out)

    return count


def _conv_transpose(node: ir.Node, facts: _Facts) -> int | None:
    x, w = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    return None if x is None or w is None else 2 * math.prod(x) * math.prod(w[1:])


def _attention(node: ir.Node, facts: _Facts) -> int | None:
    """Scores and their product with the values: Q [B, H, S, D] or [B, S, H*D]."""
    q, k, v = [facts.shape(value) for value in [*node.inputs, None, None][:3]]
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) > 2:
        return None
    keys = math.prod(k[2:-1]) if len(k) == 4 else k[1]
    # Grouped heads are shared, not skipped: every query meets keys and values of its own head.
    heads = 1 if len(q) == 4 else max(q[-1] // k[-1], 1) if k[-1] else 1
    return 2 * keys * (math.prod(q) + math.prod(q[:-1]) * v[-1] * heads)


def _recurrent(node: ir.Node, facts: _Facts) -> int | None:
    """X [S, B, I], W [directions, gates*H, I], R [directions, gates*H, H]."""
    x, w, r = [facts.shape(value) for value in [*node.inputs, None, None][:3]]
    if x is None or w is None or r is None:
        return None
    return 2 * math.prod(x[:2]) * (math.prod(w) + math.prod(r))


_RULES: Mapping[str, Rule] = MappingProxyType(
    dict.fromkeys(
        (
            "DynamicQuantizeMatMul",
            "FusedGemm",
            "FusedMatMul",
            "Gemm",
            "MatMul",
            "MatMulInteger",
            "MatMulIntegerToFloat",
        ),
        _matmul(0, 1),
    )
    | {
        "Attention": _attention,
        "Conv": _conv(1),
        "ConvInteger": _conv(1),
        "ConvTranspose": _conv_transpose,
        "FusedConv": _conv(1),
        "GRU": _recurrent,
        "LSTM": _recurrent,
        "MatMulNBits": _matmul_n_bits,
        "MultiHeadAttention": _attention,
        "QGemm": _matmul(0, 3),
        "QLinearConv": _conv(3),
        "QLinearMatMul": _matmul(0, 3),
        "RNN": _recurrent,
    }
)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _broadcast(a: Sequence[int], b: Sequence[int]) -> list[int]:
    rank = max(len(a), len(b))
    pairs = zip([1] * (rank - len(a)) + [*a], [1] * (rank - len(b)) + [*b], strict=True)
    return [second if first == 1 else first for first, second in pairs]


def _bound(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    return sizes.get(dim.value, dim)


def _numbers(shape: Shape, sizes: Mapping[str, int]) -> list[int] | None:
    found = [evaluate(dim, sizes) for dim in shape]
    known = [size for size in found if size is not None]
    return known if len(known) == len(found) else None
