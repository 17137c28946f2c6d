"""Finding the residual streams of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import RULE, constant_of
from irtools.passes.rotation.follow import follow
from irtools.passes.rotation.readers import read_norm
from irtools.passes.rotation.stream import (
    Refusal,
    Stream,
    Use,
    is_norm,
    is_normed_by_mean,
    is_stream_norm,
)
from irtools.passes.rotation.trail import Trail

__all__ = ["Streams", "StreamSettings", "find_streams"]


@dataclass(frozen=True)
class StreamSettings:
    """What may be done for a stream.

    Attributes:
        max_cost: Share of the multiplications by its weights that products with D x D matrices,
            one for each value that no weight takes up, may add.
        copies: Whether a matrix that is read in two ways becomes two.
    """

    max_cost: float = 0.05
    copies: bool = False


@dataclass
class Streams:
    """The streams of a model, and what stays with the reason.

    Attributes:
        refused: Value name of what a normalization reads to why it stays.
    """

    found: list[Stream] = field(default_factory=list)
    refused: dict[str, Refusal] = field(default_factory=dict)


def find_streams(model: ir.Model, shapes: SymbolicShapes, settings: StreamSettings) -> Streams:
    """Find the streams of the main graph.

    Args:
        model: Stays as it is.
        shapes: Of the model.
        settings: What may be done.
    """
    streams, seen = Streams(), set[ir.Node]()
    for node in model.graph:
        if node in seen or not is_stream_norm(node):
            continue
        value = node.inputs[0]
        assert value is not None
        trail = _Finder(model.graph, shapes, settings)
        try:
            streams.found.append(trail.stream(node))
        except Refusal as refusal:
            streams.refused[value.name or "?"] = refusal
        seen.update({node, *trail.norms})
    return streams


class _Finder:
    """Finds the stream of one normalization."""

    def __init__(self, graph: ir.Graph, shapes: SymbolicShapes, settings: StreamSettings) -> None:
        self.norms: list[ir.Node] = []
        self._graph = graph
        self._shapes = shapes
        self._settings = settings

    def stream(self, norm: ir.Node) -> Stream:
        """Return the stream that a normalization reads.

        Raises:
            Refusal: It cannot be rotated.
        """
        kept: set[ir.Value] = set()
        while True:
            stream = self._traced(norm, kept)
            conflicts = set() if self._settings.copies else _conflicts(stream)
            if not conflicts:
                break
            kept |= conflicts
        self._check_cost(stream)
        return stream

    def _traced(self, norm: ir.Node, kept: set[ir.Value]) -> Stream:
        value, gain = norm.inputs[0], constant_of(norm.inputs[1])
        rank = self._shapes.rank(value)
        if value is None or rank is None or gain is None:
            raise Refusal("shape", norm.name or "?")
        trail = Trail(self._shapes, self._graph, int(gain.size), kept)
        try:
            follow(trail, value, rank - 1)
        finally:
            self.norms = trail.norms
        _check_norms(trail)
        if all(node.metadata_props.get(RULE) == "rotate" for node in trail.norms):
            raise Refusal("rotated", value.name or "?")
        centred = is_normed_by_mean(norm)
        others = {v: tuple(u) for v, u in trail.others.items() if v not in trail.entries}
        others |= {v: others.get(v, ()) for v in trail.shown if v not in trail.entries}
        if centred and others:
            first = next(iter(others))
            raise Refusal("output" if first in trail.shown else "reader", first.name or "?")
        _check_axes(trail, others)
        return Stream(
            name=value.name or "?",
            width=trail.width,
            centred=centred,
            writers=tuple(trail.writers),
            scales=tuple(trail.scales),
            entries={v: tuple(trail.reads.get(v, ())) for v in trail.entries},
            norms=tuple(read_norm(trail, node) for node in dict.fromkeys(trail.norms)),
            exits=others,
        )

    def _check_cost(self, stream: Stream) -> None:
        added = stream.products * stream.width**2
        if added <= self._settings.max_cost * stream.weights:
            return
        after_norms = sum(_is_normed(value) for value in stream.entries)
        if after_norms > 1:
            raise Refusal("post-norm", stream.name)
        raise Refusal("cost", stream.name)


def _check_norms(trail: Trail) -> None:
    if len(set(trail.norms)) < 2:
        post = any(_is_normed(value) for value in trail.entries)
        raise Refusal("post-norm" if post else "single", trail.norms[0].name or "?")
    if len({is_normed_by_mean(norm) for norm in trail.norms}) > 1:
        raise Refusal("mixed", trail.norms[0].name or "?")


def _check_axes(trail: Trail, others: dict[ir.Value, tuple[Use, ...]]) -> None:
    for value in others:
        spot = trail.spots[value]
        if spot.scale is not None or spot.axis + 1 != trail.shapes.rank(value):
            raise Refusal("shape", value.name or "?")


def _is_normed(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and is_norm(producer)


def _conflicts(stream: Stream) -> set[ir.Value]:
    """Return the matrices of which some node would read other contents than another one.

    Vectors, such as a bias of several products, are copied.
    """
    demands: dict[ir.Value, dict[Use, object]] = {}
    for value, use, key in _demands(stream):
        demands.setdefault(value, {})[use] = key
    return {
        value
        for value, uses in demands.items()
        if value.const_value is not None
        and value.const_value.size > stream.width
        and (
            len(set(uses.values())) > 1
            or {(use.node, use.idx) for use in value.uses()} != set(uses)
            or value.is_graph_output()
        )
    }


def _demands(stream: Stream) -> Iterator[tuple[ir.Value, Use, object]]:
    for writer in stream.writers:
        scale = None if writer.scale is None else writer.scale.tobytes()
        yield writer.value, (writer.node, writer.input), ("written", writer.axis, scale)
    for norm in stream.norms:
        gain = norm.gain.tobytes()
        for reader in norm.readers:
            users = {use.node for use in reader.holder.outputs[0].uses()}
            shared = reader.holder is not reader.node and len(users) > 1
            key = object() if shared else ("read", reader.axis, gain)
            yield reader.value, (reader.holder, reader.input), key
