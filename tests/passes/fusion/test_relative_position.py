"""Scores by relative position without GatherElements, and sizes taken from the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Fuse = Callable[..., Any]

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
CONSTANTS = (
    "int64[4] heads = {0, 0, 2, 4}, int64[1] all = {-1}, int64[1] four = {4}, int64[1] two = {2}, "
    "int64[1] one = {1}, int64[1] nought = {0}, int64 zero = {0}, int64 unit = {1}, "
    "int64 span = {3}, int64 most = {5}, float root = {2.0}"
)
JOIN = (
    "r = Reshape(x, heads)  t = Transpose<perm=[0,2,1,3]>(r)  b = Shape<start=0, end=1>(x)  "
    "s = Shape<start=1, end=2>(x)  j = Concat<axis=0>(all, s, four)  q = Reshape(t, j)"
)
INDEX = (
    "l = Squeeze(s, nought)  n = Range(zero, l, unit)  c = Unsqueeze(n, one)  "
    "w = Unsqueeze(n, nought)  d = Sub(c, w)  e = Add(d, span)  f = Clip(e, zero, most)  "
    "u = Unsqueeze(f, nought)  h = Mul(b, two)  k = Concat<axis=0>(h, s, s)  i = Expand(u, k)"
)
TABLE = "v = Concat<axis=0>(b, one, one)  z = Tile(p, v)  o = Transpose<perm=[0,2,1]>(z)"
SCORES = "m = MatMul(q, o)  g = GatherElements<axis=-1>(m, i)  a2 = Div(g, root)  y = Neg(a2)"
ROWS = ", ".join(str(round(float(v), 3)) for v in np.random.default_rng(3).random(48))


def scores(
    index: str = INDEX, table: str = TABLE, end: str = SCORES, weights: str = "", given: str = ""
) -> str:
    weights = weights or f"float[2,6,4] p = {{{ROWS}}}"
    return (
        f"{HEAD} g (float[B,S,8] x{given}) => (float[N,S,S] y) <{CONSTANTS}, {weights}> "
        f"{{ {JOIN} {index} {table} {end} }}"
    )


def feeds(batch: int = 2, length: int = 5) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((batch, length, 8)).astype(np.float32)}


@pytest.mark.parametrize("sizes", [(1, 1), (2, 5), (3, 2), (1, 9)])
def test_fires(sizes: tuple[int, int], fuse: Fuse) -> None:
    fused = fuse(scores(), "cleanup,fuse-relative-position,cleanup,fuse-relative-position")
    assert fused.results[1].counters["num-fused-relative-position"] == 1
    counts = [fused.count(op) for op in ("GatherElements", "Tile", "MatMul", "Div", "Gather")]
    assert counts == [0, 0, 1, 0, 1]
    assert fused.error(feeds(*sizes)) <= 1e-6


@pytest.mark.parametrize("factor", ["Div(g, root)", "Mul(g, root)"])
def test_a_factor_goes_into_the_table(factor: str, fuse: Fuse) -> None:
    fused = fuse(scores(end=SCORES.replace("Div(g, root)", factor)), "fuse-relative-position")
    output = fused.after.graph.outputs[0].producer()
    assert output.op_type == "Neg" and output.inputs[0].producer().op_type == "Reshape"
    assert fused.error(feeds()) <= 1e-6


@pytest.mark.openvino
def test_same_answers_in_openvino(fuse: Fuse) -> None:
    fused = fuse(scores(), "cleanup,fuse-relative-position", "openvino-cpu")
    assert fused.count("GatherElements") == 0
    assert fused.error(feeds(), "openvino-cpu") <= 1e-6


def test_embeddings_that_are_projected_are_computed_once(fuse: Fuse) -> None:
    table = f"a = MatMul(p, o1)  {TABLE.replace('Tile(p', 'Tile(a')}"
    eye = ", ".join(str(float(i == j) * 2) for i in range(4) for j in range(4))
    weights = f"float[2,6,4] p = {{{ROWS}}}, float[4,4] o1 = {{{eye}}}"
    fused = fuse(scores(table=table, weights=weights), "fuse-relative-position,remove-dead-code")
    assert fused.count("MatMul") == 1 and fused.count("GatherElements") == 0
    assert fused.error(feeds()) <= 1e-6


def test_a_table_that_depends_on_the_input_is_still_chosen_from(fuse: Fuse) -> None:
    source = scores(weights="float none = {0.0}", given=", float[2,6,4] p")
    fused = fuse(source, "fuse-relative-position")
    assert fused.count("GatherElements") == 0
    p = np.random.default_rng(1).standard_normal((2, 6, 4)).astype(np.float32)
    assert fused.error(feeds() | {"p": p}) <= 1e-6


@pytest.mark.parametrize("end", ["y = Div(g, root)", "y = Mul(g, root)", "y = Neg(g)"])
def test_a_factor_that_makes_an_output_is_computed_there(end: str, fuse: Fuse) -> None:
    fused = fuse(scores(end=SCORES.partition("a2")[0] + end), "fuse-relative-position")
    assert fused.count("GatherElements") == 0
    assert fused.after.graph.outputs[0].producer().op_type == end[4:7]
    assert fused.error(feeds()) <= 1e-6


STAYS = {
    "an index that is an input": (
        scores("i = Identity(given)", given=", int64[N,S,S] given"),
        "its index is not known to depend on the distance of two tokens alone",
    ),
    "a sum of positions": (
        scores(INDEX.replace("d = Sub(c, w)", "d = Add(c, w)")),
        "its index is not known to depend on the distance of two tokens alone",
    ),
    "positions in steps of two": (
        scores(
            INDEX.replace("Range(zero, l, unit)", "Range(zero, l2, step)").replace(
                "n = ", "step = Add(unit, unit)  l2 = Mul(l, step)  n = "
            )
        ),
        "its index is not known to depend on the distance of two tokens alone",
    ),
    "embeddings for each batch": (
        scores(
            table="o = Transpose<perm=[0,2,1]>(p)",
            weights="float none = {0.0}",
            given=", float[N,6,4] p",
        ),
        "the position embeddings are not repeated for each batch",
    ),
    "one table for all heads": (
        scores(
            table=f"h2 = Mul(b, two)  {TABLE}".replace("Concat<axis=0>(b,", "Concat<axis=0>(h2,"),
            weights="float[1,6,4] p = {" + ", ".join(ROWS.split(", ")[:24]) + "}",
        ),
        "the position embeddings have another number of heads",
    ),
    "rows that are repeated": (
        scores(table=TABLE.replace("(b, one, one)", "(b, two, one)")),
        "the position embeddings are not repeated for each batch",
    ),
    "a table that is not turned": (
        scores(
            table=TABLE.replace("[0,2,1]", "[0,1,2]"),
            weights="float[2,4,4] p = {" + ", ".join(ROWS.split(", ")[:32]) + "}",
        ).replace("most = {5}", "most = {3}"),
        "the position embeddings are not repeated for each batch",
    ),
    "rows that are counted from one": (
        scores(
            INDEX.replace(
                "c = Unsqueeze(n, one)",
                "l1 = Add(l, unit)  n1 = Range(unit, l1, unit)  c = Unsqueeze(n1, one)",
            )
        ),
        "its index is not known to depend on the distance of two tokens alone",
    ),
    "two distances": (
        scores(INDEX.replace("e = Add(d, span)", "d2 = Sub(c, w)  e = Add(d, d2)")),
        "its index is not known to depend on the distance of two tokens alone",
    ),
    "gathered along the rows": (
        scores(end=SCORES.replace("axis=-1", "axis=1")),
        None,
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = STAYS[case]
    fused = fuse(source, "fuse-relative-position")
    assert fused.count("GatherElements") == 1 and not fused.results[0].modified
    unfused = fused.results[0].counters["num-unfused-relative-position"]
    assert unfused == (reason is not None)
    assert reason is None or f": {reason}" in fused.notes


def test_sizes_come_from_the_inputs(fuse: Fuse) -> None:
    source = (
        f"{HEAD} g (float[B,S,8] x, float[B,S,8] z) => (int64[3] y, float[B,S,8] o) "
        "{ o = Add(x, z)  q = Relu(o)  y = Identity(h)  h = Shape(q) }"
    ).replace("y = Identity(h)  h = Shape(q)", "h = Shape(q)  y = Identity(h)")
    fused = fuse(source, "hoist-shapes,remove-dead-code")
    assert fused.count("Relu") == 0 and fused.count("Concat") == 1
    x = np.zeros((2, 5, 8), np.float32)
    assert fused.error({"x": x, "z": x}) == 0


@pytest.mark.parametrize("opset", [14, 20])
def test_sizes_are_products_of_dimensions(opset: int, fuse: Fuse) -> None:
    source = (
        "g (float[B,S,8] x) => (int64[2] y) <int64[2] flat = {-1, 8}> "
        "{ q = Reshape(x, flat)  h = Shape(q)  y = Identity(h) }"
    )
    fused = fuse(f'<ir_version: 8, opset_import: ["" : {opset}]> {source}', "hoist-shapes")
    assert fused.count("Mul") == 1
    assert fused.results[0].counters["num-hoisted-shapes"] == 1
    assert fused.error({"x": np.zeros((2, 5, 8), np.float32)}) == 0


def test_unknown_sizes_stay(fuse: Fuse) -> None:
    source = (
        f"{HEAD} g (float[B] x) => (int64[2] y) {{ q = NonZero(x)  h = Shape(q)  y = Identity(h) }}"
    )
    fused = fuse(source, "hoist-shapes")
    assert not fused.results[0].modified and fused.count("Shape") == 1


def test_sizes_with_a_number_added(fuse: Fuse) -> None:
    source = (
        f"{HEAD} g (float[B,8] x, float[1,8] z) => (int64[2] y) "
        "{ q = Concat<axis=0>(x, z)  h = Shape(q)  y = Identity(h) }"
    )
    fused = fuse(source, "hoist-shapes")
    assert fused.results[0].counters["num-hoisted-shapes"] == 1
    assert fused.error({"x": np.zeros((3, 8), np.float32), "z": np.zeros((1, 8), np.float32)}) == 0


def test_a_shape_that_is_an_output_stays(fuse: Fuse) -> None:
    source = f"{HEAD} g (float[B,8] x) => (int64[2] y) {{ q = Relu(x)  y = Shape(q) }}"
    fused = fuse(source, "hoist-shapes")
    assert not fused.results[0].modified


def test_a_size_that_is_a_sum_tells_of_none_of_its_parts(fuse: Fuse) -> None:
    """`past + s` is an input's size; what s is, the other input says."""
    source = (
        f'{HEAD} g (float["past + s"] x, float[s] z) => (int64[1] y) '
        "{ q = Relu(z)  h = Shape(q)  y = Identity(h) }"
    )
    fused = fuse(source, "hoist-shapes,remove-dead-code")
    (shape,) = [node for node in fused.after.graph if node.op_type == "Shape"]
    assert shape.inputs[0].name == "z"
    assert fused.error({"x": np.zeros(5, np.float32), "z": np.zeros(3, np.float32)}) == 0


@pytest.mark.parametrize("size", ["2*s", "s*s"])
def test_a_size_that_is_a_product_tells_nothing_of_its_factor(size: str, fuse: Fuse) -> None:
    source = (
        f'{HEAD} g (float["{size}"] x, float[s] z) => (int64[1] y) '
        "{ q = Relu(z)  h = Shape(q)  y = Identity(h) }"
    )
    fused = fuse(source, "hoist-shapes,remove-dead-code")
    (shape,) = [node for node in fused.after.graph if node.op_type == "Shape"]
    assert shape.inputs[0].name == "z"


ASKED = "h = Shape(m)  t = Expand(c, h)  y = Add(m, t) }"
"""A tensor in the middle is asked for its size."""
ONE = "<float[1] c = {1.0}>"


def test_fuse_leaves_shapes_where_there_is_no_attention(fuse: Fuse) -> None:
    """The last Softmax of a classifier is multiplied with nothing."""
    source = (
        f"{HEAD} g (float[B,8] x) => (float[B,8] y) {ONE} {{ r = Relu(x)  m = Softmax(r)  {ASKED}"
    )
    fused = fuse(source, "fuse")
    assert not fused.results[0].modified and fused.count("Shape") == 1


def test_fuse_hoists_shapes_of_attention(fuse: Fuse) -> None:
    source = (
        f"{HEAD} g (float[B,S,S] x, float[B,S,8] v) => (float[B,S,8] y) {ONE} "
        f"{{ p = Softmax(x)  w = Dropout(p)  m = MatMul(w, v)  {ASKED}"
    )
    fused = fuse(source, "fuse")
    assert fused.results[0].counters["num-hoisted-shapes"] == 1
    x, v = np.zeros((2, 5, 5), np.float32), np.ones((2, 5, 8), np.float32)
    assert fused.error({"x": x, "v": v}) == 0
