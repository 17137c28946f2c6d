"""Products get a range for each token where a few tokens are much larger than all others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from .conftest import build, relative_error

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,8,64] x, float[64,64] w_1, float[64] w_g, float[64] w_b, float[64,128] w_2,
   float[128,64] w_3) => (float[n,8,64] y) {
  h = MatMul (x, w_1)  r = LayerNormalization <axis = -1> (h, w_g, w_b)
  u = MatMul (r, w_2)  a = Tanh (u)  o = MatMul (a, w_3)
  y = Add (r, o)
}
"""
INT8 = "int8:min-size=0:mode=static:smooth=false:method=rtn"
VNNI = "ort-cpu:isa=vnni"


def decoder(text: str = MODEL) -> ir.Model:
    rng = np.random.default_rng(0)
    return build(
        text,
        w_1=rng.normal(size=(64, 64)) / 8,
        w_g=np.ones(64),
        w_b=np.zeros(64),
        w_2=rng.normal(size=(64, 128)) / 8,
        w_3=rng.normal(size=(128, 64)) / 11,
    )


def texts(first: float, seed: int = 1) -> np.ndarray:
    """Texts of eight tokens, the first of which is so many times as large as the others."""
    x = np.random.default_rng(seed).normal(size=(16, 8, 64))
    x[:, 0] *= first
    return x.astype(np.float32)


def forms(done: object) -> dict[str, str]:
    return {d.data["weight"]: d.data["form"] for d in done.result.plan.decisions}


def notes(done: object) -> list[str]:
    return [note for note in done.result.notes if "range for each token" in note]


def test_the_product_that_large_tokens_reach_and_no_other(quantize, outputs) -> None:
    model = decoder()
    done = quantize(model, INT8, VNNI, x=texts(200))
    assert forms(done) == {"w_1": "token-wise", "w_2": "static", "w_3": "static"}
    (said,) = notes(done)
    assert said.startswith("1 product with a range for each token, found at run time: ")
    fresh = texts(200, seed=2)
    error = relative_error(outputs(done.after, x=fresh), outputs(model, x=fresh))
    assert -20 * np.log10(error) > 30
    fixed = quantize(model, f"{INT8}:least-sqnr=none", VNNI, x=texts(200))
    assert set(forms(fixed).values()) == {"static"}
    error = relative_error(outputs(fixed.after, x=fresh), outputs(model, x=fresh))
    assert -20 * np.log10(error) < 20


@pytest.mark.parametrize("target", [VNNI, "openvino-cpu:isa=vnni"])
def test_ranges_stay_fixed_where_tokens_are_alike(quantize, target: str) -> None:
    done = quantize(decoder(), INT8, target, x=texts(1.0))
    assert set(forms(done).values()) == {"static"} and not notes(done)


def test_products_of_one_input_change_together(quantize) -> None:
    """The second is a product with a smaller gain; measuring its input twice would not pay."""
    text = MODEL.replace(
        "u = MatMul (r, w_2)", "z = MatMul (x, w_4) s = Add (r, z) u = MatMul (s, w_2)"
    )
    text = text.replace("float[64,128] w_2", "float[64,64] w_4, float[64,128] w_2")
    done = quantize(decoder(text), INT8, VNNI, x=texts(200))
    found = forms(done)
    assert found["w_1"] == found["w_4"] == "token-wise"


def test_the_opset_is_raised_for_it(quantize) -> None:
    text = MODEL.replace('"" : 21', '"" : 17')
    done = quantize(decoder(text), INT8, VNNI, x=texts(200))
    assert "token-wise" in forms(done).values()
    assert any("opset raised from 17 to" in note for note in done.result.notes)
