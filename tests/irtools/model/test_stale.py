"""Declared shapes that contradict the operators are dropped when a model is read."""

from __future__ import annotations

import onnx
import pytest

from irtools.model import Model


def read(text: str) -> Model:
    return Model.from_proto(onnx.parser.parse_model(text))


def shapes(model: Model) -> dict[str, str]:
    values = (v for node in model.ir.graph for v in node.outputs)
    return {v.name or "": str(v.shape) for v in values}


HEAD = '<ir_version: 8, opset_import: ["": 17]>\n'


@pytest.mark.parametrize(
    ("declared", "kept"),
    [
        ("float[n, 8] a", "[n,8]"),
        ("float[m, 8] a", "[m,8]"),
        ("float[n, 7] a", "[n,None]"),
        ("float[3, 8] a", "[None,8]"),
        ("float[8] a", "None"),
    ],
)
def test_sizes_of_inner_tensors(declared: str, kept: str) -> None:
    model = read(
        f"""{HEAD} g (float[n, 4] x, float[4, 8] w) => (float[n, 8] y) <{declared}>
        {{ a = MatMul(x, w)  y = Relu(a) }}"""
    )
    assert shapes(model)["a"].replace(" ", "").replace("?", "None") == kept
    assert bool(model.notes) == (kept not in ("[n,8]", "[m,8]"))


def test_the_note_names_the_tensor_and_both_shapes() -> None:
    model = read(
        f"""{HEAD} g (float[n, 4] x, float[4, 8] w) => (float[n, 8] y) <float[n, 7] a>
        {{ a = MatMul(x, w)  y = Relu(a) }}"""
    )
    assert model.notes == (
        "1 declared shape contradicts the operators and was dropped: 'a' [n,7], axis 1 is 8",
    )


def test_outputs_of_the_model() -> None:
    model = read(f"{HEAD} g (float[n, 4] x) => (float[1, 4] y) {{ y = Relu(x) }}")
    assert [str(v.shape) for v in model.interface.outputs] != ["[1,4]"]
    assert model.ir.graph.outputs[0].shape is not None
    assert len(model.notes) == 1


def test_what_computes_sizes_is_followed() -> None:
    """The batch of a Reshape comes from a Shape of a tensor whose declared batch is wrong."""
    model = read(
        f"""{HEAD} g (float[n, 4] x) => (float[n, 4] z) <float[1, 4] r, int64[1] i = {{0}},
        int64[1] rest = {{-1}}>
        {{ r = Relu(x)  s = Shape(r)  b = Gather(s, i)  t = Concat<axis=0>(b, rest)
           z = Reshape(r, t) }}"""
    )
    assert not isinstance(model.ir.graph[0].outputs[0].shape[0], int)


def test_what_cannot_be_inferred_stays_as_declared() -> None:
    model = read(
        """<ir_version: 8, opset_import: ["": 17, "my": 1]>
        g (float[n, 4] x) => (float[2, 9] y) <float[5, 5] a>
        { a = my.Op(x)  y = my.Op(a) }"""
    )
    assert model.notes == ()
    assert shapes(model)["a"].replace(" ", "") == "[5,5]"


@pytest.mark.parametrize(
    ("body", "declared", "kept"),
    [
        pytest.param("r = Reshape(h, s)", "float[7,2,4] r", "[None,2,4]", id="reshape"),
        pytest.param("r = Reshape(h, s)", "float[a,2,4] r", "[a,2,4]", id="a name stands"),
        pytest.param("r = Concat<axis=0>(h, h)", "float[2,8] r", "[None,8]", id="concat"),
        pytest.param("r = Tile(h, t)", "float[1,16] r", "[None,16]", id="tile"),
    ],
)
def test_sizes_that_follow_from_a_free_one(body: str, declared: str, kept: str) -> None:
    """Nothing is inferred of the first axis but that it changes with `n`."""
    model = read(
        f"""{HEAD} g (float[n, 8] x) => (float[k, m] y)
        <int64[3] s = {{-1, 2, 4}}, int64[2] t = {{1, 2}}, {declared}>
        {{ h = Relu(x)  {body}  y = Neg(r) }}"""
    )
    assert shapes(model)["r"].replace(" ", "") == kept
