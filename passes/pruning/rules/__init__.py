"""How channels pass each operator: one rule per operator, and none that guesses.

A rule is called with the port of a node where a slot was met (an input or output position) and
couples the other ports to it. What it cannot prove it blocks, with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnx_ir as ir

from irtools.passes.pruning.rules.attention import attention, rotary
from irtools.passes.pruning.rules.convolution import batch_norm, conv, pad, pool, resize
from irtools.passes.pruning.rules.elementwise import elementwise, unary
from irtools.passes.pruning.rules.layout import (
    expand,
    gather,
    gather_elements,
    slice_rule,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from irtools.passes.pruning.rules.parts import concat, split
from irtools.passes.pruning.rules.port import WEIGHTED_OPS, Port, Refine, Rule
from irtools.passes.pruning.rules.products import gemm, matmul
from irtools.passes.pruning.rules.reductions import normalization, reduce, softmax
from irtools.passes.pruning.rules.reshape import reshape
from irtools.passes.pruning.rules.sizes import fill, follow_size

__all__ = ["WEIGHTED_OPS", "Port", "Refine", "Rule", "rule_of"]

_UNARY_OPS = (
    "Abs Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "IsNaN IsInf LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus "
    "Softsign Sqrt Swish Tanh ThresholdedRelu FastGelu QuickGelu"
)
_ELEMENTWISE_OPS = (
    "Add Sub Mul Div Pow Min Max Mean Sum Mod And Or Xor Equal Less Greater LessOrEqual "
    "GreaterOrEqual Where PRelu BiasGelu"
)
_POOL_OPS = "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool"
_REDUCE_OPS = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceL1 ReduceProd"

_FOREIGN_OPS = ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")
"""Microsoft's operators that mean what their names say."""

_RULES: Mapping[str, Rule] = MappingProxyType(
    dict.fromkeys(_UNARY_OPS.split(), unary)
    | dict.fromkeys(_ELEMENTWISE_OPS.split(), elementwise)
    | dict.fromkeys(_POOL_OPS.split(), pool)
    | dict.fromkeys(_REDUCE_OPS.split(), reduce)
    | {
        "Attention": attention,
        "BatchNormalization": batch_norm,
        "Concat": concat,
        "ConstantOfShape": fill,
        "Conv": conv,
        "Expand": expand,
        "Flatten": reshape,
        "Gather": gather,
        "GatherElements": gather_elements,
        "Gemm": gemm,
        "InstanceNormalization": batch_norm,
        "LayerNormalization": normalization,
        "LogSoftmax": softmax,
        "MatMul": matmul,
        "Pad": pad,
        "RMSNormalization": normalization,
        "Reshape": reshape,
        "Resize": resize,
        "RotaryEmbedding": rotary,
        "Shape": follow_size,
        "Slice": slice_rule,
        "Softmax": softmax,
        "Split": split,
        "Squeeze": squeeze,
        "Tile": tile,
        "Transpose": transpose,
        "Unsqueeze": unsqueeze,
    }
)


def rule_of(node: ir.Node) -> Rule | None:
    """Return the rule of an operator, or None where there is none."""
    if node.domain == "" or (node.domain == "com.microsoft" and node.op_type in _FOREIGN_OPS):
        return _RULES.get(node.op_type)
    return None
