"""Where a model multiplies by, or looks up in, a constant tensor that could be quantized.

Reads the model and never writes. Scope: the main graph; what is in subgraphs and local
functions is left alone and counted. `stored` has what can be stored in fewer bits, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from irtools.editing import constant_of, require_constant
from irtools.model import iter_graphs
from irtools.passes.quantization.sites.quantized import is_quantized
from irtools.passes.quantization.sites.reasons import (
    ALREADY,
    DTYPE,
    OPERATOR,
    SHARED,
    SUBGRAPH,
    Reason,
    Skips,
)
from irtools.passes.quantization.sites.uses import (
    Use,
    Weight,
    as_use,
    behind_transpose,
    is_transpose,
)

__all__ = ["REASONS", "Sites", "find_sites"]

REASONS = (ALREADY, OPERATOR, DTYPE, SHARED, SUBGRAPH)
"""Why `find_sites` leaves something alone."""

# Operators that multiply by a constant in a form that is left in floating point.
_OTHER_GEMMS = frozenset({"ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "DeformConv"})


@dataclass(frozen=True)
class Sites:
    """What could be quantized, in graph order, and what could not."""

    weights: tuple[Weight, ...]
    skipped: Skips = field(default_factory=Skips)


def find_sites(model: ir.Model) -> Sites:
    """Find every constant tensor all of whose readers multiply by it or look up in it."""
    finder = _Finder()
    for node in model.graph:
        finder.visit(node)
    for graph in iter_graphs(model):
        if graph is not model.graph:
            inner = sum(as_use(node) is not None for node in graph)
            finder.skipped.add(SUBGRAPH, inner)
    return Sites(tuple(finder.weights), finder.skipped)


class _Finder:
    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.skipped = Skips()
        self._seen: set[ir.Value] = set()

    def visit(self, node: ir.Node) -> None:
        reason = _refusal(node)
        if reason is not None:
            self.skipped.add(reason)
        use = as_use(node)
        value = use.weight if use is not None else None
        if value is None or value in self._seen:
            return
        self._seen.add(value)
        tensor = require_constant(value)
        if tensor.dtype != ir.DataType.FLOAT:
            # Integer tables are read by Gathers of shape arithmetic: nothing to count.
            if tensor.dtype.is_floating_point():
                self.skipped.add(DTYPE)
            return
        uses = _all_uses(value)
        if uses is None:
            self.skipped.add(SHARED)
        else:
            self.weights.append(Weight(value, tensor, uses))


def _all_uses(value: ir.Value) -> tuple[Use, ...] | None:
    """Return every use of a weight, or None where another node needs it as it is."""
    uses = []
    for node in _readers(value):
        use = as_use(node) if node.graph is not None and node.graph is value.graph else None
        if use is None or use.weight is not value:
            return None
        uses.append(use)
    return None if value.is_graph_output() else tuple(uses)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield who reads a weight, looking through Transposes of it."""
    for node, _ in value.uses():
        if is_transpose(node) and not node.outputs[0].is_graph_output():
            yield from (reader for reader, _ in node.outputs[0].uses())
        else:
            yield node


def _refusal(node: ir.Node) -> Reason | None:
    """Why a node that multiplies by a constant is not a site, or None."""
    if is_quantized(node):
        return ALREADY
    if node.op_type in _OTHER_GEMMS and any(constant_of(v) is not None for v in node.inputs[1:]):
        return OPERATOR
    if node.op_type in ("MatMul", "Gemm", "Conv") and as_use(node) is None:
        stored = [behind_transpose(v)[0] for v in node.inputs[:2]]
        return OPERATOR if any(constant_of(v) is not None for v in stored) else None
    return None
