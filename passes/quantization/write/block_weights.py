"""Writes weights in blocks: DequantizeLinear with a block size in front of what reads them.

    product   codes [K, N] -> DequantizeLinear (axis 0) -> MatMul/Gemm
    lookup    codes [V, H] -> DequantizeLinear (axis 1) -> Gather -> (Cast)
    tied      codes [V, H] -> DequantizeLinear (axis 1) -> Gather
                                               `-> Transpose -> MatMul, or Gemm with transB
    nf4       codes [N, K] -> Cast -> Gather of 16 levels -> Mul by scales -> Transpose -> MatMul
    scales    codes [K / block, N] -> Cast -> Mul by steps [1, N], where they are stored in 8 bits

Standard operators from opset 21 on. Runtimes compress the products as they are; lookups and nf4
are rewritten into the runtime's own form by its lowering, since some would otherwise expand the
whole table at each run. INT4 and UINT4 are stored packed, two to a byte.

Scales of lookups are float16 where the table's values are of ordinary size: half a bit less a
weight, and an error of 2^-11 that is negligible next to that of 4 bits. Scales of 8 bits are
widened as the model loads; a Gemm that reads such a weight becomes a MatMul, which is all that
runtimes then compress.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.quantization.ranges.blocks import (
    NF4,
    Blocks,
    Rounding,
    quantize_rows,
)
from irtools.passes.quantization.ranges.coded_scales import codes_and_steps
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.stored_blocks import (
    StoredBlocks,
    first_reader,
    store_blocks,
)

__all__ = ["write_block_lookup", "write_block_product", "write_tied"]

_HALF_FROM, _HALF_TO = 2.0**-6, 2.0**12
"""Largest magnitudes of tables whose scales may be float16: the steps stay normal numbers."""


def write_block_product(
    editor: Editor, weight: Weight, spec: BlockSpec, rounding: Rounding = quantize_rows
) -> None:
    """Store a weight of MatMul and Gemm nodes, all with one channel axis, in blocks."""
    if spec.scheme == "nf4":
        dequantized = _nf4_matrix(editor, weight, spec)
    else:
        stored = store_blocks(weight.array(), weight.uses[0].axis, spec, rounding, turned=True)
        dequantized = _dequantize(editor, weight, stored, axis=0, spec=spec)
    for use in weight.uses:
        if use.kind == "gemm" and spec.scales != "float32":
            _multiply_plainly(editor, use, dequantized)
            continue
        use.node.replace_input_with(1, dequantized)
        if use.kind == "gemm":
            use.node.attributes.pop("transB", None)
    editor.drop_unread(weight.value)


def write_block_lookup(
    editor: Editor, weight: Weight, spec: BlockSpec, rounding: Rounding | None = None
) -> None:
    """Store a table [V, H] that is only looked up in blocks along H.

    Args:
        rounding: None: to the nearest, with scales in float16 where they fit.
    """
    array = weight.array()
    dtype: type[np.floating] = np.float16 if _takes_half(array) else np.float32

    def nearest(rows: np.ndarray, form: BlockSpec) -> Blocks:
        return quantize_rows(rows, form, dtype)

    stored = store_blocks(array, 0, spec, rounding or nearest, turned=False)
    dequantized = _dequantize(editor, weight, stored, axis=1, spec=spec)
    for use in weight.uses:
        _look_up(editor, use, dequantized)
    editor.drop_unread(weight.value)


def write_tied(
    editor: Editor, weight: Weight, spec: BlockSpec, rounding: Rounding = quantize_rows
) -> None:
    """Store a table [V, H] that is looked up and, turned, multiplied by."""
    stored = store_blocks(weight.array(), 0, spec, rounding, turned=False)
    dequantized = _dequantize(editor, weight, stored, axis=1, spec=spec)
    for use in weight.uses:
        holder = use.transpose or use.node
        holder.replace_input_with(1 if use.kind == "gemm" else 0, dequantized)
    editor.drop_unread(weight.value)


def _multiply_plainly(editor: Editor, use: Use, weight: ir.Value) -> None:
    """Make MatMul of a Gemm by a weight, and Add of its bias."""
    node = use.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        editor.replace(node, "MatMul", [use.activation, weight])
        return
    product = editor.before(
        node,
        "MatMul",
        [use.activation, weight],
        outputs={f"{use.output.name}_product": ir.DataType.FLOAT},
        shape=use.output.shape,
    )
    editor.replace(node, "Add", [product, bias])


def _look_up(editor: Editor, use: Use, table: ir.Value) -> None:
    if table.dtype == ir.DataType.FLOAT:
        use.node.replace_input_with(0, table)
        return
    rows = editor.before(
        use.node,
        "Gather",
        [table, use.activation],
        outputs={f"{use.output.name}_half": ir.DataType.FLOAT16},
        shape=use.output.shape,
    )
    editor.replace(
        use.node,
        "Cast",
        [rows],
        {"to": ir.DataType.FLOAT.value},
        name=f"{use.output.name}/Cast",
    )


def _takes_half(table: np.ndarray) -> bool:
    top = max(abs(float(table.min())), abs(float(table.max())))
    return _HALF_FROM <= top <= _HALF_TO


def _dequantize(
    editor: Editor, weight: Weight, stored: StoredBlocks, *, axis: int, spec: BlockSpec
) -> ir.Value:
    inputs = [
        editor.constant(f"{weight.name}_quantized", stored.codes),
        _scale_of(editor, weight, stored, spec),
    ]
    if stored.zero_point is not None:
        inputs.append(editor.constant(f"{weight.name}_zero_point", stored.zero_point))
    return editor.before(
        first_reader(editor, weight),
        "DequantizeLinear",
        inputs,
        outputs={f"{weight.name}_dequantized": ir.DataType.from_numpy(stored.scale.dtype)},
        shape=ir.Shape(stored.codes.shape.numpy()),
        attributes={"axis": axis, "block_size": spec.block},
    )


def _scale_of(editor: Editor, weight: Weight, stored: StoredBlocks, spec: BlockSpec) -> ir.Value:
    """Return the scales: a constant, or codes [K / block, N] times steps [1, N]."""
    name = f"{weight.name}_scale"
    if spec.scales == "float32":
        return editor.constant(name, stored.scale)
    codes, steps = (part.T for part in codes_and_steps(np.ascontiguousarray(stored.scale.T)))
    anchor, real, shape = first_reader(editor, weight), ir.DataType.FLOAT, stored.scale.shape
    wide = editor.before(
        anchor,
        "Cast",
        [editor.constant(f"{name}_codes", np.ascontiguousarray(codes))],
        {"to": real.value},
        outputs={f"{name}_wide": real},
        shape=ir.Shape(shape),
    )
    step = editor.constant(f"{name}_step", np.ascontiguousarray(steps))
    return editor.before(anchor, "Mul", [wide, step], outputs={name: real}, shape=ir.Shape(shape))


def _nf4_matrix(editor: Editor, weight: Weight, spec: BlockSpec) -> ir.Value:
    """Return W [K, N] of NF4 codes [N, K], looked up level by level."""
    stored = store_blocks(weight.array(), weight.uses[0].axis, spec, quantize_rows, turned=False)
    channels, inner = (int(d) for d in stored.codes.shape.numpy())
    name, anchor = weight.name, first_reader(editor, weight)
    by_block = (channels, inner // spec.block, spec.block)
    scale = stored.scale.reshape(*stored.scale.shape, 1)
    codes = editor.constant(f"{name}_nf4", stored.codes)

    def add(
        op: str,
        inputs: list[ir.Value | None],
        part: str,
        dtype: ir.DataType,
        shape: tuple[int, ...],
        **attributes: int | list[int],
    ) -> ir.Value:
        outputs = {f"{name}_{part}": dtype}
        return editor.before(
            anchor, op, inputs, outputs=outputs, shape=ir.Shape(shape), attributes=attributes
        )

    table = editor.constant("nf4_levels", NF4)
    numbers = add(
        "Cast",
        [codes],
        "codes",
        ir.DataType.INT32,
        (channels, inner),
        to=ir.DataType.INT32.value,
    )
    real = ir.DataType.FLOAT
    levels = add("Gather", [table, numbers], "levels", real, (channels, inner))
    to_blocks = editor.constant(f"{name}_block_shape", np.array(by_block, np.int64))
    parts = add("Reshape", [levels, to_blocks], "blocks", real, by_block)
    scaled = add("Mul", [parts, editor.constant(f"{name}_scale", scale)], "scaled", real, by_block)
    to_rows = editor.constant(f"{name}_row_shape", np.array((channels, inner), np.int64))
    rows = add("Reshape", [scaled, to_rows], "rows", real, (channels, inner))
    return add("Transpose", [rows], "dequantized", real, (inner, channels), perm=[1, 0])
