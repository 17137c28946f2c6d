"""What the runtimes make of the nodes around a quantized product."""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import constant_of
from irtools.passes.quantization.sites.find import Use

__all__ = ["becomes_gemm", "result_of"]


def becomes_gemm(use: Use) -> bool:
    """Whether a runtime may fuse MatMul + Add into a Gemm before it looks for int8.

    ONNX Runtime does so where the rows can be counted: it then keeps a *float* Gemm over both
    DequantizeLinears unless the bias is int32 as well. With two unknown
    sizes in front, a float bias is better: it fuses with the Gelu or the residual after it.
    """
    if use.kind != "matmul":
        return True
    shape = use.activation.shape
    return shape is None or len(shape) < 3 or all(isinstance(d, int) for d in shape[:-1])


def result_of(use: Use) -> ir.Value:
    """Return what a Conv passes on: its output, or that of the Relu or Clip after it.

    The runtimes fold both into the quantization that follows: with 0 as the lowest value there
    is nothing left for them to do. A range always holds 0, so it cannot stand for a Clip whose
    bounds do not.
    """
    output = use.output
    readers = tuple(output.uses())
    if len(readers) == 1 and not output.is_graph_output():
        node: ir.Node = readers[0].node
        clips = node.domain == "" and (node.op_type == "Relu" or _clips_around_zero(node))
        if clips and node.graph is use.node.graph:
            return node.outputs[0]
    return output


def _clips_around_zero(node: ir.Node) -> bool:
    """Whether a Clip has fixed bounds, none of them on the other side of 0."""
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
