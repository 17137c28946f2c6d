"""What belongs to a quantized product: the bias after it, and the value that it passes on."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from irtools.editing import constant_of
from irtools.passes.quantization.sites.uses import Use

__all__ = ["has_counted_rows", "result_of"]


def has_counted_rows(use: Use) -> bool:
    """Whether the rows of a product can be counted, so that a runtime may see a Gemm in it."""
    if use.kind != "matmul":
        return True
    shape = use.activation.shape
    return shape is None or len(shape) < 3 or all(isinstance(d, int) for d in shape[:-1])


def result_of(use: Use, clips: Collection[str]) -> ir.Value:
    """Return what a Conv passes on: its output, or that of the Relu or Clip after it.

    A range always holds 0, so it cannot stand for a Clip whose bounds do not.

    Args:
        clips: Operators that the target takes into the quantization of their result
            (`Capabilities.int8_clips`).
    """
    output = use.output
    readers = tuple(output.uses())
    if len(readers) == 1 and not output.is_graph_output():
        node: ir.Node = readers[0].node
        known = node.domain == "" and node.op_type in clips
        if known and _holds_zero(node) and node.graph is use.node.graph:
            return node.outputs[0]
    return output


def _holds_zero(node: ir.Node) -> bool:
    """Whether the bounds are fixed, none of them on the other side of 0: a Relu's always are."""
    if node.op_type == "Relu":
        return True
    if node.op_type != "Clip":
        return False
    bounds = []
    for index, open_end in ((1, -1.0), (2, 1.0)):
        given = node.inputs[index] if index < len(node.inputs) else None
        tensor = None if given is None else constant_of(given)
        if given is not None and tensor is None:
            return False
        bounds.append(open_end if tensor is None else float(tensor.numpy().reshape(-1)[0]))
    return bounds[0] <= 0 <= bounds[1]
