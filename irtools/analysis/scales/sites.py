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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.scales.follow import Cut, Way, follow, is_product
from irtools.analysis.scales.trace import Member, NeedsChoice, Refusal, ScaledProduct, Trace
from irtools.analysis.scales.units import Layout
from irtools.analysis.shapes import SymbolicShapes
from irtools.operators import Kind, find_op

__all__ = ["Site", "SiteKind", "Sites", "find_sites"]

SiteKind: TypeAlias = Literal["norm", "value", "channels", "neurons", "other"]

_WAYS: tuple[Way, ...] = ("folded", "branched", "inserted")
_MAX_CHOICES = 8


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
) -> Sites:
    """Find where scales can be moved in the main graph.

    Args:
        model: Stays as it is.
        shapes: Of the model.
    """
    finder = _Finder(model.graph, shapes)
    for node in model.graph:
        if is_product(node):
            finder.visit(node)
    return Sites(tuple(finder.found), finder.refused)


class _Finder:
    def __init__(self, graph: ir.Graph, shapes: SymbolicShapes) -> None:
        self.found: list[Site] = []
        self.refused: dict[str, str] = {}
        self._graph = graph
        self._shapes = shapes
        self._done: set[ir.Node] = set()
        self._claimed: set[ir.Value] = set()

    def visit(self, node: ir.Node) -> None:
        if node in self._done:
            return
        self._done.add(node)
        first: Refusal | None = None
        for way in _WAYS:
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

    def _traced(self, node: ir.Node, way: Way) -> tuple[Trace, tuple[Cut, ...]]:
        """Follow the scale of a product's input; where an operator offers a choice, try each."""
        pending: list[dict[ir.Node, int]] = [{}]
        first: Refusal | None = None
        tried = 0
        while pending and tried < _MAX_CHOICES:
            tried += 1
            choices = pending.pop()
            trace = Trace(self._shapes, self._graph, dict(choices))
            try:
                return trace, follow(trace, node, way)
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
        cuts: tuple[Cut, ...],
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
            kind=_kind(trace) if way != "inserted" else "other",
            units=numbers,
            members=tuple(
                Member(m.node, m.input, renumber(m.layout), m.power) for m in trace.members.values()
            ),
            products=tuple(
                ScaledProduct(p.node, p.holder, p.input, renumber(p.units), p.axis)
                for p in trace.products.values()
            ),
            cuts=tuple(Cut(c.value, renumber(c.layout), c.readers) for c in cuts),
            why=why.reason if why is not None else "",
            where=why.where if why is not None else "",
        )


def _numbered(trace: Trace) -> tuple[int, Callable[[Layout], Layout]]:
    """Return how many units there are, and what numbers them from 1 in the order of the graph."""
    first = trace.layouts[trace.pending[0]]
    layouts = [first, *(m.layout for m in trace.members.values())]
    found = np.concatenate([trace.units.roots(layout).reshape(-1) for layout in layouts])
    order = dict.fromkeys(int(n) for n in found if n)
    numbers = {0: 0, **{root: index + 1 for index, root in enumerate(order)}}

    def renumber(layout: Layout) -> Layout:
        roots = trace.units.roots(layout)
        flat = [numbers[int(root)] for root in roots.reshape(-1)]
        return np.asarray(flat, np.int64).reshape(roots.shape)

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
