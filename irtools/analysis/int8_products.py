"""Products by signed 8-bit weights in a model, whatever quantized it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.int8_operators import INTEGER_OPERATORS, IntegerPorts
from irtools.analysis.saturation import may_saturate
from irtools.editing import array_of, constant_of
from irtools.model import iter_nodes, release_tensor
from irtools.operators import Kind, find_op

__all__ = ["Int8Product", "Stored", "int8_products", "saturating_products"]

_MICROSOFT = "com.microsoft"

_QDQ_OPERATORS = frozenset({"MatMul", "Gemm", "Conv"})
_MATRICES = 2


@dataclass(frozen=True)
class Stored:
    """Where a node reads integers of a weight, and their zero point.

    Attributes:
        node: The product itself, or the DequantizeLinear of the weight.
        weight: Which input holds the integers; None: the node makes them of floats.
        zero_point: Which input holds their zero point, where there is one.
        scale: Which input has the shape of the zero point; None: it is one number.
    """

    node: ir.Node
    weight: int | None
    zero_point: int
    scale: int | None = None


@dataclass(frozen=True, eq=False)
class Int8Product:
    """A node that multiplies quantized activations by constant int8 weights.

    Attributes:
        node: The product; the runtime may fuse it with the pairs around it.
        weight: The constant, as it is stored.
        integers: Its integers, as stored; of float weights with their own QuantizeLinear what
            that makes of them.
        axis: Output channels of `integers`.
        stored: The nodes that read them as what they are: signed.
        signed: The kernel of an operator on integers whose activations are s8: it sums exactly.
    """

    node: ir.Node
    weight: ir.Value
    integers: np.ndarray
    axis: int
    stored: tuple[Stored, ...]
    signed: bool = False

    @property
    def may_saturate(self) -> bool:
        """Whether sums of two products may leave 16 bits, for any activations."""
        parts = self.integers.reshape(-1, *self.integers.shape[-_MATRICES:])
        if self.integers.ndim <= _MATRICES or self.is_convolution:
            return may_saturate(self.integers, self.axis)
        return any(may_saturate(part, self.axis) for part in parts)

    @property
    def is_convolution(self) -> bool:
        """Whether the weight is a kernel [O, I, ..]."""
        return self.node.op_type in ("Conv", "QLinearConv")


def saturating_products(model: ir.Model) -> tuple[Int8Product, ...]:
    """Return the products whose sums may leave 16 bits on CPUs without VNNI.

    Weights that are proven safe, by 7 bits or by their pairs, do not count, nor do depthwise
    convolutions: their kernels widen before they add. One input channel alone does not make a
    convolution depthwise: each group must have one output channel, too, and there are several.
    """
    found = []
    verdicts: dict[tuple[ir.Value, int], bool] = {}
    for product in int8_products(model):
        key = (product.weight, product.axis)
        if key not in verdicts:
            verdicts[key] = not _is_depthwise(product) and product.may_saturate
            if product.weight.const_value is not None:
                release_tensor(product.weight.const_value)
        if verdicts[key] and not product.signed:
            found.append(product)
    return tuple(found)


def int8_products(model: ir.Model) -> Iterator[Int8Product]:
    """Yield the products by int8 weights, in all graphs and functions of a model."""
    for node in iter_nodes(model):
        if node.domain == "" and node.op_type in _QDQ_OPERATORS:
            found = _between_pairs(node)
            if found is not None:
                yield found
            continue
        ports = INTEGER_OPERATORS.get((node.domain, node.op_type))
        for weight, zero_point in () if ports is None else ports.weights:
            value = _input(node, weight)
            integers = _int8_constant(value)
            if value is not None and integers is not None:
                stored = (Stored(node, weight, zero_point),)
                axis, signed = _axis_of(node, integers), _is_signed(node, ports)
                yield Int8Product(node, value, integers, axis, stored, signed)


def _between_pairs(node: ir.Node) -> Int8Product | None:
    """Return the product of two dequantized tensors, the second one a constant."""
    if len(node.inputs) < _MATRICES or not _is_quantized(node.inputs[0]):
        return None
    value, turned = node.inputs[1], False
    producer = _producer(value)
    if producer is not None and producer.op_type == "Transpose":
        turned = list(producer.attributes.get_ints("perm", [1, 0]))[-2:] != [0, 1]
        value = producer.inputs[0]
        producer = _producer(value)
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    stored = producer.inputs[0]
    places: tuple[Stored, ...] = (Stored(producer, 0, 2, scale=1),)
    integers = _int8_constant(stored)
    if integers is None:
        quantizer = _producer(stored)
        stored, integers = _quantized_here(stored)
        if quantizer is not None:
            places = (Stored(quantizer, None, 2, scale=1), Stored(producer, None, 2, scale=1))
    if stored is None or integers is None or integers.ndim < _MATRICES:
        return None
    axis = _axis_of(node, integers)
    return Int8Product(node, stored, integers, 1 - axis if turned else axis, places)


def _is_signed(node: ir.Node, ports: IntegerPorts | None) -> bool:
    """Whether the activations of an operator on integers are known to be s8."""
    if ports is None or ports.activation is None:
        return False
    zero_point = _input(node, ports.activation)
    tensor = constant_of(zero_point)
    types = {value.dtype for value in (_input(node, 0), zero_point) if value is not None}
    return ir.DataType.INT8 in types or (tensor is not None and tensor.dtype == ir.DataType.INT8)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _axis_of(node: ir.Node, integers: np.ndarray) -> int:
    if node.op_type in ("Conv", "QLinearConv"):
        return 0
    return 0 if node.attributes.get_int("transB", 0) else 1


def _is_depthwise(product: Int8Product) -> bool:
    outputs, inputs = product.integers.shape[:2]
    groups = product.node.attributes.get_int("group", 1)
    return product.is_convolution and inputs == 1 and groups == outputs > 1


def _is_quantized(value: ir.Value | None) -> bool:
    """Whether a value is dequantized from 8 bits; what only moves it is looked through."""
    producer = _producer(value)
    while producer is not None and _moves(producer):
        value = producer.inputs[0]
        producer = _producer(value)
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    return _int8_constant(producer.inputs[0]) is None


def _moves(node: ir.Node) -> bool:
    op = find_op(node.domain, node.op_type)
    return op is not None and op.kind is Kind.LAYOUT


def _quantized_here(value: ir.Value | None) -> tuple[ir.Value | None, np.ndarray | None]:
    """Return a float constant and what its own QuantizeLinear to int8 makes of it."""
    node = _producer(value)
    if node is None or node.op_type != "QuantizeLinear" or len(node.inputs) < _MATRICES:
        return None, None
    arrays = [array_of(v) for v in node.inputs]
    if arrays[0] is None or arrays[1] is None:
        return None, None
    # Without a zero point the result is unsigned.
    zero = arrays[2] if len(arrays) > _MATRICES else None
    if zero is None or zero.dtype != np.int8 or node.attributes.get_int("block_size", 0) > 0:
        return None, None
    shape = [1] * arrays[0].ndim
    if arrays[1].ndim == 1 and arrays[1].size > 1:
        shape[node.attributes.get_int("axis", 1)] = -1
    scale, middle = arrays[1].reshape(shape or ()), zero.astype(np.float32).reshape(shape or ())
    steps = np.rint(arrays[0].astype(np.float32) / scale) + middle
    return node.inputs[0], np.clip(steps, -128, 127).astype(np.int8)


def _int8_constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = constant_of(value)
    if tensor is None or tensor.dtype != ir.DataType.INT8:
        return None
    return tensor.numpy()


def _producer(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.domain in ("", "ai.onnx", _MICROSOFT) else None
