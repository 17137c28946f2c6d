"""What operators make of padding: one rule per operator.

A rule returns what each result holds at padding, of what the inputs hold there. What it cannot
prove it refuses with `MixedError`: then the inputs must hold what they did.
"""

from __future__ import annotations

from types import MappingProxyType

from irtools.operators import Kind, RuleTable
from irtools.passes.positions.padding.attention import attention, multi_head_attention, rotary
from irtools.passes.positions.padding.base import PaddingRule
from irtools.passes.positions.padding.elementwise import elementwise, identity, quantized, unary
from irtools.passes.positions.padding.layout import (
    along_another_axis,
    expand,
    reshape,
    silent,
    slice_rule,
    squeeze,
    transpose,
    unsqueeze,
)
from irtools.passes.positions.padding.lookups import gather, gather_elements, gather_nd
from irtools.passes.positions.padding.sums import (
    gemm,
    log_softmax,
    matmul,
    normalize,
    reduce,
    rows_of_product,
    skip_normalize,
    softmax,
)

__all__ = ["PADDING"]

PADDING: RuleTable[PaddingRule] = RuleTable(
    "padding",
    "what it makes of padding is known",
    by_kind=MappingProxyType(
        {Kind.ELEMENTWISE: elementwise, Kind.REDUCTION: reduce, Kind.UNARY: unary}
    ),
    by_name=MappingProxyType(
        {
            "Attention": attention,
            "Concat": along_another_axis,
            "DequantizeLinear": quantized,
            "Expand": expand,
            "Flatten": reshape,
            "Gather": gather,
            "GatherElements": gather_elements,
            "GatherND": gather_nd,
            "Gemm": gemm,
            "Identity": identity,
            "LayerNormalization": normalize,
            "LogSoftmax": log_softmax,
            "MatMul": matmul,
            "QuantizeLinear": quantized,
            "RMSNormalization": normalize,
            "Reshape": reshape,
            "RotaryEmbedding": rotary,
            "Shape": silent,
            "SimplifiedLayerNormalization": normalize,
            "Size": silent,
            "Slice": slice_rule,
            "Softmax": softmax,
            "Split": along_another_axis,
            "Squeeze": squeeze,
            "Transpose": transpose,
            "Unsqueeze": unsqueeze,
            "com.microsoft::MatMulIntegerToFloat": rows_of_product,
            "com.microsoft::MatMulNBits": rows_of_product,
            "com.microsoft::MultiHeadAttention": multi_head_attention,
            "com.microsoft::SkipLayerNormalization": skip_normalize,
            "com.microsoft::SkipSimplifiedLayerNormalization": skip_normalize,
        }
    ),
)
"""By kind: a normalization or a change of layout is never guessed, only its own rule holds."""
