"""Small graphs in the forms in which scales meet operators, with the sites that each must have."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.testing import read_model

HEAD = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>'


@dataclass(frozen=True)
class Case:
    """A graph, and what is found in it.

    Attributes:
        text: Its body; inputs whose names begin with `w` become weights.
        sites: Name of a site to its way and kind.
        refused: Name of an input of a product to the reason that keeps it.
        why: Name of a site with a Mul to the reason why it is not folded.
    """

    text: str
    sites: dict[str, str]
    refused: dict[str, str]
    why: dict[str, str]

    def model(self) -> ir.Model:
        """Return it with weights drawn from its text."""
        return model_of(self.text)


def case(
    text: str,
    refused: dict[str, str] | None = None,
    why: dict[str, str] | None = None,
    **sites: str,
) -> Case:
    return Case(
        text, {name: way.replace("_", " ") for name, way in sites.items()}, refused or {}, why or {}
    )


def model_of(text: str) -> ir.Model:
    """Return a model with weights drawn from its text, those of norms around 1."""
    whole = f"{HEAD}\n{text}"
    inputs = ir.from_onnx_text(whole).graph.inputs
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    weights = {}
    for value in inputs:
        if not (value.name or "").startswith("w"):
            continue
        shape = tuple(int(d) for d in value.shape or ())
        array = rng.normal(size=shape) * (0.5 if len(shape) > 1 else 0.2)
        if (value.name or "").startswith(("wg", "wv_")):
            array = 1 + np.abs(array)
        weights[value.name or ""] = array.astype((value.dtype or ir.DataType.FLOAT).numpy())
    return read_model(whole, weights).ir


def feeds_of(model: ir.Model, seed: int = 0, sizes: int = 3) -> dict[str, np.ndarray]:
    """Return drawn inputs; open sizes are `sizes`."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.inputs:
        shape = tuple(d if isinstance(d, int) else sizes for d in value.shape or ())
        dtype = (value.dtype or ir.DataType.FLOAT).numpy()
        if np.issubdtype(dtype, np.integer):
            found[value.name or ""] = rng.integers(0, 4, shape).astype(dtype)
        else:
            found[value.name or ""] = rng.normal(size=shape).astype(dtype)
    return found


def kept_db(before: ir.Model, after: ir.Model, target: str = "ort-cpu") -> float:
    """Return the worst SQNR of the outputs of two models, runtime's optimizations off."""
    answers = []
    for model in (before, after):
        options = RunnerOptions(threads=1, exact=True)
        with find_target(target).runner(Model(model), options) as runner:
            answers.append(runner.run(feeds_of(before)))
    worst = 200.0
    for name, expected in answers[0].items():
        assert answers[1][name].shape == expected.shape
        noise = float(np.square(expected - answers[1][name], dtype=np.float64).sum())
        signal = float(np.square(expected, dtype=np.float64).sum())
        worst = min(worst, 10 * np.log10(signal / noise)) if noise else worst
    return worst


PRE_NORM = case(
    """
    g (float[B,S,16] x, float[16] wg, float[16] wb, float[16,24] wq, float[16,24] wk,
       float[24,8] w2) => (float[B,S,8] y) {
      n = LayerNormalization (x, wg, wb)
      q = MatMul (n, wq)  k = MatMul (n, wk)  s = Mul (q, k)  a = Tanh (s)  y = MatMul (a, w2)
    }
    """,
    n="folded_norm",
    a="inserted_other",
    why={"a": "operator"},
)
"""One norm, several readers; what Tanh makes takes a Mul."""

RESIDUAL = case(
    """
    g (float[B,S,16] x, float[16] wg, float[16] wb, float[16,16] w1, float[16] wc)
    => (float[B,S,16] y) {
      n = LayerNormalization (x, wg, wb)  p = MatMul (n, w1)  h = Add (p, wc)  y = Add (h, n)
    }
    """,
    n="branched_norm",
    why={"n": "output"},
)
"""As in an encoder that normalizes after its blocks."""

WRITTEN_NORM = case(
    """
    g (float[B,S,16] x, float[16] wg, float[16] wb, float[16,8] w1) => (float[B,S,8] y)
    <float two = {2.0}, float eps = {1e-5}> {
      m = ReduceMean <axes = [2]> (x)  d = Sub (x, m)  e = Pow (d, two)
      v = ReduceMean <axes = [2]> (e)  t = Add (v, eps)  r = Sqrt (t)  z = Div (d, r)
      g1 = Mul (z, wg)  n = Add (g1, wb)  y = MatMul (n, w1)
    }
    """.replace("ReduceMean <axes = [2]> (x)", "ReduceMean (x, last)")
    .replace("ReduceMean <axes = [2]> (e)", "ReduceMean (e, last)")
    .replace("float eps", "int64[1] last = {2}, float eps"),
    n="folded_norm",
)
"""Written out, the constant of a Mul is the gain."""

RELU = case(
    """
    g (float[B,16] x, float[16,24] w1, float[24] wc, float[24,8] w2, float[8] wd)
    => (float[B,8] y) {
      a = Gemm (x, w1, wc)  r = Relu (a)  d = Dropout (r)  y = Gemm (d, w2, wd)
    }
    """,
    d="folded_neurons",
    x="inserted_other",
    why={"x": "input"},
)

GATED = case(
    """
    g (float[B,S,16] x, float[16] wg, float[16,24] wu, float[16,24] wa, float[24,16] wd)
    => (float[B,S,16] y) {
      n = RMSNormalization (x, wg)  u = MatMul (n, wu)  a = MatMul (n, wa)
      s = Sigmoid (a)  t = Mul (a, s)  h = Mul (t, u)  p = MatMul (h, wd)  y = Add (p, x)
    }
    """,
    n="folded_norm",
    h="folded_neurons",
)
"""SwiGLU: `up` carries the scale of `down`; the gate, after a Sigmoid, cannot."""

HEADS = """
    g (float[B,S,16] x, float[16,16] wq, float[16,{kv}] wk, float[16,{kv}] wv, float[{kv}] wc,
       float[16,16] wo) => (float[B,S,16] y)
    <int64[4] split = {{0, 0, 4, 4}}, int64[4] kvs = {{0, 0, {h}, 4}},
     int64[3] joined = {{0, 0, 16}}, int64[5] each = {{1, {h}, {g}, 1, 1}}, int64[1] two = {{2}},
     int64[4] all = {{0, 4, -1, 4}}> {{
      q0 = MatMul (x, wq)  k0 = MatMul (x, wk)  v0 = MatMul (x, wv)  v1 = Add (v0, wc)
      q1 = Reshape (q0, split)  k1 = Reshape (k0, kvs)  v2 = Reshape (v1, kvs)
      q = Transpose <perm = [0,2,1,3]> (q1)  k2 = Transpose <perm = [0,2,1,3]> (k1)
      v3 = Transpose <perm = [0,2,1,3]> (v2)
      {attention}
      b = Transpose <perm = [0,2,1,3]> (m)  o = Reshape (b, joined)  y = MatMul (o, wo)
    }}
"""
WRITTEN = """
      k = Transpose <perm = [0,1,3,2]> (k2)  s = MatMul (q, k)  p = Softmax (s)
      m = MatMul (p, v3)
"""
REPEATED = """
      k3 = Unsqueeze (k2, two)  k4 = Expand (k3, each)  k5 = Reshape (k4, all)
      v4 = Unsqueeze (v3, two)  v5 = Expand (v4, each)  v6 = Reshape (v5, all)
      k = Transpose <perm = [0,1,3,2]> (k5)  s = MatMul (q, k)  p = Softmax (s)
      m = MatMul (p, v6)
"""
ATTENTION = case(
    HEADS.format(kv=16, h=4, g=1, attention=WRITTEN),
    o="folded_value",
    x="inserted_other",
    why={"x": "input"},
)
GROUPED = case(
    HEADS.format(kv=8, h=2, g=2, attention=REPEATED),
    o="folded_value",
    x="inserted_other",
    why={"x": "input"},
)
FUSED_GROUPED = case(
    HEADS.format(kv=8, h=2, g=2, attention="m = Attention (q, k2, v3)"),
    o="folded_value",
    x="inserted_other",
    why={"x": "input"},
)
FUSED_FLAT = case(
    """
    g (float[B,S,16] x, float[16,16] wq, float[16,8] wk, float[16,8] wv, float[16,16] wo)
    => (float[B,S,16] y) {
      q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
      o = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)  y = MatMul (o, wo)
    }
    """,
    o="folded_value",
    x="inserted_other",
    why={"x": "input"},
)
PACKED = case(
    """
    g (float[B,S,16] x, float[16,48] wqkv, float[48] wc, float[16,16] wo) => (float[B,S,16] y)
    <int64[3] parts = {16, 16, 16}> {
      p = MatMul (x, wqkv)  h = Add (p, wc)  q, k, v = Split <axis = -1> (h, parts)
      o = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)  y = MatMul (o, wo)
    }
    """,
    o="folded_value",
    x="inserted_other",
    why={"x": "input"},
)
CACHED = case(
    """
    g (float[B,S,16] x, float[B,2,P,8] past_k, float[B,2,P,8] past_v, float[16,16] wq,
       float[16,16] wk, float[16,16] wv, float[16,16] wo)
    => (float[B,S,16] y, float[B,2,T,8] new_k, float[B,2,T,8] new_v)
    <int64[4] split = {0, 0, 2, 8}, int64[3] joined = {0, 0, 16}> {
      q0 = MatMul (x, wq)  k0 = MatMul (x, wk)  v0 = MatMul (x, wv)
      q1 = Reshape (q0, split)  k1 = Reshape (k0, split)  v1 = Reshape (v0, split)
      q = Transpose <perm = [0,2,1,3]> (q1)  k = Transpose <perm = [0,2,1,3]> (k1)
      v = Transpose <perm = [0,2,1,3]> (v1)
      m, new_k, new_v = Attention (q, k, v, , past_k, past_v)
      b = Transpose <perm = [0,2,1,3]> (m)  o = Reshape (b, joined)  y = MatMul (o, wo)
    }
    """,
    o="inserted_other",
    x="inserted_other",
    why={"x": "input", "o": "input"},
)
"""A cache holds values as they are: the caller gives and gets them."""

CONVS = case(
    """
    g (float[B,3,8,8] x, float[8,3,3,3] w1, float[8] wc, float[8] wg, float[8] wb, float[8] wm,
       float[8] wv_, float[8,1,3,3] w2, float[8] wd, float[6,8,1,1] w3, float[6,3,3,3] w4,
       float[4,6] w5) => (float[B,4] y) <int64[2] flat = {0, -1}> {
      a = Conv <pads = [1,1,1,1]> (x, w1, wc)  b = BatchNormalization (a, wg, wb, wm, wv_)
      r = Relu (b)  m = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (r)
      c = Conv <pads = [1,1,1,1], group = 8> (m, w2, wd)  l = LeakyRelu (c)
      d = Conv (l, w3)  e = Conv <group = 2, pads = [1,1,1,1]> (d, w4)
      p = GlobalAveragePool (e)  f = Flatten (p)  y = Gemm <transB = 1> (f, w5)
    }
    """,
    m="folded_norm",
    l="folded_channels",
    d="folded_channels",
    f="folded_channels",
    x="inserted_other",
    why={"x": "input"},
)
"""Cross-layer equalization: a depthwise kernel takes scales up on both sides."""

SUMMED = case(
    """
    g (float[B,3,6,6] x, float[4,3,1,1] w1, float[4,3,1,1] w2, float[4] wc, float[5,4,1,1] w3,
       float[2,4,1,1] w4) => (float[B,7,6,6] y) {
      a = Conv (x, w1)  b = Conv (x, w2, wc)  s = Add (a, b)  r = Relu (s)
      c = Conv (r, w3)  d = Conv (r, w4)  y = Concat <axis = 1> (c, d)
    }
    """,
    r="folded_channels",
    x="inserted_other",
    why={"x": "input"},
)
"""Both Convs of a sum are divided alike."""

JOINED = case(
    """
    g (float[B,3,6,6] x, float[4,3,1,1] w1, float[2,3,1,1] w2, float[5,6,1,1] w3,
       float[2,2,1,1] w4) => (float[B,5,6,6] y, float[B,2,6,6] z) {
      a = Conv (x, w1)  b = Conv (x, w2)  s = Concat <axis = 1> (a, b)  y = Conv (s, w3)
      z = Conv (b, w4)
    }
    """,
    s="folded_channels",
    x="inserted_other",
    why={"x": "input"},
)
CLIPPED = case(
    """
    g (float[B,3,6,6] x, float[4,3,1,1] w1, float[2,4,1,1] w2) => (float[B,2,6,6] y)
    <float low = {0.0}, float high = {6.0}> {
      a = Conv (x, w1)  c = Clip (a, low, high)  y = Conv (c, w2)
    }
    """,
    c="inserted_other",
    x="inserted_other",
    why={"x": "input", "c": "operator"},
)
"""A bound of 6 is one for channels of any scale."""

SQUARED = case(
    """
    g (float[B,16] x, float[16,24] w1, float[24,8] w2) => (float[B,8] y) {
      a = MatMul (x, w1)  s = Mul (a, a)  y = MatMul (s, w2)
    }
    """,
    s="inserted_other",
    x="inserted_other",
    why={"x": "input", "s": "product"},
)
TIED = case(
    """
    g (int64[B,S] ids, float[200,32] w_table, float[32] wg) => (float[B,S,200] y) {
      e = Gather (w_table, ids)  n = RMSNormalization (e, wg)
      t = Transpose <perm = [1,0]> (w_table)  y = MatMul (n, t)
    }
    """,
    refused={"n": "shared"},
)
"""Its table is looked up, too: scaled rows would have to be a copy of it."""

LAYERS = case(
    """
    g (float[B,S,80] x, float[80] wg, float[80] wb, float[80,80] w1, float[80] wc, float[80,4] w2)
    => (float[B,S,4] y) {
      n1 = LayerNormalization (x, wg, wb)  p1 = MatMul (n1, w1)  h1 = Add (p1, wc)
      a1 = Gelu (h1)  r1 = Add (a1, x)
      n2 = LayerNormalization (r1, wg, wb)  p2 = MatMul (n2, w1)  h2 = Add (p2, wc)
      a2 = Gelu (h2)  r2 = Add (a2, r1)
      n3 = LayerNormalization (r2, wg, wb)  y = MatMul (n3, w2)
    }
    """,
    n1="folded_norm",
    n3="folded_norm",
)
"""Two layers with one weight, as in ALBERT: one site, and one scaled matrix."""

NESTED = case(
    """
    g (float[B,16] x, bool c, float[16] wg, float[16,8] w1) => (float[B,8] y, float[B,16] z) {
      n = RMSNormalization (x, wg)  y = MatMul (n, w1)
      z = If (c) <then_branch = then () => (float[B,16] t) { t = Tanh (n) },
                  else_branch = other () => (float[B,16] f) { f = Identity (x) }>
    }
    """,
    n="branched_norm",
    why={"n": "subgraph"},
)
PICKED = case(
    """
    g (float[B,S,16] x, float[16,24] w1, float[24] wc, float[12,8] w2) => (float[B,8] y)
    <int64 zero = {0}, int64[1] at = {4}, int64[1] to = {16}, int64[1] last = {2},
     int64[1] one = {1}> {
      p = MatMul (x, w1)  h = Add (p, wc)  c = Slice (h, at, to, last)  r = Relu (c)
      m = ReduceMean <keepdims = 0> (r, one)  y = MatMul (m, w2)
    }
    """,
    m="folded_neurons",
    x="inserted_other",
    why={"x": "input"},
)

CASES = {
    name.lower().replace("_", "-"): value
    for name, value in list(globals().items())
    if isinstance(value, Case)
}
