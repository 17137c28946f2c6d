"""How channels pass each operator: one rule per operator, and none that guesses.

A rule is called with the port of a node where a slot was met (an input or output position) and
couples the other ports to it. What it cannot prove it blocks, with a reason.
"""

from __future__ import annotations

from types import MappingProxyType

from irtools.analysis.channels.rules.attention import attention, rotary
from irtools.analysis.channels.rules.convolution import (
    batch_norm,
    conv,
    conv_transpose,
    pad,
    pool,
    resize,
)
from irtools.analysis.channels.rules.elementwise import elementwise, unary
from irtools.analysis.channels.rules.layout import (
    expand,
    gather,
    gather_elements,
    slice_rule,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from irtools.analysis.channels.rules.parts import concat, split
from irtools.analysis.channels.rules.port import WEIGHTED_OPS, Port, Refine, Rule
from irtools.analysis.channels.rules.products import gemm, matmul
from irtools.analysis.channels.rules.reductions import normalization, reduce, softmax
from irtools.analysis.channels.rules.reshape import reshape
from irtools.analysis.channels.rules.sizes import fill, follow_size
from irtools.operators import Kind, RuleTable

__all__ = ["CHANNELS", "WEIGHTED_OPS", "Port", "Refine", "Rule"]

CHANNELS: RuleTable[Rule] = RuleTable(
    "channels",
    "channels are followed through it",
    by_kind=MappingProxyType(
        {
            Kind.ELEMENTWISE: elementwise,
            Kind.POOL: pool,
            Kind.REDUCTION: reduce,
            Kind.UNARY: unary,
        }
    ),
    by_name=MappingProxyType(
        {
            "Attention": attention,
            "BatchNormalization": batch_norm,
            "Concat": concat,
            "ConstantOfShape": fill,
            "Conv": conv,
            "ConvTranspose": conv_transpose,
            "Expand": expand,
            "Flatten": reshape,
            "Gather": gather,
            "GatherElements": gather_elements,
            "Gemm": gemm,
            "Identity": unary,
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
    ),
)
"""By kind: a normalization or a change of layout is never guessed, only its own rule holds."""
