"""Finding the residual streams of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import (
    RULE,
    constant_of,
    only_user,
    producer_of,
    require_array,
    require_constant,
)
from irtools.passes.rotation.follow import Trail, follow, is_plain_gemm
from irtools.passes.rotation.layout import axis_after, is_layout
from irtools.passes.rotation.stream import (
    NormReader,
    Refusal,
    Stream,
    StreamNorm,
    Use,
    is_norm,
    is_normed_by_mean,
    is_stream_norm,
)

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
            reason = "output" if first in trail.shown else "reader"
            raise Refusal(reason, first.name or "?")
        _check_axes(trail, others)
        return Stream(
            name=value.name or "?",
            width=trail.width,
            centred=centred,
            writers=tuple(trail.writers),
            scales=tuple(trail.scales),
            entries={v: tuple(trail.reads.get(v, ())) for v in trail.entries},
            norms=tuple(self._norm(node, kept) for node in dict.fromkeys(trail.norms)),
            exits=others,
        )

    def _norm(self, node: ir.Node, kept: set[ir.Value]) -> StreamNorm:
        output = node.outputs[0]
        readers, others = [], []
        rank = self._shapes.rank(output) or 0
        for use in output.uses():
            found = self._readers(use.node, use.idx, rank - 1, kept)
            if found is None:
                others.append((use.node, use.idx))
            else:
                readers += found
        return StreamNorm(node, tuple(readers), tuple(others), output.is_graph_output())

    def _readers(
        self, node: ir.Node, position: int, axis: int, kept: set[ir.Value]
    ) -> list[NormReader] | None:
        """Return the products that read a normalized value through a node; None: others do."""
        if node.graph is not self._graph or node.domain != "":
            return None
        if node.op_type == "Shape":
            return []
        if node.op_type in ("MatMul", "Gemm") and position == 0:
            rank = self._shapes.rank(node.inputs[0])
            reader = _product(node, kept) if rank == axis + 1 else None
            return None if reader is None else [reader]
        if position or not is_layout(node):
            return None
        moved = axis_after(node, axis, self._shapes)
        if moved is None or any(value.is_graph_output() for value in node.outputs):
            return None
        found = []
        for use in (use for value in node.outputs for use in value.uses()):
            readers = self._readers(use.node, use.idx, moved, kept)
            if readers is None:
                return None
            found += readers
        return found

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


def _product(node: ir.Node, kept: set[ir.Value]) -> NormReader | None:
    if node.op_type == "Gemm":
        if not is_plain_gemm(node) or not _is_weight(node.inputs[1], kept):
            return None
        has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
        if has_bias and not _is_weight(node.inputs[2], set()):
            return None
        axis = 1 if node.attributes.get_int("transB", 0) else 0
        return NormReader(node, node, 1, axis, (node, 2) if has_bias else None)
    turn = producer_of(node.inputs[1], "Transpose")
    turned = turn is not None and turn.attributes.get_ints("perm", (1, 0)) == (1, 0)
    holder, position = (turn, 0) if turn is not None and turned else (node, 1)
    value = holder.inputs[position]
    if not _is_weight(value, kept) or (turned and holder.outputs[0].is_graph_output()):
        return None
    if len(require_constant(value).shape) != 2:
        return None
    axis = 1 if turned else 0
    return NormReader(node, holder, position, axis, _bias(node, require_constant(value), axis))


def _is_weight(value: ir.Value | None, kept: set[ir.Value]) -> bool:
    tensor = constant_of(value)
    return (
        value is not None
        and tensor is not None
        and value.producer() is None
        and value not in kept
        and tensor.dtype == ir.DataType.FLOAT
    )


def _bias(node: ir.Node, weight: ir.TensorProtocol, axis: int) -> Use | None:
    """Return the bias that is added to a product."""
    user = only_user(node.outputs[0])
    if user is None or user.op_type != "Add" or user.domain != "":
        return None
    position = 1 if user.inputs[0] is node.outputs[0] else 0
    value = user.inputs[position]
    if value is None or not _is_weight(value, set()):
        return None
    return (
        (user, position) if tuple(require_array(value).shape) == (weight.shape[1 - axis],) else None
    )


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
