"""Which nodes of two models belong together."""

from __future__ import annotations

from irtools.analysis.pairing import node_ids, pair_models
from irtools.passes.fusion.gelu import FuseGelu
from irtools.passmanager import PassContext
from irtools.testing import apply_pass, read_model

HEAD = (
    '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x, float[4, 4] w) => (float[n, 4] y)'
)


def pairs(left: str, right: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the groups of two models of ONNX text."""
    first, second = read_model(f"{HEAD} {{ {left} }}"), read_model(f"{HEAD} {{ {right} }}")
    return [(match.left, match.right) for match in pair_models(first.ir, second.ir).matches]


def test_values_of_one_name_pair_their_makers() -> None:
    found = pairs("[a] h = MatMul(x, w) [b] y = Relu(h)", "[c] h = MatMul(x, w) [d] y = Tanh(h)")
    assert found == [(("a",), ("c",)), (("b",), ("d",))]


def test_what_a_fusion_took_in_belongs_to_what_it_became() -> None:
    found = pairs("[a] p = Sigmoid(x) [b] q = Mul(x, p) [c] y = MatMul(q, w)",
                  "[f] q = Swish(x) [c] y = MatMul(q, w)")  # fmt: skip
    assert found == [(("a", "b"), ("f",)), (("c",), ("c",))]


def test_pairs_in_front_of_a_product_belong_to_it() -> None:
    right = "[c] t = Cast<to = 10>(x) [d] u = Cast<to = 1>(t) [m] y = MatMul(u, w)"
    assert pairs("[m] y = MatMul(x, w)", right) == [(("m",), ("c", "d", "m"))]


def test_what_two_groups_read_belongs_to_neither() -> None:
    right = "[c] t = Neg(x) [m] h = MatMul(t, w) [a] y = Add(h, t)"
    first = read_model(f"{HEAD} {{ [m] h = MatMul(x, w) [a] y = Add(h, x) }}")
    found = pair_models(first.ir, read_model(f"{HEAD} {{ {right} }}").ir)
    assert found.new == ("c",) and not found.gone


def test_nodes_without_names_are_told_apart() -> None:
    model = read_model(f"{HEAD} {{ h = MatMul(x, w) [same] k = Relu(h) [same] y = Relu(k) }}")
    assert list(node_ids(model.ir).values()) == ["h", "same", "same#2"]


def test_replaced_nodes_are_those_that_passes_noted() -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[n, 4] y) '
        "<float r = {1.4142135}, float one = {1.0}, float half = {0.5}> { [div] d = Div(x, r) "
        "[erf] e = Erf(d) [add] a = Add(e, one) [mul] m = Mul(x, a) [last] y = Mul(m, half) }"
    )
    first = read_model(text)
    second = first.clone()
    apply_pass(FuseGelu(), second.ir, PassContext.for_model(second, "ort-cpu:isa=vnni", threads=1))
    (match,) = pair_models(first.ir, second.ir).matches
    assert match.left == ("div", "erf", "add", "mul", "last") and len(match.right) == 1
