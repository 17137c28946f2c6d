from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.int8_products import saturating_products
from irtools.backends.onnxruntime.kernels import count_kernels
from irtools.backends.onnxruntime.target import OrtCpu, OrtCuda, OrtTensorRt
from irtools.model import Model
from irtools.targets import Isa, RunnerOptions

_CPU = OrtCpu(Isa.VNNI)


def _model(body: str, opsets: str = '"" : 20', ir_version: int = 10) -> ir.Model:
    return ir.from_onnx_text(f"<ir_version: {ir_version}, opset_import: [{opsets}]>\n{body}")


def _lowered(model: ir.Model) -> tuple[dict[str, int], list[str]]:
    counts = dict(_CPU.lower(model))
    Model(model).verify()
    assert _CPU.lower(model) == {}
    lines = Model(model).text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("graph"))
    return counts, [line.strip() for line in lines[start:]]


_LAYER_NORM = """
m (float[b, s, 4] x, float[b, s, 4] skip) => (float[b, s, 4] y)
<float[4] gamma = {1.0, 2.0, 3.0, 4.0}, float[4] beta = {0.1, 0.2, 0.3, 0.4}>
{
    h = Add(x, skip)
    y = LayerNormalization<axis = -1>(h, gamma, beta)
}
"""


def test_add_before_layer_norm_becomes_sum() -> None:
    counts, lines = _lowered(_model(_LAYER_NORM))
    assert counts == {"sum-before-layer-norm": 1}
    assert lines == [
        "graph (x: float32[b, s, 4], skip: float32[b, s, 4]) -> (y: float32[b, s, 4])",
        "gamma: float32[4] = [1.0, 2.0, 3.0, 4.0]",
        "beta: float32[4] = [0.1, 0.2, 0.3, 0.4]",
        "h = Sum(x, skip)",
        "y = LayerNormalization<axis=-1>(h, gamma, beta)",
    ]


def test_the_session_leaves_the_sum_alone() -> None:
    model = Model(_model(_LAYER_NORM))
    with _CPU.runner(model) as runner:
        assert runner.kernels().counts == {"SkipLayerNormalization": 1}
    _CPU.lower(model.ir)
    with _CPU.runner(model) as runner:
        assert runner.kernels().counts == {"LayerNormalization": 1, "Sum": 1}


def test_the_sum_is_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    feeds = {k: rng.standard_normal((2, 3, 4), np.float32) for k in ("x", "skip")}
    before, after = Model(_model(_LAYER_NORM)), Model(_model(_LAYER_NORM))
    _CPU.lower(after.ir)
    np.testing.assert_array_equal(_exact(before, feeds), _exact(after, feeds))


@pytest.mark.parametrize(
    "body",
    [
        _LAYER_NORM.replace("Add(x, skip)", "Mul(x, skip)"),
        _LAYER_NORM.replace("Add(x, skip)", "local.Add(x, skip)"),
        _LAYER_NORM.replace("float[", "double["),
        _LAYER_NORM.replace("LayerNormalization<axis = -1>(h, gamma, beta)", "Mul(h, gamma)"),
    ],
    ids=["no-add", "foreign-add", "double", "no-norm"],
)
def test_other_sums_stay(body: str) -> None:
    counts, _ = _lowered(_model(body, '"" : 20, "local" : 1'))
    assert counts == {}


_SKIP = """
m (float[b, s, 4] x, float[b, s, 4] skip) => (float[b, s, 4] y, float[b, s, 4] h)
<float[4] gamma = {1.0, 2.0, 3.0, 4.0}, float[4] beta = {0.1, 0.2, 0.3, 0.4},
 float[4] bias = {0.5, 0.5, 0.5, 0.5}>
{
    y, mean, inv, h = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>
        (x, skip, gamma, beta, bias)
}
"""
_BOTH = '"" : 20, "com.microsoft" : 1'


def test_a_fused_skip_layer_norm_is_taken_apart() -> None:
    counts, lines = _lowered(_model(_SKIP, _BOTH))
    assert counts == {"unfused-skip-layer-norm": 1}
    assert lines[-2:] == [
        'h = Sum(x, skip, bias)  "y_sum/Sum"',
        "y = LayerNormalization<axis=-1, epsilon=1e-05>(h, gamma, beta)",
    ]


def test_taken_apart_it_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    feeds = {k: rng.standard_normal((2, 3, 4), np.float32) for k in ("x", "skip")}
    before, after = Model(_model(_SKIP, _BOTH)), Model(_model(_SKIP, _BOTH))
    _CPU.lower(after.ir)
    np.testing.assert_allclose(_exact(before, feeds), _exact(after, feeds), rtol=2e-5, atol=2e-6)


def test_a_skip_layer_norm_has_its_own_default_of_epsilon() -> None:
    """Rows of equal numbers: what is divided by is the root of epsilon alone."""
    body = _SKIP.replace("<epsilon = 0.00001>", "")
    model = _model(body, _BOTH)
    _CPU.lower(model)
    (node,) = [n for n in model.graph if n.op_type == "LayerNormalization"]
    assert node.attributes["epsilon"].as_float() == pytest.approx(1e-12)


@pytest.mark.parametrize("read", ["mean", "inv"])
def test_a_skip_layer_norm_stays_where_either_statistic_is_read(read: str) -> None:
    body = _SKIP.replace("bias)\n}", f"bias)\n    z = Neg({read})\n}}").replace(
        "float[b, s, 4] h)", "float[b, s, 4] h, float[b, s, 1] z)"
    )
    assert f"Neg({read})" in body
    assert _lowered(_model(body, _BOTH))[0] == {}


def test_a_skip_layer_norm_stays_where_its_statistics_are_read_or_the_opset_is_old() -> None:
    read = _SKIP.replace("bias)", "bias) z = Neg(inv)").replace(
        "float[b, s, 4] h)", "float[b, s, 4] h, float[b, s, 1] z)"
    )
    assert _lowered(_model(read, _BOTH))[0] == {}
    assert _lowered(_model(_SKIP, '"" : 14, "com.microsoft" : 1'))[0] == {}


_GEMM = """
m (float[{dims}, 3] x) => (float[{dims}, 4] y)
<float sx = {{0.02}}, {zx}, int8[3, 4] w = {{1, -2, 3, 4, 5, -6, 7, 8, 9, 10, -11, 127}},
 {sw}, {zw}, {bias}>
{{
    q = QuantizeLinear(x, sx, zx)
    dx = DequantizeLinear(q, sx, zx)
    dw = DequantizeLinear<axis = {axis}>(w, sw, zw)
    p = MatMul(dx, dw)
    {add}
}}
"""
_DEFAULTS = {
    "dims": "b, s",
    "zx": "uint8 zx = {120}",
    "sw": "float[4] sw = {0.01, 0.02, 0.03, 0.04}",
    "zw": "int8[4] zw = {0, 0, 0, 0}",
    "axis": "1",
    "bias": "float[4] bias = {0.5, -1.0, 1.5, 2.0}",
    "add": "y = Add(p, bias)",
}
_INT32_BIAS = {
    "bias": "int32[4] ib = {2500, -2500, 2501, 0}, float[4] sb = {0.0002, 0.0004, 0.0006, 0.0008}",
    "add": "d = DequantizeLinear<axis = 0>(ib, sb) y = Add(p, d)",
}


def _gemm(**changes: str) -> ir.Model:
    return _model(_GEMM.format(**(_DEFAULTS | changes)), '"" : 20, "local" : 1')


def test_the_bias_goes_into_the_int8_product() -> None:
    counts, lines = _lowered(_gemm())
    assert counts == {"int8-gemm-bias": 1}
    assert lines[-2:] == [
        "q = QuantizeLinear(x, sx, zx)",
        "y = com.microsoft::MatMulIntegerToFloat(q, w, sx, sw, zx, zw, bias)",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"add": "y = Add(bias, p)"},
        {"dims": "2"},
        {"sw": "float sw = {0.03}", "zw": "int8 zw = {0}"},
        _INT32_BIAS,
    ],
    ids=["bias-first", "2-d", "per-tensor", "int32-bias"],
)
def test_forms_of_the_product(changes: dict[str, str]) -> None:
    before, after = Model(_gemm(**changes)), Model(_gemm(**changes))
    assert _CPU.lower(after.ir) == {"int8-gemm-bias": 1}
    after.verify()
    shape = (2, 3) if changes.get("dims") == "2" else (2, 5, 3)
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    np.testing.assert_allclose(_exact(before, feeds), _exact(after, feeds), rtol=2e-6, atol=1e-6)


def test_an_int32_bias_becomes_a_float_constant() -> None:
    _, lines = _lowered(_gemm(**_INT32_BIAS))
    assert "bias_f32: float32[4] = [0.5, -1.0, 1.5006001, 0.0]" in lines
    assert not any(line.startswith(("ib", "sb", "d =")) for line in lines)


def test_static_shapes_do_not_fall_back_to_float() -> None:
    model = Model(_gemm(dims="2, 8"))
    with _CPU.runner(model) as runner:
        assert len(runner.kernels().float_fallbacks) == 1
    _CPU.lower(model.ir)
    with _CPU.runner(model) as runner:
        assert runner.kernels().float_fallbacks == ()
        assert runner.kernels().int8 == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"zx": "int8 zx = {0}"},
        {"zw": "int8[4] zw = {0, 1, 0, 0}"},
        {"axis": "0", "sw": "float[3] sw = {0.01, 0.02, 0.03}", "zw": "int8[3] zw = {0, 0, 0}"},
        {"bias": "float[1, 4] bias = {0.5, -1.0, 1.5, 2.0}"},
        {"bias": "float bias = {0.5}"},
        {"add": "y = Mul(p, bias)"},
        {"add": "y = local.Add(p, bias)"},
        {"add": "y = Identity(p)"},
        {"add": "r = Add(p, bias) y = Add(r, p)"},
    ],
    ids=[
        "s8",
        "asymmetric",
        "per-row",
        "2-d-bias",
        "scalar-bias",
        "mul",
        "foreign-add",
        "no-add",
        "two-readers",
    ],
)
def test_other_products_stay(changes: dict[str, str]) -> None:
    counts, _ = _lowered(_gemm(**changes))
    assert counts == {}


_SQUARE = """
m (float[b, s, 4] x) => ({outputs})
<{sx}, {zx}, {w}, {sw}, float[4] bias = {{0.5, -1.0, 1.5, 2.0}}, {more}>
{{
    q = QuantizeLinear{xa}(x, sx, zx)
    dx = DequantizeLinear{xa}(q, sx, zx)
    dw = DequantizeLinear{wa}(w, sw)
    p = MatMul(dx, dw)
    {add}
}}
"""
_SQUARE_DEFAULTS = {
    "outputs": "float[b, s, 4] y",
    "sx": "float sx = {0.02}",
    "zx": "uint8 zx = {120}",
    "xa": "",
    "w": "int8[4, 4] w = {1, -2, 3, 4, 5, -6, 7, 8, 9, 10, -11, 127, 1, 2, 3, 4}",
    "sw": "float[4] sw = {0.01, 0.02, 0.03, 0.04}",
    "wa": "<axis = 1>",
    "more": "float unused = {0.0}",
    "add": "y = Add(p, bias)",
}


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ({}, True),
        ({"wa": "<axis = -1>"}, True),
        ({"wa": ""}, True),
        ({"wa": "<axis = 0>"}, False),
        (
            {
                "sx": "float[4] sx = {0.02, 0.02, 0.02, 0.03}",
                "zx": "uint8[4] zx = {120, 120, 120, 120}",
                "xa": "<axis = 2>",
            },
            False,
        ),
        ({"w": "uint8[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 1, 2, 3, 4}"}, False),
        (
            {
                "w": "int8[1, 4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 1, 2, 3, 4}",
                "wa": "<axis = 2>",
            },
            False,
        ),
        (
            {
                "sw": "float[2, 4] sw = {0.01, 0.02, 0.03, 0.04, 0.01, 0.02, 0.03, 0.04}",
                "wa": "<axis = 0, block_size = 2>",
            },
            False,
        ),
        (
            {"sw": "float[1, 4] sw = {0.01, 0.02, 0.03, 0.04}", "wa": "<axis=0, block_size=4>"},
            False,
        ),
        ({"outputs": "float[b, s, 4] y, float[b, s, 4] p"}, False),
        (
            {
                "more": "int32[4] ib = {250, -250, 251, 0}, float sb = {0.002}, int32 zb = {3}",
                "add": "d = DequantizeLinear(ib, sb, zb) y = Add(p, d)",
            },
            False,
        ),
        (
            {
                "more": "int32[1] ib = {250}, float sb = {0.002}",
                "add": "d = DequantizeLinear(ib, sb) y = Add(p, d)",
            },
            False,
        ),
    ],
)
def test_what_decides_of_an_int8_product(changes: dict[str, str], fused: bool) -> None:
    body = _SQUARE.format(**(_SQUARE_DEFAULTS | changes))
    before, after = Model(_model(body, '"" : 21')), Model(_model(body, '"" : 21'))
    assert (_CPU.lower(after.ir) == {"int8-gemm-bias": 1}) == fused
    after.verify()
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 4), np.float32)}
    np.testing.assert_allclose(_exact(before, feeds), _exact(after, feeds), rtol=2e-6, atol=1e-6)


def test_scales_in_half_precision_stay() -> None:
    """The kernel takes float32 scales alone. ONNX text gives float16 by its bits."""
    changes = {
        "outputs": "float16[b, s, 4] y",
        "sx": "float16 sx = {9216}",
        "sw": "float16[4] sw = {9216, 9216, 9216, 9216}",
    }
    body = _SQUARE.format(**(_SQUARE_DEFAULTS | changes)).replace("(float[b", "(float16[b")
    body = body.replace("float[4] bias = {0.5, -1.0, 1.5, 2.0}", "float16[4] bias = {0, 0, 0, 0}")
    model = _model(body, '"" : 21')
    assert _CPU.lower(model) == {}
    relu = _model(body.replace("Add(p, bias)", "Relu(p)"), '"" : 21')
    assert _CPU.lower(relu) == {}


_MORE = (
    "uint8 zx = {120}, uint8 z0 = {0}, float below = {-2.41}, float zero = {0}, float above = {4}"
)
_AGAIN = "r = QuantizeLinear(h, sx, {zero}) y = DequantizeLinear(r, sx, {zero})"


@pytest.mark.parametrize(
    "body",
    [
        "h = Relu(p) y = Mul(h, bias)",
        "h = Clip(p) y = Mul(h, bias)",
        # What stays of the clip is in the way of the session.
        f"h = Relu(p) {_AGAIN.format(zero='zx')}",
        f"h = Clip(p, zero, above) {_AGAIN.format(zero='zx')}",
        f"h = Clip(p, zero) {_AGAIN.format(zero='zx')}",
    ],
)
def test_a_product_before_a_relu_that_stays_is_int8(body: str) -> None:
    before, after = Model(_gemm(add=body, zx=_MORE)), Model(_gemm(add=body, zx=_MORE))
    with _CPU.runner(before) as runner:
        assert runner.kernels().int8 == 0 and len(runner.kernels().float_fallbacks) == 1
    counts, lines = _lowered(after.ir)
    assert counts == {"int8-gemm-before-clip": 1}
    assert "p = com.microsoft::MatMulIntegerToFloat(q, w, sx, sw, zx, zw)" in lines
    assert not any(line.startswith(("dx =", "dw =")) for line in lines)
    with _CPU.runner(after) as runner:
        assert runner.kernels().int8 == 1 and runner.kernels().float_fallbacks == ()
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 3), np.float32)}
    np.testing.assert_allclose(_exact(before, feeds), _exact(after, feeds), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"add": f"h = Relu(p) {_AGAIN.format(zero='z0')}", "zx": _MORE},
        {"add": f"h = Clip(p, below, above) {_AGAIN.format(zero='zx')}", "zx": _MORE},
        {"add": "y = Tanh(p)"},
        {"add": "h = Relu(p) y = Add(h, p)"},
        {"add": "y = Relu(p)", "zx": "int8 zx = {0}"},
        {"add": "y = Relu(p)", "zw": "int8[4] zw = {0, 1, 0, 0}"},
    ],
    ids=["quantized-again", "clipped-again", "tanh", "two-readers", "s8", "asymmetric"],
)
def test_other_products_before_a_relu_stay(changes: dict[str, str]) -> None:
    counts, _ = _lowered(_gemm(**changes))
    assert counts == {}


@pytest.mark.parametrize(("left", "fallbacks"), [("dx", ("p",)), ("x", ())])
def test_a_fallback_has_two_quantized_sides(
    left: str, fallbacks: tuple[str, ...], tmp_path: Path
) -> None:
    """With quantized weights alone a product is compressed, and meant to compute in float."""
    body = _GEMM.replace("MatMul(dx, dw)", f"MatMul({left}, dw)")
    Model(_model(body.format(**_DEFAULTS))).save(tmp_path / "m.onnx")
    assert count_kernels(tmp_path / "m.onnx").float_fallbacks == fallbacks


def test_a_shared_input_is_quantized_once() -> None:
    add = "y1 = Add(p, bias) p2 = MatMul(dx, dw) y2 = Add(p2, bias) y = Add(y1, y2)"
    counts, lines = _lowered(_gemm(add=add))
    assert counts == {"int8-gemm-bias": 2}
    assert sum("QuantizeLinear" in line for line in lines) == 1


def test_the_file_version_comes_down_for_every_provider() -> None:
    for target in (_CPU, OrtCuda(), OrtTensorRt()):
        model = _model(_LAYER_NORM, ir_version=14)
        assert target.lower(model)["ir-version"] == 1
        assert model.ir_version == 13


def test_gpu_targets_keep_standard_forms() -> None:
    for target in (OrtCuda(), OrtTensorRt()):
        model = _gemm()
        before = Model(model).text()
        assert target.lower(model) == {}
        assert Model(model).text() == before


def _exact(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with _CPU.runner(model, RunnerOptions(exact=True)) as runner:
        return runner.run(feeds)["y"]


def _stored_lstm(inputs: str, directions: int, extra: str = "") -> ir.Model:
    """An LSTM of 4 inputs and 6 units whose weights are integers times scales of their rows."""
    direction = ("", "forward", "bidirectional")[directions]
    rng = np.random.default_rng(0)
    shapes = {"w": (directions, 24, 4), "r": (directions, 24, 6)}
    model = _model(
        f"m (float[5,2,4] x, float[{directions},48] b, float[{directions},2,6] h0, "
        f"float[{directions},2,6] c0, float[{directions},18] p, int32[2] n, "
        + ", ".join(
            f"int8[{d},{g},{i}] {name}q, float[{d},{g},1] {name}s"
            for name, (d, g, i) in shapes.items()
        )
        + f") => (float[5,{directions},2,6] y, float[{directions},2,6] h, "
        f"float[{directions},2,6] c) {{ wn = Cast<to=6>(wq) wi = Cast<to=1>(wn) w = Mul(wi, ws) "
        "ri = Cast<to=1>(rq) r = Mul(ri, rs) "
        f'y, h, c = LSTM<hidden_size=6, direction="{direction}"{extra}>({inputs}) }}',
        '"" : 17',
        8,
    )
    for value in [v for v in model.graph.inputs if v.name in ("wq", "ws", "rq", "rs", "b")]:
        shape = tuple(int(d) for d in value.shape)
        if value.name.endswith("q"):
            array = rng.integers(-127, 128, shape).astype(np.int8)
        else:
            array = rng.uniform(0.001, 0.003, shape).astype(np.float32)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.register_initializer(value)
    return model


@pytest.mark.parametrize("isa", [Isa.VNNI, Isa.AVX2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("inputs", "extra"),
    [
        ("x, w, r", ""),
        ("x, w, r, b", ", clip=0.5"),
        ("x, w, r, b, n, h0, c0, p", ""),
        ("x, w, r, , , h0, c0", ", input_forget=1"),
    ],
)
def test_a_stored_lstm_runs_in_integers(isa: Isa, directions: int, inputs: str, extra: str) -> None:
    model = _stored_lstm(inputs, directions, extra)
    lowered = model.clone()
    target = OrtCpu(isa)
    assert target.lower(lowered) == {"DynamicQuantizeLSTM": 1}
    assert target.lower(lowered) == {}
    assert [node.op_type for node in lowered.graph] == ["DynamicQuantizeLSTM"]
    dtype = ir.DataType.INT8 if isa is Isa.VNNI else ir.DataType.UINT8
    assert lowered.graph.initializers["wq_turned"].dtype == dtype
    # Whole 8 bits, of which signed ones would saturate without VNNI.
    assert bool(saturating_products(lowered)) == (isa is Isa.VNNI)
    rng = np.random.default_rng(1)
    feeds = {
        value.name: rng.normal(size=[int(d) for d in value.shape]).astype(np.float32)
        for value in model.graph.inputs
        if value.name != "n"
    }
    feeds["n"] = np.array([5, 3], np.int32)
    found = []
    for each in (model, lowered):
        with target.runner(Model(each), RunnerOptions(exact=True)) as runner:
            found.append(runner.run(feeds))
            assert runner.kernels().int8 == int(each is lowered)
    for name, wanted in found[0].items():
        error = np.linalg.norm(found[1][name] - wanted) / np.linalg.norm(wanted)
        assert error < 0.02, name


@pytest.mark.parametrize("change", ["float weight", "scale of a column", "computed scale"])
def test_other_lstms_stay(change: str) -> None:
    model = _stored_lstm("x, w, r, b", 1)
    initializers = model.graph.initializers
    if change == "float weight":
        (product,) = (n for n in model.graph if n.outputs[0].name == "r")
        array = np.zeros((1, 24, 6), np.float32)
        initializers["rs"].const_value = ir.Tensor(array, name="rs")
        product.replace_input_with(0, initializers["rs"])
    elif change == "scale of a column":
        initializers["ws"].const_value = ir.Tensor(np.ones((1, 1, 4), np.float32), name="ws")
    else:
        initializers["ws"].const_value = None
        model.graph.inputs.append(initializers.pop("ws"))
    assert _CPU.lower(model) == {}
    assert any(node.op_type == "LSTM" for node in model.graph)
