"""Which of the results that could be computed at compile time are worth their place in the file.

Folding a node writes its result and frees the node, and every constant that nothing else reads.
Nodes that share values are weighed together: an Expand of a megabyte that a ReduceSum behind it
makes small costs nothing. What is left larger than what it frees needs room that other folds of
the same model have made; where there is none, the nodes with the largest results stay.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.editing import constant_of, require_constant
from irtools.passes.cleanup.sizes import (
    constant_bytes,
    initializer_bytes,
    node_bytes,
    tensor_payload,
)

__all__ = ["Choice", "Results", "choose"]

Results: TypeAlias = "Mapping[ir.Node, Sequence[np.ndarray]]"
"""Nodes that can be folded, in graph order, and what their outputs hold."""

_SMALL = 256
"""Constants of at most so many bytes tie no nodes together: all shape arithmetic reads `[0]`."""


@dataclass(frozen=True)
class Choice:
    """What is folded.

    Attributes:
        nodes: Nodes that go, in graph order.
        values: Their outputs that others read: these become constants.
        trimmed: Whether nodes stay that could be folded if they were not so large.
    """

    nodes: tuple[ir.Node, ...]
    values: tuple[ir.Value, ...]
    trimmed: bool


def choose(results: Results, main: ir.Graph) -> Choice:
    """Choose nodes to fold such that the file does not grow.

    Args:
        results: What can be folded.
        main: The graph in which constants are initializers; elsewhere they are nodes.
    """
    parts = [_Part(nodes, results, main) for nodes in _connected(results)]
    room, trimmed = 0, False
    for part in sorted(parts, key=lambda p: p.growth):
        if part.growth > max(room, 0):
            part.trim(room)
            trimmed = True
        room -= part.growth
    kept = {node for part in parts for node in part.nodes}
    values = (v for part in parts for v in part.written())
    return Choice(tuple(n for n in results if n in kept), tuple(values), trimmed)


def _connected(results: Results) -> Iterator[list[ir.Node]]:
    """Yield the nodes that share results or constants, in graph order."""
    parent: dict[object, object] = {}

    def root(item: object) -> object:
        while parent.setdefault(item, item) is not item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for node in results:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer in results:
                parent[root(node)] = root(producer)
            elif (tensor := constant_of(value)) is not None and tensor.nbytes > _SMALL:
                parent[root(node)] = root(value)
    parts: dict[object, list[ir.Node]] = {}
    for node in results:
        parts.setdefault(root(node), []).append(node)
    yield from parts.values()


@dataclass
class _Part:
    """Nodes that are weighed together.

    Attributes:
        nodes: In graph order.
        results: What the outputs of all that can be folded hold.
        main: The main graph.
        growth: Bytes that the file gains by folding all of `nodes`.
    """

    nodes: dict[ir.Node, None] | list[ir.Node]
    results: Results
    main: ir.Graph
    growth: int = 0
    _outside: dict[ir.Value, int] = field(default_factory=dict)
    """Uses of outputs and constants by nodes that stay."""

    def __post_init__(self) -> None:
        self.nodes = dict.fromkeys(self.nodes)
        for node in self.nodes:
            self.growth -= node_bytes(node)
            for value in (*node.outputs, *filter(None, node.inputs)):
                if value not in self._outside and self._has_place(value):
                    others = sum(use.node not in self.nodes for use in value.uses())
                    self._outside[value] = others
                    self.growth += self._bytes(value, written=others > 0)

    def written(self) -> Iterator[ir.Value]:
        """Yield the outputs that become constants."""
        for node in self.nodes:
            yield from (value for value in node.outputs if self._outside[value])

    def trim(self, room: int) -> None:
        """Let nodes stay, those with the largest results first, until the rest has room."""
        order = {node: index for index, node in enumerate(self.nodes)}
        heap = [self._ranked(value, order) for value in self.written()]
        heapq.heapify(heap)
        while heap and self.growth > max(room, 0):
            _, _, output, node = heapq.heappop(heap)
            if node not in self.nodes or not self._outside[node.outputs[output]]:
                continue
            for staying in self._readers_too(node):
                for value in self._keep(staying):
                    heapq.heappush(heap, self._ranked(value, order))

    def _ranked(
        self, value: ir.Value, order: Mapping[ir.Node, int]
    ) -> tuple[int, int, int, ir.Node]:
        node = value.producer()
        assert node is not None
        output = node.outputs.index(value)
        return (-self._bytes(value, written=True), order[node], output, node)

    def _readers_too(self, node: ir.Node) -> list[ir.Node]:
        """A node with all that is computed from it, the last first."""
        found: dict[ir.Node, None] = {}
        pending = [(node, False)]
        while pending:
            current, done = pending.pop()
            if done:
                found[current] = None
            elif current not in found:
                pending.append((current, True))
                readers = (use.node for output in current.outputs for use in output.uses())
                pending += [(r, False) for r in readers if r in self.nodes and r not in found]
        return list(found)

    def _keep(self, node: ir.Node) -> Iterator[ir.Value]:
        """Leave a node in the graph; yields the results that are read by it from now on."""
        assert isinstance(self.nodes, dict)
        if node not in self.nodes:
            return
        del self.nodes[node]
        self.growth += node_bytes(node)
        for output in node.outputs:
            self.growth -= self._bytes(output, written=self._outside[output] > 0)
        for value in {v for v in node.inputs if v is not None and v in self._outside}:
            before = self._bytes(value, written=self._outside[value] > 0)
            self._outside[value] += 1
            self.growth += self._bytes(value, written=True) - before
            if value.producer() in self.nodes:
                yield value

    def _has_place(self, value: ir.Value) -> bool:
        """Whether a value is a result, or a constant that goes when nothing reads it any more."""
        if value.producer() in self.results:
            return True
        tensor = constant_of(value)
        return tensor is not None and not value.is_graph_output()

    def _bytes(self, value: ir.Value, *, written: bool) -> int:
        """Return what a value adds to the file, by whether anything that stays reads it."""
        producer = value.producer()
        if producer is not None and producer in self.results:
            if not written:
                return 0
            array = self.results[producer][producer.outputs.index(value)]
            in_main = producer.graph is self.main
            count = initializer_bytes if in_main else constant_bytes
            return count(value.name, ir.tensor(array))
        if written:
            return 0
        tensor = require_constant(value)
        named = 4 + len(value.name or "")
        return -(tensor_payload(tensor) + named if producer is None else node_bytes(producer))
