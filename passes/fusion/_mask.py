"""Masks as the operator Attention wants them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import constant_of
from irtools.model import FreshNames
from irtools.passes.fusion._pattern import Source, is_op, make_node, scalar
from irtools.passes.fusion.attention_match import AttentionMatch, FilledMask, Operand

__all__ = ["MaskBuilder"]

_MAX_DEPTH = 8


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
    ) -> ir.Value:
        """Return the mask of an attention block; nodes that it needs are added to `nodes`."""
        assert dtype is not None
        make = _Maker(self._names, Source("fuse-attention", source.anchor), nodes, self._made)
        if isinstance(found.mask, FilledMask):
            mask = make.filled(found.mask, dtype)
        else:
            assert found.mask is not None
            mask = make.without_lowest(found.mask, dtype)
        return make.expanded(mask, found)


class _Maker:
    def __init__(
        self,
        names: FreshNames,
        source: Source,
        nodes: list[ir.Node],
        made: dict[Hashable, ir.Value],
    ) -> None:
        self._names = names
        self._source = source
        self._nodes = nodes
        self._made = made

    def filled(self, mask: FilledMask, dtype: ir.DataType) -> ir.Value:
        """Where(condition, 0, fill), to be added."""
        numbers = (0.0, _softened(mask.fill, dtype))
        yes, no = numbers if mask.kept_if else numbers[::-1]
        return self._node(
            "Where", [mask.condition, self._number(yes, dtype), self._number(no, dtype)]
        )

    def without_lowest(self, mask: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The mask with half the lowest finite number wherever it holds that number."""
        if (minimum := _minimum(mask)) is not None and minimum > _lowest(dtype):
            return mask
        choice = is_op(mask, "Where")
        if choice is not None and all(scalar(v) is not None for v in choice.inputs[1:]):
            numbers = [_softened(scalar(v) or 0.0, dtype) for v in choice.inputs[1:]]
            if numbers == [scalar(v) for v in choice.inputs[1:]]:
                return mask
            fills = [self._number(number, dtype) for number in numbers]
            return self._node("Where", [choice.inputs[0], *fills])
        low = self._number(_lowest(dtype), dtype)
        test = self._node("Equal", [mask, low])
        return self._node("Where", [test, self._number(_lowest(dtype) / 2, dtype), mask])

    def expanded(self, mask: ir.Value, found: AttentionMatch) -> ir.Value:
        """The mask with its last two axes as long as the queries and the keys."""
        wanted = found.lengths
        has = (1, 1, *found.mask_shape)[-2:]
        if has == wanted:
            return mask
        sizes = [
            self._length(operand, length) if own != length else self._integers([1])
            for own, length, operand in zip(has, wanted, (found.q, found.k), strict=True)
        ]
        target = self._node("Concat", sizes, {"axis": 0})
        return self._node("Expand", [mask, target])

    def _length(self, operand: Operand, length: Dim) -> ir.Value:
        if isinstance(length, int):
            return self._integers([length])
        axis = operand.perm[2]
        return self._node(
            "Shape", [operand.base], {"start": axis, "end": axis + 1}, key=("length", length)
        )

    def _number(self, number: float, dtype: ir.DataType) -> ir.Value:
        return self._constant(np.asarray(number, dtype.numpy()))

    def _integers(self, numbers: Sequence[int]) -> ir.Value:
        return self._constant(np.asarray(numbers, np.int64))

    def _constant(self, array: np.ndarray) -> ir.Value:
        return self._node(
            "Constant",
            [],
            {"value": ir.tensor(array)},
            key=("constant", str(array.dtype), array.shape, array.tobytes()),
        )

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, object] | None = None,
        key: Hashable = None,
    ) -> ir.Value:
        if key is None:
            key = (op_type, tuple(map(id, inputs)), str(attributes))
        key = (id(self._source.anchor.graph), key)
        if key not in self._made:
            node = make_node(op_type, inputs, self._source, self._names, attributes)
            self._nodes.append(node)
            self._made[key] = node.outputs[0]
        return self._made[key]


def _lowest(dtype: ir.DataType) -> float:
    return float(np.finfo(dtype.numpy()).min)


def _softened(number: float, dtype: ir.DataType) -> float:
    return number / 2 if number == _lowest(dtype) else number


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
