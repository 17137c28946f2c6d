"""Attention: every way to write it, what must not fuse and why, masks to the last row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passmanager import Pipeline

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
    "a mask of zeros": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  n = Shape(a)  m = Expand(zero, n)  "
            f"s = Add(a, m)  {TAIL}",
            weights="float zero = {0.0}",
        ),
        "y = Attention<scale=1.0>(q, k, v)",
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

BATCHED = (
    "qr = Reshape(q, heads)  qt = Transpose<perm=[0,2,1,3]>(qr)  qb = Reshape(qt, joined)  "
    "kr = Reshape(k, heads)  kh = Transpose<perm=[0,2,1,3]>(kr)  kb = Reshape(kh, joined)  "
    "vr = Reshape(v, heads)  vh = Transpose<perm=[0,2,1,3]>(vr)  vb = Reshape(vh, joined)  "
    "kt = Transpose<perm=[0,2,1]>(kb)  ks = Div(kt, root)  a = MatMul(qb, ks)  {scores}  "
    "p = Softmax<axis=-1>(s)  pb = Reshape(p, square)  c = MatMul(pb, vb)  "
    "ch = Reshape(c, split)  t = Transpose<perm=[0,2,1,3]>(ch)  y = Reshape(t, merged)"
)
BATCHED_WEIGHTS = (
    "int64[4] heads = {0, 0, 2, 4}, int64[3] joined = {-1, 3, 4}, int64[3] square = {-1, 3, 3}, "
    "int64[4] scored = {-1, 2, 3, 3}, int64[4] split = {-1, 2, 3, 4}, "
    f"int64[3] merged = {{0, 0, 8}}, float root = {{2.0}}, float low = {{{LOWEST!r}}}"
)


def batched(scores: str, inputs: str = "") -> str:
    return model(
        BATCHED.format(scores=scores),
        f"float[B,3,8] q, float[B,3,8] k, float[B,3,8] v{inputs}",
        "float[B,3,8] y",
        BATCHED_WEIGHTS,
    )


REPEAT = (
    "k5 = Unsqueeze(k, two)  ke = Expand(k5, times)  kw = Reshape(ke, whole)  "
    "v5 = Unsqueeze(v, two)  ve = Expand(v5, times)  vw = Reshape(ve, whole)  "
)
GROUPS = "float[B,4,S,4] q, float[B,2,3,4] k, float[B,2,3,4] v"
GROUPED_WEIGHTS = (
    "int64[1] two = {2}, int64[5] times = {1, 1, 2, 1, 1}, int64[4] whole = {0, 4, 3, 4}"
)

FIRES |= {
    "a bias by position, then a mask": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  b = Div(a, half)  c = Add(b, r)  "
            f"s = Add(c, m)  {TAIL}",
            f"{QKV}, float[1,2,S,T] r, float[B,1,1,T] m",
            weights=HALF,
        ),
        None,
    ),
    "Where over a bias by position": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  b = Add(r, a)  s = Where(m, b, low)  {TAIL}",
            f"{QKV}, float[1,2,S,T] r, bool[B,1,S,T] m",
            weights="float low = {-1e9}",
        ),
        None,
    ),
    "a mask whose length only the product with V settles": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}", f"{QKV}, float[B,1,S,U] m"),
        None,
    ),
    "K and V whose lengths only the product settles": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            "float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,U,4] v",
        ),
        "y = Attention<scale=1.0>(q, k, v)",
    ),
    "batch and heads as one axis": (
        batched("s = Reshape(a, scored)"),
        "y = Attention<kv_num_heads=2, q_num_heads=2, scale=0.5>(q, k, v)",
    ),
    "batch and heads as one axis, a bias before and a Where after": (
        batched(
            "r = Reshape(r4, square)  b = Add(a, r)  d = Reshape(b, scored)  s = Where(m, low, d)",
            ", float[B,2,3,3] r4, bool[B,1,3,3] m",
        ),
        None,
    ),
    "K and V repeated for groups of queries": (
        model(
            f"{REPEAT} kt = Transpose<perm=[0,1,3,2]>(kw)  s = MatMul(q, kt)  "
            "p = Softmax<axis=-1>(s)  y = MatMul(p, vw)",
            GROUPS,
            "float[B,4,S,4] y",
            GROUPED_WEIGHTS,
        ),
        "y = Attention<scale=1.0>(q, k, v)",
    ),
    "linear layers, groups of queries": (
        model(
            "qr = Reshape(q, four)  qh = Transpose<perm=[0,2,1,3]>(qr)  "
            "kr = Reshape(g, pair)  k = Transpose<perm=[0,2,1,3]>(kr)  "
            "vr = Reshape(h, pair)  v = Transpose<perm=[0,2,1,3]>(vr)  "
            f"{REPEAT} kt = Transpose<perm=[0,1,3,2]>(kw)  s = MatMul(qh, kt)  "
            "p = Softmax<axis=-1>(s)  c = MatMul(p, vw)  "
            "t = Transpose<perm=[0,2,1,3]>(c)  y = Reshape(t, merged)",
            "float[B,3,16] q, float[B,3,8] g, float[B,3,8] h",
            "float[B,3,16] y",
            f"{GROUPED_WEIGHTS}, int64[4] four = {{0, 0, 4, 4}}, int64[4] pair = {{0, 0, 2, 4}}, "
            "int64[3] merged = {0, 0, 16}",
        ),
        "y = Attention<kv_num_heads=2, q_num_heads=4, scale=1.0>(q, g, h)",
    ),
}


def feeds_for(source: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; masks leave some keys, and one whole row, out."""
    rng = np.random.default_rng(seed)
    sizes = {"B": 2, "S": 3 if "float[B,S,8] k" in source else 5, "T": 3, "U": 3, "N": 4}
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
    assert fused.results[0].counters["num-fused-attention"] == 1
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
    "softmax by default, which took all axes but the first before opset 13": (
        model(f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax(s)  y = MatMul(p, v)").replace(
            '"" : 20', '"" : 12'
        ),
        "Softmax is not over the last axis",
    ),
    "scores added to scores": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  b = MatMul(k, kt)  s = Add(a, b)  {TAIL}",
            QKV.replace("T", "S"),
        ),
        "no MatMul of Q and K is added to a mask",
    ),
    "guarded weights are an output too": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {GUARDED}",
            output="float[B,2,S,4] y, float[B,2,S,T] p",
            weights="float zero = {0.0}",
        ),
        "attention weights are an output of the model",
    ),
    "V is scaled": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  w = Mul(v, half)  "
            "y = MatMul(p, w)",
            weights=HALF,
        ),
        "V is scaled",
    ),
    "a mask per channel of another size": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}", f"{QKV}, float[B,4,S,T] m"),
        "the mask is not known to broadcast: [B, 4, S, T] over scores [B, 2, S, T]",
    ),
    "scores times zero": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Mul(zero, a)  {TAIL}",
            weights="float zero = {0.0}",
        ),
        "scores are made by Mul, expected MatMul of Q and K",
    ),
    "scores divided by zero": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Div(a, zero)  {TAIL}",
            weights="float zero = {0.0}",
        ),
        "scores are made by Div, expected MatMul of Q and K",
    ),
    "a scale of five dimensions, which widens the scores": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Mul(a, half)  {TAIL}",
            output="float[1,B,2,S,4] y",
            weights="float[1,1,1,1,1] half = {0.5}",
        ),
        "scores are made by Mul, expected MatMul of Q and K",
    ),
    "Where fills with something that counts": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  s = Where(m, a, low)  {TAIL}",
            f"{QKV}, bool[B,1,S,T] m",
            weights="float low = {-3.0}",
        ),
        "Where fills scores with -3, not a mask",
    ),
    "scores are scaled after a bias was added": (
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  b = Add(a, r)  s = Mul(b, half)  {TAIL}",
            f"{QKV}, float[1,2,S,T] r",
            weights=HALF,
        ),
        "scores are scaled after a mask was added",
    ),
    "a bias that is not of the joined shape": (
        batched("b = Add(a, r)  s = Reshape(b, scored)", ", float[N,1,3] r"),
        "a mask is added to [B*H,S,T] and is not of that shape",
    ),
    "Where before batch and heads are split": (
        batched("b = Where(m, low, a)  s = Reshape(b, scored)", ", bool[N,3,3] m"),
        "Where chooses before batch and heads are split",
    ),
    "a mask of another length": (
        model(f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}", f"{QKV}, float[B,1,R,T] m"),
        "the mask is not known to broadcast: [B, 1, R, T] over scores [B, 2, S, T]",
    ),
    "groups that are not all of the heads": (
        model(
            f"{TRANSPOSED} s = MatMul(q, kt)  {TAIL}",
            "float[B,2,S,4] q, float[B,1,T,4] k, float[B,2,T,4] v",
        ),
        "Q, K and V have numbers of heads 2, 1, 2",
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
    assert fused.results[0].counters["num-unfused-attention"] == 1
    assert f": {reason}" in fused.notes
    assert not fused.results[0].modified


NEITHER = {
    "weights are the second factor": model(
        f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  y = MatMul(v, p)",
        QKV.replace("T", "S").replace("4", "S"),
        "float[B,2,S,S] y",
    ),
    "a guard that fills with ones": model(
        f"{TRANSPOSED} s = MatMul(q, kt)  {GUARDED}", weights="float zero = {1.0}"
    ),
    "a guard that keeps something else": model(
        f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  n = IsNaN(p)  "
        "o = Where(n, zero, s)  y = MatMul(o, v)",
        weights="float zero = {0.0}",
    ),
    "a guard of something else": model(
        f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  n = IsNaN(s)  "
        "o = Where(n, zero, p)  y = MatMul(o, v)",
        weights="float zero = {0.0}",
    ),
    "a product of a foreign domain": model(
        f"{TRANSPOSED} s = MatMul(q, kt)  p = Softmax<axis=-1>(s)  y = com.microsoft.MatMul(p, v)"
    ).replace('"" : 20', '"" : 20, "com.microsoft" : 1'),
}


@pytest.mark.parametrize("case", NEITHER)
def test_what_is_no_attention_stays(case: str, fuse: Fuse) -> None:
    fused = fuse(NEITHER[case])
    assert fused.count("Attention") == 0 and not fused.results[0].modified


def test_blocks_whose_open_sizes_have_other_names_share_a_reason(fuse: Fuse) -> None:
    def block(n: int, length: str) -> tuple[str, str]:
        inputs = ", ".join(f"float[B,2,{length},4] {name}{n}" for name in ("q", "k", "v"))
        body = (
            f"kt{n} = Transpose<perm=[0,1,3,2]>(k{n})  a{n} = MatMul(q{n}, kt{n})  "
            f"s{n} = Add(a{n}, m)  p{n} = Softmax<axis=-1>(s{n})  y{n} = MatMul(p{n}, v{n})"
        )
        return inputs, body

    (one, first), (two, second) = block(1, "S"), block(2, "T")
    source = model(
        f"{first} {second}",
        f"{one}, {two}, float[B,1,R,R] m",
        "float[B,2,S,4] y1, float[B,2,T,4] y2",
    )
    fused = fuse(source)
    assert fused.results[0].counters["num-unfused-attention"] == 2
    assert fused.notes.count("did not fuse attention at ") == 1
    expected = "and 1 more place: the mask is not known to broadcast: [B, 1, R, R] over scores"
    assert expected in fused.notes


def test_layers_that_merge_batch_and_length_keep_their_reshapes(fuse: Fuse) -> None:
    """[B*S, H*D] is not what the operator takes for [B, S, H*D]."""
    source = model(
        "qr = Reshape(q, heads)  qh = Transpose<perm=[0,2,1,3]>(qr)  "
        "kr = Reshape(k, heads)  kt = Transpose<perm=[0,2,3,1]>(kr)  "
        "vr = Reshape(v, heads)  vh = Transpose<perm=[0,2,1,3]>(vr)  "
        "s = MatMul(qh, kt)  p = Softmax<axis=-1>(s)  c = MatMul(p, vh)  "
        "t = Transpose<perm=[0,2,1,3]>(c)  y = Reshape(t, merged)",
        "float[6,8] q, float[6,8] k, float[6,8] v",
        "float[2,3,8] y",
        "int64[4] heads = {2, 3, 2, 4}, int64[3] merged = {2, 3, 8}",
    )
    fused = fuse(source)
    assert fused.count("Attention") == 1 and fused.count("Reshape") == 4
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((6, 8)).astype(np.float32) for name in "qkv"}
    assert fused.error(feeds) <= 1e-6


def test_a_constant_mask_of_the_lowest_number_keeps_the_mean_of_v(fuse: Fuse) -> None:
    low = f"{LOWEST!r}"
    source = model(
        f"{TRANSPOSED} a = MatMul(q, kt)  s = Add(a, m)  {TAIL}",
        QKV.replace("S", "2").replace("T", "2"),
        "float[B,2,2,4] y",
        f"float[1,1,2,2] m = {{{low}, {low}, 0.0, {low}}}",
    )
    fused = fuse(source)
    assert fused.count("Attention") == 1
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((2, 2, 2, 4)).astype(np.float32) for name in "qkv"}
    assert fused.error(feeds) <= 1e-6


def test_an_operator_that_is_too_new_for_the_target(make_context: Callable[..., Any]) -> None:
    ctx = make_context()
    base = ctx.target

    class Old(type(base)):  # type: ignore[misc]
        @property
        def capabilities(self) -> Any:
            return replace(base.capabilities, max_opset=22)

    found = ir.from_onnx_text(FIRES["no scale"][0])
    (step,) = Pipeline.parse("fuse-attention")
    result = step.run(found, replace(ctx, target=Old()))
    assert not result.modified
    assert "reads opset 22, not 23" in result.notes[0]


def test_a_classifier_head_is_no_near_miss(fuse: Fuse) -> None:
    fused = fuse(f"{HEAD} g (float[B,4] x) => (float[B,4] y) {{ y = Softmax<axis=-1>(x) }}")
    assert fused.results[0].counters["num-unfused-attention"] == 0
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


def test_heads_that_are_repeated_as_a_whole_are_no_groups(fuse: Fuse) -> None:
    """[B,G,T,D] tiled to 0 1 0 1 is another thing than repeated to 0 0 1 1."""
    source = FIRES["K and V repeated for groups of queries"][0]
    source = source.replace("two = {2}", "two = {1}").replace("{1, 1, 2, 1, 1}", "{1, 2, 1, 1, 1}")
    fused = fuse(source)
    (node,) = [n for n in fused.after.graph if n.op_type == "Attention"]
    assert [v.name for v in node.inputs] == ["q", "kw", "vw"]
    assert fused.error(feeds_for(source)) <= 1e-6


CACHED = (
    "qr = Reshape(q, heads)  qh = Transpose<perm=[0,2,1,3]>(qr)  "
    "kr = Reshape(k, heads)  kn = Transpose<perm=[0,2,1,3]>(kr)  kk = Concat<axis=2>(pk, kn)  "
    "vr = Reshape(v, heads)  vn = Transpose<perm=[0,2,1,3]>(vr)  vv = Concat<axis=2>(pv, vn)  "
    "kt = Transpose<perm=[0,1,3,2]>(kk)  a = MatMul(qh, kt)  {mask}  p = Softmax<axis=-1>(s)  "
    "c = MatMul(p, vv)  t = Transpose<perm=[0,2,1,3]>(c)  y = Reshape(t, merged)"
)


@pytest.mark.parametrize("merged", ["3] merged = {0, 0, 8}", "2] merged = {-1, 8}"])
@pytest.mark.parametrize("own", [False, True])
def test_a_cache(own: bool, merged: str, fuse: Fuse) -> None:
    """A mask that is made from the joined cache itself cannot go into what joins it.

    A Gemm reads the output as rows, [B*S, H*D], as in GPT-2.
    """
    added = "z = ReduceMax<keepdims=0>(kk, axes)  m = Unsqueeze(z, one)  s = Add(a, m)"
    source = model(
        CACHED.format(mask=added if own else "s = Identity(a)"),
        "float[B,S,8] q, float[B,S,8] k, float[B,S,8] v, float[B,2,P,4] pk, float[B,2,P,4] pv",
        f"float[{'B,S' if merged.startswith('3') else 'N'},8] y, "
        "float[B,2,T,4] kk, float[B,2,T,4] vv",
        f"int64[4] heads = {{0, 0, 2, 4}}, int64[{merged}, int64[2] axes = {{1, 3}}, "
        "int64[2] one = {1, 2}",
    )
    fused = fuse(source, "cleanup,fuse")
    (node,) = [n for n in fused.after.graph if n.op_type == "Attention"]
    assert len(node.outputs) == (1 if own else 3)
    rng = np.random.default_rng(0)
    for length, past in ((3, 0), (1, 4), (2, 3)):
        shapes = dict.fromkeys("qkv", (2, length, 8)) | dict.fromkeys(("pk", "pv"), (2, 2, past, 4))
        feeds = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
        assert fused.error(feeds) <= 1e-6


WRITTEN = '<ir_version: 10, opset_import: ["" : 23]> g'


def test_an_operator_over_repeated_heads_is_brought_to_groups(fuse: Fuse) -> None:
    source = (
        f"{WRITTEN} ({GROUPS}, bool[B,1,S,3] m) => (float[B,4,S,4] y) <{GROUPED_WEIGHTS}> "
        f"{{ {REPEAT} y = Attention<is_causal=1>(q, kw, vw, m) }}"
    )
    fused = fuse(source)
    assert fused.text == "y = Attention<is_causal=1, scale=0.5>(q, k, v, m)"
    feeds = feeds_for(source)
    assert fused.error(feeds) <= 1e-6


def test_a_mask_that_the_runtime_would_have_to_broadcast_is_expanded(fuse: Fuse) -> None:
    source = (
        f"{WRITTEN} ({QKV}, bool[B,1,1,T] m) => (float[B,2,S,4] y) {{ y = Attention(q, k, v, m) }}"
    )
    fused = fuse(source)
    assert [fused.count(op) for op in ("Attention", "Expand")] == [1, 1]
    after = fused.after.clone()
    feeds = feeds_for(source)
    reference = model(
        f"{TRANSPOSED} a = MatMul(q, kt)  b = Mul(a, half)  s = Where(m, b, low)  {TAIL}",
        f"{QKV}, bool[B,1,1,T] m",
        weights=f"{HALF}, float low = {{-1e9}}",
    )
    fused.before.graph.name = "as it was"  # The runtime refuses it.
    pair = type(fused)(ir.from_onnx_text(reference), after, fused.results)
    feeds["m"] = np.asarray([[True, False, True], [True, True, False]]).reshape(2, 1, 1, 3)
    assert pair.error(feeds) <= 1e-6


@pytest.mark.parametrize("inputs", [QKV, f"{QKV}, bool[B,1,S,T] m"])
def test_an_operator_that_is_fine_stays(inputs: str, fuse: Fuse) -> None:
    mask = ", m" if " m" in inputs else ""
    fused = fuse(f"{WRITTEN} ({inputs}) => (float[B,2,S,4] y) {{ y = Attention(q, k, v{mask}) }}")
    assert not fused.results[0].modified and not fused.notes
    assert fused.results[0].counters["num-unfused-attention"] == 0


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


@pytest.mark.parametrize("number", ["0.0", "-2.0"])
def test_only_zeros_are_no_mask(number: str, fuse: Fuse) -> None:
    """A mask of another number, or one that may widen the scores, stays as it is."""
    sizes = "Shape(a)" if number != "0.0" else "Concat<axis=0>(b, h, l, l)"
    inputs = QKV if number != "0.0" else f"{QKV}, int64[1] b, int64[1] h, int64[1] l"
    fused = fuse(
        model(
            f"{TRANSPOSED} a = MatMul(q, kt)  n = {sizes}  m = Expand(zero, n)  "
            f"s = Add(a, m)  {TAIL}",
            inputs,
            weights=f"float zero = {{{number}}}",
        )
    )
    assert "Attention<scale=1.0>(q, k, v)" not in fused.text
