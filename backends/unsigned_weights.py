"""Unsigned weights where products by signed ones would saturate, for every runtime.

    w s8, zero point z      =      w + 128 u8, zero point z + 128

On CPUs without VNNI the kernels for u8 activations and s8 weights add two products in 16 bits
(`irtools.analysis.saturation`). ONNX Runtime multiplies u8 weights by kernels that widen first, and
OpenVINO computes such products in float32: either is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.int8_products import Int8Product, Stored, int8_products, saturating_products
from irtools.editing import Editor, array_of, constant_of

__all__ = ["make_weights_unsigned"]

_SIGN = np.uint8(0x80)


def make_weights_unsigned(model: ir.Model) -> int:
    """Rewrite, in place, the weights of products whose sums may leave 16 bits.

    Returns:
        Number of products that changed.
    """
    editor = Editor(model, "make-weights-unsigned")
    nodes = {product.node for product in saturating_products(model)}
    # Both weights of a recurrent layer have one type.
    products = [p for p in int8_products(model) if p.node in nodes and _can_change(p)]
    changes: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
    for place in dict.fromkeys(place for product in products for place in _places(product)):
        for index in (place.weight, place.zero_point):
            if index is None:
                continue
            value = _input(place.node, index)
            if value is None:
                value = _add_zero_point(editor, place)
            changes.setdefault(value, []).append((place.node, index))
    for value, uses in changes.items():
        _replace(editor, value, uses)
    for node in {node for uses in changes.values() for node, _ in uses}:
        if node.op_type == "QuantizeLinear":
            _declare_unsigned(node)
    return len(products)


def _declare_unsigned(node: ir.Node) -> None:
    """Say of the integers that a node makes of floats that they are unsigned."""
    # A clone shares its types with the original.
    node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    if node.attributes.get_int("output_dtype", 0):
        node.attributes["output_dtype"] = ir.AttrInt64("output_dtype", ir.DataType.UINT8)


def _places(product: Int8Product) -> Sequence[Stored]:
    """Return all nodes that have to change with a product: readers of the same integers too."""
    first = product.stored[0]
    if first.weight is not None:
        return product.stored
    readers = [use.node for use in first.node.outputs[0].uses()]
    return (first, *(Stored(reader, None, 2, scale=1) for reader in readers))


def _can_change(product: Int8Product) -> bool:
    """Whether every zero point is a constant, and nothing reads the integers for themselves."""
    for place in _places(product):
        zero_point = _input(place.node, place.zero_point)
        if zero_point is not None and _signed_array(zero_point) is None:
            return False
        unknown = place.scale is not None and array_of(_input(place.node, place.scale)) is None
        if zero_point is None and unknown:
            return False
        if place.weight is None and place.node.op_type not in _LINEAR:
            return False
    return True


_LINEAR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def _add_zero_point(editor: Editor, place: Stored) -> ir.Value:
    """Give a node the zero point that it does without: 0, in the shape of the scale."""
    node, index = place.node, place.zero_point
    scale = None if place.scale is None else array_of(_input(node, place.scale))
    array = np.zeros(() if scale is None else scale.shape, np.int8)
    stem = f"{node.name or node.op_type}_zero_point"
    before = None if node.graph is editor.graph else node
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    value = editor.constant(stem, array, before=before)
    node.replace_input_with(index, value)
    return value


def _replace(editor: Editor, old: ir.Value, uses: Sequence[tuple[ir.Node, int]]) -> None:
    """Let uses of signed integers read unsigned ones, under the old name where no other is left."""
    signed = _signed_array(old)
    assert signed is not None
    unsigned = np.bitwise_xor(np.ascontiguousarray(signed).view(np.uint8), _SIGN)
    unsigned = unsigned.reshape(signed.shape)
    name, graph, producer = old.name, old.graph, old.producer()
    if len(tuple(old.uses())) > len(uses) or old.is_graph_output():
        name = editor.fresh(f"{name}_unsigned")
    elif producer is None:
        assert graph is not None
        del graph.initializers[name or ""]
    else:
        old.name = None
    new = editor.named_constant(name, unsigned, graph=graph, before=producer)
    for node, index in uses:
        node.replace_input_with(index, new)
    if producer is not None:
        editor.drop_unread(producer)


def _signed_array(value: ir.Value | None) -> np.ndarray | None:
    tensor = constant_of(value)
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.INT8 else None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None
