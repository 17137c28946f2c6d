"""Models and data that quantization stumbles over: each keeps as much as an easy one would."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from .conftest import build, relative_error

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
PAIR = f"""{HEAD}
g (float[n,64] x, float[64,96] w_1, float[96,64] w_2) => (float[n,64] y) {{
  a = MatMul(x, w_1)  b = Relu(a)  y = MatMul(b, w_2)
}}
"""
NORMS = f"""{HEAD}
g (float[n,64] x, float[64] w_g, float[64] w_b, float[64,96] w_1, float[96,64] w_2,
   float[64,64] w_3) => (float[n,64] y) {{
  m = LayerNormalization <axis = -1> (x, w_g, w_b)
  a = MatMul(m, w_1)  b = Relu(a)  c = MatMul(b, w_2)  d = Add(x, c)
  o = LayerNormalization <axis = -1> (d, w_g, w_b)
  e = MatMul(o, w_3)  y = Add(d, e)
}}
"""
SELDOM = f"""{HEAD}
g (float[n,64] x, float[64,96] w_1, float[96,64] w_2, float[64,96] w_3, float[96,64] w_4,
   float w_t, int64[1] w_ax) => (float[n,64] y, float[k,64] z) {{
  a = MatMul(x, w_1)  b = Relu(a)  y = MatMul(b, w_2)
  s = ReduceMax <keepdims = 0> (x, w_ax)
  above = Greater(s, w_t)
  r = Compress <axis = 0> (x, above)
  e = MatMul(r, w_3)  f = Relu(e)  z = MatMul(f, w_4)
}}
"""
TIED = f"""{HEAD}
g (int64[n] ids, float[256,64] w, float[64,64] w_m) => (float[n,256] y) {{
  x = Gather(w, ids)  h = MatMul(x, w_m)  a = Tanh(h)  t = Transpose(w)  y = MatMul(a, t)
}}
"""
EIGHT = (
    "int8:min-size=0",
    "int8:min-size=0:smooth=true:mode=static",
    "int8:min-size=0:method=gptq",
)
FOUR = ("int4:min-size=0", "int4:min-size=0:method=gptq", "int4:min-size=0:bits=auto")
EXACT = ("smooth", "smooth:rounding=int4", "rotate:min-gain=none")
ALL = (
    [(text, 30.0) for text in EIGHT] + [(text, 16.0) for text in FOUR] + [(t, 90.0) for t in EXACT]
)


def drawn(*shape: int, size: float = 1.0, seed: int = 1) -> np.ndarray:
    return (size * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def zero_channels() -> tuple[ir.Model, dict[str, np.ndarray]]:
    x, w = drawn(48, 64), drawn(64, 96, size=0.1)
    x[:, 5:30] = 0
    w[:, 7], w[9] = 0, 0
    return build(PAIR, w_1=w, w_2=drawn(96, 64, size=0.1, seed=2)), {"x": x}


def shared_norm() -> tuple[ir.Model, dict[str, np.ndarray]]:
    gain = np.r_[np.full(3, 30.0), np.zeros(5), np.ones(56)]
    return build(NORMS, w_g=gain, w_b=np.r_[np.zeros(8), drawn(56)]), {"x": drawn(48, 64)}


def tied_table() -> tuple[ir.Model, dict[str, np.ndarray]]:
    return build(TIED), {"ids": np.random.default_rng(0).integers(0, 256, 48)}


def small_weights() -> tuple[ir.Model, dict[str, np.ndarray]]:
    """Of 1e-30: squares of them, and their scales in 16 bits, are 0."""
    return build(PAIR, w_1=drawn(64, 96, size=1e-30)), {"x": drawn(48, 64)}


MAKERS = {f.__name__: f for f in (zero_channels, shared_norm, tied_table, small_weights)}


@pytest.mark.parametrize(("text", "least"), ALL, ids=[text for text, _ in ALL])
@pytest.mark.parametrize("name", MAKERS)
def test_as_much_is_kept_as_of_an_easy_model(
    quantize, outputs, name: str, text: str, least: float
) -> None:
    model, feeds = MAKERS[name]()
    done = quantize(model, text, "ort-cpu:isa=vnni", **feeds)
    found, wanted = (outputs(each, **feeds) for each in (done.after, model))
    assert -20 * np.log10(relative_error(found, wanted) + 1e-12) > least


@pytest.mark.parametrize("text", [text for text, _ in ALL])
def test_a_layer_that_no_sample_reaches(quantize, text: str) -> None:
    """It has no ranges and no moments: it is rounded without them, and other data runs."""
    import onnxruntime as ort

    model = build(SELDOM, w_t=np.array(2.9), w_ax=np.array([1]))
    seen = drawn(48, 64).clip(-2.5, 2.5)
    done = quantize(model, text, "ort-cpu:isa=vnni", x=seen)
    fresh = drawn(48, 64, seed=5)
    found, wanted = (
        ort.InferenceSession(
            ir.to_proto(each).SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {"x": fresh})
        for each in (done.after, model)
    )
    assert len(wanted[1]) > 2 and found[1].shape == wanted[1].shape
    assert relative_error(found[1], wanted[1]) < 0.25
    if text.startswith("int4"):
        said = "calibration data reaches 2 weights with zeros alone or not at all, 'w_3' first"
        assert any(note.startswith(said) for note in done.result.notes)
