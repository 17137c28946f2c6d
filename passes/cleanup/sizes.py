"""Bytes that nodes and constants take in a file, without writing one.

What a pass adds is counted exactly or too high, what it removes exactly or too low, so that a sum
of them that is not above zero means that the file does not grow. Follows the wire format of
protobuf: a field is a tag, for strings and messages a length, and the content.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.model import tensor_of

__all__ = ["constant_bytes", "initializer_bytes", "node_bytes", "tensor_payload"]


def initializer_bytes(name: str | None, tensor: ir.TensorProtocol) -> int:
    """Return the bytes of an initializer with its elements as raw data."""
    dims = sum(1 + _varint(int(size)) for size in tensor.shape.numpy())
    return _field(dims + 2 + _text(name) + _field(int(tensor.nbytes)))


def constant_bytes(name: str | None, tensor: ir.TensorProtocol) -> int:
    """Return the most bytes of a Constant node that holds a tensor."""
    attribute = _field(_text("value") + 3 + initializer_bytes(name, tensor))
    return _field(_text(name) + _text("Constant") + attribute)


def node_bytes(node: ir.Node) -> int:
    """Return the bytes of a node, or fewer; tensors in its attributes count."""
    values = [value.name if value is not None else "" for value in (*node.inputs, *node.outputs)]
    total = sum(2 + len(name or "") for name in values) + _text(node.op_type)
    total += _text(node.name) + _text(node.domain)
    total += sum(_attribute(attribute) for attribute in node.attributes.values())
    total += sum(2 + _text(k) + _text(v) for k, v in node.metadata_props.items())
    return 2 + total


def tensor_payload(tensor: ir.TensorProtocol) -> int:
    """Return the bytes that a tensor's elements take in the file, or fewer.

    Small integers of a file that lists them one by one take a byte each.
    """
    if tensor.dtype == ir.DataType.STRING:
        return int(tensor.size)
    if isinstance(tensor, ir.TensorProtoTensor) and not tensor.raw.HasField("raw_data"):
        return min(int(tensor.nbytes), int(tensor.raw.ByteSize()) - 2 * len(tensor.shape) - 4)
    return int(tensor.nbytes)


def _attribute(attribute: ir.Attr) -> int:
    total = 2 + _text(attribute.name) + 3
    if attribute.is_ref() or attribute.value is None:
        return total
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return total + tensor_payload(tensor_of(attribute))
        case ir.AttributeType.INTS:
            return total + sum(1 + _varint(int(item)) for item in attribute.as_ints())
        case ir.AttributeType.FLOATS:
            return total + 5 * len(attribute.as_floats())
        case _:
            return total + 2


def _field(length: int) -> int:
    return 1 + _varint(length) + length


def _text(text: str | None) -> int:
    return _field(len(text.encode("utf-8", "surrogatepass"))) if text else 0


def _varint(number: int) -> int:
    """Return the bytes of a number of the wire format; negative ones always take ten."""
    return 10 if number < 0 else max(1, (number.bit_length() + 6) // 7)
