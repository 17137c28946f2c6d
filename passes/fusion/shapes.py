"""Sizes taken from the inputs of the model and not from tensors in its middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.dims import Dim, name_of
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, Place
from irtools.model import opset_of
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["HoistShapes", "has_attention_block"]

_SHAPE_OF_A_PART = 15
"""The opset from which Shape has `start` and `end`."""

_BETWEEN = frozenset(
    {"Cast", "Dropout", "Identity", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Where"}
)
_STEPS = 6
"""What may stand between attention weights and their product with V, and how much of it."""


@dataclass(frozen=True)
class HoistShapes(Pass):
    """Compute sizes from the inputs of the model, where a Shape in its middle asks for them.

        Shape(softmax)  ->  Concat(Shape(input_ids)[0], 12, Shape(input_ids)[1], ...)

    TorchScript asks every tensor for its own size, which keeps the tensors of an attention block
    alive that its fused form never makes. Done where all sizes are known as numbers or as sums
    of products of the inputs' dimensions. Main graph only.
    """

    name: ClassVar[str] = "hoist-shapes"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-hoisted-shapes": "Shape operators computed from inputs"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        source = _Sizes(model, facts)
        hoisted = 0
        for node in list(model.graph):
            if node.op_type == "Shape" and node.domain == "":
                hoisted += source.hoist(node)
        return PassResult(hoisted > 0, {"num-hoisted-shapes": hoisted})


class _Sizes:
    """Makes sizes, each once."""

    def __init__(self, model: ir.Model, facts: SymbolicShapes) -> None:
        self._facts = facts
        self._opset = opset_of(model)
        self._editor = Editor(model, HoistShapes.name)
        self._places: dict[str, tuple[ir.Value, int]] = {}
        for value in model.graph.inputs:
            for axis, size in enumerate(facts.shape(value) or ()):
                if (name := name_of(size)) is not None:
                    self._places.setdefault(name, (value, axis))

    def hoist(self, node: ir.Node) -> bool:
        (source,), graph = node.inputs, node.graph
        sizes = self._facts.integers(node.outputs[0])
        if source is None or source.is_graph_input() or source.producer() is None:
            return False
        if sizes is None or not sizes.size or graph is None or node.outputs[0].is_graph_output():
            return False
        if not all(self._is_known(size) for size in sizes):
            return False
        make = Place(self._editor, node)
        parts = [self._make(make, size) for size in sizes]
        result = parts[0] if len(parts) == 1 else make.shared("Concat", parts, {"axis": 0})
        self._editor.forward(node.outputs[0], result)
        self._editor.remove(node)
        return True

    def _is_known(self, size: Dim) -> bool:
        if isinstance(size, int):
            return True
        return all(name in self._places for monomial, _ in size.terms for name in monomial)

    def _make(self, make: Place, size: Dim) -> ir.Value:
        """A tensor of one element."""
        if isinstance(size, int):
            return make.integers([size])
        terms = []
        for monomial, factor in size.terms:
            factors = [self._dimension(make, *self._places[name]) for name in monomial]
            if factor != 1 or not factors:
                factors.append(make.integers([factor]))
            terms.append(_folded(make, "Mul", factors))
        return _folded(make, "Add", terms)

    def _dimension(self, make: Place, value: ir.Value, axis: int) -> ir.Value:
        if self._opset >= _SHAPE_OF_A_PART:
            return make.shared("Shape", [value], {"start": axis, "end": axis + 1})
        shape = make.shared("Shape", [value])
        return make.shared("Slice", [shape, make.integers([axis]), make.integers([axis + 1])])


def has_attention_block(graph: ir.Graph) -> bool:
    """Whether a Softmax is multiplied with something, as the weights of attention are.

    Without one no tensor is set free by taking sizes from elsewhere, which only costs nodes.
    """
    return any(
        node.domain == ""
        and (node.op_type == "Attention" or (node.op_type == "Softmax" and _is_multiplied(node)))
        for node in graph
    )


def _is_multiplied(softmax: ir.Node) -> bool:
    level = [softmax]
    for _ in range(_STEPS):
        readers = {use.node: None for node in level for out in node.outputs for use in out.uses()}
        if any(reader.op_type in ("Einsum", "MatMul") for reader in readers):
            return True
        level = [reader for reader in readers if reader.op_type in _BETWEEN]
    return False


def _folded(make: Place, op_type: str, values: list[ir.Value]) -> ir.Value:
    """Values joined by a binary operator."""
    first, *rest = values
    for value in rest:
        first = make.shared(op_type, [first, value])
    return first
