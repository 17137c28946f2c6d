"""Q, K and V of an attention block, past the scales, transposes and copies before its products."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import divide, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import Veto, producer_of, require, scalar_of

__all__ = [
    "HEADS_FIRST",
    "HEADS_SECOND",
    "Operand",
    "before_joining",
    "find_operand",
    "unscaled",
]

HEADS_FIRST = (0, 1, 2, 3)
HEADS_SECOND = (0, 2, 1, 3)
_JOINED = (0, 1, 2)


@dataclass(frozen=True)
class Operand:
    """Q, K or V: `factor * Transpose(base, perm)` is [B,H,S,D].

    Attributes:
        shape: Of the operand, [B,H,S,D]; of grouped K and V with H as they are, not repeated.
    """

    base: ir.Value
    perm: tuple[int, ...]
    shape: Shape
    factor: float = 1.0


def find_operand(
    value: ir.Value | None, facts: SymbolicShapes, name: str, *, transposed: bool = False
) -> Operand:
    """Follow scales, Transposes, joined axes and repeated heads up to Q, K or V itself.

    Args:
        value: What goes into the product, [B,H,S,D] or [B*H,S,D].
        facts: Shapes.
        name: What a message calls it.
        transposed: The product takes it with its last two axes swapped.

    Raises:
        Veto: It is not known to be [B,H,S,D].
    """
    perm: tuple[int, ...] = _JOINED if facts.rank(value) == 3 else HEADS_FIRST
    if transposed:
        perm = (*perm[:-2], perm[-1], perm[-2])
    factor, value = unscaled(value)
    while True:
        if (node := producer_of(value, "Transpose")) is not None:
            rank = len(perm)
            reverse = tuple(range(rank))[::-1]
            inner = node.attributes["perm"].as_ints() if "perm" in node.attributes else reverse
            require(len(inner) == rank, "{} is not a tensor of 4 dimensions", name)
            perm = tuple(inner[axis] for axis in perm)
            value = node.inputs[0]
        elif (joined := before_joining(value, perm, facts)) is not None:
            value, perm = joined
        elif (group := _before_repeating(value, facts)) is not None:
            value = group
        else:
            break
        further, value = unscaled(value)
        factor *= further
    # `perm` now takes the base to [B,H,S,D]; of K, whose last two axes Q K^T wants swapped.
    shape = facts.shape(value)
    if value is None or shape is None or len(shape) != 4 or len(perm) != 4:
        raise Veto("{} is not known to have 4 dimensions", name)
    if perm not in (HEADS_FIRST, HEADS_SECOND):
        found = perm if not transposed else "no swap of its last two axes"
        raise Veto("{} is transposed by {}", name, found)
    return Operand(value, perm, tuple(shape[axis] for axis in perm), factor)


def unscaled(value: ir.Value | None) -> tuple[float, ir.Value | None]:
    """Take multiplications and divisions by a number off a value."""
    factor = 1.0
    while (node := producer_of(value, "Mul", "Div")) is not None:
        number, scaled = scalar_of(node.inputs[1]), node.inputs[0]
        if number is None and node.op_type == "Mul":
            number, scaled = scalar_of(node.inputs[0]), node.inputs[1]
        if not number:
            break
        factor = factor * number if node.op_type == "Mul" else factor / number
        value = scaled
    return factor, value


def before_joining(
    value: ir.Value | None, perm: tuple[int, ...], facts: SymbolicShapes
) -> tuple[ir.Value, tuple[int, ...]] | None:
    """[B,H,m,n] that was reshaped to [B*H,m,n], and the permutation with one axis more."""
    reshape = producer_of(value, "Reshape")
    if reshape is None or len(perm) != 3 or perm[0] != 0:
        return None
    source, joined = facts.shape(reshape.inputs[0]), facts.shape(value)
    if source is None or joined is None or len(source) != 4 or reshape.inputs[0] is None:
        return None
    if joined != (multiply(source[0], source[1]), *source[2:]):
        return None
    return reshape.inputs[0], (0, *(axis + 1 for axis in perm))


def _before_repeating(value: ir.Value | None, facts: SymbolicShapes) -> ir.Value | None:
    """[B,G,T,D] of which each head was repeated: to [B,G,1,T,D], [B,G,n,T,D], [B,G*n,T,D]."""
    merged = producer_of(value, "Reshape")
    repeated = None if merged is None else producer_of(merged.inputs[0], "Expand")
    split = None if repeated is None else producer_of(repeated.inputs[0], "Unsqueeze", "Reshape")
    if merged is None or repeated is None or split is None:
        return None
    shape, whole = facts.shape(split.inputs[0]), facts.shape(value)
    if shape is None or whole is None or len(shape) != 4 or len(whole) != 4:
        return None
    batch, heads, *rest = shape
    times = divide(whole[1], heads)
    if facts.shape(split.outputs[0]) != (batch, heads, 1, *rest) or times is None:
        return None
    if facts.shape(repeated.outputs[0]) != (batch, heads, times, *rest):
        return None
    return split.inputs[0] if whole == (batch, multiply(heads, times), *rest) else None
