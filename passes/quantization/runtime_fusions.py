"""What the runtimes make of the nodes around a quantized product."""

from __future__ import annotations

import onnx_ir as ir

from irtools.passes.quantization.sites import Use

__all__ = ["becomes_gemm", "result_of"]


def becomes_gemm(use: Use) -> bool:
    """Whether a runtime may fuse MatMul + Add into a Gemm before it looks for int8.

    ONNX Runtime does so where the rows can be counted: it then keeps a *float* Gemm over both
    DequantizeLinears unless the bias is int32 as well. With two unknown
    sizes in front, a float bias is better: it fuses with the Gelu or the residual behind it.
    """
    if use.kind != "matmul":
        return True
    shape = use.activation.shape
    return shape is None or len(shape) < 3 or all(isinstance(d, int) for d in shape[:-1])


def result_of(use: Use) -> ir.Value:
    """Return what a Conv hands on: its output, or that of the Relu or Clip behind it.

    The runtimes fold both into the quantization that follows: with 0 as the lowest value there
    is nothing left for them to do.
    """
    output = use.output
    readers = tuple(output.uses())
    if len(readers) == 1 and not output.is_graph_output():
        node: ir.Node = readers[0].node
        clips = node.op_type in ("Relu", "Clip") and node.domain == ""
        if clips and node.graph is use.node.graph:
            return node.outputs[0]
    return output
