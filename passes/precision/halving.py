"""What `fp16` and `bf16` share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from irtools.model import iter_graphs
from irtools.passes.precision.compute import HalfGraph, compute_in_half
from irtools.passes.precision.storage import StoredWeights, store_weights
from irtools.passmanager import PassResult
from irtools.words import counted

__all__ = ["halve"]

_NAMED = 5


def halve(model: ir.Model, dtype: ir.DataType, min_size: int, *, computes: bool) -> PassResult:
    """Convert a model to 16 bits, as arithmetic or as storage.

    Args:
        model: Changed in place.
        dtype: FLOAT16 or BFLOAT16.
        min_size: Elements below which a weight is stored as it is (storage only).
        computes: The graph itself goes to 16 bits; else only the weights.
    """
    kept: HalfGraph | StoredWeights
    if computes:
        done = compute_in_half(model, dtype)
        counts = {"num-computed": done.nodes, "num-skipped-float32": done.kept}
        if done.unjudged:
            counts["num-lacking-half-rule"] = sum(done.unjudged.values())
        modified, kept = done.nodes > 0, done
    else:
        stored = store_weights(model, dtype, min_size)
        counts = {"num-stored": stored.stored}
        modified, kept = stored.stored > 0, stored
    counts["num-skipped-large"] = len(kept.too_large)
    if kept.too_small:
        counts["num-skipped-small-values"] = len(kept.too_small)
    if kept.other_types:
        counts["num-skipped-dtype"] = len(kept.other_types)
    return PassResult(modified, counts, (*_named(kept, dtype), *_idle(model, modified, counts)))


def _named(kept: HalfGraph | StoredWeights, dtype: ir.DataType) -> Iterator[str]:
    """Yield a sentence for each tensor that stays, of the first few."""
    word = dtype.name.lower()
    for name in kept.too_large[:_NAMED]:
        yield f"{name!r} holds values that {word} cannot: kept in float32"
    for name in kept.too_small[:_NAMED]:
        yield f"{name!r} would lose more than 1 % in {word}, too small for it: kept in float32"
    if isinstance(kept, HalfGraph):
        for op, count in Counter(kept.unjudged).most_common(_NAMED):
            yield (
                f"{counted(count, 'node')} of {op} in float32: whether it is safe in {word} is "
                "not declared"
            )
    if kept.other_types:
        yield (
            f"{counted(len(kept.other_types), 'weight')} of float64 left as they are, such as "
            f"{kept.other_types[0]!r}"
        )


def _idle(model: ir.Model, modified: bool, counts: Mapping[str, int]) -> Iterator[str]:
    """Say why nothing was done where no count says it."""
    if modified or any(counts.values()):
        return
    tensors = [v.const_value for g in iter_graphs(model) for v in g.initializers.values()]
    halves = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    if any(tensor is not None and tensor.dtype in halves for tensor in tensors):
        yield "nothing to do: the weights are in 16 bits already"
    else:
        yield "nothing to do: no float32 weight is as large as min-size"
