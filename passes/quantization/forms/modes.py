"""What products become: by the mode that is asked for, or the one that suits a target."""

from __future__ import annotations

from typing import Literal, TypeAlias

from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenBlocks, TokenWise
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.spec import WeightRange
from irtools.targets import Capabilities, Target

__all__ = ["Mode", "best_mode", "kernel_note", "product_form", "range_of", "slow_note"]

Mode: TypeAlias = Literal["static", "dynamic", "token-wise", "weight-only"]


def best_mode(capabilities: Capabilities, *, has_data: bool) -> Mode:
    """Return the mode that is fastest on a target, with calibration data or without."""
    if not capabilities.int8_static_ops or not capabilities.int8_is_fast:
        return "weight-only"
    if has_data:
        return "static"
    return "dynamic" if capabilities.int8_dynamic else "weight-only"


def product_form(mode: Mode, weight_range: WeightRange, block_size: int) -> WeightForm:
    """Return the form of a mode.

    Args:
        mode: The mode.
        weight_range: How much of 8 bits weights use that are multiplied as integers.
        block_size: Rows that share a scale in the modes token-wise and weight-only; 0: one scale
            per channel.
    """
    match mode:
        case "static":
            return Static(weight_range)
        case "dynamic":
            return Dynamic(weight_range)
        case "token-wise":
            return TokenBlocks(block_size) if block_size else TokenWise(weight_range)
        case "weight-only":
            return WeightOnly(block_size)


def range_of(
    wanted: Literal["auto", "pairs", "true", "false"], capabilities: Capabilities
) -> WeightRange:
    """Return what `reduce-range` asks for on a target."""
    match wanted:
        case "auto":
            return "pairs" if capabilities.saturates_u8s8 else "full"
        case "pairs":
            return "pairs"
        case "true":
            return "7-bit"
        case "false":
            return "full"


def slow_note(target: Target, *, is_auto: bool) -> str:
    """Say that a target is slow in int8, and what follows; empty where it is not."""
    if target.capabilities.int8_is_fast:
        return ""
    cause = (
        f"int8 products are slower than float32 ones on {target.name} with "
        f"isa={target.isa.value}, which has no VNNI"
    )
    if is_auto:
        return f"weights are only stored in 8 bits: {cause} (mode=static computes in int8)"
    return cause


def kernel_note(target: Target, form: WeightForm) -> str:
    """Say what follows where a target has no kernel for a token-wise form; else empty."""
    capabilities = target.capabilities
    match form:
        case TokenBlocks() if not capabilities.int8_token_blocks:
            missing = "for each token and block (block-size=0 has a range for each token)"
        case TokenWise() if "MatMul" not in capabilities.int8_static_ops:
            missing = "in 8 bits"
        case _:
            return ""
    return (
        f"weights are only stored in 8 bits: {target.name} with isa={target.isa.value} has no "
        f"kernel that multiplies activations quantized {missing}"
    )
