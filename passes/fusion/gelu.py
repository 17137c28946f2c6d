"""GELU in single operators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.model import FreshNames
from irtools.passes.fusion._driver import Fusion, FusionPass, Rewriter
from irtools.passes.fusion._pattern import (
    Source,
    Veto,
    is_op,
    make_node,
    only_user,
    other_input,
    remove_dead,
    require,
    scalar,
)

__all__ = ["FuseGelu"]

_TOLERANCE = 1e-3
"""Relative; exporters round the square root of 2 to half precision at worst."""


@dataclass(frozen=True)
class FuseGelu(FusionPass):
    """Turn GELU written with Erf into the standard operator Gelu (opset 20).

        x * 0.5 * (1 + erf(x / sqrt(2)))  ->  Gelu(x)

    in any order of the factors, with the root as divisor or as factor. The tanh form is another
    function and stays. Main graph and nested subgraphs.
    """

    name: ClassVar[str] = "fuse-gelu"
    statistics: ClassVar = {
        "num-fused-gelu": "GELUs fused",
        "num-unfused-gelu": "GELUs that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion("gelu", "Gelu", 20, ("Erf",))

    def rewriter(self, facts: SymbolicShapes, names: FreshNames) -> Rewriter:
        return _GeluRewriter(facts, names)


@dataclass(frozen=True)
class _Gelu:
    x: ir.Value
    output: ir.Value


class _GeluRewriter(Rewriter):
    def match(self, anchor: ir.Node) -> _Gelu:
        x = _argument(anchor.inputs[0])
        addition = only_user(anchor.outputs[0])
        if addition is None or addition.op_type != "Add" or addition.domain != "":
            raise Veto("Erf is not part of a GELU: no Add follows", named=False)
        one = scalar(other_input(addition, anchor.outputs[0]))
        require(one == 1.0, "1 is not added to Erf", named=False)
        return _Gelu(x, _product(addition.outputs[0], x))

    def rewrite(self, anchor: ir.Node, found: object) -> None:
        assert isinstance(found, _Gelu)
        last, graph = found.output.producer(), anchor.graph
        assert last is not None and graph is not None
        source = Source("fuse-gelu", last, (anchor, last))
        fused = make_node("Gelu", [found.x], source, self.names)
        graph.insert_before(last, fused)
        self.replace(found.output, fused.outputs[0])
        remove_dead([last])


def _argument(value: ir.Value | None) -> ir.Value:
    """x of x / sqrt(2)."""
    for operator, factor in (("Div", math.sqrt(2)), ("Mul", math.sqrt(0.5))):
        if (node := is_op(value, operator)) is None:
            continue
        for index in (1, 0) if operator == "Mul" else (1,):
            x = node.inputs[1 - index]
            if x is not None and _is_close(scalar(node.inputs[index]), factor):
                return x
    raise Veto("the argument of Erf is not x / sqrt(2)", named=False)


def _product(value: ir.Value, x: ir.Value) -> ir.Value:
    """The value that is `value` times x times 0.5, in whatever order."""
    missing = {"x", "half"}
    while missing:
        node = only_user(value)
        if node is None:
            raise Veto("an intermediate result is used elsewhere too")
        if node.domain != "" or node.op_type not in ("Mul", "Div"):
            raise Veto(f"{node.op_type} follows, expected a product with x and 0.5")
        found = _factors(node, value, x)
        require(found and found <= missing, "a factor is neither x nor 0.5")
        missing -= found
        value = node.outputs[0]
    return value


def _factors(node: ir.Node, value: ir.Value, x: ir.Value) -> set[str]:
    other = other_input(node, value)
    number = scalar(other)
    if node.op_type == "Div":
        return {"half"} if node.inputs[0] is value and number == 2.0 else set()
    if other is x:
        return {"x"}
    if number == 0.5:
        return {"half"}
    half = is_op(other, "Mul", "Div")
    if half is None or x not in half.inputs:
        return set()
    number = scalar(other_input(half, x))
    expected = 0.5 if half.op_type == "Mul" else 2.0
    is_half = number == expected and (half.op_type == "Mul" or half.inputs[0] is x)
    return {"x", "half"} if is_half else set()


def _is_close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=_TOLERANCE)
