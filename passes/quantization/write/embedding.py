"""Embeddings in int8: look up first, dequantize after.

    ids -> Gather(int8 table [V, H]) -> Cast -> Mul -> rows [.., H]
    ids -> Gather(row scale [V, 1]) ----------^

Standard operators of every opset, and both runtimes read int8 rows from it. A DequantizeLinear in
front of the Gather would expand the whole table at each run on some of them.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.quantization.ranges.arithmetic import quantize_weight
from irtools.passes.quantization.ranges.spec import PerAxis, weight_spec
from irtools.passes.quantization.sites.uses import Use, Weight

__all__ = ["write_embedding", "write_lookup"]


def write_embedding(editor: Editor, weight: Weight) -> None:
    """Rewrite every lookup in a table."""
    integers, q = quantize_weight(weight.array(), weight_spec(PerAxis(0)))
    table = editor.constant(f"{weight.name}_quantized", integers)
    scale = editor.constant(f"{weight.name}_scale", q.scale.reshape(-1, 1))
    for use in weight.uses:
        write_lookup(editor, use, table, scale)
    editor.drop_unread(weight.value)


def write_lookup(editor: Editor, use: Use, table: ir.Value, scale: ir.Value) -> None:
    """Rewrite one Gather: int8 `table` [V, H], `scale` float32 [V, 1]."""
    node, output = use.node, use.output
    name = output.name or "rows"
    rows = editor.before(
        node,
        "Gather",
        [table, use.activation],
        outputs={f"{name}_quantized": ir.DataType.INT8},
        shape=output.shape,
    )
    steps = editor.before(
        node, "Gather", [scale, use.activation], outputs={f"{name}_scale": ir.DataType.FLOAT}
    )
    cast = editor.before(
        node,
        "Cast",
        [rows],
        outputs={f"{name}_integers": ir.DataType.FLOAT},
        shape=output.shape,
        attributes={"to": ir.DataType.FLOAT.value},
    )
    editor.replace(node, "Mul", [cast, steps], name=f"{name}/Mul")
