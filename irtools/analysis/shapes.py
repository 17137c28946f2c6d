"""Symbolic shapes of all tensors, and values of the small integer tensors shapes are made of."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim, is_named, parse, symbol
from irtools.analysis.facts import Shape
from irtools.analysis.shape_rules import SHAPE
from irtools.analysis.value_rules import VALUE
from irtools.editing import constant_of
from irtools.operators import op_key

__all__ = ["Shape", "SymbolicShapes"]

_MAX_ELEMENTS = 64
"""Integer tensors with more elements are data, not shapes."""


_MISFITS = (IndexError, ValueError, ZeroDivisionError)
"""What a rule raises where inputs or attributes do not fit the operator: nothing is known then.

The verifier checks arity and attributes of the standard's operators, but not that an axis exists.
"""


class SymbolicShapes:
    """What is known of shapes before the model runs.

    Every dimension of unknown size is a symbol of its own, so two dimensions are equal only
    where they are known to be: through a shared name in the model's interface, or because the
    same tensors they are computed from say so. Broadcasting is assumed to be valid (a model
    whose shapes clash fails anyway), and sizes to be positive.

    Facts come from the operators; a declared shape (`value_info`) fills what they leave open.
    Covers the main graph and nested subgraphs, not functions. One pass over the nodes.

    onnx's own inference is not enough: it gives two names to a size that goes through a
    broadcast, and it is known to be wrong about sequence and optional types.
    """

    def __init__(self) -> None:
        self._shapes: dict[ir.Value, Shape] = {}
        self._integers: dict[ir.Value, np.ndarray] = {}
        self._unruled: Counter[str] = Counter()

    @classmethod
    def of(cls, model: ir.Model) -> SymbolicShapes:
        """Analyse a model."""
        facts = cls()
        facts._visit_graph(model.graph, "")
        return facts

    def shape(self, value: ir.Value | None) -> Shape | None:
        """The shape of a tensor; None where not even the rank is known."""
        if value is None:
            return None
        if value not in self._shapes and (constant := constant_of(value)) is not None:
            self._shapes[value] = tuple(constant.shape.numpy())
        return self._shapes.get(value)

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of dimensions, or None."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def integers(self, value: ir.Value | None) -> np.ndarray | None:
        """The elements of a small integer or boolean tensor, as an array of `Dim | bool`.

        None unless every element is known, by number or by symbol.
        """
        if value is None:
            return None
        if value not in self._integers and (constant := constant_of(value)) is not None:
            if constant.size > _MAX_ELEMENTS or not _is_integral(constant.dtype):
                return None
            self._integers[value] = _as_objects(constant.numpy())
        return self._integers.get(value)

    def constant(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The tensor of a value that never changes, or None."""
        return constant_of(value)

    @property
    def without_rule(self) -> Mapping[str, int]:
        """Operators without a shape rule whose results no declaration describes, with their number.

        What is computed from these results has no known shape either.
        """
        return self._unruled

    def adopt(self, new: ir.Value, old: ir.Value) -> None:
        """Let what is known of `old` be known of `new`, which a pass has put in its place."""
        if old in self._shapes:
            self._shapes[new] = self._shapes[old]
        if old in self._integers:
            self._integers[new] = self._integers[old]

    def _visit_graph(self, graph: ir.Graph, scope: str) -> None:
        for value in graph.inputs:
            self._learn(value, None, scope)
        for node in graph:
            self._visit_node(node, scope)

    def _visit_node(self, node: ir.Node, scope: str) -> None:
        for attribute in node.attributes.values():
            for graph in _graphs_of(attribute):
                self._visit_graph(graph, f"{scope}{node.name}/")
        shapes: Sequence[Shape | None] = ()
        if (rule := SHAPE.of(node)) is not None:
            with contextlib.suppress(*_MISFITS):
                shapes = rule(node, self)
        for index, output in enumerate(node.outputs):
            self._learn(output, shapes[index] if index < len(shapes) else None, scope)
        if rule is None and any(output not in self._shapes for output in node.outputs):
            self._unruled[op_key(node.domain, node.op_type)] += 1
        self._learn_integers(node)

    def _learn(self, value: ir.Value, inferred: Shape | None, scope: str) -> None:
        declared = _declared_shape(value, scope)
        if inferred is None:
            inferred = declared
        elif declared is not None and len(declared) == len(inferred):
            inferred = tuple(
                d if not is_named(i) and is_named(d) else i
                for i, d in zip(inferred, declared, strict=True)
            )
        if inferred is not None:
            self._shapes[value] = inferred

    def _learn_integers(self, node: ir.Node) -> None:
        if (rule := VALUE.of(node)) is None:
            return
        found = rule(node, self)
        if found is not None and found.size <= _MAX_ELEMENTS:
            self._integers[node.outputs[0]] = found


def _graphs_of(attribute: ir.Attr) -> Iterable[ir.Graph]:
    if attribute.is_ref():
        return ()
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    if attribute.type == ir.AttributeType.GRAPHS:
        return attribute.as_graphs()
    return ()


def _declared_shape(value: ir.Value, scope: str) -> Shape | None:
    if value.shape is None or not isinstance(value.type, ir.TensorType | None):
        return None
    dims: list[Dim] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int):
            dims.append(size)
        elif size.value is None:
            dims.append(symbol(f"?{scope}{value.name}.{axis}"))
        else:
            # The names in a subgraph may mean other sizes than those outside it.
            dims.append(parse(size.value, scope))
    return tuple(dims)


def _is_integral(dtype: ir.DataType) -> bool:
    return dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def _as_objects(array: np.ndarray) -> np.ndarray:
    boxed = np.empty(array.shape, dtype=object)
    boxed[...] = array
    flat = boxed.reshape(-1)
    for index, item in enumerate(flat):
        flat[index] = item.item() if isinstance(item, np.generic) else item
    return boxed
