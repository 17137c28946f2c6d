"""The rules of names: single assignment, order, visibility. One check for files and for the IR.

A graph is seen through `GraphView`, made from a protobuf message or from an `onnx_ir` graph. A
*key* says which value is meant: in the IR the value object, in a file the name itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from irtools.errors import ModelError

__all__ = ["GraphView", "NodeView", "check_scopes", "shown", "shown_operator"]

Named: TypeAlias = "tuple[str, object]"
"""A name and its key."""


@dataclass(frozen=True)
class NodeView:
    """A node as the check sees it. An absent input has the name ''."""

    label: Callable[[], str]
    inputs: Sequence[Named]
    outputs: Sequence[Named]
    subgraphs: Sequence[GraphView] = ()


class GraphView(Protocol):
    """A graph as the check sees it."""

    @property
    def label(self) -> str: ...
    @property
    def inputs(self) -> Sequence[Named]: ...
    @property
    def initializers(self) -> Sequence[Named]: ...
    @property
    def outputs(self) -> Sequence[Named]: ...
    def nodes(self) -> Iterable[NodeView]: ...


@dataclass
class _Frame:
    """A graph that is being walked."""

    graph: GraphView
    nodes: Iterator[NodeView]
    defined: list[str] = field(default_factory=list)
    waiting: list[GraphView] = field(default_factory=list)
    node: NodeView | None = None


def shown(name: object, limit: int = 200) -> str:
    """Quote a name for a message: escaped, and cut where it is long."""
    text = repr(str(name))
    return text if len(text) <= limit else f"{text[:limit]}...'"


def shown_operator(op_type: str) -> str:
    """Print an operator's name as it is, or escaped where it is not an identifier."""
    return op_type if op_type.isidentifier() and op_type.isascii() else shown(op_type)


def check_scopes(graph: GraphView, fail: type[Exception] = ModelError) -> None:
    """Check the names of a graph and of all graphs nested in it.

    Every name has one producer in its graph and none outside it; every input of a node is produced
    before it; outputs are produced by the graph itself and are all different.

    Raises:
        ModelError: Or `fail`: a rule is broken; names the value and the node.
    """
    _Check(fail).run(graph)


class _Check:
    def __init__(self, fail: type[Exception]) -> None:
        self._fail = fail
        self._visible: dict[str, object] = {}

    def run(self, graph: GraphView) -> None:
        frames = [self._enter(graph)]
        while frames:
            frame = frames[-1]
            if frame.waiting:
                frames.append(self._enter(frame.waiting.pop()))
            elif frame.node is not None:
                self._define_outputs(frame, frame.node)
                frame.node = None
            elif (node := next(frame.nodes, None)) is not None:
                self._read_inputs(frames, node)
                frame.node = node
                frame.waiting = list(reversed(node.subgraphs))
            else:
                self._leave(frame)
                frames.pop()

    def _enter(self, graph: GraphView) -> _Frame:
        frame = _Frame(graph, iter(graph.nodes()))
        for name, key in graph.inputs:
            self._define(frame, name, key, "input")
        inputs = set(frame.defined)
        seen: set[str] = set()
        for name, key in graph.initializers:
            if name in seen:
                raise self._fail(f"{graph.label} has two initializers named {shown(name)}")
            seen.add(name)
            if name not in inputs:
                self._define(frame, name, key, "initializer")
            elif self._visible[name] is not key and self._visible[name] != key:
                raise self._fail(f"input {shown(name)} and its default are different values")
        return frame

    def _leave(self, frame: _Frame) -> None:
        own = set(frame.defined)
        seen: set[str] = set()
        for name, key in frame.graph.outputs:
            where = f"output {shown(name)} of {frame.graph.label}"
            if name in seen:
                raise self._fail(f"{where} is listed twice")
            if name not in own:
                outer = name in self._visible
                what = "is a value of an outer graph" if outer else "is not produced by any node"
                raise self._fail(f"{where} {what}")
            if self._visible[name] is not key and self._visible[name] != key:
                raise self._fail(f"{where} is another value than the one of that name")
            seen.add(name)
        for name in frame.defined:
            del self._visible[name]

    def _read_inputs(self, frames: Sequence[_Frame], node: NodeView) -> None:
        for name, key in node.inputs:
            if not name:
                continue
            found = self._visible.get(name, self)
            if found is self:
                raise self._fail(_missing(frames, node, name))
            if found is not key and found != key:
                raise self._fail(
                    f"{node.label()} reads a value named {shown(name)} that is not the one of that "
                    "name in its graph"
                )

    def _define_outputs(self, frame: _Frame, node: NodeView) -> None:
        for name, key in node.outputs:
            if name:
                self._define(frame, name, key, f"output of {node.label()}")

    def _define(self, frame: _Frame, name: str, key: Any, what: str) -> None:
        if not name:
            raise self._fail(f"{frame.graph.label} has an {what} without a name")
        if name in self._visible:
            again = "twice" if name in frame.defined else "again inside a graph that can see it"
            raise self._fail(
                f"value {shown(name)} ({what}) is defined {again} in {frame.graph.label}; "
                "every name needs exactly one producer"
            )
        self._visible[name] = key
        frame.defined.append(name)


def _missing(frames: Sequence[_Frame], node: NodeView, name: str) -> str:
    """Say why a node cannot see a value: it comes later, depends on itself, or does not exist."""
    for frame in reversed(frames):
        nodes = list(frame.graph.nodes())
        producers = {out: n for n in nodes for out, _ in n.outputs if out}
        if name in producers:
            label = frame.node.label() if frame is not frames[-1] and frame.node else node.label()
            start = producers[name]
            if _depends(start, name, producers):
                return f"the graph has a cycle: {node.label()} reads {shown(name)}, which needs it"
            return (
                f"{frame.graph.label} is not sorted: {label} reads {shown(name)} before "
                f"{start.label()} produces it"
            )
    return (
        f"{node.label()} reads {shown(name)}, which is not an input, initializer or earlier node "
        "output of its graph"
    )


def _depends(start: NodeView, name: str, producers: dict[str, NodeView]) -> bool:
    """Whether a producer of `name` needs, through any nodes, the value `name` itself."""
    pending, seen = [start], set()
    while pending:
        for read, _ in _reads(pending.pop()):
            if read == name:
                return True
            if read in producers and read not in seen:
                seen.add(read)
                pending.append(producers[read])
    return False


def _reads(node: NodeView) -> Iterator[Named]:
    """Yield what a node reads, by itself or in its subgraphs."""
    yield from node.inputs
    pending = list(node.subgraphs)
    while pending:
        graph = pending.pop()
        yield from graph.outputs
        for inner in graph.nodes():
            yield from inner.inputs
            pending.extend(inner.subgraphs)
