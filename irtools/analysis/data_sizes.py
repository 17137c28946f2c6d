"""Sizes of outputs that depend on the values of the inputs: boxes that were found, words heard.

Such a size may be another one after a pass that changes numbers, and is then a figure of the
report. Any other size is the model's, or follows from the sizes of the inputs, and must stay.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import evaluate, name_of
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.analysis.types import element_type
from irtools.model import subgraphs
from irtools.operators import find_op

__all__ = ["DataSizes", "steady_values"]

_FOREIGN = ("BeamSearch", "GreedySearch", "NMS", "NonMaxSuppression", "Sampling")
"""Parts of the names of operators that are not declared, but are as large as what they find."""

_ASK_SIZES = frozenset({"Shape", "Size", "SequenceLength"})

_FIRST = slice(0, 1)
_PLACES = {"ArgMax": _FIRST, "ArgMin": _FIRST, "Equal": _FIRST, "Sign": _FIRST, "TopK": slice(1, 2)}
"""Operators that say where something is largest, or smallest, or changes its sign, and which
outputs do. Peaks of a map equal what MaxPool makes of it; an angle (Atan2) jumps by a turn."""


@dataclass(frozen=True)
class DataSizes:
    """Which outputs have sizes that depend on values.

    Attributes:
        shapes: Output name to its symbolic shape (None: not even the rank is known), of the
            outputs that have such sizes; others are left out.
        inputs: Input name to its declared sizes, by which symbols get their numbers.
    """

    shapes: Mapping[str, Shape | None]
    inputs: Mapping[str, Shape]

    @classmethod
    def of(cls, model: ir.Model) -> DataSizes:
        """Analyse a model."""
        spread = _Spread.over(model)
        outputs = [value for value in model.graph.outputs if value in spread.sized]
        if not outputs:
            return cls({}, {})
        facts = SymbolicShapes.of(model)
        shapes = {value.name or "": facts.shape(value) for value in outputs}
        inputs = {
            value.name or "": shape
            for value in model.graph.inputs
            if (shape := facts.shape(value)) is not None
        }
        return cls(shapes, inputs)

    def __contains__(self, output: object) -> bool:
        return output in self.shapes

    def without_batch(self) -> frozenset[str]:
        """Return the outputs whose axis 0 is not a batch, but as long as what was found."""
        symbols = {
            symbol
            for shape in self.inputs.values()
            for dim in shape
            if (symbol := name_of(dim)) is not None
        }
        known = dict.fromkeys(symbols, 1)
        return frozenset(
            name
            for name, shape in self.shapes.items()
            if shape and evaluate(shape[0], known) is None
        )

    def free_axes(
        self, output: str, found: Sequence[int], feeds: Mapping[str, Sequence[int]]
    ) -> frozenset[int]:
        """Return the axes of an output whose size nothing but the data decides.

        A size that the model declares counts where it is what came out: exporters name an axis
        `batch`, or write down the number of boxes of the example.

        Args:
            output: Name of the output.
            found: Its shape in a run.
            feeds: Shape of each input in that run.
        """
        if output not in self.shapes:
            return frozenset()
        shape = self.shapes[output]
        if shape is None or len(shape) != len(found):
            return frozenset(range(len(found)))
        known = self._symbols(feeds)
        sizes = zip(shape, found, strict=True)
        return frozenset(axis for axis, (dim, n) in enumerate(sizes) if evaluate(dim, known) != n)

    def _symbols(self, feeds: Mapping[str, Sequence[int]]) -> dict[str, int]:
        known: dict[str, int] = {}
        for name, shape in self.inputs.items():
            given = feeds.get(name, ())
            if len(given) != len(shape):
                continue
            for dim, size in zip(shape, given, strict=True):
                if (symbol := name_of(dim)) is not None:
                    known.setdefault(symbol, size)
        return known


def steady_values(model: ir.Model) -> tuple[str, ...] | None:
    """Return what can be compared number by number once rounding has changed a model.

    Of two scores that are nearly equal either may be the larger one: then another box is chosen,
    and what is gathered, counted or looked up by such places says nothing of the rounding; nor does
    what jumps where a number changes its sign. In place
    of outputs of that kind stand the scores, and the tensors that they choose from.

    Returns:
        Names of outputs and of tensors of the main graph; None: all outputs can be compared.
    """
    spread = _Spread.over(model, by_places=True)
    outputs = model.graph.outputs
    if not any(value in spread.sized for value in outputs):
        return None
    steady = (value.name or "" for value in outputs if value not in spread.sized)
    found = tuple(dict.fromkeys([*steady, *_last_fixed(model.graph, spread)]))
    return found or None


def _last_fixed(graph: ir.Graph, spread: _Spread) -> Iterator[str]:
    """Yield the last tensors before the spread: what boxes are chosen from."""
    seen: set[str] = set()
    for node in graph:
        if not any(value in spread.sized for value in node.outputs):
            continue
        for value in node.inputs:
            if value is None or value in spread.sized or value.producer() is None:
                continue
            if value in spread.by_value and value.name and value.name not in seen:
                seen.add(value.name)
                yield value.name


def _finds_places(node: ir.Node, by_value: Container[ir.Value | None]) -> bool:
    """Whether a node gives places by numbers that rounding changes; ids it does not change."""
    if node.domain != "" or node.op_type not in _PLACES:
        return False
    if node.op_type == "Equal" and not all(value in by_value for value in node.inputs):
        return False
    found = element_type(node.inputs[0])
    return found is None or found.is_floating_point()


class _Spread:
    """Follows what depends on the values of inputs forward through the graph.

    Args:
        by_places: Take what is chosen by places of largest values for what has such sizes, too.
    """

    def __init__(self, *, by_places: bool = False) -> None:
        self._by_places = by_places
        self.by_value: set[ir.Value] = set()
        """Values whose numbers depend on those of the inputs."""
        self.sized: set[ir.Value] = set()
        """Values whose sizes do."""

    @classmethod
    def over(cls, model: ir.Model, *, by_places: bool = False) -> _Spread:
        """Follow all of a model."""
        spread = cls(by_places=by_places)
        spread.by_value.update(model.graph.inputs)
        spread.visit(model.graph)
        return spread

    def visit(self, graph: ir.Graph) -> None:
        """Follow a graph and those inside it."""
        for node in graph:
            self._node(node)

    def _node(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        sized = any(value in self.sized for value in inputs)
        asks = node.op_type in _ASK_SIZES and node.domain == ""
        numbers = sized or (not asks and any(value in self.by_value for value in inputs))
        if _takes_fixed_rows(node):
            sized = node.inputs[1] in self.sized
        sized |= self._decides(node, inputs)
        for graph in subgraphs(node):
            # What a loop carries, and what a branch is chosen by, may depend on any input.
            if numbers:
                self.by_value.update(graph.inputs)
            if sized:
                self.sized.update(graph.inputs)
            self.visit(graph)
            numbers |= any(value in self.by_value for value in graph.outputs)
            sized |= any(value in self.sized for value in graph.outputs)
            # A loop that ends by what it computes gives as many results.
            sized |= node.op_type == "Loop" and graph.outputs[0] in self.by_value
        if numbers:
            self.by_value.update(node.outputs)
        if sized:
            self.sized.update(node.outputs)
        elif numbers and self._by_places and _finds_places(node, self.by_value):
            self.sized.update(node.outputs[_PLACES[node.op_type]])

    def _decides(self, node: ir.Node, inputs: Sequence[ir.Value]) -> bool:
        """Whether the values of a node's inputs decide the sizes of its results."""
        op = find_op(node.domain, node.op_type)
        if op is None:
            return any(part in node.op_type for part in _FOREIGN)
        if op.finds or op.key == "If":
            return any(value in self.by_value for value in inputs)
        return any(
            place < len(node.inputs) and node.inputs[place] in self.by_value
            for place in op.size_inputs
        )


def _takes_fixed_rows(node: ir.Node) -> bool:
    """Whether a Gather gives as many results as it has indices, of rows whose size is fixed."""
    rows = node.inputs[0] if node.inputs else None
    if node.domain != "" or node.op_type != "Gather" or rows is None or rows.shape is None:
        return False
    axis = node.attributes.get_int("axis", 0) % max(1, len(rows.shape))
    return all(isinstance(size, int) for n, size in enumerate(rows.shape) if n != axis)
