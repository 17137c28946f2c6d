"""Writes weights on grids: codes, steps and minima as they are, in standard operators.

    x -> MatMul by DequantizeLinear(codes [K, N], steps [K/g, N])  ->  Add -> y
    x -> sums of blocks [.., K/g] -> MatMul by M [K/g, N]  --------^

    y = sum_b d_b sum_k x_k (q_k - c) + sum_b (m_b + c d_b) sum_k x_k

The second line is there where blocks have minima. No runtime multiplies codes that have some, so
they are taken out of the sum: K/g numbers for each token instead of K, and the sums of an input
serve all that read it. Both runtimes compress the first product as they load it.

Steps and minima stay as small as the checkpoint had them, and are widened as the model loads: from
float16, or from 8-bit codes of a float16 that eight neighbours share.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.quantization.ranges.grids import Grid, grid_rounding, nested
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.stored_blocks import first_reader, store_blocks

__all__ = ["write_grid_product"]

_FLOAT = ir.DataType.FLOAT


def write_grid_product(desk: Desk, weight: Weight, grid: Grid) -> None:
    """Store a weight of MatMul and Gemm nodes as the grid that it lies on."""
    editor, anchor = desk.editor, first_reader(desk.editor, weight)
    axis, rounding = weight.uses[0].axis, grid_rounding(grid)
    stored = store_blocks(weight.array(), axis, grid.spec, rounding, turned=True)
    constants = _Constants(editor, weight, anchor)
    scale = constants.numbers("scale", stored.scale, grid)
    inputs = [constants.tensor("quantized", stored.codes), scale]
    if stored.zero_point is not None:
        inputs.append(constants.tensor("zero_point", stored.zero_point))
    dequantized = constants.node(
        "DequantizeLinear",
        inputs,
        "dequantized",
        tuple(int(d) for d in stored.codes.shape.numpy()),
        axis=0,
        block_size=grid.block,
    )
    offset = None
    if stored.minimum is not None:
        minimum = constants.numbers("minimum", stored.minimum, grid)
        middle = editor.constant(f"{weight.name}_middle", np.array(grid.middle, np.float32))
        shape = stored.minimum.shape
        moved = constants.node("Mul", [scale, middle], "moved", shape)
        offset = constants.node("Add", [minimum, moved], "offset", shape)
    for use in weight.uses:
        _multiply(desk, use, dequantized, offset, grid.block)
    editor.drop_unread(weight.value)


class BlockSums:
    """Sums of the blocks of activations, each made once."""

    def __init__(self, desk: Desk) -> None:
        self._editor = desk.editor
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        self._members: dict[tuple[int, int], ir.Value] = {}

    def of(self, activation: ir.Value, inner: int, block: int) -> ir.Value:
        """Return the sums [.., K / block] of an activation [.., K]."""
        key = activation, block
        if key not in self._made:
            make = self._of_any_rank if activation.shape is None else self._of_rank
            self._made[key] = make(activation, inner, block)
        return self._made[key]

    def _of_any_rank(self, activation: ir.Value, inner: int, block: int) -> ir.Value:
        """Multiply by which channels are in which block: slower than adding, by what it is."""
        key = inner, block
        if key not in self._members:
            members = (np.arange(inner)[:, None] // block == np.arange(inner // block)).astype("f4")
            name = f"members_of_blocks_{inner}_{block}"
            self._members[key] = self._editor.constant(name, members)
        return self._editor.after(
            activation,
            "MatMul",
            [activation, self._members[key]],
            outputs={f"{activation.name}_block_sums": _FLOAT},
        )

    def _of_rank(self, activation: ir.Value, inner: int, block: int) -> ir.Value:
        assert activation.shape is not None
        outer, name = activation.shape.dims[:-1], activation.name
        sizes = np.array([0] * len(outer) + [inner // block, block], np.int64)
        by_block = self._editor.after(
            activation,
            "Reshape",
            [activation, self._editor.constant(f"{name}_block_shape", sizes)],
            outputs={f"{name}_blocks": _FLOAT},
            shape=ir.Shape([*outer, inner // block, block]),
        )
        return self._editor.after(
            by_block,
            "ReduceSum",
            [by_block, self._editor.constant(f"{name}_last_axis", np.array([-1], np.int64))],
            {"keepdims": 0},
            outputs={f"{name}_block_sums": _FLOAT},
            shape=ir.Shape([*outer, inner // block]),
        )


def _multiply(
    desk: Desk, use: Use, dequantized: ir.Value, offset: ir.Value | None, block: int
) -> None:
    """Let a product read a weight in blocks, and add what minima and a bias are multiplied to."""
    node, editor = use.node, desk.editor
    added = []
    if offset is not None:
        shape = dequantized.shape
        inner = int(shape.numpy()[0]) if shape is not None else 0
        sums = desk.writer(BlockSums).of(use.activation, inner, block)
        stem = f"{use.output.name}_minima"
        shape = use.output.shape
        outputs = {stem: _FLOAT}
        added.append(editor.before(node, "MatMul", [sums, offset], outputs=outputs, shape=shape))
    if use.kind == "gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        # Runtimes compress MatMul alone.
        added.append(node.inputs[2])
    if not added:
        if use.kind == "gemm":
            editor.replace(node, "MatMul", [use.activation, dequantized])
        else:
            node.replace_input_with(1, dequantized)
        return
    total = editor.before(
        node,
        "MatMul",
        [use.activation, dequantized],
        outputs={f"{use.output.name}_codes": _FLOAT},
        shape=use.output.shape,
    )
    for term in added[:-1]:
        outputs = {f"{use.output.name}_sum": _FLOAT}
        total = editor.before(node, "Add", [total, term], outputs=outputs, shape=use.output.shape)
    editor.replace(node, "Add", [total, added[-1]])


class _Constants:
    """Writes what does not depend on inputs, in front of the readers of a weight."""

    def __init__(self, editor: Editor, weight: Weight, anchor: ir.Node) -> None:
        self._editor, self._stem, self._anchor = editor, weight.name, anchor

    def tensor(self, part: str, content: np.ndarray | ir.TensorProtocol) -> ir.Value:
        return self._editor.constant(f"{self._stem}_{part}", content)

    def node(
        self,
        op_type: str,
        inputs: list[ir.Value],
        part: str,
        shape: tuple[int, ...],
        **attributes: int,
    ) -> ir.Value:
        return self._editor.before(
            self._anchor,
            op_type,
            inputs,
            attributes,
            outputs={f"{self._stem}_{part}": _FLOAT},
            shape=ir.Shape(shape),
        )

    def numbers(self, part: str, array: np.ndarray, grid: Grid) -> ir.Value:
        """Return float32 numbers [K/g, N] out of the smallest form that keeps them."""
        match grid.numbers:
            case "f16":
                return self._widened(part, array.astype(np.float16))
            case "nested":
                return self._unnested(part, array)
            case "f32":
                return self.tensor(part, array)

    def _unnested(self, part: str, array: np.ndarray) -> ir.Value:
        found = nested(array.T)
        assert found is not None
        codes, steps = (np.ascontiguousarray(part.T) for part in found)
        groups, channels = steps.shape
        by_group = (groups, len(array) // groups, channels)
        wide = self._widened(f"{part}_codes", codes.reshape(by_group))
        step = self._widened(f"{part}_step", steps[:, None])
        scaled = self.node("Mul", [wide, step], f"{part}_by_group", by_group)
        sizes = self.tensor(f"{part}_shape", np.array(array.shape, np.int64))
        return self.node("Reshape", [scaled, sizes], part, array.shape)

    def _widened(self, part: str, array: np.ndarray) -> ir.Value:
        stored = self.tensor(f"{part}_stored", array)
        return self.node("Cast", [stored], part, array.shape, to=int(_FLOAT))
