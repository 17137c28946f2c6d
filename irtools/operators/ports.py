"""Where the weight of a node is."""

from __future__ import annotations

import onnx_ir as ir

from irtools.operators.catalog import find_op
from irtools.operators.op import Port

__all__ = ["bias_input", "weight_port"]


def weight_port(node: ir.Node) -> Port | None:
    """Return the weight that a node is declared to have, its axes swapped where `transB` is set."""
    op = find_op(node.domain, node.op_type)
    port = None if op is None else op.weight
    if port is None or node.attributes.get_int("transB", 0) == 0:
        return port
    return Port(port.input, port.out_axis, port.in_axis)


def bias_input(node: ir.Node) -> int | None:
    """Return which input of a node is its bias, if it is declared to have one."""
    op = find_op(node.domain, node.op_type)
    return None if op is None or op.bias is None else op.bias.input
