"""Small models by hand, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.model import Model, verify
from irtools.passmanager import PassContext
from irtools.targets import find_target

Feeds = Mapping[str, np.ndarray]

FFN = """
<ir_version: 10, opset_import: ["" : 20]>
ffn (float[batch,seq,8] x, float[8,32] w_one, float[32] w_b1, float[32,8] w_two, float[8] w_b2)
=> (float[batch,seq,8] y) {
  h = MatMul(x, w_one)
  a = Add(h, w_b1)
  g = Gelu(a)
  o = MatMul(g, w_two)
  y = Add(o, w_b2)
}
"""

ERF_FFN = """
<ir_version: 8, opset_import: ["" : 17]>
ffn (float[batch,seq,8] x, float[32,8] w_one, float[32] w_b1, float[8,32] w_two, float[8] w_b2)
=> (float[rows,8] y) {
  shape = Constant <value_ints = [-1, 8]> ()
  flat = Reshape(x, shape)
  a = Gemm <transB = 1> (flat, w_one, w_b1)
  root = Constant <value_float = 1.4142135> ()
  one = Constant <value_float = 1.0> ()
  half = Constant <value_float = 0.5> ()
  d = Div(a, root)
  e = Erf(d)
  p = Add(e, one)
  m = Mul(a, p)
  g = Mul(m, half)
  y = Gemm <transB = 1> (g, w_two, w_b2)
}
"""

HEADS = """
<ir_version: 10, opset_import: ["" : 20]>
heads (float[batch,5,8] x, float[8,8] w_q, float[8] w_bq, float[8,8] w_k, float[8,8] w_v,
       float[8] w_bv, float[8,8] w_o, float[8] w_bo)
=> (float[batch,5,8] y) {
  split = Constant <value_ints = [0, 5, 4, 2]> ()
  merge = Constant <value_ints = [0, 5, 8]> ()
  qm = MatMul(x, w_q)
  qb = Add(qm, w_bq)
  k = MatMul(x, w_k)
  vm = MatMul(x, w_v)
  vb = Add(vm, w_bv)
  qs = Reshape(qb, split)
  ks = Reshape(k, split)
  vs = Reshape(vb, split)
  qt = Transpose <perm = [0, 2, 1, 3]> (qs)
  kt = Transpose <perm = [0, 2, 3, 1]> (ks)
  vt = Transpose <perm = [0, 2, 1, 3]> (vs)
  s = MatMul(qt, kt)
  p = Softmax <axis = -1> (s)
  c = MatMul(p, vt)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  m = Reshape(ct, merge)
  om = MatMul(m, w_o)
  y = Add(om, w_bo)
}
"""

DYNAMO_HEADS = """
<ir_version: 10, opset_import: ["" : 20]>
heads (float[batch,seq,8] x, float[8,8] w_q, float[8,8] w_k, float[8,8] w_v, float[8,8] w_o)
=> (float[batch,seq,8] y) {
  rows = Shape <start = 0, end = 1> (x)
  columns = Shape <start = 1, end = 2> (x)
  rest = Constant <value_ints = [-1]> ()
  width = Constant <value_ints = [2]> ()
  four = Constant <value_ints = [4]> ()
  last = Constant <value_ints = [-2]> ()
  far = Constant <value_ints = [9223372036854775807]> ()
  near = Constant <value_ints = [-9223372036854775808]> ()
  zero = Constant <value_float = 0.0> ()
  split = Concat <axis = 0> (rows, columns, rest, width)
  counted = Concat <axis = 0> (rows, columns, four, width)
  q = MatMul(x, w_q)
  k = MatMul(x, w_k)
  v = MatMul(x, w_v)
  qs = Reshape <allowzero = 1> (q, split)
  ks = Reshape <allowzero = 1> (k, split)
  vs = Reshape <allowzero = 1> (v, counted)
  qt = Transpose <perm = [0, 2, 1, 3]> (qs)
  kt = Transpose <perm = [0, 2, 1, 3]> (ks)
  vt = Transpose <perm = [0, 2, 1, 3]> (vs)
  sizes = Shape (kt)
  s3 = Slice(sizes, rest, far)
  s2 = Slice(sizes, last, rest)
  s01 = Slice(sizes, near, last)
  merged = Concat <axis = 0> (rest, s2, s3)
  km = Reshape(kt, merged)
  kmt = Transpose <perm = [0, 2, 1]> (km)
  back = Concat <axis = 0> (s01, s3, s2)
  kr = Reshape(kmt, back)
  s = MatMul(qt, kr)
  p = Softmax <axis = -1> (s)
  nan = IsNaN(p)
  safe = Where(nan, zero, p)
  c = MatMul(safe, vt)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  out = Concat <axis = 0> (rows, columns, rest)
  m = Reshape <allowzero = 1> (ct, out)
  y = MatMul(m, w_o)
}
"""

FUSED_HEADS = """
<ir_version: 10, opset_import: ["" : 23]>
heads (float[batch,seq,8] x, float[8,24] w_qkv, float[24] w_b, float[8,8] w_o)
=> (float[batch,seq,8] y) {
  packed = MatMul(x, w_qkv)
  biased = Add(packed, w_b)
  q, k, v = Split <axis = -1, num_outputs = 3> (biased)
  c = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v)
  y = MatMul(c, w_o)
}
"""

GROUPED_HEADS = """
<ir_version: 10, opset_import: ["" : 23]>
heads (float[batch,seq,8] x, float[8,16] w_q, float[8,4] w_k, float[8,4] w_v, float[16,8] w_o)
=> (float[batch,seq,8] y) {
  q = MatMul(x, w_q)
  k = MatMul(x, w_k)
  v = MatMul(x, w_v)
  c = Attention <q_num_heads = 8, kv_num_heads = 2> (q, k, v)
  y = MatMul(c, w_o)
}
"""

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
conv (float[batch,3,8,8] x, float[16,3,3,3] w_stem, float[16] w_scale, float[16] w_shift,
      float[16] w_mean, float[16] w_var, float[16,1,3,3] w_depth, float[16] w_bd,
      float[16,16,1,1] w_point, float[4,16,1,1] w_last)
=> (float[batch,4] y) {
  c = Conv <pads = [1,1,1,1]> (x, w_stem)
  n = BatchNormalization (c, w_scale, w_shift, w_mean, w_var)
  r = Relu(n)
  d = Conv <group = 16, pads = [1,1,1,1]> (r, w_depth, w_bd)
  p = Conv (d, w_point)
  s = Add(p, r)
  l = Conv (s, w_last)
  g = GlobalAveragePool(l)
  y = Flatten(g)
}
"""

TEXTS = {
    "ffn": FFN,
    "erf-ffn": ERF_FFN,
    "heads": HEADS,
    "dynamo-heads": DYNAMO_HEADS,
    "fused-heads": FUSED_HEADS,
    "grouped-heads": GROUPED_HEADS,
    "conv": CONV,
}


def build(text: str, seed: int = 0) -> ir.Model:
    """Read a model; graph inputs called `w_...` become random initializers."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(seed)
    for value in [v for v in model.graph.inputs if (v.name or "").startswith("w_")]:
        assert value.shape is not None and value.name is not None
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        if value.name in ("w_var", "w_scale"):
            array = np.abs(array) + 0.5
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    verify(model)
    return model


def run_model(model: ir.Model, feeds: Feeds) -> np.ndarray:
    """Run on ONNX Runtime with its own optimizations off; the first output."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, dict(feeds))[0]
    return result


def random_feeds(model: ir.Model, seed: int = 1, batch: int = 2, length: int = 5) -> Feeds:
    """Normal numbers for every input; dynamic sizes are `batch`, then `length`."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.name is not None
        sizes = [
            d if isinstance(d, int) else (length if i else batch) for i, d in enumerate(value.shape)
        ]
        feeds[value.name] = rng.standard_normal(sizes).astype(np.float32)
    return feeds


@pytest.fixture(name="build")
def _build() -> Callable[..., ir.Model]:
    return lambda name_or_text, seed=0: build(TEXTS.get(name_or_text, name_or_text), seed)


@pytest.fixture(name="run_model")
def _run_model() -> Callable[..., np.ndarray]:
    return run_model


@pytest.fixture(name="random_feeds")
def _random_feeds() -> Callable[..., Feeds]:
    return random_feeds


@pytest.fixture(name="data_context")
def _data_context() -> Callable[..., PassContext]:
    """Make a context with calibration data and, by request, a clock."""
    from irtools.data import Dataset
    from irtools.statistics.service import StreamingStatistics

    def make(feeds: Feeds | None, measure: Callable | None = None) -> PassContext:
        target = find_target("ort-cpu")
        data = Dataset(feeds) if feeds is not None else None

        def statistics(model: ir.Model) -> StreamingStatistics:
            assert data is not None, "no statistics without data"
            return StreamingStatistics(model, data, runner)

        def runner(model, options):  # type: ignore[no-untyped-def]
            return target.runner(Model(model), options)

        return PassContext(
            target=target,
            statistics=statistics,
            runner=runner,
            measure_latency=measure or (lambda models, rough=False: {}),
            calibration=data,
        )

    return make
