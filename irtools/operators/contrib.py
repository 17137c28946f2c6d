"""Operators of ONNX Runtime (com.microsoft) that passes write or models contain.

They have no schema in the onnx package, so their kind and `typed_by` say what the standard's
schemas say elsewhere. Contents: github.com/microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from irtools.operators.op import Kind, Op, Port

__all__ = ["CONTRIB"]

_MS = "com.microsoft"
_MATRIX = Port(1, -2, -1)

CONTRIB: tuple[Op, ...] = (
    Op("Gelu", _MS, kind=Kind.UNARY),
    Op("QuickGelu", _MS, kind=Kind.UNARY),
    # Both add a bias [D] first; FastGelu may lack it.
    Op("BiasGelu", _MS, kind=Kind.ELEMENTWISE),
    Op("FastGelu", _MS, kind=Kind.ELEMENTWISE),
    Op("FusedConv", _MS, kind=Kind.CONVOLUTION, weight=Port(1, 1, 0), bias=Port(2)),
    Op("FusedGemm", _MS, kind=Kind.PRODUCT, weight=Port(1, 0, 1), bias=Port(2)),
    Op("FusedMatMul", _MS, kind=Kind.PRODUCT, weight=_MATRIX),
    Op("TransposeMatMul", _MS, kind=Kind.PRODUCT, weight=_MATRIX),
    Op(
        "DynamicQuantizeMatMul", _MS, kind=Kind.PRODUCT, weight=_MATRIX, bias=Port(4), integers=True
    ),
    Op(
        "MatMulIntegerToFloat",
        _MS,
        kind=Kind.PRODUCT,
        weight=_MATRIX,
        bias=Port(6),
        typed_by=2,
        integers=True,
    ),
    # Weights [N, blocks of K, bytes].
    Op("MatMulNBits", _MS, kind=Kind.PRODUCT, weight=Port(1, 1, 0), bias=Port(5), integers=True),
    # float32 where it has no zero point of y.
    Op(
        "QGemm",
        _MS,
        kind=Kind.PRODUCT,
        weight=Port(3, 0, 1),
        bias=Port(6),
        typed_by=8,
        integers=True,
    ),
    Op(
        "QLinearConv",
        _MS,
        kind=Kind.CONVOLUTION,
        weight=Port(3, 1, 0),
        bias=Port(8),
        typed_by=7,
        integers=True,
    ),
    Op("Attention", _MS, kind=Kind.ATTENTION, weight=Port(1, 0, 1), bias=Port(2)),
    Op(
        "QAttention",
        _MS,
        kind=Kind.ATTENTION,
        weight=Port(1, 0, 1),
        bias=Port(2),
        typed_by=3,
        integers=True,
    ),
    Op("MultiHeadAttention", _MS, kind=Kind.ATTENTION),
    Op("GroupQueryAttention", _MS, kind=Kind.ATTENTION),
    Op(
        "DynamicQuantizeLSTM",
        _MS,
        kind=Kind.RECURRENT,
        weight=Port(1, 1, 2),
        bias=Port(3),
        integers=True,
    ),
    Op("SkipLayerNormalization", _MS, kind=Kind.NORMALIZATION),
    Op("SkipSimplifiedLayerNormalization", _MS, kind=Kind.NORMALIZATION),
    Op("EmbedLayerNormalization", _MS, typed_by=2),
    # ONNX Runtime's RMSNormalization of before opset 23 is in the standard's domain.
    Op("SimplifiedLayerNormalization", kind=Kind.NORMALIZATION, half_safe=False, typed_by=1),
    Op("RotaryEmbedding", _MS),
    Op("GatherBlockQuantized", _MS, typed_by=2),
    Op("QuantizeLinear", _MS, typed_by=2),
    Op("DequantizeLinear", _MS, typed_by=1),
    Op("QLinearAdd", _MS),
    Op("QLinearMul", _MS),
    Op("QLinearWhere", _MS, typed_by=1),
    Op("QLinearConcat", _MS, typed_by=1),
    Op("QLinearLeakyRelu", _MS),
    Op("QLinearSigmoid", _MS),
    Op("QLinearSoftmax", _MS),
    Op("QLinearAveragePool", _MS),
    Op("QLinearGlobalAveragePool", _MS),
    Op("ExpandDims", _MS, kind=Kind.LAYOUT),
    Op("Trilu", _MS, moves=True),
    Op("Inverse", _MS),
)
