"""Where scales can be moved: the inputs of products, and what each of them depends on.

Three ways, in this order, for every input X of a product with a constant weight:

- *folded*: everything that makes or reads X can take the scale up. Costs nothing.
- *branched*: what makes X can (a normalization), but others read it too, such as the residual of an
  encoder that normalizes after its blocks: they read `Mul(X / s, s)` (gamma migration of Outlier
  Suppression, Wei et al. 2022, where s is the gain).
- *inserted*: nothing can; the products read `Mul(X, 1 / s)` (SmoothQuant, Xiao et al. 2023).

The last two cost a Mul each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import constant_of
from irtools.operators import Kind, find_op, weight_port
from irtools.analysis.scales.rules import SCALES
from irtools.analysis.scales.trace import Member, NeedsChoice, Port, Refusal, ScaledProduct, Trace
from irtools.analysis.scales.units import Layout, channel_layout

__all__ = ["Cut", "Site", "SiteKind", "Sites", "Way", "find_sites"]

Way: TypeAlias = Literal["folded", "branched", "inserted"]
SiteKind: TypeAlias = Literal["norm", "value", "channels", "neurons"]

_WAYS: tuple[Way, ...] = ("folded", "branched", "inserted")
_MAX_CHOICES = 8
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_LARGE = 4096
"""Elements from which a shared constant is not copied: a matrix, or a table."""


@dataclass(frozen=True)
class Cut:
    """A value of which only some readers read it divided.

    Attributes:
        value: It.
        layout: Its units.
        readers: (node, input) of those that do; the others keep what they had.
    """

    value: ir.Value
    layout: Layout
    readers: tuple[tuple[ir.Node, int], ...]


@dataclass(frozen=True, eq=False)
class Site:
    """Channels that can be scaled together.

    Attributes:
        name: Value name of the first input of a product that is divided.
        module: Of that product.
        way: How.
        kind: What makes the channels.
        units: How many scales there are; layouts hold numbers from 1 to this, 0 keeps its scale.
        members: Constants that change.
        products: Products with their rows multiplied.
        cuts: Values with a Mul; none of a site that is folded.
        why: Of a site that is not folded: the reason, a key of `REASONS`.
        where: The operator or value that is the reason.
    """

    name: str
    module: str
    way: Way
    kind: SiteKind
    units: int
    members: tuple[Member, ...]
    products: tuple[ScaledProduct, ...]
    cuts: tuple[Cut, ...] = ()
    why: str = ""
    where: str = ""


@dataclass(frozen=True)
class Sites:
    """All sites of a model, in graph order, and the inputs that no scale can reach.

    Attributes:
        refused: Value name of an input to the reason, a key of `REASONS`.
    """

    found: tuple[Site, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.found)

    def find(self, name: str) -> Site | None:
        """Return the site of that name, or None."""
        return next((site for site in self.found if site.name == name), None)


def find_sites(
    model: ir.Model,
    shapes: SymbolicShapes,
    wanted: Callable[[ir.Node], bool] = lambda node: True,
    ways: Sequence[Way] = _WAYS,
) -> Sites:
    """Find where scales can be moved in the main graph.

    Args:
        model: Stays as it is.
        shapes: Of the model.
        wanted: Which products' inputs are looked at; others change along with them.
        ways: The ways that are tried.
    """
    finder = _Finder(model.graph, shapes, tuple(ways))
    for node in model.graph:
        if _is_product(node) and wanted(node):
            finder.visit(node)
    return Sites(tuple(finder.found), finder.refused)


def _is_product(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type not in _PRODUCTS or constant_of(node.inputs[0]):
        return False
    port = weight_port(node)
    assert port is not None
    weight = node.inputs[port.input]
    turn = None if weight is None else weight.producer()
    if turn is not None and turn.op_type == "Transpose":
        weight = turn.inputs[0]
    return constant_of(weight) is not None


class _Finder:
    def __init__(self, graph: ir.Graph, shapes: SymbolicShapes, ways: tuple[Way, ...]) -> None:
        self.found: list[Site] = []
        self.refused: dict[str, str] = {}
        self._graph = graph
        self._shapes = shapes
        self._ways = ways
        self._done: set[ir.Node] = set()
        self._claimed: set[ir.Value] = set()

    def visit(self, node: ir.Node) -> None:
        if node in self._done:
            return
        self._done.add(node)
        first: Refusal | None = None
        for way in self._ways:
            try:
                trace, cuts = self._traced(node, way)
                site = self._finished(node, way, trace, cuts, first)
            except Refusal as refusal:
                first = first or refusal
                continue
            if site is not None:
                self.found.append(site)
                return
        value = node.inputs[0]
        assert value is not None and first is not None
        self.refused.setdefault(value.name or "?", first.reason)

    def _traced(self, node: ir.Node, way: Way) -> tuple[Trace, dict[ir.Value, Cut]]:
        """Follow the scale of a product's input; where an operator offers a choice, try each."""
        pending: list[dict[ir.Node, int]] = [{}]
        first: Refusal | None = None
        tried = 0
        while pending and tried < _MAX_CHOICES:
            tried += 1
            choices = pending.pop()
            trace = Trace(self._shapes, self._graph, dict(choices))
            try:
                return trace, _follow(trace, node, way)
            except NeedsChoice as request:
                options = reversed(request.choices)
                pending.extend({**choices, request.node: option} for option in options)
            except Refusal as refusal:
                first = first or refusal
        raise first or Refusal("product", node.op_type)

    def _finished(
        self,
        node: ir.Node,
        way: Way,
        trace: Trace,
        cuts: dict[ir.Value, Cut],
        why: Refusal | None,
    ) -> Site | None:
        if not self._claimed.isdisjoint(trace.layouts):
            raise why or Refusal("operator", node.op_type)
        numbers, renumber = _numbered(trace)
        if numbers < 2:
            raise why or Refusal("shape", node.op_type)
        self._claimed.update(trace.layouts)
        self._done.update(trace.products)
        value = node.inputs[0]
        assert value is not None
        return Site(
            name=value.name or "?",
            module=module_name(node),
            way=way,
            kind=_kind(trace),
            units=numbers,
            members=tuple(
                Member(m.node, m.input, renumber(m.layout), m.power) for m in trace.members.values()
            ),
            products=tuple(
                ScaledProduct(p.node, p.holder, p.input, renumber(p.units), p.axis)
                for p in trace.products.values()
            ),
            cuts=tuple(Cut(c.value, renumber(c.layout), c.readers) for c in cuts.values()),
            why=why.reason if why is not None else "",
            where=why.where if why is not None else "",
        )


def _follow(trace: Trace, node: ir.Node, way: Way) -> dict[ir.Value, Cut]:
    """Follow everything from the input of a product; returns the values that were cut."""
    cuts: dict[ir.Value, Cut] = {}
    _start(trace, node)
    at = shared = 0
    while at < len(trace.pending) or shared < len(trace.members):
        if at < len(trace.pending):
            value = trace.pending[at]
            at += 1
            products = [u for u in value.uses() if u.idx == 0 and _is_product(u.node)]
            if way == "folded" or not products:
                _neighbours(trace, value)
                continue
            readers = tuple((use.node, use.idx) for use in products)
            cuts[value] = Cut(value, trace.layouts[value], readers)
            for reader, index in readers:
                _meet(trace, Port(reader, True, index, trace.layouts[value]))
            if way == "branched":
                _made(trace, value)
            continue
        member = list(trace.members.values())[shared]
        shared += 1
        _share(trace, member)
    # Layouts may have become coarser since.
    return {value: Cut(value, trace.layouts[value], cut.readers) for value, cut in cuts.items()}


def _start(trace: Trace, node: ir.Node) -> None:
    value = node.inputs[0]
    shape = trace.shapes.shape(value)
    axis = 1 if node.op_type == "Conv" else -1
    size = None if shape is None or len(shape) < 2 else shape[axis]
    if value is None or shape is None or not isinstance(size, int):
        raise Refusal("shape", node.op_type)
    units = trace.units.fresh(size)
    trace.couple(value, channel_layout(units, len(shape), axis % len(shape)))


def _neighbours(trace: Trace, value: ir.Value) -> None:
    if value.is_graph_output():
        raise Refusal("output", value.name or "?")
    _made(trace, value)
    for use in value.uses():
        _meet(trace, Port(use.node, True, use.idx, trace.layouts[value]))


def _made(trace: Trace, value: ir.Value) -> None:
    """Follow a value back to what makes it."""
    producer = value.producer()
    if producer is None:
        raise Refusal("input", value.name or "?")
    place = list(producer.outputs).index(value)
    _meet(trace, Port(producer, False, place, trace.layouts[value]))


def _meet(trace: Trace, port: Port) -> None:
    node = port.node
    if node.graph is not trace.graph:
        raise Refusal("subgraph", node.op_type)
    if node.op_type == "Shape" and node.domain == "":
        return
    rule = SCALES.of(node)
    if rule is None:
        raise port.refuse("operator")
    rule(port, trace)


def _share(trace: Trace, member: Member) -> None:
    """Let every node that reads a matrix read it scaled, so that none has to be copied.

    A vector (a gain, a bias) is copied where other nodes read it.
    """
    value = member.node.inputs[member.input]
    assert value is not None
    if value.is_graph_output():
        raise Refusal("output", value.name or "?")
    others = [u for u in value.uses() if (u.node, u.idx) != (member.node, member.input)]
    if not others or member.tensor.size < _LARGE or len(member.tensor.shape) < 2:
        return
    for use in others:
        twin = use.node
        same = twin.op_type == member.node.op_type and use.idx == member.input
        if not same or twin.graph is not trace.graph or _is_turned(twin) != _is_turned(member.node):
            raise Refusal("shared", value.name or "?")
        holder = twin
        if twin.op_type == "Transpose":
            readers = [u.node for u in twin.outputs[0].uses()]
            if len(readers) != 1 or readers[0].op_type != "MatMul":
                raise Refusal("shared", value.name or "?")
            holder = readers[0]
        if holder.op_type not in _PRODUCTS:
            raise Refusal("shared", value.name or "?")
        _couple_twin(trace, member, holder)


def _is_turned(node: ir.Node) -> bool:
    return node.attributes.get_int("transB", 0) == 1


def _couple_twin(trace: Trace, member: Member, twin: ir.Node) -> None:
    """Couple the input or output of another product by the same weight."""
    original = member.node
    if original.op_type == "Transpose":
        original = next(iter(original.outputs[0].uses())).node
    ends = (original.inputs[0], twin.inputs[0]) if member.power == 1 else (
        original.outputs[0],
        twin.outputs[0],
    )
    layout = None if ends[0] is None else trace.layouts.get(ends[0])
    if layout is None:
        raise Refusal("shared", twin.op_type)
    rank = trace.shapes.rank(ends[1])
    axis = 1 if twin.op_type == "Conv" else -1
    if rank is None:
        raise Refusal("shape", twin.op_type)
    units = layout.reshape(-1)
    trace.couple(ends[1], channel_layout(units, rank, axis % rank))


def _numbered(trace: Trace) -> tuple[int, Callable[[Layout], Layout]]:
    """Return how many units there are, and what numbers them from 1 in the order of the graph."""
    first = trace.layouts[trace.pending[0]]
    layouts = [first, *(m.layout for m in trace.members.values())]
    found = np.concatenate([trace.units.roots(layout).reshape(-1) for layout in layouts])
    order = dict.fromkeys(int(n) for n in found if n)
    numbers = {0: 0, **{root: index + 1 for index, root in enumerate(order)}}

    def renumber(layout: Layout) -> Layout:
        roots = trace.units.roots(layout)
        return np.vectorize(numbers.__getitem__, otypes=[np.int64])(roots)

    return len(order), renumber


def _kind(trace: Trace) -> SiteKind:
    """Name what makes the channels, for reports."""
    dividing = [m.node for m in trace.members.values() if m.power == -1]
    if any(_of_kind(node, Kind.CONVOLUTION) for node in dividing):
        return "channels"
    mixed = any(
        _of_kind(n, Kind.ATTENTION) or (n.op_type == "MatMul" and n in trace.choices)
        for value in trace.layouts
        if (n := value.producer()) is not None
    )
    if mixed:
        return "value"
    if any(_of_kind(node, Kind.PRODUCT) for node in dividing):
        return "neurons"
    return "norm"


def _of_kind(node: ir.Node, kind: Kind) -> bool:
    op = find_op(node.domain, node.op_type)
    return op is not None and op.kind is kind
