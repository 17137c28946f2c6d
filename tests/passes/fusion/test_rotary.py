"""Rotary position embedding in one operator: tables of half the width and of the right batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Fuse = Callable[..., Any]

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
NUMBERS = (
    "int64[1] zero = {0}, int64[1] first = {1}, int64[1] half = {4}, int64[1] far = {2147483647}, "
    "int64[1] last = {-1}, int64[2] halves = {4, 4}, int64[4] heads = {0, 0, 2, 8}"
)
TABLES = (
    "e = Concat<axis=-1>(f, f)  cs = Cos(e)  sn = Sin(e)  "
    "cos = Unsqueeze(cs, first)  sin = Unsqueeze(sn, first)"
)
HALVES = "a = Slice(x, zero, half, last, first)  b = Slice(x, half, far, last, first)"
SUM = "n = Neg(b)  t = Concat<axis=-1>(n, a)  u = Mul(x, cos)  w = Mul(t, sin)  y = Add(u, w)"


def rotary(
    body: str,
    inputs: str = "float[B,2,S,8] x, float[B,S,4] f",
    output: str = "float[B,2,S,8] y",
) -> str:
    return f"{HEAD} g ({inputs}) => ({output}) <{NUMBERS}> {{ {body} }}"


def feeds(batch: int = 3, length: int = 5, tables: int | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 2, length, 8)).astype(np.float32)
    f = rng.standard_normal((tables or batch, length, 4)).astype(np.float32) * 3
    return {"x": x, "f": f}


FIRES = {
    "torch dynamo": rotary(f"{TABLES} {HALVES} {SUM}"),
    "commuted, halves by Split": rotary(
        f"{TABLES} a, b = Split<axis=-1>(x, halves)  n = Neg(b)  t = Concat<axis=3>(n, a)  "
        "u = Mul(cos, x)  w = Mul(sin, t)  y = Add(w, u)"
    ),
    "the axis by its number": rotary(
        f"{TABLES} a, b = Split<axis=3>(x, halves)  n = Neg(b)  t = Concat<axis=3>(n, a)  "
        "u = Mul(x, cos)  w = Mul(t, sin)  y = Add(u, w)"
    ),
}


@pytest.mark.parametrize("case", FIRES)
def test_fires(case: str, fuse: Fuse) -> None:
    fused = fuse(FIRES[case], "fuse,remove-dead-code")
    assert fused.results[0].counters["num-fused-rotary"] == 1
    assert "opset raised from 20 to 23 for RotaryEmbedding" in fused.notes
    lines = sorted(fused.text.splitlines())
    assert lines == sorted(
        [
            "Add_Cos_output = Cos(f)",
            "Add_Sin_output = Sin(f)",
            "y = RotaryEmbedding(x, Add_Cos_output, Add_Sin_output)",
        ]
    )
    assert fused.error(feeds()) <= 1e-6


@pytest.mark.openvino
@pytest.mark.parametrize("batches", [(3, 3), (3, 1)])
def test_same_answers_in_openvino(batches: tuple[int, int], fuse: Fuse) -> None:
    source = FIRES["torch dynamo"]
    if batches[1] == 1:
        source = source.replace("float[B,S,4] f", "float[1,S,4] f")
    fused = fuse(source, "fuse", "openvino-cpu")
    assert fused.count("RotaryEmbedding") == 1
    assert fused.error(feeds(*batches[:1], tables=batches[1]), "openvino-cpu") <= 1e-6


def test_one_table_for_the_batch_is_expanded(fuse: Fuse) -> None:
    source = FIRES["torch dynamo"].replace("float[B,S,4] f", "float[1,S,4] f")
    fused = fuse(source, "fuse,remove-dead-code")
    assert [fused.count(op) for op in ("RotaryEmbedding", "Expand", "Cos", "Sin")] == [1, 2, 1, 1]
    for batch in (1, 3):
        assert fused.error(feeds(batch, tables=1)) <= 1e-6


def test_tables_are_made_once_for_all(fuse: Fuse) -> None:
    second = SUM.replace("y =", "z =").replace("(x, cos)", "(k, cos)").replace("(n, a)", "(p, c)")
    second = second.replace("n = Neg(b)", "p = Neg(d)").replace("t =", "o =")
    second = second.replace("(t, sin)", "(o, sin)").replace("u =", "i =").replace("w =", "j =")
    second = second.replace("Add(u, w)", "Add(i, j)")
    halves = HALVES.replace("(x,", "(k,").replace("a =", "c =").replace("b =", "d =")
    source = rotary(
        f"{TABLES} {HALVES} {SUM} {halves} {second}",
        "float[B,2,S,8] x, float[B,2,S,8] k, float[1,S,4] f",
        "float[B,2,S,8] y, float[B,2,S,8] z",
    )
    fused = fuse(source, "fuse,remove-dead-code")
    assert [fused.count(op) for op in ("RotaryEmbedding", "Expand", "Cos", "Sin")] == [2, 2, 1, 1]
    given = feeds(tables=1)
    assert fused.error(given | {"k": given["x"] * 2 + 1}) <= 1e-6


def test_a_constant_table_is_cut(fuse: Fuse) -> None:
    rows = ", ".join(str(v) for v in [0.1, 0.2, 0.3, 0.4] * 2)
    body = f"{HALVES} {SUM}"
    source = rotary(body, "float[B,2,1,8] x", "float[B,2,1,8] y").replace(
        f"<{NUMBERS}>",
        f"<{NUMBERS}, float[1,1,1,8] cos = {{{rows}}}, float[1,1,1,8] sin = {{{rows}}}>",
    )
    fused = fuse(source)
    assert fused.count("RotaryEmbedding") == 1
    assert fused.error({"x": feeds(3, 1)["x"]}) <= 1e-6


def test_behind_a_linear_layer_heads_are_not_taken_apart(fuse: Fuse) -> None:
    source = rotary(
        f"r = Reshape(h, heads)  x = Transpose<perm=[0,2,1,3]>(r)  {TABLES} {HALVES} {SUM}",
        "float[B,S,16] h, float[B,S,4] f",
    )
    fused = fuse(source, "fuse,remove-dead-code")
    (node,) = [n for n in fused.after.graph if n.op_type == "RotaryEmbedding"]
    assert node.inputs[0].name == "h" and node.attributes["num_heads"].as_int() == 2
    h = np.random.default_rng(0).standard_normal((3, 5, 16)).astype(np.float32)
    assert fused.error({"h": h, "f": feeds()["f"]}) <= 1e-6


def test_tables_that_an_exporter_left_to_be_broadcast_are_repaired(fuse: Fuse) -> None:
    source = (
        '<ir_version: 10, opset_import: ["" : 23]> '
        "g (float[B,2,S,8] x, float[1,S,4] c, float[1,S,4] s) => (float[B,2,S,8] y) "
        "{ y = RotaryEmbedding(x, c, s) }"
    )
    fused = fuse(source)
    assert fused.results[0].counters["num-fused-rotary"] == 1
    assert fused.count("Expand") == 2
    given = feeds()
    tables = {"c": np.cos(given["f"][:1]), "s": np.sin(given["f"][:1])}
    one = {"x": given["x"][:1]} | tables
    assert fused.error(one) <= 1e-6  # The model as it was runs with a batch of 1 alone.


def test_a_written_one_for_a_batch_of_one_stays(fuse: Fuse) -> None:
    source = (
        '<ir_version: 10, opset_import: ["" : 23]> '
        "g (float[1,2,S,8] x, float[1,S,4] c, float[1,S,4] s) => (float[1,2,S,8] y) "
        "{ y = RotaryEmbedding(x, c, s) }"
    )
    assert not fuse(source).results[0].modified


@pytest.mark.parametrize(
    "heads",
    [
        # Heads are the fastest axis: no order in which the operator takes them.
        "r = Reshape(h, apart)  x = Transpose<perm=[0,3,1,2]>(r)",
        # Rows of all batches in one axis.
        "r = Reshape(h, five)  x = Transpose<perm=[0,2,1,3]>(r)",
    ],
)
def test_heads_that_were_taken_apart_otherwise_stay_so(heads: str, fuse: Fuse) -> None:
    flat = "five" in heads
    source = (
        f"{HEAD} g (float[{'M,16' if flat else '2,5,16'}] h, float[1,5,4] f) => "
        f"(float[b,2,5,8] y) <int64[4] apart = {{2, 5, 8, 2}}, int64[4] five = {{2, 5, 2, 8}}, "
        f"{NUMBERS}> {{ {TABLES} {heads} {HALVES} {SUM} }}"
    )
    fused = fuse(source)
    (node,) = [n for n in fused.after.graph if n.op_type == "RotaryEmbedding"]
    assert node.inputs[0].name == "x" and "num_heads" not in node.attributes
    h = np.random.default_rng(0).standard_normal((10, 16) if flat else (2, 5, 16))
    given = {"h": h.astype(np.float32), "f": feeds(1)["f"]}
    assert fused.error(given) <= 1e-6


STAYS = {
    "halves of another tensor": (
        rotary(
            f"{TABLES} {HALVES} {SUM}".replace("Mul(x, cos)", "Mul(z, cos)"),
            "float[B,2,S,8] x, float[B,2,S,8] z, float[B,S,4] f",
        ),
        "the product with sin is not added to a product with cos",
    ),
    "the second half of cos is another": (
        rotary(
            f"{TABLES} {HALVES} {SUM}".replace("Concat<axis=-1>(f, f)", "Concat<axis=-1>(f, g)"),
            "float[B,2,S,8] x, float[B,S,4] f, float[B,S,4] g",
        ),
        "the second half of cos is not known to repeat its first",
    ),
    "a table for each head": (
        rotary(f"{HALVES} {SUM}", "float[B,2,S,8] x, float[B,2,S,8] cos, float[B,2,S,8] sin"),
        "cos is of [B, 2, S, 8], expected [B or 1, 1, S, 8]",
    ),
    "a table of another batch": (
        rotary(f"{TABLES} {HALVES} {SUM}", "float[B,2,S,8] x, float[C,S,4] f"),
        "cos is of [C, 1, S, 8], expected [B or 1, 1, S, 8]",
    ),
    "the wrong half is negated": (
        rotary(f"{TABLES} {HALVES} {SUM}".replace("Neg(b)", "Neg(a)").replace("(n, a)", "(n, b)")),
        None,
    ),
    "halves in their old order": (
        rotary(f"{TABLES} {HALVES} {SUM}".replace("(n, a)", "(a, n)")),
        None,
    ),
    "by Split, the wrong half is negated": (
        rotary(f"{TABLES} b, a = Split<axis=-1>(x, halves)  {SUM}"),
        None,
    ),
    "by Split, unequal parts": (
        rotary(f"{TABLES} a, b = Split<axis=-1>(x, halves)  {SUM}").replace("{4, 4}", "{3, 5}"),
        None,
    ),
    "an odd width": (
        rotary(
            f"{HALVES} {SUM}",
            "float[B,2,S,7] x, float[B,1,S,7] cos, float[B,1,S,7] sin",
            "float[B,2,S,7] y",
        ).replace("half = {4}", "half = {3}"),
        None,
    ),
    "cos is scaled by a number for each place": (
        rotary(
            f"{TABLES} {HALVES} {SUM}".replace("Unsqueeze(cs,", "Unsqueeze(cg,").replace(
                "sn = Sin(e)", "sn = Sin(e)  cg = Mul(cs, g)"
            ),
            "float[B,2,S,8] x, float[B,S,4] f, float[8] g",
        ),
        "the second half of cos is not known to repeat its first",
    ),
    "a constant whose halves differ": (
        rotary(
            f"{TABLES} {HALVES} {SUM}".replace("Mul(x, cos)", "Mul(x, k)"),
            "float[B,2,1,8] x, float[B,1,4] f",
            "float[B,2,1,8] y",
        ).replace(
            "int64[1] zero", "float[1,1,1,8] k = {1., 2., 3., 4., 1., 2., 3., 5.}, int64[1] zero"
        ),
        "the second half of cos is not known to repeat its first",
    ),
    "unequal parts": (rotary(f"{TABLES} {HALVES} {SUM}").replace("half = {4}", "half = {3}"), None),
}


@pytest.mark.parametrize("case", STAYS)
def test_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = STAYS[case]
    fused = fuse(source, "fuse-rotary")
    assert fused.count("RotaryEmbedding") == 0 and not fused.results[0].modified
    assert fused.results[0].counters["num-unfused-rotary"] == (reason is not None)
    assert reason is None or f": {reason}" in fused.notes
