"""Embeddings in int8: look up first, dequantize after.

    ids -> Gather(int8 table [V, H]) -> Cast -> Mul -> rows [.., H]
    ids -> Gather(row scale [V, 1]) ----------^

Standard operators of every opset, and both runtimes read int8 rows from it. A DequantizeLinear in
front of the Gather would expand the whole table at each run on some of them.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.passes.quantization.arithmetic import quantize_weight
from irtools.passes.quantization.emitter import Emitter
from irtools.passes.quantization.sites import Use, Weight
from irtools.passes.quantization.spec import PerAxis, weight_spec

__all__ = ["write_embedding", "write_lookup"]


def write_embedding(emit: Emitter, weight: Weight) -> None:
    """Rewrite every lookup in a table."""
    integers, q = quantize_weight(weight.array(), weight_spec(PerAxis(0)))
    table = emit.constant(f"{weight.name}_quantized", integers)
    scale = emit.constant(f"{weight.name}_scale", q.scale.reshape(-1, 1))
    for use in weight.uses:
        write_lookup(emit, use, table, scale)
    emit.drop_unread(weight.value)


def write_lookup(emit: Emitter, use: Use, table: ir.Value, scale: ir.Value) -> None:
    """Rewrite one Gather: int8 `table` [V, H], `scale` float32 [V, 1]."""
    node, output = use.node, use.output
    name = output.name or "rows"
    rows = emit.before(
        node,
        "Gather",
        [table, use.activation],
        {f"{name}_quantized": ir.DataType.INT8},
        shape=output.shape,
    )
    steps = emit.before(
        node, "Gather", [scale, use.activation], {f"{name}_scale": ir.DataType.FLOAT}
    )
    cast = emit.before(
        node,
        "Cast",
        [rows],
        {f"{name}_integers": ir.DataType.FLOAT},
        shape=output.shape,
        attributes={"to": ir.DataType.FLOAT.value},
    )
    emit.replace(node, "Mul", [cast, steps])
