"""Static int8: QuantizeLinear/DequantizeLinear pairs with ranges fixed in advance.

    X -> Q -> DQ --+
                   MatMul/Gemm -> (float) + bias        one pair per X, shared by all its readers
    int8 W -> DQ --+

Where few channels of X are much larger than the others, they are multiplied apart, in float32:

    X -> Gather o -> MatMul W[o, :] -> Add after the bias         rows o of int8 W are 0

No Q follows a GEMM: the runtimes then scale the int32 sums straight to float32, and softmax,
LayerNormalization, Gelu and attention stay in float32. A Conv is int8 only
with a Q after it, so integers run through convolutional networks from layer to layer, and one
that is an output of the model gives numbers in 256 steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.arithmetic import (
    QParams,
    bias_scale_floor,
    quantize_bias,
    quantize_weight,
)
from irtools.passes.quantization.ranges.outliers import Channels, without_channels
from irtools.passes.quantization.ranges.rounding import rounded_codes
from irtools.passes.quantization.ranges.spec import PerAxis, WeightRange, weight_spec
from irtools.passes.quantization.sites.results import result_of
from irtools.passes.quantization.sites.uses import Bias, Use, Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.embedding import write_lookup

__all__ = ["StaticUse", "StaticWriter"]


@dataclass(frozen=True, eq=False)
class StaticUse:
    """How one reader of a weight is quantized.

    Attributes:
        activation: Scale and zero point of the tensor that is multiplied; None for a lookup.
        integer_bias: The bias becomes int32 in steps of s_x * s_w.
        shift: Added to the bias, [N], or None.
        result: Parameters of the value that `result_of` finds, where a Conv outputs integers.
    """

    use: Use
    activation: QParams | None
    integer_bias: bool
    shift: np.ndarray | None = None
    result: QParams | None = None


class StaticWriter:
    """Rewrites weights of one model into QDQ form."""

    def __init__(self, desk: Desk) -> None:
        self._editor = desk.editor
        self._moments_of = desk.moments_of
        self._clips = desk.capabilities.int8_clips
        self._zero_points = desk.capabilities.int8_zero_points
        self._pairs: dict[tuple[object, ...], ir.Value] = {}
        self._origins: dict[ir.Value, ir.Value] = {}
        self._picked: dict[tuple[ir.Value, Channels], ir.Value] = {}

    def write(
        self,
        weight: Weight,
        uses: tuple[StaticUse, ...],
        *,
        weight_range: WeightRange,
        outliers: Channels = (),
        rounding: str = "",
    ) -> None:
        """Quantize a weight once, for all its readers.

        Args:
            weight: The weight.
            uses: All its readers, and how they are quantized.
            weight_range: How much of 8 bits it uses.
            outliers: Input channels that are multiplied in float32 next to it.
            rounding: How codes are chosen for what it is multiplied with; empty: the nearest.
        """
        axis = uses[0].use.axis
        array = weight.array()
        if outliers:
            self._multiply_apart(weight, uses, outliers)
            array = without_channels(array, axis, outliers)
        turned = all(u.use.transpose is not None for u in uses)
        if turned:
            array, axis = array.T, 1 - axis
        spec = weight_spec(PerAxis(axis), weight_range)
        integers, q = quantize_weight(array, spec, _scale_floor(uses))
        if rounding:
            assert self._moments_of is not None
            corrected = all(u.shift is not None for u in uses)
            moments = self._moments_of(weight)
            integers, shift = rounded_codes(rounding, array, axis, q, moments, corrected=corrected)
            uses = tuple(u if u.shift is None else replace(u, shift=shift) for u in uses)
        table = self._editor.constant(f"{weight.name}_quantized", integers)
        multiplying = [u for u in uses if u.use.kind != "gather"]
        dequantized = self._editor.before(
            self._editor.first(_first_reader(u.use) for u in multiplying),
            "DequantizeLinear",
            self._parameters(weight, table, q, multiplying, turned=turned),
            outputs={f"{weight.name}_dequantized": ir.DataType.FLOAT},
            shape=ir.Shape(array.shape),
            attributes={"axis": axis},
        )
        for u in multiplying:
            self._rewire(u, dequantized, q, turned=turned)
        if lookups := [u.use for u in uses if u.use.kind == "gather"]:
            # One row scale serves both: the rows of a tied table are the product's columns.
            rows = self._editor.constant(f"{weight.name}_row_scale", q.scale.reshape(-1, 1))
            for use in lookups:
                write_lookup(self._editor, use, table, rows)
        self._editor.drop_unread(weight.value)

    def _multiply_apart(
        self, weight: Weight, uses: tuple[StaticUse, ...], outliers: Channels
    ) -> None:
        """Add X[.., o] @ W[o, :] in float32 to what becomes the product of the rest."""
        array = weight.array() if uses[0].use.axis == 1 else weight.array().T
        rows = self._editor.constant(f"{weight.name}_outliers", array[list(outliers)])
        for use in (u.use for u in uses):
            columns = self._columns(use.activation, outliers)
            end = use.bias.node if use.bias is not None else use.node
            whole = end.outputs[0]
            product = self._editor.before(
                end,
                "MatMul",
                [columns, rows],
                outputs={f"{use.output.name}_outliers": ir.DataType.FLOAT},
                shape=use.output.shape,
            )
            self._add(whole, product)

    def _add(self, value: ir.Value, term: ir.Value) -> None:
        """Let all readers of a product, and the caller of the model, have it plus a term."""
        readers = tuple(value.uses())
        outputs = {f"{value.name}_whole": ir.DataType.FLOAT}
        whole = self._editor.after(value, "Add", [value, term], outputs=outputs)
        for reader, index in readers:
            reader.replace_input_with(index, whole)
        if value.is_graph_output():
            self._editor.replace_output(value, whole, f"{value.name}_float")

    def _columns(self, value: ir.Value, outliers: Channels) -> ir.Value:
        """Return X[.., o]; made once for each set of channels."""
        key = (value, outliers)
        found = self._picked.get(key)
        if found is None:
            places = self._editor.constant(f"{value.name}_outlier_channels", np.array(outliers))
            found = self._picked[key] = self._editor.after(
                value,
                "Gather",
                [value, places],
                outputs={f"{value.name}_outliers": ir.DataType.FLOAT},
                attributes={"axis": -1},
            )
            if value.shape is not None:
                found.shape = ir.Shape([*value.shape[:-1], len(outliers)])
        return found

    def _parameters(
        self, weight: Weight, table: ir.Value, q: QParams, uses: list[StaticUse], *, turned: bool
    ) -> list[ir.Value]:
        inputs = [table, self._editor.constant(f"{weight.name}_scale", q.scale)]
        plain = all(u.use.kind == "matmul" and (turned or not u.use.transpose) for u in uses)
        if self._zero_points and (not plain or any(u.integer_bias for u in uses)):
            inputs.append(self._editor.constant(f"{weight.name}_zero_point", q.zero_point))
        return inputs

    def _rewire(self, u: StaticUse, dequantized: ir.Value, q: QParams, *, turned: bool) -> None:
        node = u.use.node
        assert u.activation is not None
        pair = self._pair(u.use.activation, u.activation)
        node.replace_input_with(0, pair)
        if u.use.kind == "conv":
            self._route_readers_through(pair)
        if u.result is not None:
            self._quantize_conv_output(result_of(u.use, self._clips), u.result)
        if u.use.transpose is None or turned:
            node.replace_input_with(1, dequantized)
        else:
            u.use.transpose.replace_input_with(0, dequantized)
        bias = u.use.bias
        if bias is None:
            return
        array = bias.array if u.shift is None else (bias.array + u.shift).astype(np.float32)
        if u.integer_bias:
            self._integer_bias(bias, array, u.activation.scale * q.scale)
        elif u.shift is not None:
            self._replace_bias(bias, self._editor.constant(_bias_name(bias), array))

    def _pair(self, value: ir.Value, q: QParams) -> ir.Value:
        """Return the DequantizeLinear of a value; made once for each set of parameters."""
        value = self._origins.get(value, value)
        key = (value, float(q.scale), int(q.zero_point), q.spec)
        found = self._pairs.get(key)
        if found is None:
            scale = self._editor.constant(f"{value.name}_scale", q.scale)
            zero = self._editor.constant(f"{value.name}_zero_point", q.zero_point)
            quantized = self._editor.after(
                value,
                "QuantizeLinear",
                [value, scale, zero],
                outputs={f"{value.name}_quantized": q.spec.dtype},
            )
            found = self._editor.after(
                quantized,
                "DequantizeLinear",
                [quantized, scale, zero],
                outputs={f"{value.name}_dequantized": ir.DataType.FLOAT},
            )
            self._pairs[key] = found
            self._origins[found] = value
        return found

    def _quantize_conv_output(self, value: ir.Value, q: QParams) -> None:
        """Quantize what a Conv outputs, for the caller of the model too.

        Where another node takes the float value, the runtime computes the whole Conv in float32.
        """
        pair = self._pair(value, q)
        self._route_readers_through(pair)
        if value.is_graph_output():
            self._editor.replace_output(value, pair, f"{value.name}_float")

    def _route_readers_through(self, pair: ir.Value) -> None:
        """Let every reader of a value read it quantized.

        Around a Conv integers travel from layer to layer: what adds, pools or concatenates them
        runs in int8 as well, and a Relu in front of the pair disappears.
        """
        value = self._origins[pair]
        for node, index in tuple(value.uses()):
            if node.op_type not in ("QuantizeLinear", "Shape"):
                node.replace_input_with(index, pair)

    def _integer_bias(self, bias: Bias, array: np.ndarray, scale: np.ndarray) -> None:
        name = _bias_name(bias)
        dequantized = self._editor.before(
            bias.node,
            "DequantizeLinear",
            [
                self._editor.constant(f"{name}_quantized", quantize_bias(array, scale)),
                self._editor.constant(f"{name}_scale", scale),
            ],
            outputs={f"{name}_dequantized": ir.DataType.FLOAT},
            shape=ir.Shape(array.shape),
            attributes={"axis": 0},
        )
        self._replace_bias(bias, dequantized)

    def _replace_bias(self, bias: Bias, new: ir.Value) -> None:
        old = bias.node.inputs[bias.index]
        bias.node.replace_input_with(bias.index, new)
        assert old is not None
        self._editor.drop_unread(old)


def _scale_floor(uses: tuple[StaticUse, ...]) -> np.ndarray | None:
    floors = [
        bias_scale_floor(u.use.bias.array, float(u.activation.scale))
        for u in uses
        if u.integer_bias and u.use.bias is not None and u.activation is not None
    ]
    return np.maximum.reduce(floors) if floors else None


def _bias_name(bias: Bias) -> str:
    value = bias.node.inputs[bias.index]
    return (value.name if value is not None else None) or "bias"


def _first_reader(use: Use) -> ir.Node:
    return use.transpose or use.node
