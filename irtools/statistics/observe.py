"""Making tensors inside a model visible, by exposing them as outputs of a copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.editing import Editor
from irtools.errors import UnsupportedError

__all__ = ["Observed", "check_observable", "expose"]

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


@dataclass(frozen=True)
class Observed:
    """A copy of a model that shows some tensors.

    Attributes:
        shapes: Value name to the name of the output that holds its shape.
    """

    model: ir.Model
    shapes: dict[str, str]


def check_observable(model: ir.Model, names: Iterable[str]) -> None:
    """Refuse tensors that cannot be seen from outside.

    Raises:
        UnsupportedError: A name that no tensor has, a weight, a tensor inside a subgraph or
            function, or one that does not hold floating-point numbers.
    """
    values = _top_values(model.graph)
    for name in names:
        if name in model.graph.initializers:
            raise UnsupportedError(f"'{name}' is a weight; statistics are of what data changes")
        value = values.get(name)
        if value is None:
            raise UnsupportedError(_reason_hidden(model, name))
        if value.dtype is not None and value.dtype not in _FLOATS:
            raise UnsupportedError(
                f"'{name}' holds {value.dtype.name}; statistics are of floating-point tensors"
            )


def expose(model: ir.Model, names: Sequence[str], *, with_shapes: bool = False) -> Observed:
    """Return a copy that has the tensors as further outputs, and their shapes if asked.

    Tensor data is shared with the original. Graph inputs stay as they are: callers have them.
    """
    copy = model.clone()
    graph = copy.graph
    values = _top_values(graph)
    wanted = [values[name] for name in names]
    shown = set(graph.outputs)
    graph.outputs.extend(value for value in dict.fromkeys(wanted) if value not in shown)
    shapes: dict[str, str] = {}
    if with_shapes:
        editor = Editor(copy, "observe")
        for value in dict.fromkeys(wanted):
            assert value.name is not None
            outputs = {f"{value.name}_shape": ir.DataType.INT64}
            shape = editor.append(graph, "Shape", [value], outputs=outputs)
            graph.outputs.append(shape)
            shapes[value.name] = shape.name or ""
    return Observed(copy, shapes)


def _top_values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {v.name: v for node in graph for v in node.outputs if v.name}
    values.update({v.name: v for v in graph.inputs if v.name})
    return values


def _reason_hidden(model: ir.Model, name: str) -> str:
    for node in model.graph.all_nodes():
        if node.graph is not model.graph and any(v.name == name for v in node.outputs):
            return f"'{name}' is inside a subgraph, and tensors there cannot be observed"
    for function in model.functions.values():
        if any(v.name == name for node in function for v in node.outputs):
            return (
                f"'{name}' is inside function {function.domain}::{function.name}, and tensors "
                "there cannot be observed; inline the function first"
            )
    return f"the model has no tensor named '{name}'"
