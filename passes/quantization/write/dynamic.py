"""Dynamic int8: activations are measured and quantized at run time.

    X -> DynamicQuantizeLinear -> MatMulInteger(int8 W) -> Cast -> Mul(s_x * s_w) -> (+ bias)

Standard operators, which runtimes with kernels for it fuse, the bias included: one quantization
serves all readers of X. One range for the
whole tensor, padding and neighbours in the batch included: the price of having no data.
"""

from __future__ import annotations

import onnx_ir as ir

from irtools.passes.quantization.ranges.arithmetic import quantize_weight
from irtools.passes.quantization.ranges.spec import PerAxis, WeightRange, weight_spec
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.desk import Desk

__all__ = ["DynamicWriter"]


class DynamicWriter:
    """Rewrites MatMul and Gemm nodes of one model. One quantization per activation tensor."""

    def __init__(self, desk: Desk) -> None:
        self._editor = desk.editor
        self._quantized: dict[ir.Value, tuple[ir.Value, ...]] = {}

    def write(self, weight: Weight, *, weight_range: WeightRange) -> None:
        """Quantize a weight once, for all its readers."""
        # MatMulInteger has no transB: the weight is turned here, once.
        turned = weight.uses[0].axis == 0
        array = weight.array().T if turned else weight.array()
        spec = weight_spec(PerAxis(1), weight_range)
        integers, q = quantize_weight(array, spec)
        table = self._editor.constant(f"{weight.name}_quantized", integers)
        scale = self._editor.constant(f"{weight.name}_scale", q.scale)
        for use in weight.uses:
            self._rewrite(use, table, scale)
        self._editor.drop_unread(weight.value)

    def _rewrite(self, use: Use, table: ir.Value, scale: ir.Value) -> None:
        node, output = use.node, use.output
        name = output.name or "product"
        quantized, step, zero = self._activation(use.activation)
        sums = self._editor.before(
            node,
            "MatMulInteger",
            [quantized, table, zero],
            outputs={f"{name}_sums": ir.DataType.INT32},
            shape=output.shape,
        )
        cast = self._editor.before(
            node,
            "Cast",
            [sums],
            outputs={f"{name}_float_sums": ir.DataType.FLOAT},
            shape=output.shape,
            attributes={"to": ir.DataType.FLOAT.value},
        )
        steps = self._editor.before(
            node,
            "Mul",
            [step, scale],
            outputs={f"{name}_step": ir.DataType.FLOAT},
            shape=scale.shape,
        )
        has_bias = use.kind == "gemm" and use.bias is not None
        if not has_bias:
            self._editor.replace(node, "Mul", [cast, steps], name=f"{name}/Mul")
            return
        product = self._editor.before(
            node,
            "Mul",
            [cast, steps],
            outputs={f"{name}_without_bias": ir.DataType.FLOAT},
            shape=output.shape,
        )
        bias = self._gemm_bias(use)
        self._editor.replace(node, "Add", [product, bias], name=f"{name}/Add")

    def _gemm_bias(self, use: Use) -> ir.Value:
        value = use.node.inputs[2]
        assert value is not None and use.bias is not None
        if value.shape is not None and len(value.shape) == 1:
            return value
        return self._editor.constant(value.name or "bias", use.bias.array)

    def _activation(self, value: ir.Value) -> tuple[ir.Value, ...]:
        """Return the integers, scale and zero point of an activation."""
        found = self._quantized.get(value)
        if found is None:
            quantized = self._editor.after(
                value,
                "DynamicQuantizeLinear",
                [value],
                outputs={
                    f"{value.name}_quantized": ir.DataType.UINT8,
                    f"{value.name}_scale": ir.DataType.FLOAT,
                    f"{value.name}_zero_point": ir.DataType.UINT8,
                },
            )
            node = quantized.producer()
            assert node is not None
            for scalar in node.outputs[1:]:
                scalar.shape = ir.Shape(())
            found = self._quantized[value] = tuple(node.outputs)
        return found
