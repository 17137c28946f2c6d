"""One encoder block with a head, written in the ways that exporters and fusions write it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.testing import read_model

WIDTH = 16

OPEN = """
<ir_version: 10, opset_import: ["" : 23]>
block (
  float[N,S,16] x, int64[N,S] mask, float[16,16] wq, float[16,16] wk, float[16,16] wv,
  float[16,16] wo, float[16,32] w1, float[32,16] w2, float[16] g, float[16] b, float[16,4] head,
  float[2,16] probe, int64[1] first, int64[1] second, int64[1] last, int64[1] end, int64[1] one,
  int64[1] third, float[16,1] column, float[2,4] steps, float[8,4] table,
  int64[2] axes, int64[4] split, int64[3] joined, int64[1] wide, int64[2] rows,
  float scale, float low, float zero, int64 at,
  int64 next
) => ("""

PROJECTED = "q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)"
BIAS = """
  seen = Cast<to=9>(mask)  open = Unsqueeze(seen, axes)  bias = Where(open, zero, low)
"""
WRITTEN = f"""
  {BIAS}  {PROJECTED}
  q4 = Reshape(q, split)  k4 = Reshape(k, split)  v4 = Reshape(v, split)
  qh = Transpose<perm=[0,2,1,3]>(q4)  kh = Transpose<perm=[0,2,3,1]>(k4)
  vh = Transpose<perm=[0,2,1,3]>(v4)
  product = MatMul(qh, kh)  scaled = Mul(product, scale)  scores = Add(scaled, bias)
  weights = Softmax<axis=-1>(scores)  mixed = MatMul(weights, vh)
  back = Transpose<perm=[0,2,1,3]>(mixed)  attended = Reshape(back, joined)
"""
FUSED = f"""
  {BIAS}  {PROJECTED}
  long = Shape<start=1, end=2>(x)  size = Concat<axis=0>(one, one, long, one)
  square = Expand(bias, size)
  attended = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v, square)
"""
ROTARY = f"""
  {BIAS}  {PROJECTED}
  ANGLES  cos = Cos(angles)  sin = Sin(angles)
  qr = RotaryEmbedding<num_heads=2>(q, cos, sin PLACES)
  kr = RotaryEmbedding<num_heads=2>(k, cos, sin PLACES)
  long = Shape<start=1, end=2>(x)  size = Concat<axis=0>(one, one, long, one)
  square = Expand(bias, size)
  attended = Attention<q_num_heads=2, kv_num_heads=2>(qr, kr, v, square)
"""
COUNTED = "flags = Cast<to=1>(mask)  count = CumSum(flags, next)  place = Unsqueeze(count, third)"
BY_COUNT = f"{COUNTED}  step = Gather<axis=0>(steps, first)  angles = Mul(place, step)"
TURNED_BY_COUNT = ROTARY.replace("ANGLES", BY_COUNT).replace("PLACES", "")
TURNED_BY_STATES = ROTARY.replace("ANGLES", "angles = MatMul(x, head)").replace("PLACES", "")
"""Every position by angles of its own, which are states."""
CHOSEN = "p = MatMul(x, column)  up = Greater(p, zero)  ids = Cast<to=7>(up)"
CHOSEN = f"{CHOSEN}  rows2 = Squeeze(ids, third)  angles = Identity(table)"
TURNED_BY_LOOKUP = ROTARY.replace("ANGLES", CHOSEN).replace("PLACES", ", rows2")
"""By angles of a table, of which states choose the row."""
CAUSAL = f"""
  {PROJECTED}
  attended = Attention<q_num_heads=2, kv_num_heads=2, is_causal=1>(q, k, v)
"""
JOINED = f"""
  {BIAS}
  sizes = Shape<start=0, end=2>(x)  whole = Concat<axis=0>(sizes, wide)  flat = Reshape(x, rows)
  q0 = Gemm(flat, wq, b)  k0 = Gemm(flat, wk, b)  v0 = Gemm(flat, wv, b)
  q = Reshape(q0, whole)  k = Reshape(k0, whole)  v = Reshape(v0, whole)
  long = Shape<start=1, end=2>(x)  size = Concat<axis=0>(one, one, long, one)
  square = Expand(bias, size)
  mixed = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v, square)
  mixed0 = Reshape(mixed, rows)  mixed1 = Gemm(mixed0, wv, b)  attended = Reshape(mixed1, whole)
"""
REST = """
  o = MatMul(attended, wo)  r1 = Add(o, x)  n1 = LayerNormalization<axis=-1>(r1, g, b)
  f1 = MatMul(n1, w1)  f2 = Gelu(f1)  f3 = MatMul(f2, w2)  r2 = Add(f3, n1)
  hidden = LayerNormalization<axis=-1>(r2, g, b)
"""
FIRST = "row = Gather<axis=1>(hidden, at)  y = MatMul(row, head)"

NUMBERS = {
    "first": [0],
    "second": [1],
    "last": [-1],
    "end": [2**62],
    "one": [1],
    "third": [2],
    "axes": [1, 2],
    "split": [0, 0, 2, 8],
    "joined": [0, 0, 16],
    "wide": [16],
    "rows": [-1, 16],
}


def block(attention: str, reading: str, outputs: str = "float[N,4] y") -> ir.Model:
    """Return the model of a block and what reads its hidden state."""
    weights = {name: np.asarray(numbers, np.int64) for name, numbers in NUMBERS.items()}
    weights |= {"at": np.asarray(0), "next": np.asarray(1)}
    weights |= {"scale": np.float32(8**-0.5), "low": np.float32(-1e4), "zero": np.float32(0)}
    rng = np.random.default_rng(0)
    shapes = dict.fromkeys(("wq", "wk", "wv", "wo"), (16, 16))
    shapes |= {"w1": (16, 32), "w2": (32, 16), "g": (16,), "b": (16,), "head": (16, 4)}
    shapes |= {"probe": (2, 16), "steps": (2, 4), "table": (8, 4), "column": (16, 1)}
    weights |= {n: rng.normal(size=s, scale=0.4).astype(np.float32) for n, s in shapes.items()}
    text = f"{OPEN}{outputs}) {{ {attention} {REST} {reading} }}"
    model = read_model(text, {name: np.asarray(w) for name, w in weights.items()}).ir
    for value in [v for v in model.graph.initializers.values() if not v.uses()]:
        del model.graph.initializers[value.name]
    return model


def feeds(model: ir.Model, batch: int, length: int) -> dict[str, np.ndarray]:
    """Return inputs whose rows end in padding."""
    rng = np.random.default_rng(batch)
    ends = rng.integers(1, length + 1, (batch, 1))
    found = {
        "x": rng.standard_normal((batch, length, WIDTH)).astype(np.float32),
        "mask": (np.arange(length) < ends).astype(np.int64),
    }
    return {value.name: found[value.name] for value in model.graph.inputs}


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    """The SQNR."""
    noise = float(np.square(expected - found, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    return 10 * np.log10(signal / noise) if noise else np.inf


def sqnr(before: ir.Model, after: ir.Model, target: str, batch: int = 3, length: int = 5) -> float:
    """Return the worst SQNR of the outputs, in dB, without the optimizations of the runtime."""
    arrays, worst = feeds(before, batch, length), np.inf
    answers = []
    for model in (before, after):
        options = RunnerOptions(threads=1, exact=True)
        with find_target(target).runner(Model(model), options) as runner:
            answers.append(runner.run(arrays))
    for name, expected in answers[0].items():
        found = answers[1][name]
        assert found.shape == expected.shape
        worst = min(worst, decibels(expected, found))
    return worst


@pytest.fixture(params=["ort-cpu", pytest.param("openvino-cpu", marks=pytest.mark.openvino)])
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)
