"""Masks as the operator Attention wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.editing import Place, constant_of, producer_of, scalar_of
from irtools.passes.fusion.attention_match import (
    AttentionMatch,
    BooleanMask,
    FilledMask,
    Mask,
)
from irtools.passes.fusion.sizes import size_of

__all__ = ["build_mask"]

_MAX_DEPTH = 16
_CARRY = ("Add", "Div", "GatherElements", "Reshape", "Slice", "Transpose")
"""Operators that a bias by position goes through."""


def build_mask(make: Place, found: AttentionMatch, dtype: ir.DataType) -> ir.Value | None:
    """Make the mask of an attention block, once for all the blocks of a graph that share it.

    What the operator leaves to the runtime is settled here. ONNX Runtime does not broadcast a
    mask over queries or keys, so those two axes are expanded; and it takes the lowest finite
    number for "masked", so that a row of it gives 0 where the decomposed block gives the mean
    of V: half of it is as good a mask and has no such meaning.
    """
    mask = _combined(make, found.masks, dtype)
    return None if mask is None else _expanded(make, mask, found)


def _combined(make: Place, masks: Sequence[Mask], dtype: ir.DataType) -> ir.Value | None:
    """One mask for several, of which the last ones were applied first.

    A filled mask hides whatever was added before: Where(condition, score + bias, fill) is
    score + Where(condition, bias, fill), up to the rounding of `fill`.
    """
    mask: ir.Value | None = None
    clean = True  # Whether the mask is known not to hold the lowest number.
    for part in reversed(masks):
        if isinstance(part, BooleanMask):
            return part.kept
        if isinstance(part, FilledMask):
            mask = _filled(make, part, mask, dtype)
            continue
        added = _reshaped(make, part.value, part.target)
        if mask is None:
            mask, clean = added, _is_computed(added)
        else:
            mask, clean = make.shared("Add", [mask, added]), clean and _is_computed(added)
    return mask if clean or mask is None else _without_lowest(make, mask, dtype)


def _reshaped(make: Place, value: ir.Value, target: ir.Value | None) -> ir.Value:
    return value if target is None else make.shared("Reshape", [value, target])


def _filled(make: Place, mask: FilledMask, inner: ir.Value | None, dtype: ir.DataType) -> ir.Value:
    """Where(condition, 0 or what was added before, fill), to be added."""
    low = make.number(_softened(mask.fill, dtype), dtype)
    score = make.number(0.0, dtype) if inner is None else inner
    yes, no = (score, low) if mask.kept_if else (low, score)
    return make.shared("Where", [mask.condition, yes, no])


def _without_lowest(make: Place, mask: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The mask with half the lowest finite number wherever it holds that number."""
    if (minimum := _minimum(mask)) is not None and minimum > _lowest(dtype):
        return mask
    choice = producer_of(mask, "Where")
    if choice is not None and all(scalar_of(v) is not None for v in choice.inputs[1:]):
        numbers = [_softened(scalar_of(v) or 0.0, dtype) for v in choice.inputs[1:]]
        if numbers == [scalar_of(v) for v in choice.inputs[1:]]:
            return mask
        fills = [make.number(number, dtype) for number in numbers]
        return make.shared("Where", [choice.inputs[0], *fills])
    test = make.shared("Equal", [mask, make.number(_lowest(dtype), dtype)])
    return make.shared("Where", [test, make.number(_lowest(dtype) / 2, dtype), mask])


def _expanded(make: Place, mask: ir.Value, found: AttentionMatch) -> ir.Value:
    """The mask with its last two axes as long as the queries and the keys."""
    wanted = found.lengths
    has = (1, 1, *found.mask_shape)[-2:]
    if has == wanted:
        return mask
    q = found.q
    same = [own == length for own, length in zip(has, wanted, strict=True)]
    queries = make.integers([1]) if same[0] else size_of(make, q.base, q.perm[2], wanted[0])
    keys = make.integers([1]) if same[1] else _keys(make, found)
    target = make.shared("Concat", [queries, keys], {"axis": 0})
    return make.shared("Expand", [mask, target])


def _keys(make: Place, found: AttentionMatch) -> ir.Value:
    """The number of keys, of those in a cache and new ones."""
    k, cache = found.k, None if found.packed is None else found.packed.cache
    if cache is None or isinstance(k.shape[2], int):
        return size_of(make, k.base, k.perm[2], k.shape[2])
    assert found.packed is not None
    # Not from what they are joined to, which the operator is going to make.
    past = make.shared("Shape", [cache.past_key], {"start": 2, "end": 3})
    new = make.shared("Shape", [found.packed.k], {"start": 1, "end": 2})
    return make.shared("Add", [past, new], key=("size", k.shape[2]))


def _lowest(dtype: ir.DataType) -> float:
    return float(np.finfo(dtype.numpy()).min)


def _softened(number: float, dtype: ir.DataType) -> float:
    return number / 2 if number == _lowest(dtype) else number


def _is_computed(value: ir.Value | None, depth: int = 0) -> bool:
    """Whether a bias is made of products of matrices, which do not mean "masked" by a number."""
    node = producer_of(value, *_CARRY, "MatMul")
    if node is None or depth > _MAX_DEPTH:
        return False
    if node.op_type == "MatMul":
        return True
    sources = node.inputs[: 2 if node.op_type == "Add" else 1]
    return all(_is_computed(source, depth + 1) for source in sources)


def _minimum(value: ir.Value | None, depth: int = 0) -> float | None:
    """The smallest number that a mask is known to hold, -inf included; None if not known."""
    tensor = constant_of(value)
    if tensor is not None:
        return float(tensor.numpy().min()) if tensor.size else None
    if depth > _MAX_DEPTH:
        return None
    if (
        node := producer_of(value, "Expand", "Reshape", "Unsqueeze", "Squeeze", "Slice")
    ) is not None:
        return _minimum(node.inputs[0], depth + 1)
    return None
