"""A linear layer with a constant weight: the weight as [K, N], and where its bias is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, only_user, require_weight, set_contents, weight_of
from irtools.operators import weight_port
from irtools.passes.pruning.edit import SUFFIX

__all__ = ["LinearLayer", "by_weight", "linear_layer", "write_layers"]


@dataclass(frozen=True)
class LinearLayer:
    """y = x W + b, as MatMul and Add, Gemm, or a 1x1 Conv.

    Attributes:
        node: The product; x is its first input, the weight its second.
        in_axis: Axis of the weight that is summed over.
        data_axis: Axis of x that is summed over.
        bias_node: Node that adds the bias, or None where there is no bias to refit.
        bias_input: Input of `bias_node` that is the bias.
        output: The value of x W + b.
    """

    node: ir.Node
    in_axis: int
    data_axis: int
    bias_node: ir.Node | None
    bias_input: int
    output: ir.Value

    @property
    def data(self) -> ir.Value:
        """The value x."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def weight_value(self) -> ir.Value:
        """The value of the weight."""
        value = self.node.inputs[1]
        assert value is not None
        return value

    @property
    def name(self) -> str:
        """Name of the weight: the same in every clone, and in the file."""
        return self.weight_value.name or ""

    @property
    def weight_shape(self) -> tuple[int, int]:
        """K and N."""
        first, second = require_weight(self.weight_value).shape.numpy()[:2]
        return (second, first) if self.in_axis == 1 else (first, second)

    def weight(self) -> np.ndarray:
        """Return W [K, N] as float64."""
        array = require_weight(self.weight_value).numpy().astype(np.float64)
        array = array.reshape(array.shape[:2])
        return array.T if self.in_axis == 1 else array

    def bias(self) -> np.ndarray | None:
        """Return b, broadcast as it is stored, or None."""
        if self.bias_node is None:
            return None
        return require_weight(self.bias_node.inputs[self.bias_input]).numpy()


def by_weight(layers: Iterable[LinearLayer]) -> dict[str, list[LinearLayer]]:
    """Put layers together that share a weight, by its name."""
    found: dict[str, list[LinearLayer]] = {}
    for layer in layers:
        found.setdefault(layer.name, []).append(layer)
    return found


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
    first = layers[0]
    rank = len(require_weight(first.weight_value).shape)
    array = weight.T if first.in_axis == 1 else weight
    array = array.reshape(*array.shape, *(1,) * (rank - 2))
    set_contents(editor, [(layer.node, 1) for layer in layers], array, SUFFIX)
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


def linear_layer(node: ir.Node) -> LinearLayer | None:
    """Return the linear layer that a node computes, or None where it is not a plain x W + b."""
    tensor = weight_of(node.inputs[1]) if len(node.inputs) > 1 else None
    port = weight_port(node)
    if tensor is None or node.domain or port is None or port.in_axis is None:
        return None
    in_axis = port.in_axis % max(len(tensor.shape), 1)
    match node.op_type:
        case "MatMul" if len(tensor.shape) == 2:
            found = _added_bias(node.outputs[0])
            if found is None:
                return LinearLayer(node, in_axis, -1, None, -1, node.outputs[0])
            return LinearLayer(node, in_axis, -1, *found, found[0].outputs[0])
        case "Gemm" if _is_plain(node):
            return _with_own_bias(node, in_axis, node.attributes.get_float("beta", 1.0) == 1.0)
        case "Conv" if tuple(tensor.shape[2:]) == (1,) * (len(tensor.shape) - 2):
            plain = node.attributes.get_int("group", 1) == 1
            return _with_own_bias(node, in_axis, True) if plain and not _is_strided(node) else None
    return None


def _is_plain(node: ir.Node) -> bool:
    attributes = node.attributes
    return attributes.get_float("alpha", 1.0) == 1.0 and not attributes.get_int("transA", 0)


def _is_strided(node: ir.Node) -> bool:
    strides = node.attributes.get_ints("strides", (1,))
    pads = node.attributes.get_ints("pads", (0,))
    return any(s != 1 for s in strides) or any(p != 0 for p in pads)


def _with_own_bias(node: ir.Node, in_axis: int, usable: bool) -> LinearLayer:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = weight_of(bias)
    if not usable or tensor is None or len(tensor.shape) != 1 or tensor.shape[0] == 1:
        return LinearLayer(node, in_axis, 1, None, -1, node.outputs[0])
    return LinearLayer(node, in_axis, 1, node, 2, node.outputs[0])


def _added_bias(value: ir.Value) -> tuple[ir.Node, int] | None:
    node = only_user(value)
    if node is None or node.op_type != "Add" or node.domain != "":
        return None
    position = 1 - int(node.inputs[1] is value)
    tensor = weight_of(node.inputs[position])
    if tensor is None or len(tensor.shape) != 1 or tensor.shape[0] == 1:
        return None
    return node, position
