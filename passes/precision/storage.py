"""Half precision as a form of storage: weights in 16 bits, arithmetic in float32.

    W float32   becomes   W float16 -> Cast(float32)

Runtimes fold the Cast when they load the model, so the file halves and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from irtools.model.naming import FreshNames
from irtools.passes.precision.limits import fits, to_half

__all__ = ["StoredWeights", "store_weights"]

# A scale must stay what the integers beside it were rounded with.
_EXACT_READERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class StoredWeights:
    """What `store_weights` did.

    Attributes:
        stored: Tensors that are stored in 16 bits now.
        too_large: Names of tensors with finite values that 16 bits cannot hold.
    """

    stored: int
    too_large: tuple[str, ...]


def store_weights(model: ir.Model, dtype: ir.DataType, min_size: int) -> StoredWeights:
    """Store float32 initializers of the main graph in 16 bits.

    Args:
        model: Changed in place.
        dtype: FLOAT16 or BFLOAT16.
        min_size: Elements below which a tensor stays as it is.
    """
    names = FreshNames(model)
    stored, too_large = 0, []
    for value in tuple(_candidates(model.graph, min_size)):
        assert value.const_value is not None
        array = value.const_value.numpy()
        if not fits(array, dtype):
            too_large.append(value.name or "?")
            continue
        _store(model.graph, value, ir.Tensor(to_half(array, dtype)), names)
        stored += 1
    return StoredWeights(stored, tuple(too_large))


def _candidates(graph: ir.Graph, min_size: int) -> Iterator[ir.Value]:
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < min_size:
            continue
        fixed = value.is_graph_input() or value.is_graph_output()
        exact = any(node.op_type in _EXACT_READERS for node, _ in value.uses())
        if not fixed and not exact and value.uses():
            yield value


def _store(graph: ir.Graph, value: ir.Value, tensor: ir.Tensor, names: FreshNames) -> None:
    """Put a 16-bit initializer and a Cast in the place of `value`, which gives up its name."""
    name = value.name
    assert name is not None
    dtype = tensor.dtype
    stored = ir.Value(
        name=names.make(f"{name}_{dtype.name.lower()}"),
        type=ir.TensorType(dtype),
        shape=value.shape,
        const_value=tensor,
    )
    tensor.name = stored.name
    cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT.value})
    cast.name = names.make(f"{name}/Cast")
    result = cast.outputs[0]
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    value.replace_all_uses_with(result)
    del graph.initializers[name]
    result.name = name
    graph.register_initializer(stored)
    graph.insert_before(graph[0], cast)
