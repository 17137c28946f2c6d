"""LSTM layers with weights of 8 bits, in the kernel that multiplies them as integers.

    LSTM(x, Cast(W) * s_w, Cast(R) * s_r, ..)  ->  DynamicQuantizeLSTM(x, W^T, R^T, .., s_w, s_r)

W [D, 4H, I] and R [D, 4H, H] are turned to [D, I, 4H] and [D, H, 4H], scales are [D, 4H]. The
kernel quantizes x once and the hidden state at each step. Measured on 1.31, one thread, against
the float LSTM in turns: H=128 1.2 times as fast, H=256 2, with a batch of 8 6, H=512 (whose
float weights leave the cache) 3 to 15, at 38 to 40 dB with random weights and inputs.

On CPUs without VNNI pairs of u8 x s8 products may saturate. Weights are shifted to u8 with the zero
point 128 there, the same numbers in an exact kernel (with VNNI 1.2 to 2 times as slow as s8).
There is no such kernel for GRU and RNN: their weights are expanded when the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.backends.onnxruntime._editing import constant_array, remove_unused
from irtools.model.naming import FreshNames

__all__ = ["lower_lstm"]

_KEPT = frozenset(
    {
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "hidden_size",
        "input_forget",
    }
)


@dataclass(frozen=True)
class _Gates:
    """A stored weight of an LSTM: integers [D, 4H, I] and scales [D, 4H]."""

    integers: np.ndarray
    scale: np.ndarray
    name: str


def lower_lstm(node: ir.Node, names: FreshNames, graph: ir.Graph, *, unsigned: bool) -> bool:
    """Rewrite one LSTM whose weights are both stored in 8 bits; tells whether it was.

    Args:
        node: Any node.
        names: Free names.
        graph: The main graph, which takes the new constants.
        unsigned: Weights as u8 around 128.
    """
    batch_first = node.attributes.get_int("layout", 0) == 1
    if node.op_type != "LSTM" or node.domain != "" or batch_first:
        return False
    weights = [_gates(value) for value in node.inputs[1:3]]
    if any(gates is None for gates in weights):
        return False
    old = [value.producer() for value in node.inputs[1:3] if value is not None]
    inputs = [node.inputs[0]]
    parameters: list[ir.Value | None] = []
    for gates in weights:
        assert gates is not None
        integers = np.ascontiguousarray(gates.integers.transpose(0, 2, 1))
        zero = np.zeros(gates.scale.shape, np.int8)
        if unsigned:
            integers, zero = _shifted(integers), _shifted(zero)
        inputs.append(_constant(graph, names, f"{gates.name}_turned", integers))
        parameters.append(_constant(graph, names, f"{gates.name}_steps", gates.scale))
        parameters.append(_constant(graph, names, f"{gates.name}_zero", zero))
    rest = [*node.inputs[3:], *[None] * 8][:5]
    _put(node, [*inputs, *rest, *parameters])
    for producer in old:
        remove_unused(producer)
    return True


def _gates(value: ir.Value | None) -> _Gates | None:
    product = value.producer() if value is not None else None
    if product is None or product.op_type != "Mul" or product.domain != "":
        return None
    stored = product.inputs[0]
    # Possibly by way of int32.
    while stored is not None and (cast := stored.producer()) is not None:
        if cast.op_type != "Cast" or cast.domain != "":
            break
        stored = cast.inputs[0]
    tensor = constant_of(stored)
    scale = constant_array(product.inputs[1])
    if (
        stored is None
        or tensor is None
        or tensor.dtype != ir.DataType.INT8
        or len(tensor.shape) != 3
    ):
        return None
    if scale is None or scale.dtype != np.float32:
        return None
    integers = tensor.numpy()
    rows = (*integers.shape[:2], 1)
    if scale.ndim > 3 or np.broadcast_shapes(scale.shape, rows) != rows:
        return None
    spread = np.ascontiguousarray(np.broadcast_to(scale, rows)[:, :, 0])
    return _Gates(integers, spread, stored.name or "weight")


def _shifted(integers: np.ndarray) -> np.ndarray:
    return (integers.view(np.uint8) ^ 0x80).astype(np.uint8)


def _constant(graph: ir.Graph, names: FreshNames, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(array, name=names.make(name))
    value = ir.Value(
        name=tensor.name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _put(old: ir.Node, inputs: list[ir.Value | None]) -> None:
    """Put the kernel in the place of an LSTM; names and types of its outputs stay."""
    attributes = [a for a in old.attributes.values() if a.name in _KEPT]
    new = ir.Node(
        "com.microsoft",
        "DynamicQuantizeLSTM",
        inputs,
        attributes,
        num_outputs=len(old.outputs),
        name=old.name,
    )
    new.metadata_props.update(old.metadata_props)
    graph = old.graph
    assert graph is not None
    graph.insert_before(old, new)
    for output, made in zip(old.outputs, new.outputs, strict=True):
        made.name, made.type, made.shape = output.name, output.type, output.shape
        made.metadata_props.update(output.metadata_props)
        ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(old, safe=True)
