"""Readers: what is constant, who reads what."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.editing import (
    array_of,
    constant_of,
    only_user,
    other_input,
    past_identities,
    producer_of,
    require_array,
    require_constant,
    require_weight,
    scalar_of,
    weight_of,
)

MODEL = ir.from_onnx_text(
    '<ir_version: 10, opset_import: ["" : 20, "local" : 1]> '
    "g (float[4] x, float[4] given) => (float[4] y, float[4] z) "
    "<float[4] given = {1,2,3,4}, float[4] w = {1,2,3,4}, float[1,1] wide = {2}> {"
    " number = Constant<value_float = 3.0>()  many = Constant<value_ints = [1, 2]>()"
    " same = Identity(w)  again = Identity(same)  a = Add(x, again)  b = local.Neg(a)"
    " c = Mul(b, wide)  d = Mul(c, given)  y = Mul(d, number)  z = Relu(y) }"
)
VALUES = {value.name: value for node in MODEL.graph for value in node.outputs}
VALUES |= {value.name: value for value in (*MODEL.graph.inputs, *MODEL.graph.initializers.values())}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("w", [1, 2, 3, 4]), ("number", 3.0), ("many", [1, 2]), ("wide", [[2]])],
)
def test_weights_and_constants_of_every_spelling(name: str, expected: object) -> None:
    found = array_of(VALUES[name])
    assert found is not None and found.tolist() == expected
    assert require_array(VALUES[name]) is not None


@pytest.mark.parametrize("name", ["x", "given", "same", "a"])
def test_what_a_caller_may_override_or_a_node_computes_is_not_constant(name: str) -> None:
    assert constant_of(VALUES[name]) is None and array_of(VALUES[name]) is None
    with pytest.raises(ValueError, match=name):
        require_constant(VALUES[name])


def test_weights_are_seen_past_identities() -> None:
    assert past_identities(VALUES["again"]) is VALUES["w"]
    assert weight_of(VALUES["again"]) is VALUES["w"].const_value
    np.testing.assert_array_equal(require_weight(VALUES["again"]).numpy(), [1, 2, 3, 4])
    assert weight_of(None) is None and weight_of(VALUES["a"]) is None


def test_a_number_is_one_element_of_one_dimension_at_most() -> None:
    assert scalar_of(VALUES["number"]) == 3.0
    assert scalar_of(VALUES["wide"]) is None and scalar_of(VALUES["w"]) is None


def test_the_producer_by_operator_and_domain() -> None:
    add = producer_of(VALUES["a"], "Add", "Sub")
    assert add is not None and producer_of(VALUES["a"]) is add
    assert producer_of(VALUES["a"], "Sub") is None and producer_of(VALUES["x"]) is None
    assert producer_of(VALUES["b"], "Neg") is None
    assert producer_of(VALUES["b"], "Neg", domain="local") is not None


def test_the_only_reader_and_its_other_operand() -> None:
    user = only_user(VALUES["c"])
    assert user is not None and user.op_type == "Mul"
    assert other_input(user, VALUES["c"]) is VALUES["given"]
    assert only_user(VALUES["y"]) is None, "the caller reads it too"
