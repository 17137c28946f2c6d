"""How a scale passes each operator: one rule per operator, and none that guesses.

A rule is called with the port of a node where a layout was met, and couples the other ports to it
or takes the scale up in a constant. It is exact for every positive scale.
"""

from __future__ import annotations

from types import MappingProxyType

from irtools.analysis.scales.rules.elementwise import (
    add,
    clip,
    divide,
    homogeneous,
    multiply,
    select,
)
from irtools.analysis.scales.rules.layout import (
    expand,
    pad,
    reduce,
    resize,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from irtools.analysis.scales.rules.norms import (
    attention,
    gain_of_channels,
    multi_head_attention,
    normalize,
    skip_normalize,
)
from irtools.analysis.scales.rules.parts import concat, gather, slice_rule, split
from irtools.analysis.scales.rules.pools import pool
from irtools.analysis.scales.rules.products import batch_norm, conv, conv_transpose, gemm, matmul
from irtools.analysis.scales.rules.reshape import reshape
from irtools.analysis.scales.trace import Rule
from irtools.operators import Kind, RuleTable

__all__ = ["SCALES"]

_HOMOGENEOUS = ("Abs", "Cast", "Dropout", "Identity", "LeakyRelu", "Neg", "PRelu", "Relu")
_REDUCTIONS = ("L1", "L2", "Max", "Mean", "Min", "Sum")

SCALES: RuleTable[Rule] = RuleTable(
    "scales",
    "a scale per channel passes it",
    by_kind=MappingProxyType({Kind.POOL: pool}),
    by_name=MappingProxyType(
        {
            **dict.fromkeys(_HOMOGENEOUS, homogeneous),
            **{f"Reduce{name}": reduce for name in _REDUCTIONS},
            "Add": add,
            "Attention": attention,
            "BatchNormalization": batch_norm,
            "Clip": clip,
            "Concat": concat,
            "Conv": conv,
            "ConvTranspose": conv_transpose,
            "Div": divide,
            "Expand": expand,
            "Flatten": reshape,
            "Gather": gather,
            "Gemm": gemm,
            "GroupNormalization": gain_of_channels,
            "InstanceNormalization": gain_of_channels,
            "LayerNormalization": normalize,
            "MatMul": matmul,
            "Mul": multiply,
            "Pad": pad,
            "RMSNormalization": normalize,
            "Reshape": reshape,
            "Resize": resize,
            "SimplifiedLayerNormalization": normalize,
            "Slice": slice_rule,
            "Split": split,
            "Squeeze": squeeze,
            "Sub": add,
            "Sum": add,
            "Tile": tile,
            "Transpose": transpose,
            "Unsqueeze": unsqueeze,
            "Where": select,
            "com.microsoft::MultiHeadAttention": multi_head_attention,
            "com.microsoft::SkipLayerNormalization": skip_normalize,
            "com.microsoft::SkipSimplifiedLayerNormalization": skip_normalize,
        }
    ),
)
"""By kind: pools only. What else an operator does to a scale is never guessed."""
