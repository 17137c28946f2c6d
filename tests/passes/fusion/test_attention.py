"""Attention: every way to write it, what must not fuse and why, masks to the last row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

Fuse = Callable[..., Any]

LOWEST = float(np.finfo(np.float32).min)
HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
QKV = "float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,T,4] v"


def model(body: str, inputs: str = QKV, output: str = "float[B,2,S,4] y", weights: str = "") -> str:
    given = f"<{weights}>" if weights else ""
    return f"{HEAD} g ({inputs}) => ({output}) {given} {{ {body} }}"


HALF = "float half = {0.5}"
TRANSPOSED = "kt = Transpose<perm=[0,1,3,2]>(k)"
TAIL = "p = Softmax<axis=-1>(s)  y = MatMul(p, v)"
GUARDED = "p = Softmax<axis=-1>(s)  n = IsNaN(p)  o = Where(n, zero, p)  y = MatMul(o, v)"

FIRES = {
    "scores scaled by a product": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Mul(a, half)  {TAIL}", weights=HALF),
        "y = Attention<scale=0.5>(q, k, v)",
    ),
    "scores scaled by a quotient": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Div(a, half)  {TAIL}", weights=HALF),
        "y = Attention<scale=2.0>(q, k, v)",
    ),
    "the root of the scale on Q and on K": (
        model(
            f"{TRANSPOSED} a = Mul(q, half)  b = Mul(kt, half)  s = MatMul(a, b)  {TAIL}",
            weights=HALF,
        ),
        "y = Attention<scale=0.25>(q, k, v)",
    ),
    "K scaled before it is transposed": (
        model(
            "b = Mul(half, k)  kt = Transpose<perm=[0,1,3,2]>(b)  "
            f"a = Mul(q, half)  s = MatMul(a, kt)  {TAIL}",
            weights=HALF,
        ),
        "y = Attention<scale=0.25>(q, k, v)",
    ),
    "no scale": (
        model(f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}"),
        "y = Attention<scale=1.0>(q, k, v)",
    ),
    "a NaN guard": (
        model(f"{TRANSPOSED} s = MatMul(q, kt)  {GUARDED}", weights="float zero = {0.0}"),
        "y = Attention<scale=1.0>(q, k, v)",
    ),
    "heads second, K transposed in one step": (
        model(
            "qh = Transpose<perm=[0,2,1,3]>(q)  kt = Transpose<perm=[0,2,3,1]>(k)  "
            "vh = Transpose<perm=[0,2,1,3]>(v)  s = MatMul(qh, kt)  "
            "p = Softmax<axis=-1>(s)  y = MatMul(p, vh)",
            "float[B,S,2,4] q, float[B,T,2,4] k, float[B,T,2,4] v",
        ),
        "Softmax_Transpose_output = Transpose<perm=[0, 2, 1, 3]>(q)\n"
        "Softmax_Transpose_1_output = Transpose<perm=[0, 2, 1, 3]>(k)\n"
        "Softmax_Transpose_2_output = Transpose<perm=[0, 2, 1, 3]>(v)\n"
        "y = Attention<scale=1.0>(Softmax_Transpose_output, Softmax_Transpose_1_output, "
        "Softmax_Transpose_2_output)",
    ),
    "linear layers before and after: no reshapes are left": (
        model(
            "qr = Reshape(q, heads)  qh = Transpose<perm=[0,2,1,3]>(qr)  "
            "kr = Reshape(k, heads)  kt = Transpose<perm=[0,2,3,1]>(kr)  "
            "vr = Reshape(v, heads)  vh = Transpose<perm=[0,2,1,3]>(vr)  "
            "s = MatMul(qh, kt)  p = Softmax<axis=-1>(s)  c = MatMul(p, vh)  "
            "t = Transpose<perm=[0,2,1,3]>(c)  y = Reshape(t, merged)",
            "float[B,S,8] q, float[B,S,8] k, float[B,S,8] v",
            "float[B,S,8] y",
            "int64[4] heads = {0, 0, 2, 4}, int64[3] merged = {0, 0, 8}",
        ),
        "y = Attention<kv_num_heads=2, q_num_heads=2, scale=1.0>(q, k, v)",
    ),
    "a mask of full shape": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(m, a)  {TAIL}", f"{QKV}, float[B,1,S,T] m"),
        None,
    ),
    "a mask per key": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}", f"{QKV}, float[B,1,1,T] m"),
        None,
    ),
    "a mask chosen by Where, false for masked": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Where(m, a, low)  {TAIL}",
            f"{QKV}, bool[B,1,S,T] m",
            weights="float low = {-1e9}",
        ),
        None,
    ),
    "a mask chosen by Where, true for masked": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Where(m, low, a)  {TAIL}",
            f"{QKV}, bool[B,1,1,T] m",
            weights="float low = {-1e9}",
        ),
        None,
    ),
}


def feeds_for(source: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; masks leave some keys, and one whole row, out."""
    rng = np.random.default_rng(seed)
    sizes = {"B": 2, "S": 3 if "float[B,S,8] k" in source else 5, "T": 3}
    feeds = {}
    for value in ir.from_onnx_text(source).graph.inputs:
        assert value.shape is not None and value.name is not None
        shape = [d if isinstance(d, int) else sizes[str(d)] for d in value.shape]
        if value.name != "m":
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
            continue
        masked = rng.random(shape) < 0.4
        masked[0, 0, 0] = True
        kept_if_true = "Where(m, a, low)" in source
        is_bool = value.dtype == ir.DataType.BOOL
        additive = np.where(masked, LOWEST, 0).astype(np.float32)
        feeds["m"] = (~masked if kept_if_true else masked) if is_bool else additive
    return feeds


@pytest.mark.parametrize("case", FIRES)
def test_fires(case: str, fuse: Fuse) -> None:
    source, expected = FIRES[case]
    fused = fuse(source)
    assert fused.count("Attention") == 1
    assert fused.results[0].statistics["num-fused-attention"] == 1
    assert "opset raised from 20 to 23 for Attention" in fused.notes
    if expected is not None:
        assert fused.text == expected
    assert fused.error(feeds_for(source)) <= 1e-6


STAYS = {
    "weights are an output too": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}", output="float[B,2,S,4] y, float[B,2,S,T] p"
        ),
        "attention weights are used elsewhere too",
    ),
    "softmax over the queries": (
        model(f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=2>(s)  y = MatMul(p, v)"),
        "Softmax is not over the last axis",
    ),
    "a mask that may widen the batch": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}", f"{QKV}, float[C,1,S,T] m"),
        "the mask is not known to broadcast: [C, 1, S, T] over scores [B, 2, S, T]",
    ),
    "one K for every batch": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            "float[B,2,S,4] q, float[1,2,T,4] k, float[B,2,T,4] v",
        ),
        "Q, K and V have batch sizes B, 1, B",
    ),
    "V is one longer than K": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            "float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,U,4] v",
        ),
        "lengths of K and V are T and U",
    ),
    "heads of unknown number": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            "float[B,?,S,4] q, float[B,?,T,4] k, float[B,?,T,4] v",
            "float[B,?,S,4] y",
        ),
        "Q, K and V have numbers of heads",
    ),
    "scores are squashed between mask and softmax": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Tanh(a)  {TAIL}"),
        "scores are made by Tanh, expected MatMul of Q and K",
    ),
    "Where fills with something that counts": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Where(m, a, low)  {TAIL}",
            f"{QKV}, bool[B,1,S,T] m",
            weights="float low = {-3.0}",
        ),
        "Where fills scores with -3, not a mask",
    ),
    "double precision, which the operator's kernels lack": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            QKV.replace("float", "double"),
            "double[B,2,S,4] y",
        ),
        "Q is not known to be float32 or float16",
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_stays_and_says_why(case: str, fuse: Fuse) -> None:
    source, reason = STAYS[case]
    fused = fuse(source)
    assert fused.count("Attention") == 0
    assert fused.results[0].statistics["num-unfused-attention"] == 1
    assert f": {reason}" in fused.notes
    assert not fused.results[0].modified


def test_a_classifier_head_is_no_near_miss(fuse: Fuse) -> None:
    fused = fuse(f"{HEAD} g (float[B,4] x) => (float[B,4] y) {{ y = Softmax<axis=-1>(x) }}")
    assert fused.results[0].statistics["num-unfused-attention"] == 0
    assert not fused.notes


def test_a_target_without_the_operator_keeps_the_parts(fuse: Fuse) -> None:
    fused = fuse(FIRES["no scale"][0], target_name="ort-tensorrt")
    assert fused.count("Attention") == 0
    assert "ort-tensorrt does not run Attention faster than its parts" in fused.notes


def masked_model(mask: str, weights: str, *, guard: bool) -> str:
    body = (
        f"{TRANSPOSED} b = {mask}  a = MatMul(q, kt)  s = Add(a, b)  {GUARDED if guard else TAIL}"
    )
    return model(body, f"{QKV}, bool[B,1,1,T] m", weights=f"float zero = {{0.0}}, {weights}")


@pytest.mark.parametrize("guard", [False, True])
def test_rows_masked_by_the_lowest_number_keep_the_mean_of_v(guard: bool, fuse: Fuse) -> None:
    source = masked_model("Where(m, zero, low)", f"float low = {{{LOWEST!r}}}", guard=guard)
    fused = fuse(source)
    assert fused.count("Attention") == 1
    feeds = feeds_for(source)
    feeds["m"] = np.asarray([[False] * 3, [True, True, False]]).reshape(2, 1, 1, 3)
    assert fused.error(feeds) <= 1e-6


def test_rows_masked_by_infinity_under_a_guard_stay_zero(fuse: Fuse) -> None:
    fused = fuse(masked_model("Where(m, zero, low)", "float low = {-inf}", guard=True))
    assert fused.count("Attention") == 1
    feeds = feeds_for(masked_model("Where(m, zero, low)", "float low = {-1e9}", guard=True))
    feeds["m"] = np.asarray([[False] * 3, [True, True, False]]).reshape(2, 1, 1, 3)
    assert fused.error(feeds) <= 1e-6


def test_blocks_share_their_mask(fuse: Fuse) -> None:
    source = model(
        f"{TRANSPOSED} b = Where(m, zero, low)  a = MatMul(q, kt)  s = Add(a, b)  "
        "p = Softmax<axis=-1>(s)  w = MatMul(p, v)  "
        "c = MatMul(w, kt)  d = Add(c, b)  e = Softmax<axis=-1>(d)  y = MatMul(e, v)",
        f"{QKV}, bool[B,1,1,T] m",
        weights=f"float zero = {{0.0}}, float low = {{{LOWEST!r}}}",
    )
    fused = fuse(source)
    assert [fused.count(op) for op in ("Attention", "Expand", "Where")] == [2, 1, 1]
    assert fused.error(feeds_for(source)) <= 1e-6


def test_provenance_and_names(fuse: Fuse) -> None:
    source = ir.from_onnx_text(FIRES["no scale"][0])
    for node in source.graph:
        node.name = f"/layer.0/self/{node.op_type}"
        node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'layer.0.self', 'softmax']"
    fused = fuse(source)
    (node,) = fused.after.graph
    assert node.name == "/layer.0/self/Attention"
    assert node.metadata_props["pkg.irtools.rule"] == "fuse-attention"
    assert "/layer.0/self/Softmax" in node.metadata_props["pkg.irtools.replaced"]
    assert "layer.0.self" in node.metadata_props["pkg.torch.onnx.name_scopes"]


def test_a_wrong_scale_would_be_noticed(fuse: Fuse) -> None:
    """The numeric check is tight enough that a broken rule fails it."""
    source = FIRES["scores scaled by a product"][0]
    fused = fuse(source)
    (node,) = fused.after.graph
    node.attributes["scale"] = ir.AttrFloat32("scale", 0.5001)
    assert fused.error(feeds_for(source)) > 1e-5
