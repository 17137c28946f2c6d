"""A Conv whose result would have 256 steps, and that is little of the work, stays in float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from .conftest import build, relative_error

PATCHES = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[n,3,32,32] x, float[16,3,8,8] w_p, float[16] w_pb, int64[3] w_s, float[16] w_g,
   float[16] w_b, float[16,2048] w_1, float[2048,16] w_2) => (float[n,16,16] y) {
  p = Conv <kernel_shape = [8, 8], strides = [8, 8]> (x, w_p, w_pb)
  r = Reshape (p, w_s)  t = Transpose <perm = [0, 2, 1]> (r)
  m = LayerNormalization <axis = -1> (t, w_g, w_b)
  h = MatMul (m, w_1)  a = Relu (h)  o = MatMul (a, w_2)  z = Add (t, o)
  y = LayerNormalization <axis = -1> (z, w_g, w_b)
}
"""
INT8 = "int8:min-size=0:mode=static:smooth=false:method=rtn"


def patches(spread: float, hidden: int = 6144) -> ir.Model:
    """Channels of the patches have sizes from 1 to `spread`; what follows reads the small ones."""
    rng = np.random.default_rng(0)
    size = np.geomspace(1, spread, 16)
    kernel = rng.normal(size=(16, 3, 8, 8)) * size[:, None, None, None] / 14
    return build(
        PATCHES.replace("2048", str(hidden)),
        w_p=kernel,
        w_pb=np.zeros(16),
        w_s=np.array([0, 16, 16]),
        w_g=1 / size,
        w_b=np.zeros(16),
        w_1=rng.normal(size=(16, hidden)) / 4,
        w_2=rng.normal(size=(hidden, 16)) * size / 80,
    )


def images(seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(16, 3, 32, 32)).astype(np.float32)}


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    return -20 * np.log10(relative_error(found, wanted))


def forms(done: object) -> dict[str, str]:
    return {d.data["weight"]: d.data["form"] for d in done.result.plan.decisions}


def test_the_patches_of_a_transformer_keep_their_digits(quantize, outputs) -> None:
    model, fresh = patches(30.0), images(2)
    done = quantize(model, INT8, "ort-cpu:isa=vnni", **images())
    assert forms(done)["w_p"] == "s8" and forms(done)["w_1"] == "static"
    said = [note for note in done.result.notes if "256 steps" in note]
    assert len(said) == 1 and said[0].startswith("1 Conv in float32, whose result would have")
    rounded = quantize(model, f"{INT8}:least-sqnr=none", "openvino-cpu:isa=vnni", **images())
    assert decibels(outputs(done.after, **fresh), outputs(model, **fresh)) > 20
    assert forms(rounded)["w_p"] == "static"  # OpenVINO does not round results.


@pytest.mark.parametrize(
    ("spread", "hidden"), [(1.0, 6144), (30.0, 2048)], ids=["nothing is lost", "too much work"]
)
def test_it_stays_in_integers_where(quantize, spread: float, hidden: int) -> None:
    done = quantize(
        patches(spread, hidden), f"{INT8}:least-sqnr=none", "ort-cpu:isa=vnni", **images()
    )
    assert forms(done)["w_p"] == "static"
    assert not [note for note in done.result.notes if "256 steps" in note]
