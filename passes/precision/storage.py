"""Half precision as a form of storage: weights in 16 bits, arithmetic in float32.

    W float32   becomes   W float16 -> Cast(float32)

Runtimes fold the Cast when they load the model, so the file halves and nothing else changes.
Weights are initializers, and Constant nodes in branches, loop bodies and functions, where not
every runtime reads initializers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from irtools.editing import Editor
from irtools.model import iter_graphs
from irtools.passes.precision.limits import misfit, to_half

__all__ = ["StoredWeights", "divides", "store_weights"]

# A scale must stay what the integers beside it were rounded with.
_EXACT_READERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_OTHER_FLOATS = frozenset({ir.DataType.DOUBLE})


@dataclass(frozen=True)
class StoredWeights:
    """What `store_weights` did.

    Attributes:
        stored: Tensors that are stored in 16 bits now.
        too_large: Names of tensors with finite values that 16 bits cannot hold.
        too_small: Names of tensors that lose more than 1 % in 16 bits.
        other_types: Names of tensors of floating types that stay, such as float64.
    """

    stored: int
    too_large: tuple[str, ...]
    too_small: tuple[str, ...] = ()
    other_types: tuple[str, ...] = ()


def store_weights(model: ir.Model, dtype: ir.DataType, min_size: int) -> StoredWeights:
    """Store float32 constants of all graphs in 16 bits.

    Args:
        model: Changed in place.
        dtype: FLOAT16 or BFLOAT16.
        min_size: Elements below which a tensor stays as it is.
    """
    editor = Editor(model, f"store-{dtype.name.lower()}")
    stored = 0
    kept: dict[str, list[str]] = {"large": [], "small": [], "other": []}
    for graph in iter_graphs(model):
        for value, tensor in tuple(_candidates(graph, min_size)):
            if tensor.dtype in _OTHER_FLOATS:
                kept["other"].append(value.name or "?")
                continue
            array = tensor.numpy()
            why = misfit(array, dtype, divides=divides(value))
            if why is not None:
                kept[why].append(value.name or "?")
                continue
            _store(editor, graph, value, ir.Tensor(to_half(array, dtype)))
            stored += 1
    return StoredWeights(stored, *(tuple(kept[key]) for key in ("large", "small", "other")))


def divides(value: ir.Value) -> bool:
    """Whether something is divided by a tensor, element by element."""
    return any(
        (node.op_type == "Div" and index == 1) or node.op_type in ("Reciprocal", "Log")
        for node, index in value.uses()
    )


def _candidates(graph: ir.Graph, min_size: int) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    constants = [(value, value.const_value) for value in graph.initializers.values()]
    for node in graph:
        attribute = node.attributes.get("value")
        if node.op_type == "Constant" and node.domain == "" and attribute is not None:
            tensor = None if attribute.is_ref() else attribute.as_tensor()
            constants.append((node.outputs[0], tensor))
    for value, tensor in constants:
        if tensor is None or tensor.dtype not in (ir.DataType.FLOAT, *_OTHER_FLOATS):
            continue
        fixed = value.is_graph_input() or value.is_graph_output() or tensor.size < min_size
        exact = any(node.op_type in _EXACT_READERS for node, _ in value.uses())
        if not fixed and not exact and value.uses():
            yield value, tensor


def _store(editor: Editor, graph: ir.Graph, value: ir.Value, tensor: ir.Tensor) -> None:
    """Put a 16-bit constant and a Cast in the place of `value`, which gives up its name."""
    maker = value.producer()
    name = f"{value.name}_{tensor.dtype.name.lower()}"
    stored = editor.constant(name, tensor, graph=graph, before=maker)
    cast = editor.node(
        "Cast",
        [stored],
        {"to": ir.DataType.FLOAT.value},
        name=f"{value.name}/Cast",
        outputs={f"{value.name}_float": ir.DataType.FLOAT},
        shape=value.shape,
    )
    graph.insert_before(maker or graph[0], cast)
    editor.forward(value, cast.outputs[0])
    public = value.name
    editor.drop_unread(value)
    cast.outputs[0].name = public
