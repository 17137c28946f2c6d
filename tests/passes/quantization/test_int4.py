"""The pass `int4`, 4-bit tables of `int8`, and what the runtimes make of them."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import OptionError, UnsupportedError
from irtools.model import Model
from irtools.model.printer import print_model
from irtools.passmanager import Pipeline
from irtools.targets import find_target, lowered

from .conftest import build, relative_error

INT4 = "int4:min-size=0"


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def body(model: ir.Model) -> str:
    """The printed nodes, without their labels."""
    lines = print_model(model).splitlines()
    return "\n".join(line.split('  "')[0].strip() for line in lines if " = " in line)


FFN = """
<ir_version: 10, opset_import: ["" : 20]>
ffn (float[batch,seq,64] x, float[64,96] w1, float[96] w_b1, float[96,64] w2, float[64] w_b2)
=> (float[batch,seq,64] y) {
  h = MatMul(x, w1)
  a = Add(h, w_b1)
  g = Gelu(a)
  o = MatMul(g, w2)
  y = Add(o, w_b2)
}
"""
TABLE = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[batch,seq] ids, float[300,64] w) => (float[batch,seq,64] y) { y = Gather(w, ids) }
"""
TIED = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[batch,seq] ids, float[300,64] w) => (float[batch,seq,300] y) {
  x = Gather(w, ids)
  a = Tanh(x)
  t = Transpose(w)
  y = MatMul(a, t)
}
"""
TIED_GEMM = """
<ir_version: 10, opset_import: ["" : 20]>
g (int64[n] ids, float[300,64] w, float[300] w_b) => (float[n,300] y) {
  x = Gather(w, ids)
  a = Tanh(x)
  y = Gemm<transB=1>(a, w, w_b)
}
"""


def on_onnx_runtime(model: ir.Model) -> ir.Model:
    return lowered(Model(model), find_target("ort-cpu:isa=vnni")).ir


def on_openvino(model: ir.Model) -> ir.Model:
    return lowered(Model(model), find_target("openvino-cpu:isa=vnni", check=False)).ir


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def test_golden_product(quantize) -> None:
    w = np.stack([np.arange(-8, 8) * 0.5, np.arange(8, -8, -1) * 0.25], axis=1)
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n,16] x, float[16,2] w) => (float[n,2] y) { y = MatMul(x, w) }
    """
    done = quantize(build(text, w=w), f"{INT4}:symmetric=true:grids=none")
    lines = body(done.after).splitlines()
    assert lines[0].startswith("w_quantized: int4[16, 2] = sha256")
    assert lines[1:] == [
        "w_scale: float32[1, 2] = [0.5, -0.25]",
        "w_dequantized = DequantizeLinear<axis=0, block_size=16>(w_quantized, w_scale)",
        "y = MatMul(x, w_dequantized)",
    ]
    codes = done.after.graph.initializers["w_quantized"].const_value.numpy()
    np.testing.assert_array_equal(codes.astype(int), np.arange(-8, 8)[:, None].repeat(2, 1))


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize(("rows", "dtype"), [(300, "INT4"), (299, "INT8")])
def test_small_tables_keep_eight_bits(quantize, name, rows, dtype) -> None:
    """600 * 32 is the size of 300 rows."""
    model = build(TABLE.replace("300", str(rows)))
    done = quantize(model, f"{name}:min-size=600:embeddings=4")
    assert done.after.graph.initializers["w_quantized"].dtype.name == dtype


def test_golden_table(quantize) -> None:
    done = quantize(build(TABLE), "int8:min-size=0:embeddings=4")
    lines = body(done.after).splitlines()
    assert [line.partition(" = sha256")[0].partition(":")[0] for line in lines[:2]] == [
        "w_quantized",
        "w_scale",
    ]
    assert "int4[300, 64]" in lines[0] and "float16[300, 2]" in lines[1]
    assert lines[2:] == [
        "w_dequantized = DequantizeLinear<axis=1, block_size=32>(w_quantized, w_scale)",
        "y_half = Gather(w_dequantized, ids)",
        "y = Cast<to=1>(y_half)",
    ]
    assert done.result.notes == ("opset raised from 20 to 21",)


VARIANTS = ("", ":symmetric=true", ":format=nf4", ":block=64")


@pytest.mark.parametrize("options", VARIANTS)
def test_the_model_says_what_numpy_says(quantize, outputs, options: str) -> None:
    """Reference: the integers and scales of the file, unpacked here."""
    model = build(FFN)
    done = quantize(model, INT4 + options)
    assert done.result.counters["num-quantized-matmul"] == 2
    x = normal(2, 5, 64)
    exact = outputs(done.after, x=x)
    copy = model.clone()
    for name in ("w1", "w2"):
        array = unpacked(done.after, name)
        copy.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    assert relative_error(exact, outputs(copy, x=x)) < 1e-6
    assert 0.02 < relative_error(exact, outputs(model, x=x)) < 0.2


def unpacked(model: ir.Model, name: str) -> np.ndarray:
    """Return a weight [K, N] from its codes and scales, by the definitions of the operators."""
    get = {k: v.const_value for k, v in model.graph.initializers.items()}
    if f"{name}_nf4" in get:
        levels = get["nf4_levels"].numpy()[get[f"{name}_nf4"].numpy().astype(int)]
        scale = get[f"{name}_scale"].numpy()
        return (levels.reshape(*scale.shape[:2], -1) * scale).reshape(levels.shape).T
    codes = get[f"{name}_quantized"].numpy().astype(np.float32)
    scale = get[f"{name}_scale"].numpy().astype(np.float32)
    block = len(codes) // len(scale)
    if f"{name}_zero_point" in get:
        codes = codes - np.repeat(get[f"{name}_zero_point"].numpy().astype(np.float32), block, 0)
    return (codes * np.repeat(scale, block, 0)).astype(np.float32)


@pytest.mark.parametrize("options", VARIANTS)
def test_onnx_runtime_multiplies_the_blocks_as_they_are(quantize, outputs, options: str) -> None:
    done = quantize(build(FFN), INT4 + options)
    low = on_onnx_runtime(done.after)
    kernel = "MatMulBnb4" if "nf4" in options else "MatMulNBits"
    assert operators(low) == {kernel: 2, "Add": 2, "Gelu": 1}
    x = normal(2, 5, 64)
    error = relative_error(outputs(low, exact=False, x=x), outputs(done.after, x=x))
    assert error < (1e-6 if "nf4" in options else 0.015)


@pytest.mark.openvino
@pytest.mark.parametrize("options", ["", ":symmetric=true"])
def test_openvino_keeps_the_blocks(quantize, outputs, openvino_layers, options: str) -> None:
    done = quantize(build(FFN), INT4 + options)
    x = normal(2, 5, 64)
    found, layers = openvino_layers(on_openvino(done.after), x=x)
    assert relative_error(found, outputs(done.after, x=x)) < 1e-5
    assert layers["FullyConnected[i4]" if options else "FullyConnected[u4]"] == 2


@pytest.mark.parametrize("text", [
    "g(float[n,64] x,float[32,64] w,float[32] w_b) => (float[n,32] y) {y=Gemm<transB=1>(x,w,w_b)}",
    "g (float[n,64] x, float[64,32] w) => (float[n,32] y) { y = Gemm(x, w) }",
    "g (float[n,64] x, float[33,64] w) => (float[n,33] y) { t = Transpose(w) y = MatMul(x, t) }",
    "g (float[n,48] x, float[48,33] w) => (float[n,33] y) { y = MatMul(x, w) }",
])  # fmt: skip
@pytest.mark.parametrize("options", VARIANTS[:3])
def test_every_layout_of_a_weight(quantize, outputs, text: str, options: str) -> None:
    model = build(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    done = quantize(model, INT4 + options)
    x = normal(5, int(model.graph.inputs[0].shape[1]))
    exact = outputs(done.after, x=x)
    assert relative_error(exact, outputs(model, x=x)) < 0.2
    assert relative_error(outputs(on_onnx_runtime(done.after), x=x), exact) < 0.015


@pytest.mark.parametrize("pipeline", [f"{INT4}:embeddings=4", "int8:min-size=0:embeddings=4"])
def test_a_table_is_looked_up_in_four_bits(quantize, outputs, pipeline: str) -> None:
    model = build(TABLE)
    done = quantize(model, pipeline)
    ids = np.random.default_rng(0).integers(0, 300, (2, 5))
    exact = outputs(done.after, ids=ids)
    assert relative_error(exact, outputs(model, ids=ids)) < 0.12
    low = on_onnx_runtime(done.after)
    found = operators(low)
    assert found["Gather"] == 2 and found["BitwiseAnd"] == found["BitShift"] == 1, found
    # Products are not rounded to float16 there, as they are in the standard form.
    np.testing.assert_allclose(outputs(low, ids=ids), exact, rtol=2e-3, atol=1e-4)
    assert Model(low).weight_bytes - (300 * 64 // 2 + 300 * 2 * 2) in range(100)


@pytest.mark.openvino
def test_a_table_stays_small_on_openvino(quantize, outputs, openvino_layers) -> None:
    done = quantize(build(TABLE), "int8:min-size=0:embeddings=4")
    low = on_openvino(done.after)
    assert operators(low) == {"GatherBlockQuantized": 1, "Cast": 1}
    ids = np.random.default_rng(0).integers(0, 300, (2, 5))
    found, layers = openvino_layers(low, ids=ids)
    np.testing.assert_allclose(found, outputs(done.after, ids=ids), rtol=2e-3, atol=1e-4)
    assert layers["Const[i4]"] == 1 and not layers["Const[f16]"], layers


def test_a_table_out_of_the_range_of_half_precision(quantize, outputs) -> None:
    for factor in (1e-6, 1e6):
        model = build(TABLE, w=normal(300, 64) * factor)
        done = quantize(model, "int8:min-size=0:embeddings=4")
        assert done.operators == {"DequantizeLinear": 1, "Gather": 1}
        ids = np.arange(300)[None]
        found = outputs(on_onnx_runtime(done.after), ids=ids)
        assert relative_error(found, outputs(model, ids=ids)) < 0.12


@pytest.mark.parametrize("text", [TIED, TIED_GEMM])
@pytest.mark.parametrize(("bits", "limit"), [("8", 0.01), ("4", 0.12)])
def test_a_tied_table_is_stored_once(quantize, outputs, text: str, bits: str, limit: float) -> None:
    model = build(text)
    done = quantize(model, f"{INT4}:embeddings={bits}")
    assert done.result.counters["num-quantized-embedding"] == 1
    shape = (2, 5) if text is TIED else (5,)
    ids = np.random.default_rng(0).integers(0, 300, shape)
    exact = outputs(done.after, ids=ids)
    assert relative_error(exact, outputs(model, ids=ids)) < limit
    low = on_onnx_runtime(done.after)
    found = operators(low)
    assert found["MatMulNBits"] == 1 and found["GatherBlockQuantized"] == 1, found
    assert relative_error(outputs(low, ids=ids), exact) < 0.02
    tables = [v.const_value for n, v in low.graph.initializers.items() if n.endswith("_blocks")]
    assert len(tables) == 1 and tables[0].nbytes == 300 * 64 * int(bits) // 8
    assert Model(low).weight_bytes < 1.3 * tables[0].nbytes + 300 * 4


@pytest.mark.openvino
@pytest.mark.parametrize("bits", ["8", "4"])
def test_a_tied_table_on_openvino(quantize, outputs, openvino_layers, bits: str) -> None:
    done = quantize(build(TIED), f"{INT4}:embeddings={bits}")
    ids = np.random.default_rng(0).integers(0, 300, (2, 5))
    found, layers = openvino_layers(on_openvino(done.after), ids=ids)
    assert relative_error(found, outputs(done.after, ids=ids)) < 1e-5
    assert layers["FullyConnected[i4]" if bits == "4" else "FullyConnected[u8]"] == 1, layers


def test_none_leaves_tables_alone(quantize) -> None:
    for text in (TABLE, TIED):
        done = quantize(build(text), f"{INT4}:embeddings=none")
        assert not done.result.modified
        assert done.result.counters["num-skipped-embedding"] == 1


@pytest.mark.parametrize(("text", "counter"), [
    ("g (float[n,40] x, float[40,8] w) => (float[n,8] y) { y = MatMul(x, w) }",
     "num-skipped-shape"),
    ("g (float[n,64] x, float[64,8] w) => (float[n,8] y, float[64,8] z) "
     "{ y = MatMul(x, w)  z = Neg(w) }", "num-skipped-shared"),
    ("g (float[n,3,8,8] x, float[16,3,3,3] w) => (float[n,16,6,6] y) { y = Conv(x, w) }",
     "num-skipped-operator"),
    ("g (float16[n,64] x, float16[64,8] w) => (float16[n,8] y) { y = MatMul(x, w) }",
     "num-skipped-dtype"),
])  # fmt: skip
def test_left_alone_and_counted(quantize, text: str, counter: str) -> None:
    done = quantize(build(f'<ir_version: 10, opset_import: ["" : 21]> {text}'), INT4)
    assert not done.result.modified
    assert done.result.counters[counter] == 1


def test_infinite_weights_are_left_alone(quantize) -> None:
    w = normal(64, 96)
    w[3, 5] = np.inf
    done = quantize(build(FFN, w1=w), INT4)
    assert done.result.counters["num-skipped-nonfinite"] == 1
    assert done.result.counters["num-quantized-matmul"] == 1


def test_smaller_blocks_where_they_must_divide(quantize) -> None:
    done = quantize(build(FFN), f"{INT4}:block=128")
    sizes = {
        n.attributes.get_int("block_size", 0)
        for n in done.after.graph
        if n.op_type == "DequantizeLinear"
    }
    assert sizes == {64, 32}


def test_names_are_excluded_by_pattern(quantize) -> None:
    done = quantize(build(FFN), f"{INT4}:exclude=w1")
    assert done.result.counters == {"num-skipped-excluded": 1, "num-quantized-matmul": 1}
    told = "not quantized: weights left in float32 because an option excludes them (1)"
    assert told in done.result.notes


def test_costs_know_the_data(quantize) -> None:
    """A channel that is loud in the data counts for more, the safest weight comes first."""
    x = normal(40, 5, 64)
    plain = quantize(build(FFN), INT4).result.plan
    informed = quantize(build(FFN), INT4, x=x * np.geomspace(1, 100, 64)).result.plan
    assert [d.cost for d in informed.decisions] == sorted(d.cost for d in informed.decisions)
    by_name = {d.subject: d.cost for d in plain.decisions}
    assert any(d.cost != by_name[d.subject] for d in informed.decisions)
    assert all(0.003 < d.cost < 0.03 for d in (*plain.decisions, *informed.decisions))


def test_nf4_is_refused_where_there_is_no_kernel(quantize) -> None:
    with pytest.raises(UnsupportedError, match="openvino-cpu has no kernel for nf4"):
        quantize(build(FFN), f"{INT4}:format=nf4", target="openvino-cpu:isa=vnni")


@pytest.mark.parametrize("text", ["int4:min-size=-1", "int4:format=nf4:symmetric=true"])
def test_options_that_do_not_go(text: str) -> None:
    with pytest.raises((OptionError, ValueError)):
        Pipeline(text)


def test_a_second_run_finds_nothing(quantize) -> None:
    for options in (*VARIANTS, ":embeddings=4"):
        for text in (FFN, TABLE, TIED):
            once = quantize(build(text), INT4 + options)
            again = quantize(once.after, INT4 + options)
            assert not again.result.modified


def test_tensors_are_packed_in_memory(quantize, tmp_path) -> None:
    done = quantize(build(FFN), INT4)
    tensor = done.after.graph.initializers["w1_quantized"].const_value
    assert isinstance(tensor, ir.PackedTensor) and tensor.nbytes == 64 * 96 // 2
    path = tmp_path / "model.onnx"
    Model(done.after).save(path)
    read = Model.load(path)
    assert read.fingerprint() == Model(done.after).fingerprint()
    assert read.ir.graph.initializers["w1_quantized"].const_value.numpy().dtype == ml_dtypes.uint4


def test_memory_is_bounded(tmp_path) -> None:
    """Apart from the result, a weight of 64 MB takes less than a fifth of its size."""
    import tracemalloc

    from .conftest import context

    weight = np.lib.format.open_memmap(
        tmp_path / "w.npy", mode="w+", dtype=np.float32, shape=(2048, 8192)
    )
    weight[:] = 0.01
    weight[::3] = -0.02
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n,2048] x, float[2048,8192] w) => (float[n,8192] y) { y = MatMul(x, w) }
    """
    model = ir.from_onnx_text(text)
    value = model.graph.inputs[1]
    model.graph.inputs.remove(value)
    value.const_value = ir.Tensor(weight, name="w")
    model.graph.register_initializer(value)
    (pass_,) = Pipeline("int4")
    tracemalloc.start()
    assert pass_.run(model, context("ort-cpu", None)).modified
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    result = 2048 * 8192 * 5 // 8
    assert peak < result + weight.nbytes // 3


def test_a_model_without_a_fit_hears_what_to_use(quantize) -> None:
    model = build(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1,4,9] x, float[8,4,3] w) '
        "=> (float[1,8,7] y) { y = Conv(x, w) }"
    )
    done = quantize(model, "int4:min-size=0")
    assert not done.result.modified
    assert done.result.notes == (
        "nothing was quantized: weights of Conv and of other operators, left in float32 (1); "
        "`int8` stores the weights of Conv, recurrent layers and subgraphs too",
    )
