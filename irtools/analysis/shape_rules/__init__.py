"""Shapes of outputs from shapes of inputs, operator by operator.

A rule takes a node and what is known, and returns the shapes of the outputs, None where the
rank is not known. Operators without a rule keep their declared shapes.
"""

from __future__ import annotations

from types import MappingProxyType

from irtools.analysis.shape_rules import (
    classical,
    layout,
    parts,
    products,
    recurrent,
    reductions,
    resizing,
    selection,
    sequences,
    signal,
    sources,
    spatial,
)
from irtools.analysis.shape_rules import elementwise as each
from irtools.analysis.shape_rules.common import Rule, broadcast
from irtools.operators import Kind, RuleTable

__all__ = ["SHAPE", "Rule", "broadcast"]

_SAME_IN_CONTRIB = (
    *("DequantizeLinear", "Inverse", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"),
    *("QuantizeLinear", "RotaryEmbedding", "Trilu"),
)

SHAPE: RuleTable[Rule] = RuleTable(
    "shape",
    "the shapes of the results follow from the inputs",
    by_kind=MappingProxyType(
        {
            Kind.CONVOLUTION: spatial.conv,
            Kind.ELEMENTWISE: each.elementwise,
            Kind.NORMALIZATION: each.same,
            Kind.POOL: spatial.pool,
            Kind.PRODUCT: products.matmul,
            Kind.RECURRENT: recurrent.recurrent,
            Kind.REDUCTION: reductions.reduce,
            Kind.SEQUENCE: sequences.opaque,
            Kind.UNARY: each.same,
        }
    ),
    by_name=MappingProxyType(
        dict.fromkeys(
            (
                *("CumProd", "CumSum", "DequantizeLinear", "EyeLike", "Identity", "QuantizeLinear"),
                *("RandomNormalLike", "RandomUniformLike", "RegexFullMatch", "ReverseSequence"),
                *("RotaryEmbedding", "Scatter", "ScatterElements", "ScatterND", "TensorScatter"),
                "Trilu",
                *(f"com.microsoft::{name}" for name in _SAME_IN_CONTRIB),
            ),
            each.same,
        )
        | {
            "AffineGrid": resizing.affine_grid,
            "ArgMax": selection.arg_reduce,
            "ArgMin": selection.arg_reduce,
            "Attention": products.attention,
            "BatchNormalization": each.batch_norm,
            "BlackmanWindow": signal.window,
            "CenterCropPad": resizing.center_crop_pad,
            "Col2Im": resizing.col2im,
            "Compress": selection.compress,
            "Concat": parts.concat,
            "Constant": sources.constant,
            "ConstantOfShape": sources.constant_of_shape,
            "ConvTranspose": spatial.conv_transpose,
            "DFT": signal.dft,
            "DepthToSpace": resizing.depth_to_space,
            "Det": signal.det,
            "Dropout": each.same_all,
            "DynamicQuantizeLinear": each.quantized,
            "Einsum": signal.einsum,
            "Expand": layout.expand,
            "Flatten": layout.flatten,
            "Gather": parts.gather,
            "GatherElements": parts.gather_elements,
            "GatherND": parts.gather_nd,
            "Gemm": products.gemm,
            "GlobalAveragePool": spatial.global_pool,
            "GlobalLpPool": spatial.global_pool,
            "GlobalMaxPool": spatial.global_pool,
            "GridSample": resizing.grid_sample,
            "HammingWindow": signal.window,
            "HannWindow": signal.window,
            "If": recurrent.branches,
            "LayerNormalization": each.layer_norm,
            "Loop": recurrent.loop,
            "MaxRoiPool": spatial.roi_pool,
            "MaxUnpool": spatial.max_unpool,
            "MelWeightMatrix": signal.mel_weights,
            "Multinomial": sources.samples,
            "NegativeLogLikelihoodLoss": reductions.negative_log_likelihood,
            "NonMaxSuppression": selection.non_max_suppression,
            "NonZero": selection.non_zero,
            "OneHot": selection.one_hot,
            "OptionalHasElement": sequences.scalar,
            "Pad": resizing.pad,
            "RandomNormal": sources.by_attribute,
            "RandomUniform": sources.by_attribute,
            "Range": sources.range_rule,
            "Reshape": layout.reshape,
            "Resize": resizing.resize,
            "RoiAlign": spatial.roi_pool,
            "STFT": signal.stft,
            "Scan": recurrent.scan,
            "SequenceLength": sequences.scalar,
            "Shape": sources.shape_vector,
            "Size": sequences.scalar,
            "Slice": parts.slice_rule,
            "SoftmaxCrossEntropyLoss": reductions.cross_entropy,
            "SpaceToDepth": resizing.space_to_depth,
            "Split": parts.split,
            "Squeeze": layout.squeeze,
            "StringConcat": each.elementwise,
            "TfIdfVectorizer": signal.ngrams,
            "Tile": layout.tile,
            "TopK": selection.top_k,
            "Transpose": layout.transpose,
            "Unique": selection.unique,
            "Unsqueeze": layout.unsqueeze,
            "Upsample": resizing.upsample,
            "ai.onnx.ml::ArrayFeatureExtractor": classical.extracted,
            "ai.onnx.ml::CategoryMapper": each.same,
            "ai.onnx.ml::FeatureVectorizer": classical.vectorized,
            "ai.onnx.ml::LabelEncoder": each.same,
            "ai.onnx.ml::LinearClassifier": classical.classifier,
            "ai.onnx.ml::LinearRegressor": classical.regressor("targets"),
            "ai.onnx.ml::OneHotEncoder": classical.one_hot,
            "ai.onnx.ml::SVMClassifier": classical.classifier,
            "ai.onnx.ml::SVMRegressor": classical.regressor(None),
            "ai.onnx.ml::TreeEnsemble": classical.regressor("n_targets"),
            "ai.onnx.ml::TreeEnsembleClassifier": classical.classifier,
            "ai.onnx.ml::TreeEnsembleRegressor": classical.regressor("n_targets"),
            "com.microsoft::Attention": products.packed_attention,
            "com.microsoft::EmbedLayerNormalization": parts.embedding,
            "com.microsoft::FusedGemm": products.gemm,
            "com.microsoft::GroupQueryAttention": products.head_attention,
            "com.microsoft::MatMulNBits": products.matmul_n_bits,
            "com.microsoft::MultiHeadAttention": products.head_attention,
            "com.microsoft::QAttention": products.packed_attention,
            "com.microsoft::QGemm": products.gemm,
            "com.microsoft::QLinearAdd": each.binary(0, 3),
            "com.microsoft::QLinearMul": each.binary(0, 3),
            "com.microsoft::SkipLayerNormalization": each.layer_norm,
            "com.microsoft::SkipSimplifiedLayerNormalization": each.layer_norm,
        }
    ),
)
