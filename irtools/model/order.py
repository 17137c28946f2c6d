"""The order of nodes in a file.

ONNX asks for nodes after those that they read. Converters that append nodes (Casts to half
precision at inputs) leave files that runtimes sort by themselves, and so does the reader here.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import onnx

from irtools.model.light import graphs_in
from irtools.words import counted

__all__ = ["sort_nodes"]


def sort_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Put every node after those whose outputs it reads, in place, in all graphs and functions.

    Nodes that need not move keep their order. A graph without such an order, or with two producers
    of one name, stays as it is: the check of names says what is wrong with it.

    Returns:
        A note, where nodes were moved.
    """
    moved = sum(_sort_body(body) for body in _bodies(model))
    if not moved:
        return ()
    return (
        f"the nodes of the file are not sorted: {counted(moved, 'node')} came before what they "
        "read; read in an order that runs",
    )


def _bodies(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [*model.functions]
    if model.HasField("graph"):
        pending.append(model.graph)
    while pending:
        body = pending.pop()
        yield body
        pending.extend(graphs_in(body.node))


def _sort_body(body: onnx.GraphProto | onnx.FunctionProto) -> int:
    """Sort one list of nodes; returns how many nodes came before what they read."""
    nodes = list(body.node)
    producers: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.output:
            if name and producers.setdefault(name, place) != place:
                return 0
    needs = [
        {producers[name] for name in _reads(node) if name in producers} - {place}
        for place, node in enumerate(nodes)
    ]
    early = sum(any(need > place for need in found) for place, found in enumerate(needs))
    order = _sorted(needs) if early else []
    if len(order) < len(nodes):
        return 0
    del body.node[:]
    body.node.extend(nodes[place] for place in order)
    return early


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, by itself or inside its graphs."""
    yield from node.input
    pending = [*graphs_in([node])]
    while pending:
        graph = pending.pop()
        for inner in graph.node:
            yield from inner.input
        pending.extend(graphs_in(graph.node))


def _sorted(needs: Sequence[set[int]]) -> list[int]:
    """Return the places in an order that runs, the first one that is ready first; fewer than all
    of them where some need each other."""
    missing = [len(found) for found in needs]
    readers: list[list[int]] = [[] for _ in needs]
    for place, found in enumerate(needs):
        for need in found:
            readers[need].append(place)
    ready = [place for place, count in enumerate(missing) if not count]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for reader in readers[place]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order
