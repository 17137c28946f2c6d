"""Sizes of outputs that depend on the values of the inputs: boxes that were found, words heard.

Such a size may be another one after a pass that changes numbers, and is then a figure of the
report. Any other size is the model's, or follows from the sizes of the inputs, and must stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import evaluate, name_of
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.model import subgraphs
from irtools.operators import find_op

__all__ = ["DataSizes"]

_FOREIGN = ("BeamSearch", "GreedySearch", "NMS", "NonMaxSuppression", "Sampling")
"""Parts of the names of operators that are not declared, but are as large as what they find."""

_ASK_SIZES = frozenset({"Shape", "Size", "SequenceLength"})


@dataclass(frozen=True)
class DataSizes:
    """Which outputs have sizes that depend on values.

    Attributes:
        shapes: Output name to its symbolic shape (None: not even the rank is known), of the
            outputs that have such sizes; others are left out.
        inputs: Input name to its declared sizes, by which symbols get their numbers.
        last_fixed: The last tensors of the main graph whose sizes hold, before those that do not:
            what boxes are chosen from.
    """

    shapes: Mapping[str, Shape | None]
    inputs: Mapping[str, Shape]
    last_fixed: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: ir.Model) -> DataSizes:
        """Analyse a model."""
        spread = _Spread()
        for value in model.graph.inputs:
            spread.by_value.add(value)
        spread.visit(model.graph)
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
        return cls(shapes, inputs, tuple(_last_fixed(model.graph, spread)))

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


def _last_fixed(graph: ir.Graph, spread: _Spread) -> Iterator[str]:
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


class _Spread:
    """Follows what depends on the values of inputs forward through the graph."""

    def __init__(self) -> None:
        self.by_value: set[ir.Value] = set()
        """Values whose numbers depend on those of the inputs."""
        self.sized: set[ir.Value] = set()
        """Values whose sizes do."""

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
