"""Weights as exporters store them."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis import shapes

__all__ = ["constant_of"]


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of a value that never changes, or None.

    Seen through Identity: TorchScript stores equal biases once and gives them further names so.
    """
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type == "Identity" and producer.domain == "":
        value = producer.inputs[0]
        producer = None if value is None else value.producer()
    return shapes.constant_of(value)
