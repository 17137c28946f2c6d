"""Identities: nodes whose result is one of their operands, one rule after the other.

Every rule is exact, bit for bit. Left out on purpose: `x + 0.0` and `x - (-0.0)`, which turn -0.0
into 0.0. The contract of rules is in `irtools.editing.rule`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import cast

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import Algebra, Bound, Var, array_of, op, splat
from irtools.operators import RuleTable, all_ops

__all__ = ["IDENTITIES", "NO_OPS", "no_ops"]

X = Var("x")


class PassedOn(Algebra):
    """Identity(x)  ->  x"""

    pattern = op("Identity", X)


class IdleDropout(Algebra):
    """Dropout(x)  ->  x, where it does not train and nothing reads its mask."""

    pattern = op("Dropout", X, more=True)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        training = anchor.inputs[2] if len(anchor.inputs) > 2 else None
        array = array_of(training)
        trains = training is not None and (array is None or bool(array.item()))
        # Opset 6 and before say it by attribute.
        old = "is_test" in anchor.attributes and not anchor.attributes["is_test"].as_int()
        masked = any(output.uses() or output.is_graph_output() for output in anchor.outputs[1:])
        return not (trains or old or masked)


class NoOp(Algebra):
    """An identity that shapes or types must prove."""

    def __init__(self, facts: SymbolicShapes) -> None:
        self.facts = facts


class SameShape(NoOp):
    """An identity where x has the shape of the result: the other operand does not widen it."""

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        shape = self.facts.shape(bound["x"])
        return shape is not None and shape == self.facts.shape(anchor.outputs[0])


class MulByOne(SameShape):
    """x * 1  ->  x"""

    pattern = X * splat(1)


class DivByOne(SameShape):
    """x / 1  ->  x"""

    pattern = X / splat(1)


class SubZero(SameShape):
    """x - 0  ->  x"""

    pattern = X - splat(0)


class AndTrue(SameShape):
    """x and true  ->  x"""

    pattern = op("And", X, splat(True))


class ReshapeToOwnShape(SameShape):
    """Reshape(x, shape(x))  ->  x"""

    pattern = op("Reshape", X, more=True)


class ExpandToOwnShape(SameShape):
    """Expand(x, shape(x))  ->  x"""

    pattern = op("Expand", X, more=True)


class SliceOfAll(SameShape):
    """x[:]  ->  x: the same shape and no negative step, so that every element is taken in order."""

    pattern = op("Slice", X, more=True)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        if len(anchor.inputs) > 4:
            steps = self.facts.integers(anchor.inputs[4])
            if steps is None or any(step != 1 for step in steps):
                return False
        return super().where(anchor, bound)


class CastToOwnType(NoOp):
    """Cast(x, type(x))  ->  x"""

    pattern = op("Cast", X)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        return element_type(bound["x"]) == anchor.attributes["to"].as_int()


class CastLikeToOwnType(NoOp):
    """CastLike(x, y)  ->  x, where y has the type of x."""

    pattern = op("CastLike", X, Var("like"))

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        own = element_type(bound["x"])
        return own is not None and own == element_type(bound["like"])


class TransposeInOrder(NoOp):
    """Transpose(x, [0, 1, 2, ...])  ->  x"""

    pattern = op("Transpose", X)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        perm = anchor.attributes.get_ints("perm")
        return perm is not None and list(perm) == sorted(perm)


class ConcatOfOne(NoOp):
    """Concat(x)  ->  x"""

    pattern = op("Concat", X)


class MaxOfOne(NoOp):
    """Max(x)  ->  x"""

    pattern = op("Max", X)


class MeanOfOne(NoOp):
    """Mean(x)  ->  x"""

    pattern = op("Mean", X)


class MinOfOne(NoOp):
    """Min(x)  ->  x"""

    pattern = op("Min", X)


class SumOfOne(NoOp):
    """Sum(x)  ->  x"""

    pattern = op("Sum", X)


IDENTITIES = (PassedOn(), IdleDropout())

_NO_OPS: tuple[type[NoOp], ...] = (
    MulByOne,
    DivByOne,
    SubZero,
    AndTrue,
    ReshapeToOwnShape,
    ExpandToOwnShape,
    SliceOfAll,
    CastToOwnType,
    CastLikeToOwnType,
    TransposeInOrder,
    ConcatOfOne,
    MaxOfOne,
    MeanOfOne,
    MinOfOne,
    SumOfOne,
)

NO_OPS: RuleTable[type[NoOp]] = RuleTable(
    "no-op",
    "nodes that change nothing are removed",
    MappingProxyType({anchor: rule for rule in _NO_OPS for anchor in rule.anchors}),
)


def no_ops() -> tuple[type[NoOp], ...]:
    """Return the rules of the table, with those that plug-ins declare with their operators."""
    declared = (op.rules.get(NO_OPS.name) for op in all_ops().values())
    return (*_NO_OPS, *(cast("type[NoOp]", rule) for rule in declared if rule is not None))
