"""Patterns: what a formula matches, and what it does not."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.editing import Pattern, Var, bind, bind_user, equal, expect, number, op, splat
from irtools.editing.veto import Veto

X, Y = Var("x"), Var("y")
NUMBERS = (
    "float two = {2.0}, float near = {2.001}, float[1,1] wide = {2.0}, "
    "float[3] ones = {1.0,1.0,1.0}, float[3] zeros = {0.0,-0.0,0.0}"
)


def last(body: str) -> ir.Value:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20, "local" : 1]> '
        f"g (float[3] a, float[3] b) => (float[3] r) <{NUMBERS}> {{ {body} }}"
    )
    return model.graph.outputs[0]


FITS: dict[str, tuple[Pattern, str, dict[str, str]]] = {
    "a variable twice is one value": (X * X, "r = Mul(a, a)", {"x": "a"}),
    "a product in the other order": (2 * X, "r = Mul(a, two)", {"x": "a"}),
    "a sum inside a sum, both orders tried": (
        (X * 2) + Y,
        "m = Mul(two, b)  r = Add(a, m)",
        {"x": "b", "y": "a"},
    ),
    "one of two forms": (X / 2 | X * 2, "r = Mul(a, two)", {"x": "a"}),
    "the second solution, where the first leads nowhere": (
        (X * Y) - X,
        "m = Mul(a, b)  r = Sub(m, b)",
        {"x": "b", "y": "a"},
    ),
    "a number that is near": (X / number(2, tolerance=1e-3), "r = Div(a, near)", {"x": "a"}),
    "a named node": (op("Neg", X, name="n") + Y, "n = Neg(a)  r = Add(n, b)", {"n": "n"}),
    "more inputs where they are allowed": (
        op("Sum", X, more=True),
        "r = Sum(a, b)",
        {"x": "a"},
    ),
    "ones": (X * splat(1), "r = Mul(ones, a)", {"x": "a"}),
    "a power": (X**2, "r = Pow(a, two)", {"x": "a"}),
}


@pytest.mark.parametrize("case", FITS)
def test_fits(case: str) -> None:
    pattern, body, expected = FITS[case]
    bound = bind(pattern, last(body))
    assert bound is not None
    assert expected.items() <= {key: value.name for key, value in bound.items()}.items()


FAILS: dict[str, tuple[Pattern, str]] = {
    "a variable twice is not two values": (X * X, "r = Mul(a, b)"),
    "a quotient has an order": (2 / X, "r = Div(a, two)"),
    "a number of two dimensions could widen": (X * 2, "r = Mul(a, wide)"),
    "an operator of another domain": (X * Y, "r = local.Mul(a, b)"),
    "another number": (X * 3, "r = Mul(a, two)"),
    "more inputs than the pattern": (op("Sum", X), "r = Sum(a, b)"),
    "zero is not minus zero": (X - splat(0), "r = Sub(a, zeros)"),
    "a second output": (
        op("Identity", op("Split", X, more=True)),
        "s, t = Split<num_outputs = 2>(a)  r = Identity(t)",
    ),
    "an input has no producer": (X * Y, "r = Identity(a)"),
}


@pytest.mark.parametrize("case", FAILS)
def test_fails(case: str) -> None:
    pattern, body = FAILS[case]
    assert bind(pattern, last(body)) is None
    with pytest.raises(Veto, match="why"):
        expect(pattern, last(body), "why")


def test_the_one_reader_of_a_value() -> None:
    result = last("n = Neg(a)  r = Add(n, b)")
    producer = result.producer()
    assert producer is not None and producer.inputs[0] is not None
    bound = bind_user(equal(producer.inputs[0]) + Y, producer.inputs[0])
    assert bound is not None and bound["result"] is result
    twice = last("n = Neg(a)  m = Abs(n)  r = Add(n, m)").producer()
    assert twice is not None and twice.inputs[0] is not None
    assert bind_user(equal(twice.inputs[0]) + Y, twice.inputs[0]) is None
