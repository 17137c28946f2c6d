"""BatchNormalization after a linear operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import (
    Editor,
    Rule,
    Veto,
    can_forward,
    constant_of,
    producer_of,
    require,
    rewrite,
)
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["FuseConvBn"]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class FuseConvBn(Pass):
    """Fold BatchNormalization into the Conv, ConvTranspose or Gemm before it.

        W' = W * f        b' = (b - mean) * f + B        f = scale / sqrt(var + epsilon)

    with one factor per output channel, computed in double precision. Weights must be constants
    in float32 or float64 (half precision would lose more than this pass states); shared ones are
    copied. BatchNormalization that trains stays. Main graph only.
    """

    name: ClassVar[str] = "fuse-conv-bn"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    counters: ClassVar = {
        "num-fused-batchnorm": "BatchNormalizations folded into weights",
        "num-unfused-batchnorm": "BatchNormalizations behind a linear operator that stayed",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        done = rewrite(Editor(model, self.name), [_ConvBn()], anchors=model.graph)
        counts = {"num-fused-batchnorm": done.total, "num-unfused-batchnorm": len(done.refused)}
        return PassResult(done.total > 0, counts, preserved=frozenset({SymbolicShapes}))


@dataclass(frozen=True)
class _Folded:
    """A linear operator with the weight and bias that do the work of both."""

    linear: ir.Node
    weight: np.ndarray
    bias: np.ndarray


class _ConvBn(Rule[_Folded]):
    """BatchNormalization(W x + b)  ->  W' x + b'"""

    anchors = ("BatchNormalization",)

    def find(self, anchor: ir.Node) -> _Folded:
        linear = producer_of(anchor.inputs[0], "Conv", "ConvTranspose", "Gemm")
        if linear is None:
            raise Veto("no linear operator before it", named=False)
        weight, bias = _fold(linear, anchor)
        return _Folded(linear, weight, bias)

    def build(self, editor: Editor, anchor: ir.Node, found: _Folded) -> None:
        linear, old = found.linear, found.linear.inputs[1]
        assert old is not None
        linear.resize_inputs(3)
        arrays = {"_bn": found.weight, "_bn_bias": found.bias}
        for index, (suffix, array) in enumerate(arrays.items(), start=1):
            linear.replace_input_with(index, editor.constant(f"{old.name}{suffix}", array))
        if linear.op_type == "Gemm":
            linear.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        editor.forward(anchor.outputs[0], linear.outputs[0])
        editor.remove(anchor)


def _fold(linear: ir.Node, norm: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Return the new weight and bias.

    Raises:
        Veto: The pair cannot be folded.
    """
    require(not _would_copy(linear, norm), "its weight is shared and would be stored once more")
    trains = norm.attributes.get_int("training_mode", 0) or len(norm.outputs) > 1
    require(not trains, "it trains")
    inner = linear.outputs[0]
    free = len(inner.uses()) == 1 and can_forward(norm.outputs[0], inner)
    require(free, "what it normalizes is read elsewhere too")
    values = [*linear.inputs[1:], *norm.inputs[1:]]
    tensors = [tensor for value in values if (tensor := constant_of(value)) is not None]
    known = len(tensors) == len(values) and all(t.dtype in _FLOATS for t in tensors)
    require(known, "its weights are not constants in float32 or float64")
    weight, *rest = [tensor.numpy().astype(np.float64) for tensor in tensors]
    scale, shift, mean, variance = rest[-4:]
    bias = rest[0] if len(rest) > 4 else np.zeros(1)
    if linear.op_type == "Gemm":
        bias = bias * linear.attributes.get_float("beta", 1.0)
    # A Gemm's bias may be [M, 1] or [M, N]; with `spatial=0` (opset 8) each position has a scale.
    per_channel = scale.ndim == 1 and all(size == 1 for size in bias.shape[:-1])
    per_channel = per_channel and bias.shape[-1:] in ((), (1,), scale.shape)
    require(per_channel, "its weights are not one per channel")
    dtype = tensors[0].dtype.numpy()
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
        new_weight = _scaled(linear, weight, factor).astype(dtype)
        new_bias = ((bias.reshape(-1) - mean) * factor + shift).astype(dtype)
    finite = np.isfinite(new_weight).all() and np.isfinite(new_bias).all()
    require(finite, "the folded weights are not finite")
    return new_weight, new_bias


def _would_copy(linear: ir.Node, norm: ir.Node) -> bool:
    """Whether the file would grow: a weight that others read is written once more."""
    weight = linear.inputs[1]
    stored = constant_of(weight)
    if weight is None or stored is None or all(use.node is linear for use in weight.uses()):
        return False
    freed = 0
    for value in dict.fromkeys(norm.inputs[1:]):
        tensor = constant_of(value)
        if value is not None and tensor is not None and all(u.node is norm for u in value.uses()):
            freed += tensor.nbytes
    return stored.nbytes > freed


def _scaled(linear: ir.Node, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiply the output channels of a weight by one factor each."""
    ones = [1] * (weight.ndim - 1)
    scaled: np.ndarray
    if linear.op_type == "Gemm":
        by_row = linear.attributes.get_int("transB", 0)
        scaled = weight * (factor[:, None] if by_row else factor)
    elif linear.op_type == "Conv":
        scaled = weight * factor.reshape(-1, *ones)
    else:
        # ConvTranspose: [in, out/groups, *kernel]; inputs of group g feed the g-th outputs.
        groups = linear.attributes.get_int("group", 1)
        per_group = weight.reshape(groups, -1, *weight.shape[1:])
        factors = factor.reshape(groups, 1, -1, *ones[1:])
        scaled = (per_group * factors).reshape(weight.shape)
    return scaled
