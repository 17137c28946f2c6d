"""Recognising scaled dot-product attention around a Softmax.

    Y = softmax(s * Q K^T + M) V        Q: [B,H,S,D]  K: [B,H,T,D]  V: [B,H,T,E]  M: -> [B,H,S,T]

How exporters write it differs in where the scale stands (on the scores; on Q; its square root on
Q and on K), how K is transposed, how the mask enters (added, or chosen by Where), and whether
rows that are masked throughout are guarded against NaN (Softmax, IsNaN, Where).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.passes.fusion._pattern import (
    Veto,
    is_op,
    last_axis,
    only_user,
    other_input,
    require,
    scalar,
)

__all__ = ["AttentionMatch", "FilledMask", "Operand", "Packed", "match_attention"]

_HEADS_FIRST = (0, 1, 2, 3)
_HEADS_SECOND = (0, 2, 1, 3)
_NEVER = -1e4
"""Scores filled with this or less have no weight in any softmax that matters."""


@dataclass(frozen=True)
class Operand:
    """Q, K or V: `Transpose(base, perm)` is [B,H,S,D].

    Attributes:
        shape: Of the operand, [B,H,S,D].
    """

    base: ir.Value
    perm: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True)
class FilledMask:
    """A mask that chooses between score and fill: `Where(condition, scores, fill)`.

    Attributes:
        kept_if: The value of the condition for which a score counts.
    """

    condition: ir.Value
    kept_if: bool
    fill: float


@dataclass(frozen=True)
class Packed:
    """Q, K, V and Y as the linear layers have them: [B,S,H*D], heads not yet taken apart."""

    q: ir.Value
    k: ir.Value
    v: ir.Value
    output: ir.Value
    heads: int


@dataclass(frozen=True)
class AttentionMatch:
    """An attention block.

    Attributes:
        mask: Added to the scores, or chosen by a condition; None where all positions count.
        mask_shape: Shape of the mask, or of its condition.
        guarded: Rows that are masked throughout give 0 and not NaN.
        output: [B,H,S,E].
        packed: The same block without the reshapes around it, where it has them.
    """

    softmax: ir.Node
    q: Operand
    k: Operand
    v: Operand
    scale: float
    mask: ir.Value | FilledMask | None
    mask_shape: Shape
    guarded: bool
    output: ir.Value
    packed: Packed | None

    @property
    def lengths(self) -> tuple[Dim, Dim]:
        """Number of queries and number of keys."""
        return self.q.shape[2], self.k.shape[2]


def match_attention(softmax: ir.Node, facts: SymbolicShapes) -> AttentionMatch:
    """Match the attention block around a Softmax.

    Raises:
        Veto: Not an attention block, or not one that the fused operator can stand for.
    """
    rank = facts.rank(softmax.inputs[0])
    product, guarded = _below(softmax)
    scores, mask, scale = _above(softmax)
    require(last_axis(softmax, rank), "Softmax is not over the last axis")
    q, q_scale = _operand(scores.inputs[0], facts, "Q")
    k, k_scale = _operand(scores.inputs[1], facts, "K", transposed=True)
    v, v_scale = _operand(product.inputs[1], facts, "V")
    require(v_scale == 1.0, "V is scaled")
    _require_same_batch(q, k, v)
    mask_shape = _mask_shape(mask, facts, (*q.shape[:3], k.shape[2]))
    output = product.outputs[0]
    return AttentionMatch(
        softmax,
        q,
        k,
        v,
        scale * q_scale * k_scale,
        mask,
        mask_shape,
        guarded,
        output,
        _packed(q, k, v, output, facts),
    )


def _below(softmax: ir.Node) -> tuple[ir.Node, bool]:
    """The MatMul with V, and whether a NaN guard lies between."""
    weights, guarded = softmax.outputs[0], False
    users = {use.node for use in weights.uses()}
    choices = [n for n in users if n.domain == "" and n.op_type == "Where"]
    if len(users) == 2 and len(choices) == 1 and _is_nan_guard(choices[0], weights):
        require(not weights.is_graph_output(), "attention weights are an output of the model")
        weights, guarded = choices[0].outputs[0], True
    product = only_user(weights)
    if product is None and any(u.node.op_type == "MatMul" for u in weights.uses()):
        raise Veto("attention weights are used elsewhere too")
    is_product = product is not None and product.op_type == "MatMul" and product.domain == ""
    if product is None or not is_product or product.inputs[0] is not weights:
        raise Veto("no MatMul with V follows", named=False)
    return product, guarded


def _is_nan_guard(choice: ir.Node, weights: ir.Value) -> bool:
    test = is_op(choice.inputs[0], "IsNaN")
    return (
        test is not None
        and test.inputs[0] is weights
        and choice.inputs[2] is weights
        and scalar(choice.inputs[1]) == 0.0
    )


def _above(softmax: ir.Node) -> tuple[ir.Node, ir.Value | FilledMask | None, float]:
    """The MatMul of Q and K, the mask between it and the Softmax, and the scale."""
    value = softmax.inputs[0]
    mask: ir.Value | FilledMask | None = None
    if (choice := is_op(value, "Where")) is not None:
        mask, value = _filled_mask(choice)
    elif (addition := is_op(value, "Add")) is not None:
        sides = [v for v in addition.inputs if _leads_to_scores(v)]
        require(len(sides) == 1, "no MatMul of Q and K is added to a mask", named=bool(sides))
        (value,) = sides
        mask = other_input(addition, value)
    scale, value = _unscaled(value)
    scores = is_op(value, "MatMul")
    if scores is None:
        maker = None if value is None else value.producer()
        found = "an input" if maker is None else maker.op_type
        raise Veto(f"scores are made by {found}, expected MatMul of Q and K")
    return scores, mask, scale


def _leads_to_scores(value: ir.Value | None) -> bool:
    return is_op(_unscaled(value)[1], "MatMul") is not None


def _filled_mask(choice: ir.Node) -> tuple[FilledMask, ir.Value | None]:
    condition, yes, no = choice.inputs
    for kept_if, scores, fill in ((True, yes, no), (False, no, yes)):
        number = scalar(fill)
        if number is not None and condition is not None:
            require(number <= _NEVER, f"Where fills scores with {number:g}, not a mask")
            return FilledMask(condition, kept_if, number), scores
    raise Veto("Where chooses between two computed scores")


def _unscaled(value: ir.Value | None) -> tuple[float, ir.Value | None]:
    """Take multiplications and divisions by a number off a value."""
    factor = 1.0
    while (node := is_op(value, "Mul", "Div")) is not None:
        number = scalar(node.inputs[1])
        if number is not None:
            value = node.inputs[0]
        elif node.op_type == "Mul" and (number := scalar(node.inputs[0])) is not None:
            value = node.inputs[1]
        if number is None or not number:
            break
        factor = factor * number if node.op_type == "Mul" else factor / number
    return factor, value


def _operand(
    value: ir.Value | None, facts: SymbolicShapes, name: str, *, transposed: bool = False
) -> tuple[Operand, float]:
    """Follow scales and Transposes up to the tensor that holds Q, K or V."""
    perm: tuple[int, ...] = (0, 1, 3, 2) if transposed else _HEADS_FIRST
    factor, value = _unscaled(value)
    while (node := is_op(value, "Transpose")) is not None:
        inner = node.attributes["perm"].as_ints() if "perm" in node.attributes else (3, 2, 1, 0)
        require(len(inner) == 4, f"{name} is not a tensor of 4 dimensions")
        perm = tuple(inner[axis] for axis in perm)
        further, value = _unscaled(node.inputs[0])
        factor *= further
    # `perm` now takes the base to [B,H,S,D]; of K, whose last two axes Q K^T wants swapped.
    shape = facts.shape(value)
    if value is None or shape is None or len(shape) != 4:
        raise Veto(f"{name} is not known to have 4 dimensions")
    if perm not in (_HEADS_FIRST, _HEADS_SECOND):
        found = list(perm) if not transposed else "no swap of its last two axes"
        raise Veto(f"{name} is transposed by {found}")
    return Operand(value, perm, tuple(shape[axis] for axis in perm)), factor


def _require_same_batch(q: Operand, k: Operand, v: Operand) -> None:
    for axis, what in ((0, "batch sizes"), (1, "numbers of heads")):
        sizes = [operand.shape[axis] for operand in (q, k, v)]
        found = ", ".join(map(str, sizes))
        require(len(set(sizes)) == 1, f"Q, K and V have {what} {found}")
    require(q.shape[3] == k.shape[3], f"heads of Q and K are {q.shape[3]} and {k.shape[3]} wide")
    require(k.shape[2] == v.shape[2], f"lengths of K and V are {k.shape[2]} and {v.shape[2]}")


def _mask_shape(mask: ir.Value | FilledMask | None, facts: SymbolicShapes, scores: Shape) -> Shape:
    if mask is None:
        return ()
    shape = facts.shape(mask.condition if isinstance(mask, FilledMask) else mask)
    if shape is None:
        raise Veto("the shape of the mask is not known")
    padded = (1,) * (4 - len(shape)) + shape
    fits = len(padded) == 4 and all(m in (1, s) for m, s in zip(padded, scores, strict=False))
    text = f"[{', '.join(map(str, shape))}] over scores [{', '.join(map(str, scores))}]"
    require(fits, f"the mask is not known to broadcast: {text}")
    return shape


def _packed(
    q: Operand, k: Operand, v: Operand, output: ir.Value, facts: SymbolicShapes
) -> Packed | None:
    heads = q.shape[1]
    sources = [_flat(operand, facts) for operand in (q, k, v)]
    transpose = only_user(output)
    if not isinstance(heads, int) or transpose is None or transpose.op_type != "Transpose":
        return None
    if tuple(transpose.attributes.get_ints("perm") or ()) != _HEADS_SECOND:
        return None
    reshape = only_user(transpose.outputs[0])
    if reshape is None or reshape.op_type != "Reshape" or reshape.domain != "":
        return None
    merged = (q.shape[0], q.shape[2], multiply(heads, v.shape[3]))
    if facts.shape(reshape.outputs[0]) != merged or any(s is None for s in sources):
        return None
    flat_q, flat_k, flat_v = (source for source in sources if source is not None)
    return Packed(flat_q, flat_k, flat_v, reshape.outputs[0], heads)


def _flat(operand: Operand, facts: SymbolicShapes) -> ir.Value | None:
    """[B,S,H*D] that an operand was reshaped from."""
    reshape = is_op(operand.base, "Reshape")
    if reshape is None or operand.perm != _HEADS_SECOND:
        return None
    batch, heads, length, width = operand.shape
    source = reshape.inputs[0]
    return source if facts.shape(source) == (batch, length, multiply(heads, width)) else None
