"""What of every tensor is read, found from the results backward.

The rows that are read spread against the edges of the graph: who reads one row of a result reads
one row of what it is made of, as far as the rules of the operators say so and no other node reads
more. It stops, by itself, at what attention takes its keys and values from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import array_of
from irtools.operators import Kind, find_op
from irtools.passes.positions.row import Row, Rule, Sources
from irtools.passes.positions.rules import ROWS
from irtools.passes.positions.targets import reshape

__all__ = ["Demand", "Edge", "before_joined", "find_demand", "free_results", "is_work", "row_taken"]

Edge = tuple[ir.Node, int]
"""A node and one of its inputs."""

_FREE_RESULTS: Mapping[str, frozenset[int]] = {"Attention": frozenset({1, 2})}
"""Results that are the same whatever rows the first one has: the cache."""

_WORK = frozenset({Kind.ATTENTION, Kind.PRODUCT})


@dataclass
class Demand:
    """What a graph reads one row of.

    Attributes:
        takers: Gather and Slice nodes that take one row, and which.
        nodes: Nodes of whose results one row is read, to that row.
        reads: Edges over which one row is read, to that row.
        cuts: Those of `reads` whose tensor is made whole: there the row must be taken.
    """

    takers: dict[ir.Node, Row] = field(default_factory=dict)
    nodes: dict[ir.Node, Row] = field(default_factory=dict)
    reads: dict[Edge, Row] = field(default_factory=dict)

    @property
    def cuts(self) -> Iterator[tuple[Edge, Row]]:
        for edge, row in self.reads.items():
            node, index = edge
            if node in self.nodes and self.maker(node.inputs[index]) is None:
                yield edge, row

    def maker(self, value: ir.Value | None) -> ir.Node | None:
        """Return the node that makes one row of a tensor; None where it is made whole."""
        node = None if value is None else value.producer()
        if node is None or node not in self.nodes or value is None:
            return None
        return None if value.index() in free_results(node) else node

    @property
    def work(self) -> list[ir.Node]:
        """Products and attention blocks among the nodes."""
        return [node for node in self.nodes if is_work(node)]


def is_work(node: ir.Node) -> bool:
    """Whether a node is a product or an attention block, for which sinking pays."""
    op = find_op(node.domain, node.op_type)
    return op is not None and op.kind in _WORK


def find_demand(graph: ir.Graph, facts: SymbolicShapes) -> Demand:
    """Return what one row is read of in a graph, where it spares a product or an attention."""
    declined: set[ir.Node] = set()
    while True:
        search = _Search(facts, declined)
        for node in reversed(graph):
            search.visit(node)
        late = {
            edge[0]
            for edge, row in search.found.cuts
            if row.period is not None and before_joined(edge[0].inputs[edge[1]], row, facts) is None
        }
        if not late:
            return _worthwhile(search.found)
        declined |= late


def before_joined(value: ir.Value | None, row: Row, facts: SymbolicShapes) -> Row | None:
    """Return the row of what a Reshape joins batch and positions of; None where it does not."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Reshape" or node.domain != "":
        return None
    found = (_ask(reshape, node, row, facts) or {}).get(0)
    return found if isinstance(found, Row) and found.period is None else None


def row_taken(node: ir.Node, facts: SymbolicShapes) -> Row | None:
    """Return the row that a Gather or Slice takes of a tensor that has several, by constants."""
    shape = facts.shape(node.inputs[0]) if node.inputs else None
    if node.domain != "" or not shape or node.op_type not in ("Gather", "Slice"):
        return None
    row = _gathered(node, shape) if node.op_type == "Gather" else _sliced(node, shape)
    if row is None or shape[row.axis] == 1:
        return None
    size = shape[row.axis]
    if isinstance(size, int):
        if not -size <= row.index < size:
            return None
        return Row(row.axis, row.index % size)
    return row


def _gathered(node: ir.Node, shape: tuple[object, ...]) -> Row | None:
    index = array_of(node.inputs[1])
    if index is None or index.size != 1 or index.ndim > 1:
        return None
    return Row(node.attributes.get_int("axis", 0) % len(shape), int(index.reshape(())))


def _sliced(node: ir.Node, shape: tuple[object, ...]) -> Row | None:
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return None
    parts = [array_of(value) for value in node.inputs[1:] if value is not None]
    if any(part is None or part.size != 1 for part in parts) or len(parts) < 3:
        return None
    start, end, axis, *steps = (int(np.reshape(part, ())) for part in parts if part is not None)
    if any(step != 1 for step in steps):
        return None
    axis %= len(shape)
    # A Slice out of bounds is empty, where a Gather fails.
    first = (start, end) == (0, 1) or (isinstance(shape[axis], int) and 0 <= start == end - 1)
    last = start == -1 and end >= np.iinfo(np.int32).max
    return Row(axis, start) if first or last else None


class _Search:
    def __init__(self, facts: SymbolicShapes, declined: Collection[ir.Node]) -> None:
        self.found = Demand()
        self._declined = declined
        self._facts = facts

    def visit(self, node: ir.Node) -> None:
        """Decide what is read of the inputs of a node whose readers have all been visited."""
        taken = row_taken(node, self._facts)
        if taken is not None:
            self.found.takers[node] = taken
            self.found.reads[node, 0] = taken
            return
        row, rule = self._wanted(node), ROWS.of(node)
        op = find_op(node.domain, node.op_type)
        if row is None or rule is None or op is None or op.random or node in self._declined:
            return
        sources = _ask(rule, node, row, self._facts)
        if sources is None:
            return
        self.found.nodes[node] = row
        for index, source in sources.items():
            own = replace(row, axis=source) if isinstance(source, int) else source
            self.found.reads[node, index] = own

    def _wanted(self, node: ir.Node) -> Row | None:
        """Return the row that is read of a node's results, if it is the same one of all."""
        free = free_results(node)
        rows: set[Row | None] = set()
        for index, output in enumerate(node.outputs):
            if index not in free and (output.uses() or output.is_graph_output()):
                rows.add(self._of(output))
        return rows.pop() if len(rows) == 1 else None

    def _of(self, value: ir.Value) -> Row | None:
        if value.is_graph_output():
            return None
        rows = {self.found.reads.get((use.node, use.idx)) for use in value.uses()}
        return rows.pop() if len(rows) == 1 else None


def free_results(node: ir.Node) -> frozenset[int]:
    """Return which results of a node are the same whatever rows the first one has."""
    return _FREE_RESULTS.get(node.op_type, frozenset()) if node.domain == "" else frozenset()


def _ask(rule: Rule, node: ir.Node, row: Row, facts: SymbolicShapes) -> Sources | None:
    """Return what a rule says; nothing, where inputs or attributes do not fit the operator."""
    try:
        return rule(node, row, facts)
    except (IndexError, ValueError):
        return None


def _worthwhile(found: Demand) -> Demand:
    """Return the parts that hang together and hold a product or attention."""
    kept = Demand()
    for group in _groups(found):
        if not any(node in found.nodes and is_work(node) for node in group):
            continue
        for node in group:
            if node in found.nodes:
                kept.nodes[node] = found.nodes[node]
            else:
                kept.takers[node] = found.takers[node]
    for edge, row in found.reads.items():
        if edge[0] in kept.nodes or edge[0] in kept.takers:
            kept.reads[edge] = row
    return kept


def _groups(found: Demand) -> Iterator[list[ir.Node]]:
    """Yield nodes that read rows of one another, as groups."""
    next_to: dict[ir.Node, list[ir.Node]] = {node: [] for node in (*found.takers, *found.nodes)}
    for node, index in found.reads:
        maker = found.maker(node.inputs[index])
        if maker is not None:
            next_to[node].append(maker)
            next_to[maker].append(node)
    seen: set[ir.Node] = set()
    for start in next_to:
        if start in seen:
            continue
        seen.add(start)
        group, pending = [], [start]
        while pending:
            node = pending.pop()
            group.append(node)
            fresh = [other for other in next_to[node] if other not in seen]
            seen.update(fresh)
            pending.extend(dict.fromkeys(fresh))
        yield group
