"""Masks as the operator Attention wants them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.model import FreshNames
from irtools.passes.fusion._making import Maker
from irtools.passes.fusion._pattern import Source, is_op, scalar
from irtools.passes.fusion.attention_match import (
    AttentionMatch,
    BooleanMask,
    FilledMask,
    Mask,
)

__all__ = ["MaskBuilder"]

_MAX_DEPTH = 16
_CARRY = ("Add", "Div", "GatherElements", "Reshape", "Slice", "Transpose")
"""Operators that a bias by position goes through."""


class MaskBuilder:
    """Makes masks, each once for all the attention blocks of a graph that share it.

    What the operator leaves to the runtime is settled here. ONNX Runtime does not broadcast a
    mask over queries or keys, so those two axes are expanded; and it takes the lowest finite
    number for "masked", so that a row of it gives 0 where the decomposed block gives the mean
    of V: half of it is as good a mask and has no such meaning.
    """

    def __init__(self, names: FreshNames) -> None:
        self._names = names
        self._made: dict[Hashable, ir.Value] = {}

    def build(
        self,
        found: AttentionMatch,
        dtype: ir.DataType | None,
        source: Source,
        nodes: list[ir.Node],
    ) -> ir.Value | None:
        """Return the mask of an attention block; nodes that it needs are added to `nodes`."""
        assert dtype is not None
        source = replace(source, replaced=())
        make = Maker(self._names, source, self._made)
        mask = _combined(make, found.masks, dtype)
        if mask is not None:
            mask = _expanded(make, mask, found)
        nodes += make.nodes
        return mask


def _combined(make: Maker, masks: Sequence[Mask], dtype: ir.DataType) -> ir.Value | None:
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
            mask, clean = make.node("Add", [mask, added]), clean and _is_computed(added)
    return mask if clean or mask is None else _without_lowest(make, mask, dtype)


def _reshaped(make: Maker, value: ir.Value, target: ir.Value | None) -> ir.Value:
    return value if target is None else make.node("Reshape", [value, target])


def _filled(make: Maker, mask: FilledMask, inner: ir.Value | None, dtype: ir.DataType) -> ir.Value:
    """Where(condition, 0 or what was added before, fill), to be added."""
    low = make.number(_softened(mask.fill, dtype), dtype)
    score = make.number(0.0, dtype) if inner is None else inner
    yes, no = (score, low) if mask.kept_if else (low, score)
    return make.node("Where", [mask.condition, yes, no])


def _without_lowest(make: Maker, mask: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The mask with half the lowest finite number wherever it holds that number."""
    if (minimum := _minimum(mask)) is not None and minimum > _lowest(dtype):
        return mask
    choice = is_op(mask, "Where")
    if choice is not None and all(scalar(v) is not None for v in choice.inputs[1:]):
        numbers = [_softened(scalar(v) or 0.0, dtype) for v in choice.inputs[1:]]
        if numbers == [scalar(v) for v in choice.inputs[1:]]:
            return mask
        fills = [make.number(number, dtype) for number in numbers]
        return make.node("Where", [choice.inputs[0], *fills])
    test = make.node("Equal", [mask, make.number(_lowest(dtype), dtype)])
    return make.node("Where", [test, make.number(_lowest(dtype) / 2, dtype), mask])


def _expanded(make: Maker, mask: ir.Value, found: AttentionMatch) -> ir.Value:
    """The mask with its last two axes as long as the queries and the keys."""
    wanted = found.lengths
    has = (1, 1, *found.mask_shape)[-2:]
    if has == wanted:
        return mask
    q = found.q
    same = [own == length for own, length in zip(has, wanted, strict=True)]
    queries = make.integers([1]) if same[0] else make.size(q.base, q.perm[2], wanted[0])
    keys = make.integers([1]) if same[1] else _keys(make, found)
    target = make.node("Concat", [queries, keys], {"axis": 0})
    return make.node("Expand", [mask, target])


def _keys(make: Maker, found: AttentionMatch) -> ir.Value:
    """The number of keys, of those in a cache and new ones."""
    k, cache = found.k, None if found.packed is None else found.packed.cache
    if cache is None or isinstance(k.shape[2], int):
        return make.size(k.base, k.perm[2], k.shape[2])
    assert found.packed is not None
    # Not from what they are joined to, which the operator is going to make.
    past = make.node("Shape", [cache.past_key], {"start": 2, "end": 3})
    new = make.node("Shape", [found.packed.k], {"start": 1, "end": 2})
    return make.node("Add", [past, new], key=("size", k.shape[2]))


def _lowest(dtype: ir.DataType) -> float:
    return float(np.finfo(dtype.numpy()).min)


def _softened(number: float, dtype: ir.DataType) -> float:
    return number / 2 if number == _lowest(dtype) else number


def _is_computed(value: ir.Value | None, depth: int = 0) -> bool:
    """Whether a bias is made of products of matrices, which do not mean "masked" by a number."""
    node = is_op(value, *_CARRY, "MatMul")
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
    if (node := is_op(value, "Expand", "Reshape", "Unsqueeze", "Squeeze", "Slice")) is not None:
        return _minimum(node.inputs[0], depth + 1)
    return None
