"""What is said of a model whose 8-bit products its target's CPU does not sum exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from irtools.analysis.int8_products import saturating_products
from irtools.measure.figures import Level, Verdict
from irtools.words import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.targets import Target

__all__ = ["remark_on_saturation"]

_REMEDY = "quantize the float model with int8, which scales weights so that nothing saturates"


def remark_on_saturation(original: ir.Model, result: ir.Model, target: Target) -> Iterator[Verdict]:
    """Say how many products of a model that came quantized would saturate, and what helps.

    Models that were quantized for other CPUs lose most of their accuracy without VNNI, and
    nothing in them shows it.

    Args:
        original: The model as it came.
        result: The model as it is written: in the target's form its weights are unsigned.
        target: What runs it.
    """
    if not target.capabilities.saturates_u8s8:
        return
    before, after = len(saturating_products(original)), len(saturating_products(result))
    if not before and not after:
        return
    whose = "the model" if after else "the original"
    cause = (
        f"{counted(after or before, 'int8 product')} of {whose} may saturate: {target.isa.value} "
        "has no VNNI and adds u8 x s8 products in 16 bits"
    )
    option = f"set {target.widening}" if target.widening else ""
    if not after:
        needs = f"; the original needs {target.widening} there" if option else ""
        yield Verdict(
            Level.NOTE,
            f"{cause}; what was run here and what is written holds unsigned weights, which are "
            f"multiplied exactly by slower kernels{needs}",
        )
    elif option:
        yield Verdict(
            Level.WARNING,
            f"{cause}; they ran here with unsigned weights, which is exact and slower: {option} "
            f"where the file is loaded, leave out --portable, which keeps the weights signed, or "
            f"{_REMEDY}",
        )
    else:
        yield Verdict(Level.WARNING, f"{cause}: {_REMEDY}")
