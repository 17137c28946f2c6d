"""Where a model multiplies by, or looks up in, a constant tensor: all operators, all graphs.

What could be *stored* in fewer bits; `find` has what could be multiplied so.
A weight may be in the main graph, in a branch of If, in the body of Loop or Scan or in a local
function, as an initializer or as a Constant node, and may pass through Transpose, Reshape and the
like, or a call of a function, on its way. Reads the model and never writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import constant_of
from irtools.model import count_listed
from irtools.passes.quantization.sites.reasons import (
    DTYPE,
    LISTED,
    OVERRIDABLE,
    ROUNDED,
    SHARED,
    UNREAD,
    Reason,
    Skips,
)
from irtools.passes.quantization.sites.slots import Axes, Readers, StoredKind, find_readers

__all__ = ["REASONS", "StoredSites", "StoredWeight", "find_stored", "scoped_graphs"]

REASONS = (DTYPE, SHARED, ROUNDED, OVERRIDABLE, UNREAD, LISTED)
"""Why `find_stored` leaves something alone."""

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
"""Not float64: who computes in it asks for its digits, and 8 bits keep two of them."""
_MANY_LISTED = 1024
"""Numbers in attributes of a node that are worth a word."""
_LEAST_PER_SCALE = 3
"""Of n elements and a scale 4n bytes become n + 4: the least that is worth two nodes."""


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A constant tensor that nodes multiply by or look up in.

    Attributes:
        value: An initializer, or the output of a Constant node.
        tensor: Its values: float32 or float16.
        scope: The graph in which it is; empty for the main graph.
        kind: What reads it, for the report.
        readers: Who multiplies by it, in whatever graph.
        proposals: Axes along which scales may differ, at least one choice.
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    scope: str
    kind: StoredKind
    readers: tuple[ir.Node, ...]
    proposals: tuple[Axes, ...]

    @property
    def name(self) -> str:
        return self.value.name or ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod([int(d) for d in self.tensor.shape.numpy()]))

    @property
    def key(self) -> tuple[str, str]:
        """Scope and name: branches of an If may use the same names."""
        return self.scope, self.name

    def array(self) -> np.ndarray:
        """The values, as stored. Shared with the caller's model: never written into."""
        return self.tensor.numpy()


@dataclass(frozen=True)
class StoredSites:
    """What could be stored in fewer bits, in graph order, and what could not.

    Attributes:
        total: Elements of all constants, of any type: how large the model is.
    """

    weights: tuple[StoredWeight, ...]
    skipped: Skips
    total: int


def scoped_graphs(model: ir.Model) -> Iterator[tuple[str, ir.Graph]]:
    """Yield every graph with a name that is its own and survives clones and files.

    The main graph is ``; the then-branch of a node that makes `y` is `y.then_branch`; a function
    is `domain::name`.
    """
    yield from _nested("", model.graph)
    for (domain, name, overload), function in model.functions.items():
        yield from _nested(f"{domain}::{name}{f':{overload}' if overload else ''}", function.graph)


def find_stored(model: ir.Model, least: int = 0) -> StoredSites:
    """Find every constant floating-point tensor that is multiplied by or looked up in.

    Args:
        model: The model.
        least: Constants that no node multiplies by are counted from so many elements on.
    """
    weights: list[StoredWeight] = []
    skipped = Skips()
    total = 0
    for scope, graph in scoped_graphs(model):
        skipped.add(LISTED, sum(count_listed(node) >= _MANY_LISTED for node in graph))
        for value in _constants(graph):
            if value.is_graph_input():
                skipped.add(OVERRIDABLE, _is_default_weight(model, value))
                continue
            tensor = constant_of(value)
            if tensor is None:
                continue
            total += tensor.size
            if not tensor.dtype.is_floating_point():
                continue
            readers = find_readers(model, value, tensor)
            reason = _refusal(readers, tensor)
            if reason is not None:
                named = bool(readers.slots or readers.rounded)
                skipped.add(reason, named or _is_large(tensor, least))
            elif proposals := _worth_it(readers, tuple(tensor.shape.numpy())):
                weights.append(_weight(value, tensor, scope, readers, proposals))
    return StoredSites(tuple(weights), skipped, total)


def _is_default_weight(model: ir.Model, value: ir.Value) -> bool:
    """Whether an input with a default is multiplied by: files of IR 3 list every weight so."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _FLOATS:
        return False
    return bool(find_readers(model, value, tensor).slots)


def _is_large(tensor: ir.TensorProtocol, least: int) -> bool:
    """Whether a constant is worth a count. Vectors are biases and scales."""
    long_axes = sum(int(size) > 1 for size in tensor.shape.numpy())
    return long_axes > 1 and tensor.size >= least


def _weight(
    value: ir.Value,
    tensor: ir.TensorProtocol,
    scope: str,
    readers: Readers,
    proposals: tuple[Axes, ...],
) -> StoredWeight:
    nodes = tuple(dict.fromkeys(slot.node for slot in readers.slots))
    kinds = {slot.kind for slot in readers.slots}
    kind = kinds.pop() if len(kinds) == 1 else "product"
    return StoredWeight(value, tensor, scope, kind, nodes, proposals)


def _refusal(readers: Readers, tensor: ir.TensorProtocol) -> Reason | None:
    """Return why a constant is left alone, or None."""
    if not readers.slots:
        if readers.rounded:
            return ROUNDED
        return UNREAD if readers.others else None
    if tensor.dtype not in _FLOATS:
        return DTYPE
    return SHARED if readers.others or readers.is_output else None


def _worth_it(readers: Readers, shape: tuple[int, ...]) -> tuple[Axes, ...]:
    """Return the proposals that leave enough elements to each scale to save anything.

    Where none does, one scale serves the whole tensor. A table with one number per row stays:
    its rows are as large as their scales, and such are the scales of a quantized table.
    """
    size = int(np.prod(shape))
    found = dict.fromkeys(axes for slot in readers.slots for axes in slot.proposals)
    kept = tuple(
        axes for axes in found if size >= _LEAST_PER_SCALE * int(np.prod([shape[a] for a in axes]))
    )
    if kept or any(slot.kind == "lookup" for slot in readers.slots):
        return kept
    return ((),) if readers.slots else ()


def _constants(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the initializers of a graph and the outputs of its Constant nodes."""
    yield from graph.initializers.values()
    for node in graph:
        if node.op_type == "Constant" and node.domain == "":
            yield node.outputs[0]


def _nested(scope: str, graph: ir.Graph) -> Iterator[tuple[str, ir.Graph]]:
    pending = [(scope, graph)]
    while pending:
        scope, graph = pending.pop()
        yield scope, graph
        inner: list[tuple[str, ir.Graph]] = []
        for node in graph:
            for attribute in node.attributes.values():
                inner += [
                    (f"{scope}/{_carrier(node)}.{attribute.name}{suffix}", body)
                    for suffix, body in _bodies(attribute)
                ]
        pending.extend(reversed(inner))


def _bodies(attribute: ir.Attr) -> list[tuple[str, ir.Graph]]:
    if attribute.is_ref():
        return []
    if attribute.type == ir.AttributeType.GRAPH:
        return [("", attribute.as_graph())]
    if attribute.type == ir.AttributeType.GRAPHS:
        return [(f"[{index}]", graph) for index, graph in enumerate(attribute.as_graphs())]
    return []


def _carrier(node: ir.Node) -> str:
    # Outputs are unique in their graph; nodes need no names.
    return next((value.name for value in node.outputs if value.name), node.op_type)
