"""What `fp16` and `bf16` share."""

from __future__ import annotations

import onnx_ir as ir

from irtools.passes.precision.compute import compute_in_half
from irtools.passes.precision.storage import store_weights
from irtools.passmanager import PassResult

__all__ = ["halve"]


def halve(model: ir.Model, dtype: ir.DataType, min_size: int, *, computes: bool) -> PassResult:
    """Bring a model to 16 bits, as arithmetic or as storage.

    Args:
        model: Changed in place.
        dtype: FLOAT16 or BFLOAT16.
        min_size: Elements below which a weight is stored as it is (storage only).
        computes: The graph itself goes to 16 bits; else only the weights.
    """
    if computes:
        done = compute_in_half(model, dtype)
        counts = {"num-computed": done.nodes, "num-skipped-float32": done.kept}
        modified, too_large = done.nodes > 0, done.too_large
    else:
        stored = store_weights(model, dtype, min_size)
        counts = {"num-stored": stored.stored}
        modified, too_large = stored.stored > 0, stored.too_large
    counts["num-skipped-large"] = len(too_large)
    notes = tuple(
        f"{name!r} holds values that {dtype.name.lower()} cannot: kept in float32"
        for name in too_large[:5]
    )
    return PassResult(modified, counts, notes)
