"""Which nodes compute tokens alone: as many as leave the results at tokens as they were.

First every node that computes each token by itself is taken. Where padding that is then not
computed would be read, what it is computed from is left as it was. What remains without a product
is not worth it, and neither are changes of layout at the edges, which would part what runtimes
fuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.model import nested_graphs
from irtools.operators import Kind, find_op
from irtools.passes.positions.padding.analysis import Clash, Mask, PaddingContents
from irtools.passes.positions.padding.base import Number, changed
from irtools.passes.positions.tokens import Operand, Operands, operands

__all__ = ["Region", "find_region", "is_product"]


@dataclass(frozen=True)
class Region:
    """What runs on tokens alone.

    Attributes:
        mask: What is padding.
        nodes: The nodes, and how their inputs belong to the tokens.
        fills: Results of them to the number that the model holds at padding, where it is known.
        results: Results of the model that change at padding.
        known: Whether an input says what is padding and attention hides it, so that callers know.
        clash: What kept products from running on tokens alone, or None.
    """

    mask: Mask
    nodes: Mapping[ir.Node, Operands]
    fills: Mapping[ir.Value, Number | None]
    results: tuple[ir.Value, ...]
    known: bool
    clash: Clash | None

    @property
    def products(self) -> int:
        """Products that run on tokens alone."""
        return sum(is_product(node) for node in self.nodes)


def is_product(node: ir.Node) -> bool:
    """Whether a node is what makes the region worth it."""
    op = find_op(node.domain, node.op_type)
    return op is not None and op.kind is Kind.PRODUCT


def find_region(graph: ir.Graph, facts: SymbolicShapes, mask: Mask) -> Region:
    """Return what can run on tokens alone."""
    before = PaddingContents(facts, mask)
    before.visit(graph)
    makers = set(_makers(mask.value))
    nodes = {
        node: found
        for inner in nested_graphs(graph)
        for node in inner
        if node not in makers
        and (found := operands(node, facts, mask.sizes)) is not None
        and set(before.of(node.outputs[0])) <= {mask.place, mask.joined}
    }
    reason: Clash | None = None
    while True:
        packed = {output: before.number(output) for node in nodes for output in node.outputs}
        after = PaddingContents(facts, mask, packed)
        results = after.visit(graph) or after.changed_results(graph)
        if isinstance(results, Clash):
            blamed = set(_blamed(results.value, nodes, after))
            if reason is None and any(is_product(node) for node in blamed):
                reason = results
        else:
            blamed = _useless(nodes)
            if not blamed:
                known = mask.value.is_graph_input() and before.closes(graph)
                return Region(mask, nodes, packed, tuple(results), known, reason)
        nodes = {node: found for node, found in nodes.items() if node not in blamed}


def _makers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that a value is computed by."""
    pending: list[ir.Value | None] = [value]
    seen: set[ir.Node] = set()
    while pending:
        last = pending.pop()
        node = None if last is None else last.producer()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            pending.extend(node.inputs)


def _blamed(
    value: ir.Value, nodes: Mapping[ir.Node, Operands], contents: PaddingContents
) -> Iterator[ir.Node]:
    """Yield the nodes of whose results padding is read through a value."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None:
            continue
        if node in nodes:
            yield node
        fresh = {v for v in node.inputs if v is not None and changed(contents.of(v))} - seen
        seen |= fresh
        pending.extend(fresh)


def _useless(nodes: Mapping[ir.Node, Operands]) -> set[ir.Node]:
    found = _idle(nodes)
    if found:
        return found
    return {node for node in nodes if _is_edge(node, nodes)}


def _idle(nodes: Mapping[ir.Node, Operands]) -> set[ir.Node]:
    """Return nodes that hang together with no product."""
    left = dict.fromkeys(nodes)
    idle: set[ir.Node] = set()
    while left:
        pending = [next(iter(left))]
        group: dict[ir.Node, None] = {}
        while pending:
            node = pending.pop()
            if node not in left:
                continue
            del left[node]
            group[node] = None
            pending.extend(_neighbours(node, nodes))
        if not any(is_product(node) for node in group):
            idle.update(group)
    return idle


def _neighbours(node: ir.Node, nodes: Mapping[ir.Node, Operands]) -> Iterator[ir.Node]:
    for index, operand in nodes[node].items():
        value = node.inputs[index]
        maker = None if value is None else value.producer()
        if operand is Operand.TOKENS and maker is not None and maker in nodes:
            yield maker
    yield from _packed_readers(node, nodes)


def _packed_readers(node: ir.Node, nodes: Mapping[ir.Node, Operands]) -> Iterator[ir.Node]:
    for output in node.outputs:
        for user, index in output.uses():
            if user in nodes and index in nodes[user]:
                yield user


def _is_edge(node: ir.Node, nodes: Mapping[ir.Node, Operands]) -> bool:
    """Whether a node that is not a product lies at an edge where it is better left as it is."""
    if is_product(node):
        return False
    op = find_op(node.domain, node.op_type)
    moves = op is not None and op.kind is Kind.LAYOUT and node.op_type != "Gather"
    readers = len(list(_packed_readers(node, nodes)))
    if moves and not readers:
        return True
    made = (node.inputs[index] for index, o in nodes[node].items() if o is Operand.TOKENS)
    if any(value is not None and value.producer() in nodes for value in made):
        return False
    return moves or readers < sum(len(output.uses()) for output in node.outputs)
