"""How long a sequence may be before a model looks for a position that its table does not hold.

RoBERTa and its kin compute positions as they run, `cumsum(ids != padding) * (ids != padding) +
padding`, and gather them from a table of 514 rows. Nothing in the signature says so; the largest
integer that the graph can compute from a sequence of a given length does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import evaluate
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.tables import position_limit
from irtools.analysis.types import element_type
from irtools.editing import constant_of
from irtools.operators import Kind, RuleTable

__all__ = ["BOUNDS", "PositionLimit", "longest_sequence"]

Interval = tuple[int, int]
"""Smallest and largest element that a tensor of integers can have."""

_MAX_CONSTANT = 1 << 20
_MAX_DEPTH = 500


@dataclass(frozen=True)
class PositionLimit:
    """What bounds the length of sequences.

    Attributes:
        length: The longest one that fits.
        table: Name of the table of positions.
        rows: Its rows.
    """

    length: int
    table: str
    rows: int


def longest_sequence(
    model: ir.Model, wanted: int, batch: int, sizes: Mapping[str, int] | None = None
) -> PositionLimit | None:
    """Return what keeps sequences shorter than `wanted`; None where nothing is known to.

    Args:
        model: The model.
        wanted: Length asked for.
        batch: Size of the batch axis.
        sizes: Sizes that are settled, by name of the dynamic axis.
    """
    stored = position_limit(model.graph)
    limits = [] if stored is None else [PositionLimit(stored, "positions", stored)]
    lookups = list(_lookups(model.graph))
    if any(_follows_length(indices) for _, indices, _ in lookups):
        search = _Search(model, batch, sizes or {})
        limits += [
            PositionLimit(search.longest(indices, rows, wanted), table, rows)
            for table, indices, rows in lookups
        ]
    binding = [limit for limit in limits if 0 < limit.length < wanted]
    return min(binding, key=lambda limit: limit.length, default=None)


def _lookups(graph: ir.Graph) -> Iterator[tuple[str, ir.Value, int]]:
    """Yield tables that are indexed by computed integers: name, integers, rows."""
    for node in graph:
        if not _takes_rows(node):
            continue
        table, indices = node.inputs
        if table is None or indices is None or indices.producer() is None:
            continue
        rows = _rows(table)
        if rows is not None and constant_of(indices) is None:
            yield table.name or "", indices, rows


def _takes_rows(node: ir.Node) -> bool:
    """Whether a node takes whole rows of a matrix by their numbers."""
    if node.domain != "" or node.op_type not in ("Gather", "GatherND"):
        return False
    if node.op_type == "Gather":
        return node.attributes.get_int("axis", 0) == 0
    # Exporters write Whisper's positions so: indices [..., 1] into a table.
    indices = node.inputs[1]
    shape = None if indices is None else indices.shape
    return (
        node.attributes.get_int("batch_dims", 0) == 0
        and shape is not None
        and len(shape) > 0
        and shape[-1] == 1
    )


def _rows(table: ir.Value) -> int | None:
    """Return the rows of a matrix that is stored, as it is or in integers."""
    node = table.producer()
    if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
        return _rows(node.inputs[0])
    constant = constant_of(table)
    shape = table.shape if node is None else constant.shape if constant is not None else None
    if shape is None or len(shape) != 2:
        return None
    return shape[0] if isinstance(shape[0], int) else None


def _follows_length(value: ir.Value) -> bool:
    """Whether integers are counted along an axis on their way: only those grow with it."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None:
            continue
        if node.op_type in ("CumSum", "Range"):
            return True
        fresh = {v for v in node.inputs if v is not None} - seen
        seen |= fresh
        pending.extend(fresh)
    return False


class _Search:
    def __init__(self, model: ir.Model, batch: int, sizes: Mapping[str, int]) -> None:
        self._shapes = SymbolicShapes.of(model)
        self._fixed = dict(sizes)
        self._sequence_names: set[str] = set()
        for value in model.graph.inputs:
            for axis, dim in enumerate(value.shape or ()):
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    if axis == 0:
                        self._fixed.setdefault(dim.value, batch)
                    else:
                        self._sequence_names.add(dim.value)

    def longest(self, indices: ir.Value, rows: int, wanted: int) -> int:
        """Return the largest length up to `wanted` whose indices stay below `rows`; 0: none."""
        low, high = 0, wanted
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(indices, rows, middle):
                low = middle
            else:
                high = middle - 1
        return low

    def _fits(self, indices: ir.Value, rows: int, length: int) -> bool:
        sizes = {**dict.fromkeys(self._sequence_names, length), **self._fixed}
        found = _Bounds(self._shapes, sizes, length).of(indices)
        return found is None or found[1] < rows


class _Bounds:
    """Intervals of integer tensors for sequences of one length."""

    def __init__(self, shapes: SymbolicShapes, sizes: Mapping[str, int], length: int) -> None:
        self._shapes = shapes
        self._sizes = sizes
        self.length = length
        self._known: dict[ir.Value, Interval | None] = {}
        self._depth = 0

    def of(self, value: ir.Value | None) -> Interval | None:
        """Return the interval of a tensor, None where nothing is known."""
        if value is None or self._depth > _MAX_DEPTH:
            return None
        if value not in self._known:
            self._depth += 1
            self._known[value] = self._find(value)
            self._depth -= 1
        return self._known[value]

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """Return the size of an axis."""
        shape = self._shapes.shape(value)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        return evaluate(shape[axis], self._sizes)

    def _find(self, value: ir.Value) -> Interval | None:
        constant = constant_of(value)
        if constant is not None:
            return _of_constant(constant)
        exact = self._shapes.integers(value)
        if exact is not None and exact.size:
            numbers = [evaluate(item, self._sizes) for item in exact.reshape(-1)]
            known = [number for number in numbers if number is not None]
            if len(known) == len(numbers):
                return min(known), max(known)
        node = value.producer()
        if node is None:
            is_mask = "mask" in (value.name or "") or value.dtype == ir.DataType.BOOL
            return (0, 1) if is_mask else None
        if element_type(value) == ir.DataType.BOOL:
            return (0, 1)
        rule = BOUNDS.of(node)
        return None if rule is None else rule(node, self)


def _of_constant(tensor: ir.TensorProtocol) -> Interval | None:
    if not 0 < tensor.size <= _MAX_CONSTANT or tensor.dtype.name not in _INTEGERS:
        return None
    array = tensor.numpy()
    return int(array.min()), int(array.max())


_INTEGERS = frozenset({"BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"})

Rule = Callable[[ir.Node, _Bounds], Interval | None]


def _same(node: ir.Node, bounds: _Bounds) -> Interval | None:
    return bounds.of(node.inputs[0])


def _any_of(first: int) -> Rule:
    def join(node: ir.Node, bounds: _Bounds) -> Interval | None:
        parts = [bounds.of(value) for value in node.inputs[first:]]
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        return min(low for low, _ in known), max(high for _, high in known)

    return join


def _arithmetic(combine: Callable[[int, int], int]) -> Rule:
    """Corners of the box are the extremes of a sum, a difference and a product."""

    def apply(node: ir.Node, bounds: _Bounds) -> Interval | None:
        a, b = bounds.of(node.inputs[0]), bounds.of(node.inputs[1])
        if a is None or b is None:
            return None
        corners = [combine(x, y) for x in a for y in b]
        return min(corners), max(corners)

    return apply


def _cumulative(node: ir.Node, bounds: _Bounds) -> Interval | None:
    found = bounds.of(node.inputs[0])
    if found is None:
        return None
    axis = _of_axis(node.inputs[1])
    length = bounds.length if axis is None else bounds.size(node.inputs[0], axis)
    length = bounds.length if length is None else length
    low, high = found
    return min(low, low * length), max(high, high * length)


def _of_axis(value: ir.Value | None) -> int | None:
    constant = constant_of(value)
    return None if constant is None else int(constant.numpy().reshape(-1)[0])


def _range(node: ir.Node, bounds: _Bounds) -> Interval | None:
    start, limit, step = (bounds.of(value) for value in node.inputs)
    if start is None or limit is None or step is None or step[0] < 1:
        return None
    return start[0], max(start[0], limit[1] - 1)


def _clip(node: ir.Node, bounds: _Bounds) -> Interval | None:
    found = bounds.of(node.inputs[0])
    low, high = [*(bounds.of(v) for v in node.inputs[1:]), None, None][:2]
    if found is None:
        return None if low is None or high is None else (low[0], high[1])
    smallest = found[0] if low is None else max(found[0], low[0])
    largest = found[1] if high is None else min(found[1], high[1])
    return smallest, max(smallest, largest)


BOUNDS: RuleTable[Rule] = RuleTable(
    "bounds",
    "the smallest and the largest integer are known",
    by_kind=MappingProxyType({Kind.LAYOUT: _same}),
    by_name=MappingProxyType(
        {
            "Add": _arithmetic(lambda a, b: a + b),
            "Cast": _same,
            "Clip": _clip,
            "Concat": _any_of(0),
            "CumSum": _cumulative,
            "Max": _any_of(0),
            "Min": _any_of(0),
            "Mul": _arithmetic(lambda a, b: a * b),
            "Range": _range,
            "Sub": _arithmetic(lambda a, b: a - b),
            "Where": _any_of(1),
        }
    ),
)
