"""8-bit storage: where weights are found, how they are written, what runtimes make of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from irtools.model.printer import print_model
from irtools.passes.quantization.int8 import Int8
from irtools.passes.quantization.sites.stored import find_stored, scoped_graphs
from irtools.passmanager import Plan

from .conftest import build, context, relative_error, session

WEIGHTS = "int8:mode=weight-only:min-size=0"


def head(opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]> '


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def printed(model: ir.Model) -> list[str]:
    lines = print_model(model).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("graph"))
    # Names of nodes are at the ends of their lines.
    return [line.split('  "')[0].strip() for line in lines[start:] if line.strip()]


@pytest.mark.parametrize("opset", [9, 11, 17, 21])
def test_a_kernel_is_stored_the_same_way_at_every_opset(opset: int, quantize) -> None:
    model = build(
        head(opset) + "g (float[1,3,2] x, float[2,3,1] w) => (float[1,2,2] y) { y = Conv(x, w) }",
        w=np.array([[[127.0], [0.0], [1.0]], [[-254.0], [2.0], [0.0]]]),
    )
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-stored-conv": 1}
    assert printed(done.after) == [
        "graph (x: float32[1, 3, 2]) -> (y: float32[1, 2, 2])",
        "w_quantized: int8[2, 3, 1] = [127, 0, 1, -127, 1, 0]",
        "w_scale: float32[2, 1, 1] = [1.0, 2.0]",
        "w_integers = Cast<to=1>(w_quantized)",
        "w_dequantized = Mul(w_integers, w_scale)",
        "y = Conv(x, w_dequantized)",
    ]


PRODUCTS: dict[str, tuple[str, dict[str, tuple[int, ...]], str, tuple[int, ...]]] = {
    "conv in groups": (
        "g (float[1,8,9,9] x, float[6,4,3,3] w) => (float[1,6,m,n] y) { y = Conv<group=2>(x, w) }",
        {"x": (1, 8, 9, 9)},
        "conv",
        (0,),
    ),
    "conv transpose": (
        "g (float[1,8,9] x, float[8,5,4] w) => (float[1,5,m] y) { y = ConvTranspose(x, w) }",
        {"x": (1, 8, 9)},
        "conv",
        (1,),
    ),
    "conv transpose of single channels": (
        "g (float[1,8,9] x, float[8,1,4] w) => (float[1,8,m] y) "
        "{ y = ConvTranspose<group=8>(x, w) }",
        {"x": (1, 8, 9)},
        "conv",
        (0,),
    ),
    "left-hand": (
        "g (float[2,8,4] x, float[6,8] w) => (float[2,6,4] y) { y = MatMul(w, x) }",
        {"x": (2, 8, 4)},
        "other",
        (0,),
    ),
    "batched": (
        "g (float[3,5,8] x, float[3,8,6] w) => (float[3,5,6] y) { y = MatMul(x, w) }",
        {"x": (3, 5, 8)},
        "other",
        (0, 2),
    ),
    "gemm turned and scaled": (
        "g (float[8,4] x, float[6,8] w, float[4,6] w_c) => (float[4,6] y) "
        "{ y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(x, w, w_c) }",
        {"x": (8, 4)},
        "other",
        (0,),
    ),
    "einsum": (
        "g (float[2,5,8] x, float[8,6] w) => (float[2,6,5] y) "
        '{ y = Einsum<equation="bik,kn->bni">(x, w) }',
        {"x": (2, 5, 8)},
        "other",
        (1,),
    ),
    "columns of a table": (
        "g (float[2,6] x, float[6,9] w) => (float[2,2] y) "
        "{ i = Constant<value_ints=[3,1]>() t = Gather<axis=1>(w, i) y = MatMul(x, t) }",
        {"x": (2, 6)},
        "other",
        (1,),
    ),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_what_multiplies_is_stored_with_scales_along_the_right_axes(
    case: str, quantize, outputs
) -> None:
    text, shapes, kind, axes = PRODUCTS[case]
    model = build(head() + text)
    # Channels of unlike size: one scale for all of them would keep 10 dB less.
    weight = model.graph.initializers["w"]
    array = weight.const_value.numpy()
    scale = np.ones([n if i in axes else 1 for i, n in enumerate(array.shape)], np.float32)
    scale *= np.geomspace(0.01, 1.0, scale.size, dtype=np.float32).reshape(scale.shape)
    weight.const_value = ir.Tensor(array * scale, name="w")
    done = quantize(model, WEIGHTS)
    (decision,) = done.result.plan.decisions
    assert decision.data["axes"] == list(axes)
    assert done.result.counters[f"num-stored-{kind}"] == 1
    feeds = {name: normal(*shape) for name, shape in shapes.items()}
    wanted = outputs(model, **feeds)
    for exact in (True, False):
        assert relative_error(outputs(done.after, exact=exact, **feeds), wanted) < 0.01


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op: str, directions: int = 2, hidden: int = 6) -> ir.Model:
    rows, direction = RECURRENT[op] * hidden, ("", "forward", "bidirectional")[directions]
    model = build(
        head() + f"g (float[5,2,4] x, float[{directions},{rows},4] w, "
        f"float[{directions},{rows},{hidden}] w_r, float[{directions},{2 * rows}] w_b) "
        f"=> (float[5,{directions},2,{hidden}] y, float[{directions},2,{hidden}] h) "
        f'{{ y, h = {op}<hidden_size={hidden}, direction="{direction}">(x, w, w_r, w_b) }}'
    )
    w = model.graph.initializers["w"]
    array = w.const_value.numpy().copy()
    array[-1] *= 0.02
    w.const_value = ir.Tensor(array, name="w")
    return model


@pytest.mark.parametrize("op", RECURRENT)
def test_directions_of_unlike_size_have_scales_of_their_own(op: str, quantize, outputs) -> None:
    model = recurrent(op)
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-stored-recurrent": 2}
    assert done.after.graph.initializers["w_scale"].shape == (2, RECURRENT[op] * 6, 1)
    x = normal(5, 2, 4)
    wanted = outputs(model, x=x)
    for exact in (True, False):
        assert relative_error(outputs(done.after, exact=exact, x=x), wanted) < 0.01


def test_runtimes_expand_stored_weights_once(quantize, kernels, openvino_layers, outputs) -> None:
    model = build(
        head() + "g (float[1,8,9,9] x, float[8,8,3,3] w) => (float[1,8,7,7] y) { y = Conv(x, w) }"
    )
    done = quantize(model, WEIGHTS)
    assert kernels(done.after) == {"Conv": 1}
    x = normal(1, 8, 9, 9)
    found, layers = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 1e-4
    assert layers["Convolution[f32]"] == 1 and not layers["Convert[i8]"]


@pytest.mark.parametrize("op", ["ConvTranspose", "GRU", "LSTM"])
def test_openvino_computes_the_same_of_stored_weights(
    op: str, quantize, openvino_layers, outputs
) -> None:
    if op == "ConvTranspose":
        model, x = build(head() + PRODUCTS["conv transpose"][0]), normal(1, 8, 9)
    else:
        model, x = recurrent(op), normal(5, 2, 4)
    done = quantize(model, WEIGHTS, target="openvino-cpu")
    found, _ = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 1e-4


@pytest.mark.parametrize("op", RECURRENT)
def test_openvino_takes_stored_layers_next_to_integer_products(
    op: str, quantize, openvino_layers, outputs
) -> None:
    """Next to QuantizeLinear it keeps Cast and Mul in front of weights, which must be constant."""
    rows = RECURRENT[op] * 6
    model = build(
        head() + f"g (float[5,2,4] x, float[4,4] w, float[1,{rows},4] w_x, float[1,{rows},6] w_r) "
        f"=> (float[5,1,2,6] y) {{ z = MatMul(x, w) y = {op}<hidden_size=6>(z, w_x, w_r) }}"
    )
    x = normal(5, 2, 4)
    done = quantize(model, "int8:mode=static:min-size=0", "openvino-cpu", x=x)
    assert done.result.counters == {"num-quantized-matmul": 1, "num-stored-recurrent": 2}
    found, _ = openvino_layers(done.after, x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 0.01


BRANCHES = """
g (bool c, float[2,8] x, float[8,8] w) => (float[2,8] y) {
  y = If (c) <
    then_branch = t () => (float[2,8] a) { k = Constant<value = float[8,8] {VALUES}>()
        p = MatMul(x, k) q = MatMul(p, w) a = Tanh(q) },
    else_branch = e () => (float[2,8] b) { k = Constant<value = float[8,8] {VALUES}>()
        p = MatMul(x, k) b = MatMul(p, w) }
  >
}
"""


def branches() -> ir.Model:
    values = ", ".join(f"{value:.4f}" for value in normal(64))
    return build(head() + BRANCHES.replace("VALUES", values))


def test_weights_in_branches_are_stored_where_they_lie(quantize) -> None:
    model = branches()
    done = quantize(model, "int8:min-size=0")
    # Both branches call their weight `k`; the weight of the main graph serves both.
    assert done.result.counters == {"num-stored-subgraph": 2, "num-stored-other": 1}
    scopes = {d.data["scope"] for d in done.result.plan.decisions}
    assert scopes == {"", "/y.then_branch", "/y.else_branch"}
    assert [node.op_type for node in done.after.graph] == ["Cast", "Mul", "If"]
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(2, 8)}
        wanted = session(model, exact=True).run(None, feeds)[0]
        for exact in (True, False):
            found = session(done.after, exact=exact).run(None, feeds)[0]
            assert 0 < relative_error(found, wanted) < 0.02


LOOP = """
g (float[2,8] x, float[8,8] w) => (float[2,8] y) {
  n = Constant<value = int64 {3}>()
  go = Constant<value = bool {1}>()
  y = Loop (n, go, x) <body = b (int64 i, bool on, float[2,8] h) => (bool more, float[2,8] z)
    <float[8,8] k = {VALUES}>
    { more = Identity(on) p = MatMul(h, k) q = MatMul(p, w) z = Tanh(q) }>
}
"""


def test_weights_of_a_loop_are_expanded_when_the_model_is_loaded(quantize, tmp_path) -> None:
    values = ", ".join(f"{value:.4f}" for value in normal(64))
    model = build(head() + LOOP.replace("VALUES", values))
    done = quantize(model, "int8:min-size=0")
    assert done.result.counters == {"num-stored-subgraph": 1, "num-stored-other": 1}
    x = normal(2, 8)
    wanted = session(model, exact=True).run(None, {"x": x})[0]
    path = str(tmp_path / "optimized.onnx")
    for exact in (True, False):
        found = session(done.after, exact=exact, path=path).run(None, {"x": x})[0]
        assert 0 < relative_error(found, wanted) < 0.02
    (body,) = (graph for scope, graph in scoped_graphs(ir.load(path)) if scope)
    assert not {"Cast", "Mul"} & {node.op_type for node in body}


FUNCTION = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[2,8] x, float[8,8] w) => (float[2,8] y) { h = own.dense(x, w) y = own.fixed(h) }
<domain: "own", opset_import: ["" : 17]> dense (a, b) => (c) { c = MatMul(a, b) }
<domain: "own", opset_import: ["" : 17]> fixed (a) => (c)
  { k = Constant<value = float[8,8] {VALUES}>() c = MatMul(a, k) }
"""


CARRIED = """
g (int64 n, bool go, float[2,8] x, float[8,8] w) => (float[2,8] y, float[2,8] z) {
  y, last = Loop (n, go, x, w) <body = b (int64 i, bool on, float[2,8] h, float[8,8] r)
    => (bool more, float[2,8] t, float[8,8] %s) {
    more = Identity (on)  p = MatMul (h, r)  t = Tanh (p)
    %s
  }>
  z = MatMul (x, %s)
}"""


@pytest.mark.parametrize("read", ["w", "last"])
@pytest.mark.parametrize("state", [("s", "s = Identity (r)"), ("r", "")], ids=["copied", "given"])
def test_weights_that_a_loop_carries_unchanged_are_stored(
    state: tuple[str, str], read: str, quantize
) -> None:
    model = build(head() + CARRIED % (*state, read), w=normal(8, 8))
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-stored-other": 1}
    assert "w" not in done.after.graph.initializers
    feeds = {"n": np.array(3), "go": np.array(True), "x": normal(2, 8, seed=2)}
    runs = (session(one, exact=True).run(None, feeds) for one in (done.after, model))
    for found, wanted in zip(*runs, strict=True):
        assert 0 < relative_error(found, wanted) < 0.02


@pytest.mark.parametrize("change", ["Add (r, r)", "MatMul (r, r)", "Neg (r)"])
def test_weights_that_a_loop_changes_stay_and_are_counted(change: str, quantize) -> None:
    model = build(head() + CARRIED % ("s", f"s = {change}", "w"), w=normal(8, 8))
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-skipped-shared": 1}
    assert "w" in done.after.graph.initializers


def test_weights_in_functions_and_arguments_of_functions_are_stored(quantize, outputs) -> None:
    values = ", ".join(f"{value:.4f}" for value in normal(64))
    model = build(FUNCTION.replace("VALUES", values))
    done = quantize(model, "int8:min-size=0")
    assert done.result.counters == {"num-stored-subgraph": 1, "num-stored-other": 1}
    x = normal(2, 8)
    for exact in (True, False):
        found = outputs(done.after, exact=exact, x=x)
        assert 0 < relative_error(found, outputs(model, x=x)) < 0.02


def test_a_plan_is_replayed_from_its_text(quantize) -> None:
    for model in (branches(), recurrent("GRU")):
        made = Int8(mode="dynamic", min_size=0)
        plan = made.plan(model, context("ort-cpu", None))
        again = Plan.from_json(plan.to_json())
        assert again == plan
        first, second = model.clone(), model.clone()
        made.apply(first, plan, context("ort-cpu", None))
        made.apply(second, again, context("ort-cpu", None))
        assert print_model(first) == print_model(second)
        for length in range(len(plan)):
            part = model.clone()
            result = made.apply(part, plan.prefix(length), context("ort-cpu", None))
            assert sum(n for k, n in result.counters.items() if "stored" in k) == length


def test_a_second_run_finds_nothing_and_says_so(quantize) -> None:
    once = quantize(recurrent("LSTM"), WEIGHTS)
    twice = quantize(once.after, WEIGHTS)
    assert not twice.result.modified
    assert twice.result.counters == {"num-already-quantized": 1}
    assert twice.result.notes == ("nothing was quantized: nodes that were quantized before (1)",)


def test_what_was_quantized_before_is_named_next_to_what_is_quantized_now(quantize) -> None:
    source = (
        head() + "g (float[1,3,2] x, float[2,3,1] w, uint8[2,2] a, int8[2,2] b) "
        "=> (float[1,2,2] y, int32[2,2] z) { y = Conv(x, w)  z = MatMulInteger(a, b) }"
    )
    done = quantize(build(source, w=normal(2, 3, 1), b=np.ones((2, 2), np.int8)), WEIGHTS)
    assert done.result.counters == {"num-stored-conv": 1, "num-already-quantized": 1}
    assert "left as quantized before: 1 node" in done.result.notes


WITHOUT_KERNELS = {
    "a recurrent layer": (
        "g (float[5,2,8] x, float[1,24,8] w, float[1,24,8] w_r) "
        "=> (float[5,1,2,8] y) { y = GRU<hidden_size=8>(x, w, w_r) }",
        "2 of GRU",
    ),
    "a transposed convolution": (
        "g (float[1,8,9] x, float[8,4,3] w) => (float[1,4,n] y) { y = ConvTranspose(x, w) }",
        "1 of ConvTranspose",
    ),
    "a constant on the left": (
        "g (float[8,3] x, float[9,8] w) => (float[9,3] y) { y = MatMul(w, x) }",
        "1 of MatMul",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_KERNELS)
@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_what_no_integer_kernel_takes_is_named(case: str, mode: str, quantize) -> None:
    text, named = WITHOUT_KERNELS[case]
    done = quantize(build(head() + text), f"int8:mode={mode}:min-size=0")
    assert (
        "stored in 8 bits and multiplied in float32, since no int8 kernel takes them: weights "
        f"({named})" in done.result.notes
    )


def test_weights_in_branches_are_named_with_their_place(quantize) -> None:
    notes = quantize(branches(), "int8:mode=dynamic:min-size=0").result.notes
    assert any("(3 of MatMul in branches, loops or functions)" in note for note in notes)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_half_weights_are_not_promised_integer_kernels(mode: str, quantize) -> None:
    """Nor are ranges asked for, which would not help: kernels take scales of float32.

    A sequence of tensors keeps the model from being widened to float32.
    """
    model = build(
        head() + "g (float16[1,3,9] x, float16[4,3,3] w) => (float16[1,4,7] y) "
        "{ y = Conv(x, w) s = SequenceConstruct(x) }"
    )
    model.graph[1].outputs[0].type = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT16))
    done = quantize(model, f"int8:mode={mode}:min-size=0")
    assert done.result.counters == {"num-stored-conv": 1}
    (note,) = (n for n in done.result.notes if "stored in 8 bits" in n)
    assert "1 weight of float16" in note and "calibration data" not in note


def test_layers_in_the_integer_kernel_of_the_target_are_not_named(quantize) -> None:
    done = quantize(recurrent("LSTM"), "int8:mode=dynamic:min-size=0")
    assert not any("no int8 kernel takes them" in note for note in done.result.notes)


def test_a_slow_target_is_no_reason_where_nothing_is_quantized(quantize) -> None:
    once = quantize(recurrent("GRU"), "int8:min-size=0", "openvino-cpu:isa=avx2")
    assert any("weights are only stored in 8 bits" in note for note in once.result.notes)
    twice = quantize(once.after, "int8:min-size=0", "openvino-cpu:isa=avx2")
    assert twice.result.notes == ("nothing was quantized: nodes that were quantized before (1)",)


def test_options_hold_for_storage(quantize) -> None:
    model = recurrent("GRU")
    assert quantize(model, f"{WEIGHTS}:exclude=w_r").result.counters == {
        "num-stored-recurrent": 1,
        "num-skipped-excluded": 1,
    }
    assert quantize(model, "int8:min-size=100000").result.counters == {"num-skipped-small": 2}


def test_small_weights_are_stored_in_small_models_only(quantize) -> None:
    text = "g (float[2,64] x, float[64,64] w{rest}) => (float[2,{n}] y) {{ {body} }}"
    small = build(head() + text.format(rest="", n=64, body="y = MatMul(x, w)"))
    large = build(
        head()
        + text.format(
            rest=", float[64,140000] w_2", n=140000, body="h = MatMul(x, w) y = MatMul(h, w_2)"
        )
    )
    assert quantize(small, "int8").result.counters == {"num-stored-other": 1}
    assert quantize(large, "int8").result.counters == {
        "num-quantized-matmul": 1,
        "num-skipped-small": 1,
    }


def test_what_8_bits_keep_badly_stays(quantize) -> None:
    array = np.full((4, 4096), 0.035)
    array[:, 0] = 10.0
    text = "g (float[4096,2] x, float[4,4096] w) => (float[4,2] y) { y = MatMul(w, x) }"
    assert quantize(build(head() + text, w=array), WEIGHTS).result.counters == {
        "num-skipped-precision": 1
    }
    array[:, 0] = 0.5
    assert quantize(build(head() + text, w=array), WEIGHTS).result.counters == {
        "num-stored-other": 1
    }


def test_float16_is_stored_too(quantize, kernels, outputs) -> None:
    model = build(
        head() + "g (float16[2,8] x, float16[8,8] w) => (float16[2,8] y) { y = MatMul(x, w) }"
    )
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-stored-other": 1}
    assert [node.op_type for node in done.after.graph] == ["Cast", "Mul", "Cast", "MatMul"]
    assert "Mul" not in kernels(done.after)
    x = normal(2, 8).astype(np.float16)
    found = outputs(done.after, x=x).astype(np.float64)
    assert 0 < relative_error(found, outputs(model, x=x).astype(np.float64)) < 0.02


@pytest.mark.parametrize(
    "body",
    [
        "g (double[2,8] x, double[8,8] w) => (double[2,8] y) { y = MatMul(x, w) }",
        "g (double[1,4,9] x, double[8,4,3] w) => (double[1,8,7] y) { y = Conv(x, w) }",
    ],
)
def test_float64_is_left_alone_and_counted(body: str, quantize) -> None:
    done = quantize(build(head() + body), WEIGHTS)
    assert done.result.counters == {"num-skipped-dtype": 1}
    assert done.result.notes == (
        "nothing was quantized: weights left alone because of their type (1)",
    )


@pytest.mark.parametrize(
    "read",
    [
        "y = MatMul(x, d)",
        "t = Transpose <perm = [1, 0]> (d)\n y = MatMul(x, t)",
    ],
)
def test_float_weights_that_the_model_rounds_itself_are_named(read: str, quantize) -> None:
    model = build(
        head()
        + "g (float[2,8] x, float[8,8] w) => (float[2,8] y) <float s = {0.01}, int8 z = {0}> {\n"
        + f" q = QuantizeLinear(w, s, z)\n d = DequantizeLinear(q, s, z)\n {read} }}"
    )
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-skipped-rounded": 1}
    assert "a QuantizeLinear of the model itself rounds them" in done.result.notes[0]


def test_large_constants_that_are_added_are_counted(quantize) -> None:
    model = build(head() + "g (float[8,8] x, float[8,8] w) => (float[8,8] y) { y = Add(x, w) }")
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-skipped-operator": 1}
    assert done.result.notes == (
        "nothing was quantized: large constants that no product reads, left in float32 (1)",
    )


def test_forests_are_counted(quantize) -> None:
    """Their numbers are lists in attributes of one node, and all of the file."""
    found = quantize(forest(1100), WEIGHTS)
    assert found.result.counters == {"num-skipped-attributes": 1}
    assert found.result.notes == (
        "nothing was quantized: operators whose numbers are attributes, such as trees, left "
        "alone (1)",
    )
    assert not quantize(forest(3), WEIGHTS).result.counters


def forest(trees: int) -> ir.Model:
    """Return a forest of leaves alone."""
    ones, zeros = [1.0] * trees, [0] * trees
    forest = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=list(range(trees)), nodes_nodeids=zeros, nodes_featureids=zeros,
        nodes_modes=["LEAF"] * trees, nodes_values=ones, nodes_truenodeids=zeros,
        nodes_falsenodeids=zeros, target_treeids=list(range(trees)), target_nodeids=zeros,
        target_ids=zeros, target_weights=ones,
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [forest],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 2])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_weights_that_are_inputs_too_are_counted(quantize) -> None:
    model = build(
        head() + "g (float[1,4,9] x, float[8,4,3] w) => (float[1,8,7] y) { y = Conv(x, w) }"
    )
    model.graph.inputs.append(model.graph.initializers["w"])
    done = quantize(model, WEIGHTS)
    assert done.result.counters == {"num-skipped-overridable": 1}
    assert done.result.notes == (
        "nothing was quantized: weights that are inputs too, for a caller to override (1)",
    )


def test_scopes_have_names_of_their_own() -> None:
    model = branches()
    names = [scope for scope, _ in scoped_graphs(model)]
    assert len(set(names)) == len(names) == 3
    assert find_stored(model).weights[0].key == ("", "w")


def test_vectors_are_multiplied_in_float_and_their_matrix_is_stored(
    quantize, openvino_layers
) -> None:
    model = build(head() + "g (float[8] x, float[8,16] w) => (float[16] y) { y = MatMul(x, w) }")
    done = quantize(model, "int8:mode=static:min-size=0", "openvino-cpu", x=normal(4, 8))
    assert done.result.counters == {"num-stored-other": 1}
    x = normal(8)
    found, _ = openvino_layers(done.after, x=x)
    wanted = session(model, exact=True).run(None, {"x": x})[0]
    assert found.shape == (16,) and relative_error(found, wanted) < 0.02


@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_the_written_file_is_a_quarter(target: str, quantize, tmp_path) -> None:
    model = build(
        head() + "g (float[1,32,9] x, float[32,64,8] w) => (float[1,64,m] y) "
        "{ y = ConvTranspose(x, w) }"
    )
    done = quantize(model, "int8", target)
    sizes = [len(ir.to_proto(m).SerializeToString()) for m in (done.before, done.after)]
    assert sizes[1] < 0.28 * sizes[0]


HIDDEN = {
    "gather along columns": (
        "g (float[5,6] w, int64[2] i) => (float[5,2] y) { y = Gather<axis=1>(w, i) }",
        True,
    ),
    "gather of planes": (
        "g (float[4,5,6] w, int64[2] i) => (float[4,2,6] y) { y = Gather<axis=-2>(w, i) }",
        True,
    ),
    "gather of rows": (
        "g (float[5,6] w, int64[2] i) => (float[2,6] y) { y = Gather(w, i) }",
        False,
    ),
    "two constants": (
        "g (float[6,3] w, float[6,4] w2, float[1,4] x) => (float[3,4] y) "
        "{ y = Gemm<transA=1>(w, w2, x) }",
        True,
    ),
    "a weight of another shape": (
        "g (float[6,4,4] w, float[3,12] x) => (float[3,8] y) "
        "{ s = Constant<value_ints=[12,8]>() t = Reshape(w, s) y = MatMul(x, t) }",
        True,
    ),
    "a turned weight": (
        "g (float[4,6] w, float[3,6] x) => (float[3,4] y) { t = Transpose(w) y = MatMul(x, t) }",
        False,
    ),
}


@pytest.mark.openvino
@pytest.mark.parametrize("case", HIDDEN)
def test_integers_that_openvino_misreads_are_hidden(
    case: str, quantize, openvino_layers, outputs
) -> None:
    text, hidden = HIDDEN[case]
    model = build(head() + text)
    (given,) = model.graph.inputs
    assert given.shape is not None
    shape = [int(size) for size in given.shape]
    feeds = {given.name: np.array([0, 3]) if given.name == "i" else normal(*shape)}
    done = quantize(model, WEIGHTS, target="openvino-cpu")
    assert ("Cast<to=6>(w_quantized)" in print_model(done.after)) == hidden
    found, _ = openvino_layers(done.after, **feeds)
    assert relative_error(found, outputs(done.after, **feeds)) < 1e-6
