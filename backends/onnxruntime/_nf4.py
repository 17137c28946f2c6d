"""Weights in NF4: com.microsoft.MatMulBnb4.

    MatMul(x, Transpose(Reshape(Reshape(levels[codes]) * scale)))  ->  MatMulBnb4(x, codes, scale)

Left as it is, the session folds the whole chain into a float32 matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.backends._block_tables import put, remove_if_unread
from irtools.backends.onnxruntime._editing import constant_array
from irtools.model.naming import FreshNames
from irtools.model.nf4 import NF4_LEVELS

__all__ = ["lower_nf4"]

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


def lower_nf4(node: ir.Node, names: FreshNames) -> bool:
    """Rewrite one MatMul or Gemm; False where it does not multiply by NF4 levels."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1:
        return False
    weight = node.inputs[1]
    found = _levels(weight)
    if found is None or weight is None:
        return False
    graph = node.graph
    assert graph is not None
    stem = weight.name or "weight"
    channels, inner = found.codes.shape
    flat = found.codes.reshape(-1)
    # Unlike MatMulNBits, the first of two codes is in the high half.
    arrays = {"bnb4": (flat[0::2] << 4) | flat[1::2], "absmax": found.scale}
    values = []
    for part, array in arrays.items():
        name = names.make(f"{stem}_{part}")
        values.append(ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name)))
        graph.register_initializer(values[-1])
    attributes = [
        ir.AttrInt64("K", inner),
        ir.AttrInt64("N", channels),
        ir.AttrInt64("block_size", found.block),
        ir.AttrInt64("quant_type", _NF4),
    ]
    product = put(node, "MatMulBnb4", [node.inputs[0], *values], attributes)
    if bias is not None:
        _add(product, bias, names)
    remove_if_unread(weight.producer())
    return True


def _add(product: ir.Node, bias: ir.Value, names: FreshNames) -> None:
    output = product.outputs[0]
    total = ir.node("Add", [output, bias], name=names.make(f"{output.name}/Add"))
    result = total.outputs[0]
    result.type, result.shape, result.name = output.type, output.shape, output.name
    graph = product.graph
    assert graph is not None
    graph.insert_after(product, total)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    total.replace_input_with(0, output)
    output.name = names.make(f"{result.name}_without_bias")


def _levels(value: ir.Value | None) -> _Levels | None:
    """Match the chain behind a weight, from its end."""
    chain = []
    for op in ("Transpose", "Reshape", "Mul", "Reshape", "Gather", "Cast"):
        node = value.producer() if value is not None else None
        if node is None or node.op_type != op or node.domain != "":
            return None
        chain.append(node)
        value = node.inputs[1 if op == "Gather" else 0]
    _, _, mul, reshape, gather, _ = chain
    table = constant_array(gather.inputs[0])
    shape, scale = constant_array(reshape.inputs[1]), constant_array(mul.inputs[1])
    codes = constant_array(value)
    if table is None or shape is None or scale is None or codes is None:
        return None
    if table.shape != _LEVELS.shape or np.abs(table - _LEVELS).max() > 1e-4:
        return None
    if codes.ndim != 2 or shape.shape != (3,) or codes.dtype.name != "uint4":
        return None
    return _Levels(codes.astype(np.uint8), scale.reshape(-1), int(shape[2]))
