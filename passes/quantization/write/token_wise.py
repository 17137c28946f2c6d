"""Token-wise int8: every token is measured and quantized by itself, at run time.

    X -> Abs -> ReduceMax -> Max(tiny) = peak [.., 1]
    X / peak -> Q -> DQ --+
                          MatMul -> Mul(peak) -> (+ bias)     one quantization per X
              int8 W -> DQ --+

What is divided by its peak lies in [-1, 1], so that one fixed scale serves all tokens and the
kernels are those of static int8. Standard operators from opset 18 on. A token of zeros stays zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.arithmetic import quantize_weight
from irtools.passes.quantization.ranges.rounding import rounded_codes
from irtools.passes.quantization.ranges.spec import PerAxis, WeightRange, weight_spec
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passes.quantization.write.desk import Desk

__all__ = ["TokenWiseWriter"]

_FLOAT = ir.DataType.FLOAT


class _Tokens(NamedTuple):
    """An activation, token by token.

    Attributes:
        unit: Divided by `peak` and rounded, [.., K].
        peak: Largest magnitude of each token, [.., 1].
    """

    unit: ir.Value
    peak: ir.Value


class TokenWiseWriter:
    """Rewrites MatMul and Gemm nodes of one model."""

    def __init__(self, desk: Desk) -> None:
        self._editor = desk.editor
        self._moments_of = desk.moments_of
        self._signed = desk.capabilities.int8_activation == "s8-symmetric"
        self._tokens: dict[ir.Value, _Tokens] = {}
        self._shared: dict[str, ir.Value] = {}

    def write(self, weight: Weight, *, weight_range: WeightRange, rounding: str = "") -> None:
        """Quantize a weight once, for all its readers.

        Args:
            weight: The weight.
            weight_range: How much of 8 bits it uses.
            rounding: How codes are chosen for what it is multiplied with; empty: the nearest.
        """
        turned = weight.uses[0].axis == 0
        array = weight.array().T if turned else weight.array()
        integers, q = quantize_weight(array, weight_spec(PerAxis(1), weight_range))
        if rounding:
            assert self._moments_of is not None
            moments = self._moments_of(weight)
            integers, _ = rounded_codes(rounding, array, 1, q, moments, corrected=False)
        dequantized = self._editor.before(
            self._editor.first(use.node for use in weight.uses),
            "DequantizeLinear",
            [
                self._editor.constant(f"{weight.name}_quantized", integers),
                self._editor.constant(f"{weight.name}_scale", q.scale),
            ],
            {"axis": 1},
            outputs={f"{weight.name}_dequantized": _FLOAT},
            shape=ir.Shape(array.shape),
        )
        for use in weight.uses:
            self._rewrite(use, dequantized)
        self._editor.drop_unread(weight.value)

    def _rewrite(self, use: Use, weight: ir.Value) -> None:
        node, output = use.node, use.output
        name, tokens = output.name or "product", self._activation(use.activation)
        product = self._editor.before(
            node,
            "MatMul",
            [tokens.unit, weight],
            outputs={f"{name}_by_peak": _FLOAT},
            shape=output.shape,
        )
        if use.kind != "gemm" or use.bias is None:
            self._editor.replace(node, "Mul", [product, tokens.peak], name=f"{name}/Mul")
            return
        scaled = self._editor.before(
            node,
            "Mul",
            [product, tokens.peak],
            outputs={f"{name}_without_bias": _FLOAT},
            shape=output.shape,
        )
        self._editor.replace(node, "Add", [scaled, node.inputs[2]], name=f"{name}/Add")

    def _activation(self, value: ir.Value) -> _Tokens:
        """Return an activation divided by the peaks of its tokens and rounded, and the peaks."""
        found = self._tokens.get(value)
        if found is None:
            peak = self._peak(value)
            unit = self._chain(peak, "Div", [value, peak], value, "unit", value.shape)
            step, zero = self._step(), self._zero()
            dtype = ir.DataType.INT8 if self._signed else ir.DataType.UINT8
            codes = self._editor.after(
                unit,
                "QuantizeLinear",
                [unit, step, zero],
                outputs={f"{value.name}_quantized": dtype},
                shape=value.shape,
            )
            rounded = self._chain(
                codes, "DequantizeLinear", [codes, step, zero], value, "rounded", value.shape
            )
            found = self._tokens[value] = _Tokens(rounded, peak)
        return found

    def _peak(self, value: ir.Value) -> ir.Value:
        """Return the largest magnitude along the last axis, never zero."""
        shape = None if value.shape is None else ir.Shape([*value.shape[:-1], 1])
        size = self._chain(value, "Abs", [value], value, "size", value.shape)
        axis = self._constant("last_axis", np.array([-1], np.int64))
        largest = self._chain(
            size, "ReduceMax", [size, axis], value, "largest", shape, {"keepdims": 1}
        )
        tiny = self._constant("tiny", np.array(np.finfo(np.float32).tiny, np.float32))
        return self._chain(largest, "Max", [largest, tiny], value, "peak", shape)

    def _chain(
        self,
        after: ir.Value,
        op_type: str,
        inputs: list[ir.Value | None],
        value: ir.Value,
        part: str,
        shape: ir.Shape | None,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        outputs = {f"{value.name}_{part}": _FLOAT}
        return self._editor.after(
            after, op_type, inputs, attributes or {}, outputs=outputs, shape=shape
        )

    def _step(self) -> ir.Value:
        return self._constant("token_step", np.array(1 / 127, np.float32))

    def _zero(self) -> ir.Value:
        zero = np.array(0, np.int8) if self._signed else np.array(128, np.uint8)
        return self._constant("token_zero_point", zero)

    def _constant(self, name: str, content: np.ndarray) -> ir.Value:
        if name not in self._shared:
            self._shared[name] = self._editor.constant(name, content)
        return self._shared[name]
