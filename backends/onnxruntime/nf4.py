"""Weights in NF4: com.microsoft.MatMulBnb4.

    MatMul(x, Transpose(Reshape(Reshape(levels[codes]) * scale)))  ->  MatMulBnb4(x, codes, scale)

Left as it is, the session folds the whole chain into a float32 matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, Rule, Veto, array_of, producer_of, require
from irtools.model import NF4_LEVELS

__all__ = ["Nf4Product", "is_plain"]

_NF4 = 1
"""`quant_type` of NF4; 0 is FP4."""
_LEVELS = np.array(NF4_LEVELS, np.float32)


@dataclass(frozen=True, eq=False)
class _Levels:
    """A matrix W [K, N] of levels.

    Attributes:
        codes: [N, K], 0 to 15.
        scale: float32 [N * K / block].
    """

    codes: np.ndarray
    scale: np.ndarray
    block: int


class Nf4Product(Rule[_Levels]):
    """MatMul(x, levels of codes * scale)  ->  MatMulBnb4(x, codes, scale), and Gemm likewise"""

    name = "MatMulBnb4"
    anchors = ("MatMul", "Gemm")

    def find(self, anchor: ir.Node) -> _Levels:
        turned = anchor.op_type == "Gemm" and anchor.attributes.get_int("transB", 0) == 1
        require(not turned and is_plain(anchor), "not x @ W + b", named=False)
        found = _levels(anchor.inputs[1])
        if found is None:
            raise Veto("not levels of NF4", named=False)
        return found

    def build(self, editor: Editor, anchor: ir.Node, found: _Levels) -> None:
        x, weight, bias = [*anchor.inputs, None][:3]
        assert weight is not None and isinstance(anchor.graph, ir.Graph)
        channels, inner = found.codes.shape
        flat = found.codes.reshape(-1)
        # Unlike MatMulNBits, the first of two codes is in the high half.
        arrays = {"bnb4": (flat[0::2] << 4) | flat[1::2], "absmax": found.scale}
        stem, graph = weight.name or "weight", anchor.graph
        operands = [editor.constant(f"{stem}_{p}", a, graph=graph) for p, a in arrays.items()]
        attributes = {"K": inner, "N": channels, "block_size": found.block, "quant_type": _NF4}
        inputs = [x, *operands]
        product = editor.replace(anchor, "MatMulBnb4", inputs, attributes, domain="com.microsoft")
        if bias is not None:
            _add(editor, product.outputs[0], bias)
        editor.drop_unread(weight)


def is_plain(product: ir.Node) -> bool:
    """Whether a MatMul or Gemm is x @ W, or that plus a bias per channel."""
    if product.op_type != "Gemm":
        return True
    get = product.attributes.get_float
    if product.attributes.get_int("transA", 0) or get("alpha", 1.0) != 1.0:
        return False
    if len(product.inputs) < 3 or product.inputs[2] is None:
        return True
    shape = product.inputs[2].shape
    return get("beta", 1.0) == 1.0 and shape is not None and shape.rank() == 1


def _add(editor: Editor, product: ir.Value, bias: ir.Value) -> None:
    """Let all that reads a product read it with a bias."""
    readers = tuple(product.uses())
    outputs = {f"{product.name}_biased": product.dtype}
    result = editor.after(
        product, "Add", [product, bias], name=f"{product.name}/Add", outputs=outputs
    )
    if product.is_graph_output():
        editor.replace_output(product, result, f"{product.name}_without_bias")
    else:
        editor.take_name(result, product, f"{product.name}_without_bias")
    for reader, index in readers:
        reader.replace_input_with(index, result)


def _levels(value: ir.Value | None) -> _Levels | None:
    """Match the chain behind a weight, from its end."""
    chain = []
    for op in ("Transpose", "Reshape", "Mul", "Reshape", "Gather", "Cast"):
        node = producer_of(value, op)
        if node is None:
            return None
        chain.append(node)
        value = node.inputs[1 if op == "Gather" else 0]
    _, _, mul, reshape, gather, _ = chain
    table = array_of(gather.inputs[0])
    shape, scale = array_of(reshape.inputs[1]), array_of(mul.inputs[1])
    codes = array_of(value)
    if table is None or shape is None or scale is None or codes is None:
        return None
    if table.shape != _LEVELS.shape or np.abs(table - _LEVELS).max() > 1e-4:
        return None
    if codes.ndim != 2 or shape.shape != (3,) or codes.dtype.name != "uint4":
        return None
    return _Levels(codes.astype(np.uint8), scale.reshape(-1), int(shape[2]))
