"""Products by signed weights, written with unsigned ones: the same numbers in every program."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from irtools.analysis.int8_products import saturating_products
from irtools.backends.exact_products import exact_products
from irtools.backends.unsigned_weights import make_weights_unsigned
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

_HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
_S = "float s = {0.03}, uint8 z = {128}"
_X = "a = QuantizeLinear(x, s, z)  b = DequantizeLinear(a, s, z)"

QDQ = {
    "no zero point": f"g (float[n,16] x) => (float[n,8] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear(q, s)  y = MatMul(b, w) }}",
    "a scale per column": f"g (float[n,16] x) => (float[n,8] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear<axis=1>(q, c, k)  y = MatMul(b, w) }}",
    "a scale per column and no zero point": f"g (float[n,16] x) => (float[n,8] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear<axis=1>(q, c)  y = MatMul(b, w) }}",
    "in blocks": f"g (float[n,16] x) => (float[n,8] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear<axis=0, block_size=8>(q, e)  y = MatMul(b, w) }}",
    "signed activations": "g (float[n,16] x) => (float[n,8] y) <float s = {0.03}, int8 z = {0}> "
    f"{{ {_X}  w = DequantizeLinear(q, s, z)  y = MatMul(b, w) }}",
    "turned": f"g (float[n,8] x) => (float[n,16] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear(q, s)  t = Transpose<perm=[1, 0]>(w)  y = MatMul(b, t) }}",
    "looked up as well": f"g (float[n,16] x, int64[n] i) => (float[n,8] y) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear(q, s)  m = MatMul(b, w)  r = Gather(w, i)  y = Add(m, r) }}",
    "read twice": f"g (float[n,16] x) => (float[n,8] y) <{_S}> {{ {_X}  v = DequantizeLinear(q, s) "
    " w = DequantizeLinear(q, s)  c1 = MatMul(b, v)  c2 = MatMul(b, w)  y = Add(c1, c2) }",
    "an output too": f"g (float[n,16] x) => (float[n,8] y, float[8,8] u) "
    f"<{_S}, int64[2] o = {{8, 8}}> {{ {_X}  w = DequantizeLinear(q, s)  y = MatMul(b, w) "
    " l = Cast<to=1>(q)  h, h2 = Split<axis=0, num_outputs=2>(l)  u = Reshape(h, o) }",
    "quantized here": f"g (float[n,16] x) => (float[n,8] y) <{_S}, int8 k0 = {{0}}> "
    f"{{ {_X}  p = QuantizeLinear(f, s, k0)  w = DequantizeLinear(p, s, k0)  y = MatMul(b, w) }}",
    "a kernel": f"g (float[n,16] x) => (float[n,4,2,2] y) <{_S}, int64[4] o = {{-1, 4, 2, 2}}> "
    f"{{ {_X}  r = Reshape(b, o)  w = DequantizeLinear(k4, s)  y = Conv(r, w) }}",
    "in a branch": f"g (bool c0, float[n,16] x) => (float[n,8] y) {{ y = If(c0) <"
    f"then_branch = t () => (float[n,8] u) <{_S}> "
    f"{{ {_X}  w = DequantizeLinear(q, s)  u = MatMul(b, w) }}, "
    "else_branch = l () => (float[n,8] v) { d, v = Split<axis=1, num_outputs=2>(x) }> }",
}


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    q = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    return {
        "q": q,
        "c": rng.uniform(0.01, 0.03, 8).astype(np.float32),
        "k": np.zeros(8, np.int8),
        "e": rng.uniform(0.01, 0.03, (2, 8)).astype(np.float32),
        "f": q.astype(np.float32) * np.float32(0.03),
        "k4": rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
    }


def _model(text: str) -> Model:
    model = ir.from_onnx_text(f"{_HEAD} {text}")
    known: dict[str, ir.Value] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            for index, value in enumerate(node.inputs):
                name = "" if value is None else value.name or ""
                array = _arrays().get(name)
                if array is None:
                    continue
                if name not in known:
                    tensor = ir.Tensor(array, name=name)
                    known[name] = ir.Value(
                        name=name, type=ir.TensorType(tensor.dtype), const_value=tensor,
                        shape=ir.Shape(array.shape),
                    )  # fmt: skip
                    model.graph.register_initializer(known[name])
                node.replace_input_with(index, known[name])
    return Model(model)


def _feeds(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for value in model.ir.graph.inputs:
        width = value.shape[1] if value.shape is not None and len(value.shape) > 1 else 0
        match value.name:
            case "x":
                found["x"] = rng.normal(size=(6, int(width))).astype(np.float32)
            case "i":
                found["i"] = rng.integers(0, 16, 6)
            case "c0":
                found["c0"] = np.array(True)
    return found


def _exactly(model: Model) -> list[np.ndarray]:
    """Every operator for itself: pairs of Q and DQ are computed in float32."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString(), options)
    return list(session.run(None, _feeds(model)))


@pytest.mark.parametrize("name", QDQ)
def test_pairs_around_a_product(name: str) -> None:
    """Bit for bit what it was, and nothing is left that may saturate."""
    model = _model(QDQ[name])
    assert saturating_products(model.ir)
    before = _exactly(model)
    changed = exact_products(model)
    assert isinstance(changed, Model) and changed is not model
    for old, new in zip(before, _exactly(changed), strict=True):
        np.testing.assert_array_equal(old, new)
    assert saturating_products(changed.ir) == ()
    # Second time there is nothing to do, and the model that was given is as it was.
    assert make_weights_unsigned(changed.ir) == 0
    assert exact_products(changed) is changed and saturating_products(model.ir)


def test_names_stay_where_no_signed_weight_is_left() -> None:
    names = {}
    for name in ("a scale per column", "an output too"):
        model = _model(QDQ[name])
        make_weights_unsigned(model.ir)
        names[name] = {n: v.dtype for n, v in model.ir.graph.initializers.items()}
    assert names["a scale per column"]["q"] == ir.DataType.UINT8
    assert names["an output too"]["q"] == ir.DataType.INT8
    assert names["an output too"]["q_unsigned"] == ir.DataType.UINT8


@pytest.mark.parametrize(
    "text",
    [
        # A zero point that the caller gives, and integers that are read for themselves.
        f"g (float[n,16] x, int8 m) => (float[n,8] y) <{_S}> "
        f"{{ {_X}  w = DequantizeLinear(q, s, m)  y = MatMul(b, w) }}",
        f"g (float[n,16] x) => (float[n,8] y, int8[16,8] p) <{_S}, int8 k0 = {{0}}> "
        f"{{ {_X}  p = QuantizeLinear(f, s, k0)  v = Identity(p) "
        " w = DequantizeLinear(p, s, k0)  y = MatMul(b, w) }",
    ],
)
def test_what_cannot_be_changed_stays_and_is_counted(text: str) -> None:
    model = _model(text)
    assert make_weights_unsigned(model.ir) == 0
    assert len(saturating_products(model.ir)) == 1


@pytest.mark.openvino
@pytest.mark.parametrize("name", ["a scale per column", "a kernel", "quantized here", "turned"])
def test_openvino_sums_exactly(name: str, tmp_path: object) -> None:
    """On this machine, whatever it is, what is run and what is written agree with the model."""
    model = _model(QDQ[name])
    (wanted,) = _exactly(model)
    target = find_target("openvino-cpu:isa=avx2")
    for written in (model, *_lowered(model)):
        with target.runner(written, RunnerOptions(precision="f32")) as runner:
            found = runner.run(_feeds(model))["y"]
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def _lowered(model: Model) -> list[Model]:
    from irtools.targets import lowered

    return [lowered(model, find_target("openvino-cpu:isa=avx2"))]
