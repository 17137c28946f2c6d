"""The linear layer of a sink: its weight as [K, N] and where its bias is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import Member
from irtools.editing import Editor, only_user, require_weight, set_contents, weight_of
from irtools.passes.pruning.edit import SUFFIX

__all__ = ["LinearLayer", "linear_layer", "write_layers"]


@dataclass(frozen=True)
class LinearLayer:
    """y = x W + b, as MatMul and Add, Gemm, or a 1x1 Conv.

    Attributes:
        sink: The weight and its data input.
        bias_node: Node that adds the bias, or None where there is no bias to refit.
        bias_input: Input of `bias_node` that is the bias.
        output: The value of x W + b.
    """

    sink: Member
    bias_node: ir.Node | None
    bias_input: int
    output: ir.Value

    @property
    def data(self) -> ir.Value:
        """The value x."""
        value = self.sink.node.inputs[0]
        assert value is not None
        return value

    @property
    def data_axis(self) -> int:
        """Channel axis of x."""
        assert self.sink.data_axis is not None
        return self.sink.data_axis

    @property
    def weight_shape(self) -> tuple[int, int]:
        """K and N."""
        tensor = require_weight(self.sink.value)
        first, second = tensor.shape.numpy()[:2]
        return (second, first) if self.sink.axis == 1 else (first, second)

    def weight(self) -> np.ndarray:
        """Return W [K, N] as float64."""
        tensor = require_weight(self.sink.value)
        array = tensor.numpy().astype(np.float64)
        array = array.reshape(array.shape[:2])
        return array.T if self.sink.axis == 1 else array

    def bias(self) -> np.ndarray | None:
        """Return b, broadcast as it is stored, or None."""
        if self.bias_node is None:
            return None
        tensor = require_weight(self.bias_node.inputs[self.bias_input])
        return tensor.numpy()


def write_layers(
    editor: Editor,
    layers: Sequence[LinearLayer],
    weight: np.ndarray,
    bias_change: np.ndarray | None,
) -> None:
    """Give layers that share a weight, or one layer, a new W [K', N], and move their biases.

    Args:
        editor: Of the model.
        layers: Layers with the same weight.
        weight: The new weight.
        bias_change: [N], or None to leave the biases alone.
    """
    sink = layers[0].sink
    tensor = require_weight(sink.value)
    array = weight.T if sink.axis == 1 else weight
    array = array.reshape(*array.shape, *(1 for _ in tensor.shape[2:]))
    sinks = [(layer.sink.node, layer.sink.input) for layer in layers]
    set_contents(editor, sinks, array, SUFFIX)
    if bias_change is None:
        return
    biases: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for layer in layers:
        if layer.bias_node is not None:
            value = layer.bias_node.inputs[layer.bias_input]
            assert value is not None
            biases.setdefault(value, []).append((layer.bias_node, layer.bias_input))
    for value, places in biases.items():
        old = require_weight(value)
        set_contents(editor, places, old.numpy().astype(np.float64) + bias_change, SUFFIX)


def linear_layer(sink: Member) -> LinearLayer | None:
    """Return the linear layer of a sink, or None where it is not a plain x W + b."""
    node = sink.node
    tensor = weight_of(sink.value)
    if tensor is None or sink.input != 1 or sink.data_axis is None:
        return None
    output = node.outputs[0]
    match node.op_type:
        case "MatMul" if len(tensor.shape) == 2:
            found = _added_bias(output)
            if found is None:
                return LinearLayer(sink, None, -1, output)
            return LinearLayer(sink, found[0], found[1], found[0].outputs[0])
        case "Gemm" if node.attributes.get_float("alpha", 1.0) == 1.0:
            return _with_own_bias(sink, node.attributes.get_float("beta", 1.0) == 1.0)
        case "Conv" if tuple(tensor.shape[2:]) == (1,) * (len(tensor.shape) - 2):
            plain = node.attributes.get_int("group", 1) == 1
            return _with_own_bias(sink, True) if plain and not _is_strided(node) else None
    return None


def _is_strided(node: ir.Node) -> bool:
    strides = node.attributes.get_ints("strides", (1,))
    pads = node.attributes.get_ints("pads", (0,))
    return any(s != 1 for s in strides) or any(p != 0 for p in pads)


def _with_own_bias(sink: Member, usable: bool) -> LinearLayer:
    node = sink.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = weight_of(bias)
    if not usable or tensor is None or len(tensor.shape) != 1 or tensor.shape[0] == 1:
        return LinearLayer(sink, None, -1, node.outputs[0])
    return LinearLayer(sink, node, 2, node.outputs[0])


def _added_bias(value: ir.Value) -> tuple[ir.Node, int] | None:
    node = only_user(value)
    if node is None or node.op_type != "Add" or node.domain != "":
        return None
    position = 1 - int(node.inputs[1] is value)
    tensor = weight_of(node.inputs[position])
    if tensor is None or len(tensor.shape) != 1 or tensor.shape[0] == 1:
        return None
    return node, position
