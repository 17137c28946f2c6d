"""What passes ask of values and nodes; nothing here writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.model import tensor_of

__all__ = [
    "array_of",
    "attribute_values",
    "can_forward",
    "constant_of",
    "only_user",
    "other_input",
    "past_identities",
    "producer_of",
    "require_array",
    "require_constant",
    "require_weight",
    "scalar_of",
    "weight_of",
]


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that never changes, or None.

    A weight that is also a graph input may be overridden by the caller, so it is not constant.
    """
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        return None if value.is_graph_input() else value.const_value
    if producer.op_type != "Constant" or producer.domain != "" or len(producer.attributes) != 1:
        return None
    ((name, attribute),) = producer.attributes.items()
    if attribute.is_ref():
        return None
    if name == "value":
        return tensor_of(attribute)
    make = _CONSTANT_ATTRIBUTES.get(name)
    return None if make is None else ir.tensor(make(attribute.value))


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """Return what `constant_of` finds as an array; never write into it."""
    tensor = constant_of(value)
    return None if tensor is None else tensor.numpy()


def require_constant(value: ir.Value | None) -> ir.TensorProtocol:
    """Return the tensor of a value that is known to be constant.

    Raises:
        ValueError: It is not: an error of the caller, who had to see to it.
    """
    tensor = constant_of(value)
    if tensor is None:
        raise ValueError(f"{None if value is None else value.name!r} is not a constant")
    return tensor


def require_array(value: ir.Value | None) -> np.ndarray:
    """Return what `require_constant` finds as an array; never write into it."""
    return require_constant(value).numpy()


def scalar_of(value: ir.Value | None) -> float | None:
    """Return the number that a constant of one element holds.

    Of two dimensions or more it is none: it could widen what it is combined with.
    """
    tensor = constant_of(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    if len(tensor.shape) > 1:
        return None
    return float(tensor.numpy().reshape(()))


def producer_of(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """Return the node that makes a value, if it is an operator of one of these types.

    Args:
        value: Anything; None gives None.
        op_types: Operators; none of them means any.
        domain: Their domain.
    """
    node = None if value is None else value.producer()
    if node is None or node.domain != domain or (op_types and node.op_type not in op_types):
        return None
    return node


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, once; None where others, or the caller, read it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """Return the other operand of a binary operator."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def past_identities(value: ir.Value | None) -> ir.Value | None:
    """Return the value that Identity nodes pass on under other names.

    TorchScript stores equal biases once and gives them further names so.
    """
    while (node := producer_of(value, "Identity")) is not None:
        value = node.inputs[0]
    return value


def weight_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return what `constant_of` finds past Identity nodes."""
    return constant_of(past_identities(value))


def require_weight(value: ir.Value | None) -> ir.TensorProtocol:
    """Return what `require_constant` returns past Identity nodes."""
    return require_constant(past_identities(value))


def attribute_values(node: ir.Node) -> dict[str, Any]:
    """Return the attributes of a node as `Editor.node` takes them."""
    return dict(node.attributes)


def can_forward(old: ir.Value, new: ir.Value) -> bool:
    """Whether `new` can be used wherever `old` is, and for its public name.

    A graph output keeps its name, and a value has one name: so `new` must then be an ordinary
    value made in the same graph. An input, an outer value or another output cannot be an
    output's new producer; Scan and Loop bodies in particular would change their meaning.
    """
    if old is new:
        return False
    if not old.is_graph_output():
        return True
    maker, former = new.producer(), old.producer()
    return (
        maker is not None
        and former is not None
        and maker.graph is former.graph
        and not new.is_graph_output()
    )


_CONSTANT_ATTRIBUTES: Mapping[str, Callable[[object], np.ndarray]] = MappingProxyType(
    {
        "value_int": lambda v: np.asarray(v, np.int64),
        "value_ints": lambda v: np.asarray(v, np.int64),
        "value_float": lambda v: np.asarray(v, np.float32),
        "value_floats": lambda v: np.asarray(v, np.float32),
    }
)
