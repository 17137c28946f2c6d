"""`fp16` and `bf16`, as storage and as arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import OptionError, UnsupportedError
from irtools.model.interface import Interface
from irtools.model.printer import print_model
from irtools.passes.precision.fp16 import Fp16
from irtools.passes.precision.limits import misfit

from .conftest import build

LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n,2] x, float[2,2] w) => (float[n,2] y) { y = MatMul(x, w) }
"""

BLOCK = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[b,n,16] x, float[16] w_g, float[16,16] w_a, float[16,16] w_b) => (float[b,n,16] y) {
  l = LayerNormalization<axis=-1>(x, w_g)
  a = MatMul(l, w_a)
  t = Transpose<perm=[0,2,1]>(a)
  s = MatMul(a, t)
  p = Softmax<axis=-1>(s)
  c = MatMul(p, a)
  o = MatMul(c, w_b)
  y = Add(o, x)
}
"""


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def body(model: ir.Model) -> str:
    lines = print_model(model).splitlines()
    return "\n".join(line.split('  "')[0].strip() for line in lines if " = " in line)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_golden_storage(run_pass) -> None:
    model = build(LINEAR, w=[[1.0, 0.1], [-2.0, 0.0]])
    after, result = run_pass(model, "fp16:min-size=1", "float32")
    assert body(after) == (
        "w_float16: float16[2, 2] = [1.0, 0.1, -2.0, 0.0]\n"
        "w = Cast<to=1>(w_float16)\n"
        "y = MatMul(x, w)"
    )
    assert result.counters == {"num-stored": 1, "num-skipped-large": 0}
    assert "halves the file, not the time" in result.notes[0]


def test_golden_arithmetic(run_pass) -> None:
    after, result = run_pass(build(LINEAR, w=[[1.0, 0.1], [-2.0, 0.0]]), "fp16", "float16")
    assert body(after) == (
        "w_float16: float16[2, 2] = [1.0, 0.1, -2.0, 0.0]\n"
        "x_float16 = Cast<to=10>(x)\n"
        "y_float16 = MatMul(x_float16, w_float16)\n"
        "y = Cast<to=1>(y_float16)"
    )
    assert result.counters["num-computed"] == 1


@pytest.mark.parametrize("dtypes", [("float32",), ("float32", "float16")])
def test_values_beyond_65504_are_named_and_kept(run_pass, outputs, dtypes) -> None:
    model = build(LINEAR, w=[[1.0, 0.1], [-2.0, 70000.0]])
    after, result = run_pass(model, "fp16:min-size=1", *dtypes)
    assert not result.modified
    assert print_model(after) == print_model(model)
    assert result.counters["num-skipped-large"] == 1
    assert result.notes == ("'w' holds values that float16 cannot: kept in float32",)


def test_65504_is_stored(run_pass) -> None:
    model = build(LINEAR, w=[[65504.0, -65504.0], [np.inf, np.nan]])
    after, result = run_pass(model, "fp16:min-size=1", "float32")
    assert result.counters["num-stored"] == 1
    found = after.graph.initializers["w_float16"].const_value.numpy()
    np.testing.assert_array_equal(found, [[65504, -65504], [np.inf, np.nan]])


def test_bfloat16_holds_what_float16_cannot() -> None:
    large = np.array([1e38, np.inf, np.nan], np.float32)
    assert misfit(large, ir.DataType.BFLOAT16) is None
    assert misfit(large, ir.DataType.FLOAT16) is not None
    assert misfit(np.array([3.4e38], np.float32), ir.DataType.BFLOAT16) is not None


@pytest.mark.parametrize(("dtypes", "limit"), [(("float32",), 2e-3), (("float16",), 5e-3)])
def test_numbers(run_pass, outputs, dtypes, limit: float) -> None:
    model = build(BLOCK)
    after, _ = run_pass(model, "fp16:min-size=1", *dtypes)
    x = normal(2, 5, 16)
    wanted = outputs(model, x=x)
    assert 0 < error(outputs(after, x=x), wanted) < limit


def test_what_overflows_or_loses_too_much_stays_in_float32(run_pass) -> None:
    after, result = run_pass(build(BLOCK), "fp16", "float32", "float16")
    widths = {node.op_type: node.outputs[0].dtype for node in after.graph if node.op_type != "Cast"}
    assert widths["LayerNormalization"] == widths["Softmax"] == ir.DataType.FLOAT
    assert widths["MatMul"] == widths["Transpose"] == widths["Add"] == ir.DataType.FLOAT16
    assert result.counters == {
        "num-computed": 6,
        "num-skipped-float32": 2,
        "num-skipped-large": 0,
    }


def test_a_mask_beyond_65504_stays_in_float32_up_to_the_softmax(run_pass, outputs) -> None:
    """-3.4e38 is how exporters write a mask; as float16 it is -inf, and a full row gives NaN."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[n,4] x, bool[n,4] m, float[4,4] w) => (float[n,4] y) {
          zero = Constant<value = float {0.0}>()
          lowest = Constant<value = float {-3.4028235e38}>()
          mask = Where(m, zero, lowest)
          s = MatMul(x, w)
          a = Add(s, mask)
          p = Softmax(a)
          y = MatMul(p, w)
        }
    """)
    after, result = run_pass(model, "fp16", "float16")
    widths = {node.outputs[0].name: node.outputs[0].dtype for node in after.graph}
    assert widths["mask"] == widths["a"] == ir.DataType.FLOAT
    assert widths["s"] == ir.DataType.FLOAT16
    assert result.counters["num-computed"] == 2
    x, m = normal(3, 4), np.array([[True] * 4, [True, False] * 2, [False] * 4])
    found = outputs(after, x=x, m=m)
    assert error(found, outputs(model, x=x, m=m)) < 2e-3


@pytest.mark.parametrize("dtypes", [("float32",), ("float16",)])
def test_the_interface_stays_and_a_second_run_changes_nothing(run_pass, dtypes) -> None:
    model = build(BLOCK)
    after, _ = run_pass(model, "fp16:min-size=1", *dtypes)
    assert Interface.of(after) == Interface.of(model)
    again, result = run_pass(after, "fp16:min-size=1", *dtypes)
    assert not result.modified
    assert print_model(again) == print_model(after)


def test_scales_of_quantized_parts_stay_exact(run_pass) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (int8[4,2] q, float[4] w_scale) => (float[4,2] y)
        { y = DequantizeLinear<axis=0>(q, w_scale) }
    """)
    assert not run_pass(model, "fp16:min-size=1", "float32")[1].modified


def test_small_tensors_and_overridable_weights_stay(run_pass) -> None:
    model = build(LINEAR)
    assert not run_pass(model, "fp16", "float32")[1].modified
    model.graph.inputs.append(model.graph.initializers["w"])
    assert not run_pass(model, "fp16:min-size=1", "float32")[1].modified


def test_weights_that_a_subgraph_reads_are_stored_too(run_pass, outputs) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (bool c, float[n,2] x, float[2,2] w) => (float[n,2] y) {
          y = If (c) <
            then_branch = a () => (float[n,2] p) { p = MatMul(x, w) },
            else_branch = b () => (float[n,2] q) { q = Identity(x) }
          >
        }
    """)
    after, result = run_pass(model, "fp16:min-size=1", "float32")
    assert result.counters["num-stored"] == 1
    x = normal(3, 2)
    feeds = {"c": np.array(True), "x": x}
    assert error(outputs(after, **feeds), outputs(model, **feeds)) < 1e-3


def made(model: ir.Model) -> dict[str, ir.DataType | None]:
    """Type by name of what the nodes make."""
    return {str(o.name): o.dtype for node in model.graph for o in node.outputs}


def test_operators_of_foreign_domains_stay_in_float32(run_pass) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
        g (float[n,4] x, float[4,4] w) => (float[n,4] y)
        <float[n,4] a> { a = com.microsoft.Add(x, x)  y = MatMul(a, w) }
    """)
    after, result = run_pass(model, "fp16", "float16")
    assert made(after)["a"] == ir.DataType.FLOAT
    assert result.counters["num-computed"] == 1


def test_what_has_no_type_stays_in_float32(run_pass) -> None:
    model = build("""
        <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[n,4] x, float[4,4] w) => (float[n,4] y)
        { a = local.Unknown(x)  b = Add(a, x)  y = MatMul(b, w) }
    """)
    after, _ = run_pass(model, "fp16", "float16")
    assert made(after)["b"] == ir.DataType.FLOAT  # a may be anything; b is of the type of x.
    assert "a_float16" not in made(after)


def test_a_sum_with_what_has_no_type_stays_in_float32(run_pass) -> None:
    """Its result has a type, and half an Add would not load."""
    model = build("""
        <ir_version: 10, opset_import: ["" : 20, "local" : 1]>
        g (float[n,4] x) => (float[n,4] y) { a = local.Unknown(x)  y = Add(a, x) }
    """)
    after, result = run_pass(model, "fp16", "float16")
    assert result.counters["num-computed"] == 0
    assert print_model(after) == print_model(model)


def test_operators_that_do_not_take_the_type_at_this_opset_stay(run_pass) -> None:
    """MaxPool takes bfloat16 from opset 22 on."""
    text = """
        <ir_version: 10, opset_import: ["" : {}]>
        g (float[n,2,4,4] x, float[2,2,1,1] w) => (float[n,2,2,2] y)
        {{ c = Conv(x, w)  y = MaxPool<kernel_shape=[3,3]>(c) }}
    """
    for opset, computed in ((20, 0), (22, 2)):
        _, result = run_pass(build(text.format(opset)), "bf16", "float32", "float16", "bfloat16")
        assert result.counters["num-computed"] == computed


def test_weights_that_a_caller_may_override_are_cast_when_the_model_runs(run_pass, outputs) -> None:
    model = build(LINEAR, w=[[1.0, 0.1], [-2.0, 0.0]])
    model.graph.inputs.append(model.graph.initializers["w"])
    after, _ = run_pass(model, "fp16", "float16")
    x, w = normal(3, 2), normal(2, 2)
    assert error(outputs(after, x=x, w=w), outputs(model, x=x, w=w)) < 2e-3


@pytest.mark.parametrize("dtypes", [("float32",), ("float16",)])
def test_a_weight_that_is_an_output_keeps_its_value(run_pass, dtypes) -> None:
    model = build(LINEAR.replace("float[n,2] y)", "float[n,2] y, float[2,2] w)"))
    after, _ = run_pass(model, "fp16:min-size=1", *dtypes)
    kept = after.graph.outputs[1].const_value
    assert kept is not None and kept.dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(
        kept.numpy(), model.graph.initializers["w"].const_value.numpy(), strict=True
    )


def test_a_weight_of_the_smallest_size_is_stored_and_a_dead_one_is_not(run_pass) -> None:
    model = build(LINEAR)
    assert run_pass(model, "fp16:min-size=4", "float32")[1].counters["num-stored"] == 1
    assert run_pass(model, "fp16:min-size=5", "float32")[1].counters["num-stored"] == 0
    dead = build(LINEAR.replace("MatMul(x, w)", "MatMul(x, x)"))
    assert not run_pass(dead, "fp16:min-size=1", "float32")[1].modified


def test_nothing_is_written_into_shared_tensors(run_pass) -> None:
    model = build(BLOCK)
    before = print_model(model, digest_length=64)
    run_pass(model, "fp16:min-size=1", "float32")
    run_pass(model, "fp16", "float16")
    assert print_model(model, digest_length=64) == before


def test_bf16_is_refused_where_nothing_computes_in_it(run_pass) -> None:
    with pytest.raises(UnsupportedError, match="bf16 needs a target that computes in bfloat16"):
        run_pass(build(LINEAR), "bf16", "float32")


def test_bf16_is_storage_where_the_runtime_chooses(run_pass, outputs) -> None:
    model = build(BLOCK)
    after, result = run_pass(model, "bf16:min-size=1", "float32", "bfloat16")
    assert result.counters["num-stored"] == 3
    assert "chooses bfloat16 arithmetic itself" in result.notes[0]
    x = normal(2, 5, 16)
    assert 0 < error(outputs(after, x=x), outputs(model, x=x)) < 2e-2


def test_bf16_is_arithmetic_where_the_graph_decides(run_pass) -> None:
    after, result = run_pass(build(LINEAR), "bf16", "float32", "float16", "bfloat16")
    assert result.counters["num-computed"] == 1
    (product,) = [node for node in after.graph if node.op_type == "MatMul"]
    assert product.outputs[0].dtype == ir.DataType.BFLOAT16


@pytest.mark.openvino
def test_openvino_takes_weights_in_bfloat16(run_pass, outputs) -> None:
    import openvino as ov

    model = build(BLOCK)
    after, _ = run_pass(model, "bf16:min-size=1", "float32", "bfloat16")
    core = ov.Core()
    read = core.read_model(ir.to_proto(after).SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = normal(2, 5, 16)
    found = next(iter(compiled({"x": x}).values()))
    assert error(found, outputs(after, x=x)) < 1e-5


def test_options() -> None:
    with pytest.raises(OptionError):
        Fp16(min_size=0)


DIVIDED = """<ir_version: 10, opset_import: ["": 20]>
g (float[N, 64] x, float[64] w, float[64, 64] w2) => (float[N, 64] y) {
  a = MatMul(x, w2)
  y = Div(a, w)
}"""


@pytest.mark.parametrize("dtypes", [("float32",), ("float32", "float16")])
def test_a_divisor_that_would_vanish_is_named_and_kept(run_pass, outputs, dtypes) -> None:
    """One element is enough: the quotients of its column would be infinite."""
    w = np.ones(64, np.float32)
    w[7] = 1e-9
    model = build(DIVIDED, w=w)
    after, result = run_pass(model, "fp16:min-size=1", *dtypes)
    assert result.counters["num-skipped-small-values"] == 1
    assert any(n.startswith("'w' would lose more than 1 % in float16") for n in result.notes)
    x = normal(4, 64)
    assert np.isfinite(outputs(after, x=x)).all()
    assert error(outputs(after, x=x), outputs(model, x=x)) < 5e-3


def test_a_tiny_element_of_a_product_does_not_keep_the_weight(run_pass) -> None:
    w = np.ones((64, 64), np.float32)
    w[3] = 1e-30
    _, result = run_pass(build(DIVIDED, w2=w), "fp16:min-size=1024", "float32")
    assert result.counters == {"num-stored": 1, "num-skipped-large": 0}


@pytest.mark.parametrize("scale", [1e-6, 1e-9, 1e-30])
def test_a_weight_of_tiny_numbers_stays(run_pass, scale) -> None:
    model = build(DIVIDED, w2=normal(64, 64) * scale)
    _, result = run_pass(model, "fp16:min-size=1024", "float32")
    assert not result.modified
    assert result.counters["num-skipped-small-values"] == 1


def test_bfloat16_holds_tiny_numbers() -> None:
    assert misfit(np.full(8, 1e-30, np.float32), ir.DataType.BFLOAT16) is None
    assert misfit(np.full(8, 1e-30, np.float32), ir.DataType.FLOAT16) == "small"
    # Scaled before it is squared: 1e-30 squared is not a float32.
    assert misfit(np.array([1e-30, 1.0], np.float32), ir.DataType.FLOAT16) is None
    assert misfit(np.array([], np.float32), ir.DataType.FLOAT16) is None


def test_float64_is_left_alone_and_counted(run_pass) -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        g (double[N, 2] x) => (double[N, 2] y) <double[2, 2] w = {1.0, 2.0, 3.0, 4.0}>
        { y = MatMul(x, w) }"""
    )
    for dtypes in (("float32",), ("float32", "float16")):
        after, result = run_pass(model, "fp16:min-size=1", *dtypes)
        assert not result.modified and print_model(after) == print_model(model)
        assert result.counters["num-skipped-dtype"] == 1
        assert "1 weight of float64 left as they are, such as 'w'" in result.notes


IN_A_BRANCH = """<ir_version: 10, opset_import: ["": 20]>
g (bool c, float[N, 2] x) => (float[N, 2] y) {
  y = If(c) <
    then_branch = t () => (float[N, 2] z) {
      w = Constant<value = float[2, 2] {1.0, 2.0, 3.0, 4.0}>()
      z = MatMul(x, w)
    },
    else_branch = e () => (float[N, 2] z2) { z2 = Relu(x) }
  >
}"""


def test_constants_in_branches_are_stored_in_16_bits(run_pass, outputs) -> None:
    model = ir.from_onnx_text(IN_A_BRANCH)
    after, result = run_pass(model, "fp16:min-size=1", "float32")
    assert result.counters["num-stored"] == 1
    text = print_model(after)
    assert "Constant<value=float16[2, 2]" in text and "w = Cast<to=1>(w_float16)" in text
    feeds = {"c": np.array(True), "x": np.eye(2, dtype=np.float32)}
    np.testing.assert_array_equal(outputs(after, **feeds), [[1, 2], [3, 4]])
    assert not run_pass(after, "fp16:min-size=1", "float32")[1].modified


def test_nothing_to_do_is_explained(run_pass) -> None:
    _, result = run_pass(build(LINEAR), "fp16", "float32")
    assert result.notes == ("nothing to do: no float32 weight is as large as min-size",)
