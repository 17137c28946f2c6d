"""BatchNormalization after a linear operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes, constant_of
from irtools.model import FreshNames
from irtools.passes.cleanup._edit import can_substitute, substitute
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["FuseConvBn"]

_LINEAR_OPS = frozenset({"Conv", "ConvTranspose", "Gemm"})
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
    statistics: ClassVar = {
        "num-fused-batchnorm": "BatchNormalizations folded into weights",
        "num-unfused-batchnorm": "BatchNormalizations behind a linear operator that stayed",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        fused = unfused = 0
        names: FreshNames | None = None
        for node in model.graph:
            linear = _linear_before(node)
            if linear is None:
                continue
            folded = _fold(linear, node)
            if folded is None:
                unfused += 1
                continue
            names = names or FreshNames(model)
            _apply(linear, node, folded, names)
            fused += 1
        counts = {"num-fused-batchnorm": fused, "num-unfused-batchnorm": unfused}
        return PassResult(fused > 0, counts, preserved=frozenset({SymbolicShapes}))


def _linear_before(node: ir.Node) -> ir.Node | None:
    if node.op_type != "BatchNormalization" or node.domain != "" or node.inputs[0] is None:
        return None
    linear = node.inputs[0].producer()
    if linear is None or linear.domain != "" or linear.op_type not in _LINEAR_OPS:
        return None
    return linear


def _fold(linear: ir.Node, norm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """New weight and bias, or None where the pair cannot be folded."""
    if _would_copy(linear, norm):
        return None
    trains = norm.attributes.get_int("training_mode", 0) or len(norm.outputs) > 1
    inner = linear.outputs[0]
    if trains or len(inner.uses()) > 1 or not can_substitute(norm.outputs[0], inner):
        return None
    values = [*linear.inputs[1:], *norm.inputs[1:]]
    tensors = [constant_of(value) for value in values if value is not None]
    if any(t is None or t.dtype not in _FLOATS for t in tensors) or None in values:
        return None
    weight, *rest = [t.numpy().astype(np.float64) for t in tensors if t is not None]
    scale, shift, mean, variance = rest[-4:]
    bias = rest[0] if len(rest) > 4 else np.zeros(1)
    if linear.op_type == "Gemm":
        bias = bias * linear.attributes.get_float("beta", 1.0)
    # A Gemm's bias may be [M, 1] or [M, N]; with `spatial=0` (opset 8) each position has a scale.
    if scale.ndim != 1 or any(size != 1 for size in bias.shape[:-1]):
        return None
    if bias.shape[-1:] not in ((), (1,), scale.shape):
        return None
    dtype = tensors[0].dtype.numpy() if tensors[0] is not None else np.float32
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
        new_weight = _scaled(linear, weight, factor).astype(dtype)
        new_bias = ((bias.reshape(-1) - mean) * factor + shift).astype(dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return None
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


def _apply(
    linear: ir.Node, norm: ir.Node, folded: tuple[np.ndarray, np.ndarray], names: FreshNames
) -> None:
    graph = norm.graph
    assert isinstance(graph, ir.Graph) and linear.inputs[1] is not None
    old = linear.inputs[1].name
    linear.resize_inputs(3)
    for index, (array, suffix) in enumerate(zip(folded, ("", "_bias"), strict=True), start=1):
        tensor = ir.tensor(array)
        value = ir.Value(
            name=names.make(f"{old}_bn{suffix}"),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        graph.register_initializer(value)
        linear.replace_input_with(index, value)
    if linear.op_type == "Gemm":
        linear.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    substitute(norm.outputs[0], linear.outputs[0])
    graph.remove(norm, safe=True)
