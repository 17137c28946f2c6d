"""Weights of 2, 4 and 8 bits in blocks: what is written, and which kernels multiply it."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model import Model, has_exact_activations, opset_of, verify
from irtools.passes.quantization.forms.apply import apply_decisions
from irtools.passes.quantization.forms.blocks import Int4
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.ranges.blocks import dequantize_rows, quantize_rows
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import Decision
from irtools.targets import Capabilities, RunnerOptions, find_target, lowered

from .conftest import build, relative_error

PRODUCT = """
<ir_version: 13, opset_import: ["" : 25]>
g (float[n,256] x, float[256,36] w) => (float[n,36] y) { y = MatMul(x, w) }
"""
GEMM = """
<ir_version: 13, opset_import: ["" : 25]>
g (float[n,256] x, float[36,256] w, float[36] w_b) => (float[n,36] y) {
  y = Gemm <transB = 1> (x, w, w_b)
}
"""
FORMS = [
    Int4(block, scheme, bits, scales=scales)
    for bits, block, scheme, scales in itertools.product(
        (2, 4, 8), (32, 128), ("symmetric", "affine"), ("float32", "s8")
    )
    if (bits, scheme) != (8, "affine")
]


def decided(model: ir.Model, form: Int4, target: str) -> Decision:
    capabilities = find_target(target, check=False).capabilities
    (weight,) = find_sites(model).weights
    assert form.fits(weight, capabilities) is None
    found = form.decide(weight, Evidence(capabilities))
    assert isinstance(found, Decision)
    return found


def written(text: str, form: Int4, target: str) -> tuple[ir.Model, ir.Model]:
    model = build(text)
    after = model.clone()
    capabilities = find_target(target, check=False).capabilities
    made = read_decision(decided(after, form, target))
    assert made.form == form
    apply_decisions(Desk(after, "int4", capabilities), [made])
    verify(after)
    return model, after


def expected(model: ir.Model, form: Int4, x: np.ndarray) -> np.ndarray:
    """The product by what codes and scales stand for."""
    weight = model.graph.initializers["w"].const_value.numpy()
    rows = weight if weight.shape[1] == 256 else weight.T
    found = x @ dequantize_rows(quantize_rows(np.ascontiguousarray(rows), form.spec)).T
    bias = model.graph.initializers.get("w_b")
    return found if bias is None else found + bias.const_value.numpy()


def named(form: Int4) -> str:
    return f"{form.bits}-{form.block}-{form.scheme}-{form.scales}{'-exact' * form.exact}"


@pytest.mark.parametrize("text", [PRODUCT, GEMM], ids=["MatMul", "Gemm"])
@pytest.mark.parametrize("form", [*FORMS, Int4(32, "affine", exact=True)], ids=named)
@pytest.mark.parametrize("name", ["ort-cpu:isa=vnni", "openvino-cpu:isa=vnni"])
def test_is_multiplied_as_it_is(name: str, form: Int4, text: str) -> None:
    target = find_target(name, check=False)
    if form.exact and not target.capabilities.exact_block_bits:
        (weight,) = find_sites(build(text)).weights
        assert form.fits(weight, target.capabilities) is not None
        return
    model, after = written(text, form, name)
    x = np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32)
    low = lowered(Model(after), target)
    # Both round activations to 8 bits on the way: OpenVINO on some CPUs, unless it shall be exact.
    ort = name.startswith("ort")
    options = RunnerOptions(threads=1, exact=not ort)
    with find_target(name.partition(":")[0]).runner(low, options) as run:
        found = run.run({"x": x})["y"]
        counts = run.kernels().counts
    rounds = ort and not form.exact
    assert relative_error(found, expected(model, form, x)) < (0.01 if rounds else 1e-5)
    wanted = "MatMulNBits" if name.startswith("ort") else "FullyConnected"
    assert sum(n for kernel, n in counts.items() if kernel.startswith(wanted)) == 1, counts
    assert not any("Dequantize" in kernel for kernel in counts)


def test_two_bits_take_a_newer_opset_and_a_quarter_of_the_bytes() -> None:
    _, after = written(PRODUCT, Int4(32, "symmetric", 2, scales="s8"), "ort-cpu:isa=vnni")
    assert opset_of(after) == 25
    codes = after.graph.initializers["w_quantized"].const_value
    assert codes.dtype == ir.DataType.INT2 and codes.nbytes == 256 * 36 // 4
    assert set(np.unique(codes.numpy().astype(np.int8))) <= {-2, -1, 0, 1}
    old = build(PRODUCT.replace('"" : 25', '"" : 21'))
    assert Int4(32, "symmetric", 2).opset == 25 and opset_of(old) == 21


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("columns", [3, 6, 8])
def test_rows_that_end_inside_a_byte(scheme: str, columns: int) -> None:
    text = PRODUCT.replace("36", str(columns))
    model, after = written(text, Int4(32, scheme, 2), "ort-cpu:isa=vnni")
    x = np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32)
    with find_target("ort-cpu").runner(Model(after), RunnerOptions(exact=True)) as runner:
        found = runner.run({"x": x})["y"]
    form = Int4(32, scheme, 2)
    assert relative_error(found, expected(model, form, x)) < 0.01


def test_what_has_no_kernel_does_not_fit() -> None:
    (weight,) = find_sites(build(PRODUCT)).weights
    for name in ("ort-cpu:isa=vnni", "openvino-cpu:isa=vnni"):
        capabilities = find_target(name, check=False).capabilities
        assert Int4(16, "affine", 2).fits(weight, capabilities) is not None
        assert Int4(256, "affine", 2).fits(weight, capabilities) is not None
        assert Int4(32, "affine", 8, exact=True).fits(weight, capabilities) is not None
    assert Int4(32, "affine", 2).fits(weight, Capabilities()) is not None


def test_the_mark_survives_a_file_and_reaches_the_kernel(tmp_path) -> None:
    _, after = written(PRODUCT, Int4(32, "affine", exact=True), "ort-cpu:isa=vnni")
    Model(after).save(tmp_path / "model.onnx")
    read = Model.load(tmp_path / "model.onnx")
    (dequantize,) = [node for node in read.ir.graph if node.op_type == "DequantizeLinear"]
    assert has_exact_activations(dequantize)
    low = lowered(read, find_target("ort-cpu:isa=vnni", check=False)).ir
    (product,) = [node for node in low.graph if node.op_type == "MatMulNBits"]
    assert product.attributes.get_int("accuracy_level") == 1


def test_scales_of_two_bits_cut_more_and_lose_less() -> None:
    """Against the best of a fine search over scales, for normal weights."""
    rows = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    for scheme in ("symmetric", "affine"):
        found = dequantize_rows(quantize_rows(rows, BlockSpec(2, 32, scheme)))
        plain = np.abs(rows.reshape(64, 4, 32)).max(axis=2, keepdims=True)
        whole = (np.rint(rows.reshape(64, 4, 32) / plain) * plain).reshape(rows.shape)
        assert relative_error(found, rows) < 0.75 * relative_error(whole, rows)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (RunnerOptions(threads=1, exact=True), 1e-5),
        (RunnerOptions(threads=1, precision="bf16"), 0.02),
        (RunnerOptions(threads=1), 0.02),
    ],
    ids=["exact", "bf16", "by itself"],
)
def test_openvino_takes_two_bits_in_four(tmp_path, options: RunnerOptions, most: float) -> None:
    form = Int4(32, "affine", 2)
    model, after = written(PRODUCT, form, "openvino-cpu:isa=vnni")
    Model(after).save(tmp_path / "model.onnx")
    x = np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32)
    low = lowered(Model(after), find_target("openvino-cpu:isa=vnni", check=False))
    wide = {v.dtype for v in low.ir.graph.initializers.values()}
    assert wide == {ir.DataType.UINT4, ir.DataType.FLOAT}
    for source in (tmp_path / "model.onnx", Model(after), low):
        with find_target("openvino-cpu").runner(source, options) as runner:
            found = runner.run({"x": x})["y"]
        assert relative_error(found, expected(model, form, x)) < most
