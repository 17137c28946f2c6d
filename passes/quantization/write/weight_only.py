"""Weight-only int8: integers in the file, a DequantizeLinear in front of the product.

    int8 W [K, N] -> DequantizeLinear (axis 1, or blocks along axis 0) -> MatMul/Gemm

Always [K, N]: runtimes fuse that form into a compressed product, and expand [N, K] after a
Transpose at every run. Fused, some also quantize activations per token and block: the arithmetic is
theirs.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.quantization.ranges.arithmetic import quantize_weight
from irtools.passes.quantization.ranges.spec import PerAxis, PerBlock, weight_spec
from irtools.passes.quantization.sites.uses import Weight

__all__ = ["write_weight_only"]


def write_weight_only(editor: Editor, weight: Weight, block_size: int = 0) -> None:
    """Store a weight of MatMul and Gemm nodes as int8.

    Args:
        editor: Writes into the model.
        weight: Read by MatMul and Gemm nodes only, all with one channel axis.
        block_size: Rows of [K, N] that share a scale; 0 for one scale per column.
    """
    turned = weight.uses[0].axis == 0
    array = weight.array().T if turned else weight.array()
    granularity = PerBlock(0, block_size) if block_size else PerAxis(1)
    integers, q = quantize_weight(array, weight_spec(granularity))
    attributes = {"axis": 0, "block_size": block_size} if block_size else {"axis": 1}
    dequantized = editor.before(
        editor.first(use.node for use in weight.uses),
        "DequantizeLinear",
        [
            editor.constant(f"{weight.name}_quantized", integers),
            editor.constant(f"{weight.name}_scale", q.scale),
        ],
        outputs={f"{weight.name}_dequantized": ir.DataType.FLOAT},
        shape=ir.Shape(array.shape),
        attributes=attributes,
    )
    for use in weight.uses:
        use.node.replace_input_with(1, dequantized)
        if use.kind == "gemm":
            use.node.attributes.pop("transB", None)
    editor.drop_unread(weight.value)
