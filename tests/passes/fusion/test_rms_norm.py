"""RMS normalization in one operator: the ways to write it, and what it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Fuse = Callable[..., Any]

OLD = '<ir_version: 8, opset_import: ["" : 17]>'
WEIGHTS = "float two = {2.0}, float one = {1.0}, float three = {3.0}, float eps = {0.00001}"


def norm(body: str, gamma: str = "float[8] gamma", output: str = "float[N,8] y") -> str:
    return f"{OLD} g (float[N,8] x, {gamma}) => ({output}) <{WEIGHTS}> {{ {body} }}"


ROOT = "q = Pow(x, two)  v = ReduceMean<axes=[-1]>(q)  a = Add(v, eps)  r = Sqrt(a)"

NORMS = {
    "torch dynamo": norm(f"{ROOT} i = Reciprocal(r)  n = Mul(x, i)  y = Mul(gamma, n)"),
    "torch script": norm(f"{ROOT} i = Div(one, r)  n = Mul(x, i)  y = Mul(gamma, n)"),
    "a quotient": norm(f"{ROOT} n = Div(x, r)  y = Mul(n, gamma)"),
    "of a difference": norm(
        "d = Sub(x, three)  q = Pow(d, two)  v = ReduceMean<axes=[-1]>(q)  a = Add(v, eps)  "
        "r = Sqrt(a)  n = Div(d, r)  y = Mul(n, gamma)"
    ),
    "the last axis by its number, the square as a product, commuted": norm(
        "q = Mul(x, x)  v = ReduceMean<axes=[1]>(q)  a = Add(eps, v)  r = Sqrt(a)  "
        "i = Reciprocal(r)  n = Mul(i, x)  y = Mul(n, gamma)"
    ),
}


def feeds(dtype: type = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 8)) * 4 + 2
    x[1] = 0.0
    return {"x": x.astype(dtype), "gamma": rng.random(8).astype(dtype)}


@pytest.mark.parametrize("case", NORMS)
def test_fires(case: str, fuse: Fuse) -> None:
    fused = fuse(NORMS[case])
    *before, node = fused.after.graph
    assert fused.results[0].counters["num-fused-rms-norm"] == 1
    assert [n.op_type for n in before] == ["Sub"] * (case == "of a difference")
    assert [v.name for v in node.inputs] == ["d" if before else "x", "gamma"]
    assert node.op_type == "RMSNormalization" and fused.after.graph.opset_imports[""] == 23
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-5)
    assert "opset raised from 17 to 23 for RMSNormalization" in fused.notes
    assert fused.error(feeds()) <= 1e-6


@pytest.mark.openvino
def test_same_answers_in_openvino(fuse: Fuse) -> None:
    fused = fuse(NORMS["torch dynamo"], target_name="openvino-cpu")
    assert fused.count("RMSNormalization") == 1
    assert fused.error(feeds(), "openvino-cpu") <= 1e-6


HALF = (
    f"{OLD} g (float16[N,8] h, float16[8] gamma) => (float16[N,8] y) <{WEIGHTS}> {{ "
    f"x = Cast<to=1>(h)  {ROOT} i = Reciprocal(r)  n = Mul(x, i)  c = Cast<to=10>(n)  "
    "y = Mul(gamma, c) }"
)


def test_a_half_precision_model_normalizes_in_float32(fuse: Fuse) -> None:
    fused = fuse(HALF)
    (node,) = fused.after.graph
    assert [v.name for v in node.inputs] == ["h", "gamma"]
    assert node.attributes["stash_type"].as_int() == 1
    given = feeds(np.float16)
    assert fused.error({"h": given["x"], "gamma": given["gamma"]}) <= 1e-3


NOT_NORMS = {
    "gamma is wider than the axis": (
        norm(f"{ROOT} n = Div(x, r)  y = Mul(n, gamma)", "float[4,1,8] gamma", "float[4,N,8] y"),
        "gamma is not of the size of the last axis",
    ),
    "over the first axis": (
        norm(f"{ROOT} n = Div(x, r)  y = Mul(n, gamma)".replace("[-1]", "[0]")),
        "the variance is not over the last axis alone",
    ),
    "a cube": (norm(f"{ROOT} n = Div(x, r)  y = Mul(n, gamma)".replace("two", "three")), None),
    "something else is divided": (
        norm(f"{ROOT} n = Div(gamma, r)  y = Mul(n, gamma)"),
        "x is not divided by the root of its mean square",
    ),
    "two over the root": (
        norm(f"{ROOT} i = Div(two, r)  n = Mul(x, i)  y = Mul(gamma, n)"),
        "x is not divided by the root of its mean square",
    ),
    "the root is an output": (
        norm(f"{ROOT} n = Div(x, r)  y = Mul(n, gamma)", output="float[N,8] y, float[N,1] r"),
        "x is not divided by the root of its mean square",
    ),
    "another tensor is scaled by the inverse": (
        norm(f"{ROOT} i = Reciprocal(r)  n = Mul(z, i)  y = Mul(n, gamma)").replace(
            "float[8] gamma", "float[8] gamma, float[N,8] z"
        ),
        "x is not divided by the root of its mean square",
    ),
    "in double precision": (
        f"{OLD} g (float[N,8] h, float[8] gamma) => (float[N,8] y) "
        "<double two = {2.0}, double eps = {0.00001}> { "
        f"x = Cast<to=11>(h)  {ROOT} n = Div(x, r)  c = Cast<to=1>(n)  y = Mul(c, gamma) }}",
        "no product with gamma follows",
    ),
    "narrowed to another type than it had": (
        HALF.replace("float16[8] gamma", "bfloat16[8] gamma")
        .replace("float16[N,8] y", "bfloat16[N,8] y")
        .replace("<to=10>", "<to=16>"),
        "no product with gamma follows",
    ),
    "nothing is scaled": (
        norm(f"{ROOT} n = Div(x, r)  y = Relu(n)"),
        "no product with gamma follows",
    ),
}


@pytest.mark.parametrize("case", NOT_NORMS)
def test_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = NOT_NORMS[case]
    fused = fuse(source, "fuse-rms-norm")
    assert fused.count("RMSNormalization") == 0 and not fused.results[0].modified
    assert fused.results[0].counters["num-unfused-rms-norm"] == (reason is not None)
    assert reason is None or f": {reason}" in fused.notes


def test_a_layer_normalization_is_no_near_miss(fuse: Fuse) -> None:
    source = norm(
        "m = ReduceMean<axes=[-1]>(x)  d = Sub(x, m)  q = Pow(d, two)  "
        "v = ReduceMean<axes=[-1]>(q)  a = Add(v, eps)  r = Sqrt(a)  n = Div(d, r)  "
        "y = Mul(n, gamma)"
    )
    fused = fuse(source)
    assert fused.count("LayerNormalization") == 1
    assert fused.results[0].counters["num-unfused-rms-norm"] == 0


def test_a_target_without_the_operator_keeps_the_parts(fuse: Fuse) -> None:
    fused = fuse(NORMS["torch dynamo"], target_name="ort-tensorrt")
    assert fused.count("RMSNormalization") == 0
    assert "ort-tensorrt does not run RMSNormalization faster than its parts" in fused.notes
