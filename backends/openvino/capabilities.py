"""What OpenVINO runs fast, per device. Measured on 2026.4."""

from __future__ import annotations

from itertools import product

from irtools.targets import Capabilities, Isa

__all__ = ["cpu_capabilities", "gpu_capabilities"]

_INT8 = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "GlobalAveragePool",
        "MatMul",
        "MaxPool",
        "Mul",
    }
)

# The importer lowers these to its own attention, RMS and rotary kernels. It also reads many
# com.microsoft forms, but a portable artifact is worth more than a second spelling.
_FUSED = frozenset(
    {
        "ai.onnx::Attention",
        "ai.onnx::Gelu",
        "ai.onnx::LayerNormalization",
        "ai.onnx::RMSNormalization",
        "ai.onnx::RotaryEmbedding",
        "ai.onnx::Swish",
    }
)

# A Cast and a Mul are computed when the model is compiled, but for products by a matrix: integers
# of 8 bits stay what they are in those.
# Codes of 2 bits are handed over in 4.
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
    """Return the table of the CPU plug-in.

    Dynamically quantized MatMuls run slower than float32 there: int8 is static.
    """
    halves = frozenset({"bfloat16"}) if isa.has_bf16 else frozenset()
    return Capabilities(
        max_opset=24,
        max_ir_version=13,
        int8_static_ops=_INT8,
        # Else 17 dB are lost where integers that no node needs pass a Reshape, as after the patches
        # of a ViT.
        int8_conv_to_float=True,
        int8_activation="u8-affine",
        # A QuantizeLinear over a vector: the product comes out as [1, N].
        int8_vectors=False,
        int8_dynamic=False,
        # DYNAMIC_QUANTIZATION_GROUP_SIZE, 32 by default; without VNNI weights are only expanded.
        int8_token_blocks=isa.is_x86 and isa.has_int8_dot,
        # Cast(int8 W) * scale stays integers in front of MatMul and Gather: with scales along
        # another axis, or two constant factors, it refuses the model or writes beyond its memory.
        # A recurrent layer is refused where the model has a QuantizeLinear as well. Floats of 8
        # bits in front of MatMul are expanded at each run.
        hides_stored_codes=True,
        stored_types=_STORED,
        saturates_u8s8=isa.is_x86 and not isa.has_int8_dot,
        # Measured with AVX2: 16.4 ms static int8, 11.9 float32, the same encoder.
        int8_is_fast=isa.has_int8_dot or not isa.is_x86,
        compute_dtypes=frozenset({"float32"}) | halves,
        fused_ops=_FUSED,
        block_kernels=_BLOCK_KERNELS,
        gather_dequantizes_table=False,
        empty_attention=True,
        compiles_shapes=True,
        cache_bits=frozenset({8, 4}),
        scales_cache=True,
    )


def gpu_capabilities() -> Capabilities:
    """Return the table of the GPU plug-in: float16 by nature, exact int8 sums."""
    return Capabilities(
        max_opset=24,
        max_ir_version=13,
        int8_static_ops=_INT8,
        int8_conv_to_float=True,
        hides_stored_codes=True,
        compute_dtypes=frozenset({"float32", "float16"}),
        fused_ops=_FUSED,
    )
