"""Recognising scaled dot-product attention around a Softmax.

    Y = softmax(s * Q K^T + M) V        Q: [B,H,S,D]  K: [B,G,T,D]  V: [B,G,T,E]  M: -> [B,H,S,T]

How exporters write it differs in where the scale is (on the scores; on Q; its square root on
Q and on K), how K is transposed, how masks and position biases enter (added, or chosen by Where,
one after the other), whether batch and heads are one axis ([B*H,S,D], as torch.bmm takes it),
whether G heads of K and V are repeated for H heads of Q (grouped queries), and whether rows that
are masked throughout are guarded against NaN (Softmax, IsNaN, Where).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import Veto, only_user, other_input, producer_of, require, scalar_of
from irtools.passes.fusion.algebra import last_axis
from irtools.passes.fusion.operand import Operand, find_operand, unscaled
from irtools.passes.fusion.packed import Packed, find_packed

__all__ = [
    "AddedMask",
    "AttentionMatch",
    "BooleanMask",
    "FilledMask",
    "Mask",
    "match_attention",
    "require_same_batch",
    "shape_of_masks",
    "value_of",
]

_NEVER = -1e4
"""Scores filled with this or less have no weight in any softmax that matters."""
_MAX_MASKS = 6


@dataclass(frozen=True)
class AddedMask:
    """A mask, or a bias by position, that is added to the scores.

    Attributes:
        target: Shape to which the value is reshaped first; None where it has 4 axes or fewer.
    """

    value: ir.Value
    target: ir.Value | None = None


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
class BooleanMask:
    """A mask that is true where a score counts; rows of false give 0."""

    kept: ir.Value


Mask = AddedMask | FilledMask | BooleanMask


def value_of(mask: Mask) -> ir.Value:
    """The tensor that a mask is made from."""
    match mask:
        case AddedMask(value):
            return value
        case FilledMask(condition):
            return condition
        case BooleanMask(kept):
            return kept


@dataclass(frozen=True)
class AttentionMatch:
    """An attention block.

    Attributes:
        anchor: Its Softmax, or the Attention operator that it already is.
        masks: Masks and biases, the last one applied first.
        mask_shape: Shape of all of them together.
        output: [B,H,S,E].
        packed: The same block without the reshapes around it, where it has them.
        causal: The operator masks later keys itself.
    """

    anchor: ir.Node
    q: Operand
    k: Operand
    v: Operand
    scale: float
    masks: tuple[Mask, ...]
    mask_shape: Shape
    output: ir.Value
    packed: Packed | None
    causal: bool = False

    @property
    def lengths(self) -> tuple[Dim, Dim]:
        """Number of queries and number of keys."""
        return self.q.shape[2], self.k.shape[2]


def match_attention(softmax: ir.Node, facts: SymbolicShapes) -> AttentionMatch:
    """Match the attention block around a Softmax.

    Raises:
        Veto: Not an attention block, or not one that the fused operator can stand for.
    """
    product = _below(softmax)
    scores, masks, scale = _above(softmax, facts)
    require(
        last_axis(softmax.outputs[0], facts.rank(softmax.inputs[0])),
        "Softmax is not over the last axis",
    )
    q = find_operand(scores.inputs[0], facts, "Q")
    k = find_operand(scores.inputs[1], facts, "K", transposed=True)
    v = find_operand(product.inputs[1], facts, "V")
    require(v.factor == 1.0, "V is scaled")
    require_same_batch(q, k, v)
    mask_shape = shape_of_masks(masks, facts, (*q.shape[:3], k.shape[2]))
    output = _with_heads(product.outputs[0], q, v, facts)
    values = [value_of(mask) for mask in masks]
    return AttentionMatch(
        softmax,
        q,
        k,
        v,
        scale * q.factor * k.factor,
        masks,
        mask_shape,
        output,
        find_packed(q, k, v, output, values, facts),
    )


def _below(softmax: ir.Node) -> ir.Node:
    """The MatMul with V, past a NaN guard and a Reshape that joins batch and heads."""
    weights = softmax.outputs[0]
    users = {use.node for use in weights.uses()}
    choices = [n for n in users if n.domain == "" and n.op_type == "Where"]
    if len(users) == 2 and len(choices) == 1 and _is_nan_guard(choices[0], weights):
        require(not weights.is_graph_output(), "attention weights are an output of the model")
        weights = choices[0].outputs[0]
    product = only_user(weights)
    if product is not None and product.op_type == "Reshape" and product.domain == "":
        weights = product.outputs[0]
        product = only_user(weights)
    if product is None and any(u.node.op_type == "MatMul" for u in weights.uses()):
        raise Veto("attention weights are used elsewhere too")
    is_product = product is not None and product.op_type == "MatMul" and product.domain == ""
    if product is None or not is_product or product.inputs[0] is not weights:
        raise Veto("no MatMul with V follows", named=False)
    return product


def _is_nan_guard(choice: ir.Node, weights: ir.Value) -> bool:
    test = producer_of(choice.inputs[0], "IsNaN")
    return (
        test is not None
        and test.inputs[0] is weights
        and choice.inputs[2] is weights
        and scalar_of(choice.inputs[1]) == 0.0
    )


def _with_heads(product: ir.Value, q: Operand, v: Operand, facts: SymbolicShapes) -> ir.Value:
    """[B,H,S,E], which a product over joined batch and heads is reshaped to."""
    if facts.rank(product) == 4:
        return product
    reshape = only_user(product)
    if reshape is not None and reshape.op_type == "Reshape" and reshape.domain == "":
        output = reshape.outputs[0]
        if facts.shape(output) == (*q.shape[:3], v.shape[3]):
            return output
    raise Veto("batch and heads are one axis, and the result is not split again")


def _above(softmax: ir.Node, facts: SymbolicShapes) -> tuple[ir.Node, tuple[Mask, ...], float]:
    """The MatMul of Q and K, the masks between it and the Softmax, and the scale."""
    value = softmax.inputs[0]
    masks: list[Mask] = []
    target: ir.Value | None = None
    scale = 1.0
    for _ in range(_MAX_MASKS):
        factor, value = unscaled(value)
        scale *= factor
        if (scores := producer_of(value, "MatMul")) is not None:
            return scores, tuple(masks), scale
        if (choice := producer_of(value, "Where")) is not None:
            mask, value = _filled_mask(choice)
            require(target is None, "Where chooses before batch and heads are split")
            masks.append(mask)
        elif (addition := producer_of(value, "Add")) is not None:
            sides = [v for v in addition.inputs if _leads_to_scores(v)]
            require(len(sides) == 1, "no MatMul of Q and K is added to a mask", named=bool(sides))
            require(scale == 1.0, "scores are scaled after a mask was added")
            (value,) = sides
            added = other_input(addition, value)
            assert added is not None
            if not _adds_nothing(added, value, addition.outputs[0], facts):
                masks.append(_added_mask(added, addition.outputs[0], target, facts))
        elif (reshape := producer_of(value, "Reshape")) is not None and target is None:
            value, target = reshape.inputs
            require(facts.rank(value) == 3, "scores are reshaped, not from [B*H,S,T]")
        else:
            break
    maker = None if value is None else value.producer()
    found = "an input" if maker is None else maker.op_type
    raise Veto("scores are made by {}, expected MatMul of Q and K", found)


def _added_mask(
    added: ir.Value, scores: ir.Value, target: ir.Value | None, facts: SymbolicShapes
) -> AddedMask:
    """A mask that is added to scores [B*H,S,T] is reshaped as they are."""
    if target is None:
        return AddedMask(added)
    same = facts.shape(added) is not None and facts.shape(added) == facts.shape(scores)
    require(same, "a mask is added to [B*H,S,T] and is not of that shape")
    return AddedMask(added, target)


def _adds_nothing(
    added: ir.Value, scores: ir.Value | None, result: ir.Value, facts: SymbolicShapes
) -> bool:
    """Whether a mask is 0 throughout, as one is that exporters make where all tokens count."""
    value: ir.Value | None = added
    while (node := producer_of(value, "Expand", "Reshape", "Unsqueeze")) is not None:
        value = node.inputs[0]
    shape = facts.shape(scores)
    return scalar_of(value) == 0.0 and shape is not None and shape == facts.shape(result)


def _leads_to_scores(value: ir.Value | None, depth: int = 0) -> bool:
    value = unscaled(value)[1]
    node = producer_of(value, "MatMul", "Add", "Where", "Reshape")
    if node is None or depth > _MAX_MASKS:
        return False
    if node.op_type == "MatMul":
        return True
    inputs = {"Add": node.inputs, "Where": node.inputs[1:], "Reshape": node.inputs[:1]}
    return any(_leads_to_scores(v, depth + 1) for v in inputs[node.op_type])


def _filled_mask(choice: ir.Node) -> tuple[FilledMask, ir.Value | None]:
    condition, yes, no = choice.inputs
    for kept_if, scores, fill in ((True, yes, no), (False, no, yes)):
        number = scalar_of(fill)
        if number is not None and condition is not None:
            require(number <= _NEVER, "Where fills scores with {:g}, not a mask", number)
            return FilledMask(condition, kept_if, number), scores
    raise Veto("Where chooses between two computed scores")


def require_same_batch(q: Operand, k: Operand, v: Operand) -> None:
    """Raise a Veto unless Q, K and V are one batch, with heads that the operator takes.

    Widths of Q and K, and lengths of K and V, are contracted by the products: they agree.
    """
    batches = [operand.shape[0] for operand in (q, k, v)]
    require(len(set(batches)) == 1, "Q, K and V have batch sizes {}", batches)
    heads = [operand.shape[1] for operand in (q, k, v)]
    fits = len(set(heads)) == 1 or (
        heads[1] == heads[2]
        and isinstance(heads[0], int)
        and isinstance(heads[1], int)
        and heads[0] % heads[1] == 0
    )
    require(fits, "Q, K and V have numbers of heads {}", heads)


def shape_of_masks(masks: Sequence[Mask], facts: SymbolicShapes, scores: Shape) -> Shape:
    """The shape of all masks together.

    Raises:
        Veto: They may widen the scores. Not along the keys: the product with V would fail.
    """
    total: Shape = ()
    for mask in masks:
        shape = _shape_of_mask(mask, facts, scores)
        padded = (1,) * (4 - len(shape)) + shape
        pairs = list(zip(padded, scores, strict=False))
        fits = len(padded) == 4 and all(m in (1, s) for m, s in pairs[:3])
        fits = fits and not (isinstance(padded[3], int) and padded[3] not in (1, scores[3]))
        require(fits, "the mask is not known to broadcast: {} over scores {}", shape, scores)
        total = (
            padded
            if not total
            else tuple(b if a == 1 else a for a, b in zip(total, padded, strict=True))
        )
    return total


def _shape_of_mask(mask: Mask, facts: SymbolicShapes, scores: Shape) -> Shape:
    if isinstance(mask, AddedMask) and mask.target is not None:
        return scores
    shape = facts.shape(value_of(mask))
    if shape is None:
        raise Veto("the shape of the mask is not known")
    return shape
