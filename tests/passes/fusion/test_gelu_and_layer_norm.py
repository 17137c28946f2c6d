"""GELU and layer normalization in single operators: the ways to write them, and what is neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

Fuse = Callable[..., Any]

HEAD = '<ir_version: 10, opset_import: ["" : 17]>'
NUMBERS = (
    "float root = {1.4142135}, float inverse = {0.70710677}, float one = {1.0}, "
    "float half = {0.5}, float two = {2.0}"
)


def gelu(body: str, output: str = "float[N,8] y") -> str:
    return f"{HEAD} g (float[N,8] x) => ({output}) <{NUMBERS}> {{ {body} }}"


GELUS = {
    "torch script": gelu(
        "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)"
    ),
    "torch dynamo, opset 18": gelu(
        "d = Mul(x, inverse)  e = Erf(d)  a = Add(e, one)  h = Mul(half, a)  y = Mul(x, h)"
    ),
    "half of x first": gelu(
        "h = Mul(x, half)  d = Div(x, root)  e = Erf(d)  a = Add(one, e)  y = Mul(h, a)"
    ),
    "x divided by two": gelu(
        "h = Div(x, two)  d = Mul(inverse, x)  e = Erf(d)  a = Add(one, e)  y = Mul(a, h)"
    ),
    "divided by two at last": gelu(
        "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(a, x)  y = Div(m, two)"
    ),
}


@pytest.mark.parametrize("case", GELUS)
def test_gelu_fires(case: str, fuse: Fuse) -> None:
    fused = fuse(GELUS[case])
    assert fused.text == "y = Gelu(x)"
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32) * 3
    assert fused.error({"x": x}) <= 1e-6


NOT_GELUS = {
    "a sum of a foreign domain": (
        gelu(
            "d = Div(x, root)  e = Erf(d)  a = local.Add(e, one)  m = Mul(x, a)  y = Mul(m, half)"
        ).replace('"" : 17', '"" : 17, "local" : 1'),
        None,
    ),
    "an inner result is an output": (
        gelu(
            "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)",
            "float[N,8] y, float[N,8] m",
        ),
        "an intermediate result is used elsewhere too",
    ),
    "a quarter in place of a half": (
        gelu("d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, root)"),
        "a factor is neither x nor 0.5",
    ),
    "the half is missing": (
        gelu("d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Relu(m)"),
        "Relu follows, expected a product with x and 0.5",
    ),
    "x twice": (
        gelu("d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, x)"),
        "a factor is neither x nor 0.5",
    ),
    "two added in place of one": (
        gelu("d = Div(x, root)  e = Erf(d)  a = Add(e, two)  m = Mul(x, a)  y = Mul(m, half)"),
        None,
    ),
    "numbers of three dimensions, which widen x": (
        gelu(
            "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)",
            "float[1,N,8] y",
        ).replace("float half", "float[1,1,1] half"),
        "a factor is neither x nor 0.5",
    ),
    "an Erf of something else is no near miss": (
        gelu("d = Div(x, two)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)"),
        None,
    ),
}


def test_a_reason_is_told_once(fuse: Fuse) -> None:
    halves = "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  z = Relu(m)"
    again = "d2 = Div(z, root)  e2 = Erf(d2)  a2 = Add(e2, one)  m2 = Mul(z, a2)  y = Relu(m2)"
    fused = fuse(gelu(f"{halves} {again}"))
    assert fused.results[0].counters["num-unfused-gelu"] == 2
    assert fused.notes.count("did not fuse gelu at ") == 1
    assert " and 1 more place: Relu follows, expected a product with x and 0.5" in fused.notes


@pytest.mark.parametrize("case", NOT_GELUS)
def test_gelu_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = NOT_GELUS[case]
    fused = fuse(source)
    assert fused.count("Gelu") == 0 and not fused.results[0].modified
    assert fused.results[0].counters["num-unfused-gelu"] == (reason is not None)
    assert reason is None or reason in fused.notes


OLD = '<ir_version: 8, opset_import: ["" : 14]>'


def norm(body: str, gamma: str = "float[8] gamma", output: str = "float[N,8] y") -> str:
    weights = "float two = {2.0}, float eps = {0.00001}"
    inputs = f"float[N,8] x, {gamma}, float[8] beta"
    return f"{OLD} g ({inputs}) => ({output}) <{weights}> {{ {body} }}"


CENTRED = "m = ReduceMean<axes=[-1]>(x)  d = Sub(x, m)"
VARIANCE = "q = Pow(d, two)  v = ReduceMean<axes=[-1]>(q)  a = Add(v, eps)  r = Sqrt(a)"
SCALED = "n = Div(d, r)  s = Mul(n, gamma)"

NORMS = {
    "torch script": norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)"),
    "the last axis by its number, commuted": norm(
        "m = ReduceMean<axes=[1]>(x)  d = Sub(x, m)  q = Mul(d, d)  "
        "v = ReduceMean<axes=[1]>(q)  a = Add(eps, v)  r = Sqrt(a)  "
        "n = Div(d, r)  s = Mul(gamma, n)  y = Add(beta, s)"
    ),
    "through a reciprocal": norm(
        f"{CENTRED} {VARIANCE} i = Reciprocal(r)  n = Mul(i, d)  s = Mul(n, gamma)  "
        "y = Add(s, beta)"
    ),
}


@pytest.mark.parametrize("case", NORMS)
def test_layer_norm_fires(case: str, fuse: Fuse) -> None:
    fused = fuse(NORMS[case])
    (node,) = fused.after.graph
    assert [v.name for v in node.inputs] == ["x", "gamma", "beta"]
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-5)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((3, 8)) * 4 + 2,
        "gamma": rng.random(8),
        "beta": rng.random(8),
    }
    assert fused.error({name: a.astype(np.float32) for name, a in feeds.items()}) <= 1e-6


@pytest.mark.parametrize(
    ("last", "beta", "output"),
    [
        ("Add(s, wide)", "float[4,1,8] wide", "float[4,N,8] y"),
        ("Sub(s, beta)", "float[1] wide", "float[N,8] y"),
        ("Add(s, wide)", "float[1] wide", "float[N,8] y"),
    ],
)
def test_what_is_no_beta_stays_behind(last: str, beta: str, output: str, fuse: Fuse) -> None:
    source = norm(f"{CENTRED} {VARIANCE} {SCALED} y = {last}", f"float[8] gamma, {beta}", output)
    fused = fuse(source)
    assert [node.op_type for node in fused.after.graph] == ["LayerNormalization", last[:3]]
    rng = np.random.default_rng(0)
    shapes = {"x": (3, 8), "gamma": (8,), "beta": (8,), "wide": (4, 1, 8) if "4" in beta else (1,)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    assert fused.error(feeds) <= 1e-6


def test_what_another_mean_is_taken_off_is_no_layer_norm(fuse: Fuse) -> None:
    """It is the RMS normalization of the difference."""
    body = f"c = Neg(x)  m = ReduceMean<axes=[-1]>(c)  d = Sub(x, m)  {VARIANCE} {SCALED}"
    fused = fuse(norm(f"{body} y = Add(s, beta)"))
    assert fused.count("LayerNormalization") == 0
    rng = np.random.default_rng(0)
    shapes = {"x": (3, 8), "gamma": (8,), "beta": (8,)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    assert fused.error(feeds) <= 1e-6


def test_layer_norm_without_beta(fuse: Fuse) -> None:
    fused = fuse(norm(f"{CENTRED} {VARIANCE} {SCALED} y = Relu(s)"))
    assert fused.count("LayerNormalization") == 1 and fused.count("Relu") == 1


NOT_NORMS = {
    "gamma is wider than the axis": (
        norm(
            f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)",
            "float[4,1,8] gamma",
            "float[4,N,8] y",
        ),
        "gamma is not of the size of the last axis",
    ),
    "over the first axis": (
        norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)".replace("[-1]", "[0]")),
        "the variance is not over the last axis alone",
    ),
    "the deviation is an output": (
        norm(
            f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)", output="float[N,8] y, float[N,1] r"
        ),
        "x - mean(x) is not divided by its deviation",
    ),
    "the mean over the first axis": (
        norm(f"m = ReduceMean<axes=[0]>(x)  d = Sub(x, m)  {VARIANCE} {SCALED} y = Add(s, beta)"),
        "the mean is not over the last axis alone",
    ),
    "over both axes": (
        norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)".replace("[-1]", "[0,-1]")),
        "the variance is not over the last axis alone",
    ),
    "over the last axis, which is dropped": (
        norm(
            f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)".replace(
                "v = ReduceMean<axes=[-1]>", "v = ReduceMean<axes=[-1], keepdims=0>"
            )
        ).replace("N,8", "8,8"),
        "the variance is not over the last axis alone",
    ),
    "the third power": (
        norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)").replace(
            "two = {2.0}", "two = {3.0}"
        ),
        None,
    ),
    "a product with something else in place of the square": (
        norm(
            f"{CENTRED} q = Mul(d, x)  v = ReduceMean<axes=[-1]>(q)  a = Add(v, eps)  "
            f"r = Sqrt(a)  {SCALED} y = Add(s, beta)"
        ),
        None,
    ),
    "x itself over the deviation": (
        norm(f"{CENTRED} {VARIANCE} n = Div(x, r)  s = Mul(n, gamma)  y = Add(s, beta)"),
        "x - mean(x) is not divided by its deviation",
    ),
    "the deviation over the difference": (
        norm(f"{CENTRED} {VARIANCE} n = Div(r, d)  s = Mul(n, gamma)  y = Add(s, beta)"),
        "x - mean(x) is not divided by its deviation",
    ),
    "x itself times the reciprocal": (
        norm(
            f"{CENTRED} {VARIANCE} i = Reciprocal(r)  n = Mul(i, x)  s = Mul(n, gamma)  "
            "y = Add(s, beta)"
        ),
        "x - mean(x) is not divided by its deviation",
    ),
    "divided by gamma": (
        norm(f"{CENTRED} {VARIANCE} n = Div(d, r)  s = Div(n, gamma)  y = Add(s, beta)"),
        "no product with gamma follows",
    ),
    "in double precision": (
        norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)").replace("float", "double"),
        "x is not known to be a float32 or float16 tensor",
    ),
    "a mean of a foreign domain": (
        norm(
            f"m = com.microsoft.ReduceMean<axes=[-1]>(x)  d = Sub(x, m)  {VARIANCE} {SCALED} "
            "y = Add(s, beta)"
        ).replace('"" : 14', '"" : 14, "com.microsoft" : 1'),
        None,
    ),
    "an epsilon of three dimensions, which widens x": (
        norm(f"{CENTRED} {VARIANCE} {SCALED} y = Add(s, beta)", output="float[1,N,8] y").replace(
            "float eps", "float[1,1,1] eps"
        ),
        None,
    ),
    "the root of something else is no near miss": (
        norm("a = Add(x, eps)  r = Sqrt(a)  s = Mul(r, gamma)  y = Add(s, beta)"),
        None,
    ),
}


@pytest.mark.parametrize("case", NOT_NORMS)
def test_layer_norm_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = NOT_NORMS[case]
    fused = fuse(source)
    assert fused.count("LayerNormalization") == 0 and not fused.results[0].modified
    assert fused.results[0].counters["num-unfused-layer-norm"] == (reason is not None)
    assert reason is None or reason in fused.notes


def test_an_opset_that_cannot_be_raised_is_a_reason(fuse: Fuse) -> None:
    """GroupNormalization means something else from opset 21 on."""
    source = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 18]> '
        "g (float[N,8] x, float[2] s) => (float[N,8] y) "
        f"<{NUMBERS}> {{ z = GroupNormalization<num_groups=2>(x, s, s)  d = Div(z, root)  "
        "e = Erf(d)  a = Add(e, one)  m = Mul(z, a)  w = Mul(m, half)  "
        "t = Transpose<perm=[1,0]>(w)  c = MatMul(w, t)  p = Softmax<axis=-1>(c)  "
        "y = MatMul(p, w) }"
    )
    fused = fuse(source)
    assert fused.count("Gelu") == 1 and fused.after.graph.opset_imports[""] == 20
