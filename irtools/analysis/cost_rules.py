"""Operations of a node at given sizes, operator by operator; a multiply-add counts as two.

Only what multiplies along an axis is counted: products, convolutions, attention, recurrent layers
and spectra. Work in proportion to the elements counts as nothing next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import evaluate
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.operators import Kind, RuleTable, weight_port

__all__ = ["COST", "CostFacts", "Rule", "numbers_in"]


@dataclass(frozen=True)
class CostFacts:
    """Shapes in numbers.

    Attributes:
        shapes: What is known of shapes.
        sizes: Size of every name in them.
    """

    shapes: ShapeFacts
    sizes: Mapping[str, int]

    def shape(self, value: ir.Value | None) -> list[int] | None:
        found = self.shapes.shape(value)
        return None if found is None else numbers_in(found, self.sizes)


Rule = Callable[[ir.Node, CostFacts], int | None]
"""From a node to its operations, None where sizes are missing."""


def _free(node: ir.Node, facts: CostFacts) -> int | None:
    """Work in proportion to the elements, or none."""
    return 0


def _matmul(node: ir.Node, facts: CostFacts) -> int | None:
    """[..., M, K] x [..., K, N]."""
    a, b = facts.shape(_input(node, 0)), facts.shape(_weight(node))
    if not a or not b:
        return None
    rows = a[-1:] if node.attributes.get_int("transA", 0) and len(a) > 1 else a[-2:-1]
    depth = math.prod(a[-2:]) // math.prod(rows) if math.prod(rows) else 0
    columns = math.prod(b[-2:]) // depth if depth and len(b) > 1 else 1
    batch = _broadcast(a[:-2], b[:-2])
    return 2 * math.prod([*batch, *rows]) * depth * columns


def _matmul_n_bits(node: ir.Node, facts: CostFacts) -> int | None:
    a, columns = facts.shape(_input(node, 0)), node.attributes.get_int("N", 0)
    return None if not a else 2 * math.prod(a) * columns


def _conv(node: ir.Node, facts: CostFacts) -> int | None:
    w, out = facts.shape(_weight(node)), facts.shape(node.outputs[0])
    return None if w is None or out is None else 2 * math.prod(w[1:]) * math.prod(out)


def _conv_transpose(node: ir.Node, facts: CostFacts) -> int | None:
    x, w = facts.shape(_input(node, 0)), facts.shape(_weight(node))
    return None if x is None or w is None else 2 * math.prod(x) * math.prod(w[1:])


def _attention(node: ir.Node, facts: CostFacts) -> int | None:
    """Scores and their product with the values: Q [B, H, S, D] or [B, S, H*D]."""
    q, k, v = [facts.shape(_input(node, place)) for place in range(3)]
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) > 2:
        return None
    keys = math.prod(k[2:-1]) if len(k) == 4 else k[1]
    # Grouped heads are shared, not skipped: every query meets keys and values of its own head.
    heads = 1 if len(q) == 4 else max(q[-1] // k[-1], 1) if k[-1] else 1
    return 2 * keys * (math.prod(q) + math.prod(q[:-1]) * v[-1] * heads)


def _packed_attention(node: ir.Node, facts: CostFacts) -> int | None:
    """Projection of X [B, S, I] by weights [I, 3 * H], then scores and values."""
    x, w = facts.shape(_input(node, 0)), facts.shape(_weight(node))
    if x is None or w is None or len(x) != 3:
        return None
    batch, length, _ = x
    return 2 * math.prod(x) * w[-1] + 4 * batch * length * length * (w[-1] // 3)


def _recurrent(node: ir.Node, facts: CostFacts) -> int | None:
    """X [S, B, I], W [directions, gates*H, I], R [directions, gates*H, H]."""
    x, w, r = [facts.shape(_input(node, place)) for place in range(3)]
    if x is None or w is None or r is None:
        return None
    return 2 * math.prod(x[:2]) * (math.prod(w) + math.prod(r))


def _einsum(node: ir.Node, facts: CostFacts) -> int | None:
    """One multiplication and one addition for each combination of all labels."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    sizes: dict[str, int] = {}
    terms = equation.partition("->")[0].split(",")
    for term, value in zip(terms, node.inputs, strict=False):
        shape = facts.shape(value)
        if shape is None or len(term) != len(shape):
            return None  # An ellipsis hides which axes are multiplied.
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return 2 * math.prod(sizes.values()) * (len(terms) - 1)


def _spectrum(node: ir.Node, facts: CostFacts) -> int | None:
    """5 N log2 N for each transform of N complex numbers (Cooley and Tukey, 1965)."""
    out = facts.shape(node.outputs[0])
    if out is None:
        return None
    length = out[-2] if node.op_type == "STFT" else max(out[:-1], default=1)
    return round(5 * math.prod(out[:-1]) * math.log2(length)) if length > 1 else 0


def _inverse(node: ir.Node, facts: CostFacts) -> int | None:
    """Elimination with the identity at its side: 2 N^3 for each matrix."""
    x = facts.shape(_input(node, 0))
    return None if not x else 2 * math.prod(x) * x[-1]


def _determinant(node: ir.Node, facts: CostFacts) -> int | None:
    """Elimination: 2/3 N^3 for each matrix."""
    x = facts.shape(_input(node, 0))
    return None if not x else 2 * math.prod(x) * x[-1] // 3


_FREE_IN_CONTRIB = (
    *("DequantizeLinear", "EmbedLayerNormalization", "GatherBlockQuantized", "QLinearAdd"),
    *("QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu"),
    *("QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear"),
    *("RotaryEmbedding", "Trilu"),
)

_FREE_IN_CLASSICAL = (
    *("ArrayFeatureExtractor", "CategoryMapper", "FeatureVectorizer", "LabelEncoder"),
    *("LinearClassifier", "LinearRegressor", "OneHotEncoder", "SVMClassifier", "SVMRegressor"),
    *("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"),
)
"""Comparisons, and products with the few numbers that an attribute lists."""

COST: RuleTable[Rule] = RuleTable(
    "cost",
    "its operations are counted",
    by_kind=MappingProxyType(
        {
            Kind.ATTENTION: _attention,
            Kind.CONTROL: _free,  # What runs in the bodies is counted there.
            Kind.CONVOLUTION: _conv,
            Kind.ELEMENTWISE: _free,
            Kind.LAYOUT: _free,
            Kind.NORMALIZATION: _free,
            Kind.POOL: _free,
            Kind.PRODUCT: _matmul,
            Kind.RECURRENT: _recurrent,
            Kind.REDUCTION: _free,
            Kind.SEQUENCE: _free,
            Kind.SOURCE: _free,
            Kind.TEXT: _free,
            Kind.UNARY: _free,
        }
    ),
    by_name=MappingProxyType(
        dict.fromkeys(
            (
                *("AffineGrid", "ArgMax", "ArgMin", "CenterCropPad", "Col2Im", "Concat"),
                *("CumProd", "CumSum", "DequantizeLinear", "DynamicQuantizeLinear", "GridSample"),
                *("MaxRoiPool", "MaxUnpool", "Multinomial", "NegativeLogLikelihoodLoss"),
                *("NonMaxSuppression", "NonZero", "OneHot", "Pad", "QuantizeLinear", "Resize"),
                *("RoiAlign", "RotaryEmbedding", "Scatter", "ScatterElements", "ScatterND"),
                *("Shape", "Size", "SoftmaxCrossEntropyLoss", "TensorScatter", "TopK", "Trilu"),
                *("Unique", "Upsample"),
                *(f"com.microsoft::{name}" for name in _FREE_IN_CONTRIB),
                *(f"ai.onnx.ml::{name}" for name in _FREE_IN_CLASSICAL),
            ),
            _free,
        )
        | {
            "ConvTranspose": _conv_transpose,
            "DFT": _spectrum,
            "Det": _determinant,
            "Einsum": _einsum,
            "STFT": _spectrum,
            "com.microsoft::Attention": _packed_attention,
            "com.microsoft::Inverse": _inverse,
            "com.microsoft::MatMulNBits": _matmul_n_bits,
            "com.microsoft::QAttention": _packed_attention,
        }
    ),
)


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _weight(node: ir.Node) -> ir.Value | None:
    """The input that the operator's declaration names as its weight."""
    port = weight_port(node)
    return None if port is None else _input(node, port.input)


def _broadcast(a: Sequence[int], b: Sequence[int]) -> list[int]:
    rank = max(len(a), len(b))
    pairs = zip([1] * (rank - len(a)) + [*a], [1] * (rank - len(b)) + [*b], strict=True)
    return [second if first == 1 else first for first, second in pairs]


def numbers_in(shape: Shape, sizes: Mapping[str, int]) -> list[int] | None:
    """Put sizes into a shape; None where it has a name that they lack."""
    found = [evaluate(dim, sizes) for dim in shape]
    known = [size for size in found if size is not None]
    return known if len(known) == len(found) else None
