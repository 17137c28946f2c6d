"""What ONNX Runtime runs fast, per device. Measured on 1.31."""

from __future__ import annotations

from itertools import product

from irtools.targets import Capabilities, Isa

__all__ = ["cpu_capabilities", "cuda_capabilities", "tensorrt_capabilities"]

# The runtime promises opset 26 and refuses files above IR 13, whatever is in them.
_MAX_OPSET = 26
_MAX_IR_VERSION = 13

_CPU_INT8 = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Sigmoid",
        "Softmax",
        "Split",
        "Where",
    }
)

# Without com.microsoft::SkipLayerNormalization, which is five times slower than its parts, and
# MultiHeadAttention, which ai.onnx::Attention beats by 20 to 30 %.
_CPU_FUSED = frozenset(
    {
        "ai.onnx::Attention",
        "ai.onnx::Gelu",
        "ai.onnx::LayerNormalization",
        "ai.onnx::RMSNormalization",
        "ai.onnx::RotaryEmbedding",
        "com.microsoft::BiasGelu",
        "com.microsoft::FastGelu",
        "com.microsoft::FusedMatMul",
        "com.microsoft::GroupQueryAttention",
        "com.microsoft::QuickGelu",
        "com.microsoft::RotaryEmbedding",
    }
)

_CUDA_FUSED = _CPU_FUSED - {"com.microsoft::QuickGelu"} | {
    "com.microsoft::Attention",
    "com.microsoft::MultiHeadAttention",
    "com.microsoft::SkipLayerNormalization",
    "com.microsoft::SkipSimplifiedLayerNormalization",
}

# Cast and Mul of constants are folded from the first level of optimizations on, in bodies of Loop,
# branches of If and functions too; a DequantizeLinear is not, it would expand at each run.
# Codes of 2 bits in blocks of 16 and 256 are expanded at each run.
_BLOCK_KERNELS = frozenset(product((4, 8), (16, 32, 64, 128, 256))) | frozenset(
    product((2,), (32, 64, 128))
)

_STORED = frozenset(
    {
        "bfloat16",
        "float16",
        "float8e4m3fn",
        "float8e5m2",
        "int16",
        "int8",
        "uint16",
        "uint8",
    }
)


def cpu_capabilities(isa: Isa) -> Capabilities:
    """Return the table of the CPU provider.

    Its int8 GEMM takes u8 activations and s8 weights. There are no fp16 or bf16 GEMMs: they
    run as casts around float32, so only float32 is a compute type.
    """
    return Capabilities(
        max_opset=_MAX_OPSET,
        max_ir_version=_MAX_IR_VERSION,
        int8_static_ops=_CPU_INT8,
        int8_activation="u8-affine",
        # MatMul and Add of countable rows become a Gemm, in float over both DequantizeLinears
        # unless the bias is int32 as well.
        int8_fuses_add=True,
        int8_zero_points=True,
        int8_dynamic=True,
        int8_token_blocks=True,
        int8_recurrent=frozenset({"LSTM"}),
        # Costs nothing here, where Casts are folded: files stay readable for other runtimes.
        hides_stored_codes=True,
        stored_types=_STORED,
        saturates_u8s8=isa.is_x86 and not isa.has_int8_dot,
        compute_dtypes=frozenset({"float32"}),
        fused_ops=_CPU_FUSED,
        weight_formats=frozenset({"int4", "nf4"}),
        block_kernels=_BLOCK_KERNELS,
        # With 2 and 8 bits the weight is expanded then.
        exact_block_bits=frozenset({4}),
        gather_dequantizes_table=True,
        shares_cache=True,
        cache_bits=frozenset({8, 4}),
    )


def cuda_capabilities() -> Capabilities:
    """Return the table of the CUDA provider: half precision, no int8 GEMM for QDQ."""
    return Capabilities(
        max_opset=_MAX_OPSET,
        max_ir_version=_MAX_IR_VERSION,
        compute_dtypes=frozenset({"float32", "float16", "bfloat16"}),
        fused_ops=_CUDA_FUSED,
        gather_dequantizes_table=True,
    )


def tensorrt_capabilities() -> Capabilities:
    """Return the table of the TensorRT provider: explicit QDQ, both sides s8 symmetric.

    TensorRT fuses standard operators itself and knows no com.microsoft ones.
    """
    return Capabilities(
        max_opset=_MAX_OPSET,
        max_ir_version=_MAX_IR_VERSION,
        int8_static_ops=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "MaxPool"}),
        int8_activation="s8-symmetric",
        compute_dtypes=frozenset({"float32", "float16", "bfloat16"}),
        fused_ops=frozenset({"ai.onnx::LayerNormalization", "ai.onnx::Gelu"}),
        gather_dequantizes_table=True,
    )
