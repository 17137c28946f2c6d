"""Where nothing can be pruned it is said why, and what cannot be reached is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError
from irtools.passes.pruning.left_alone import count_quantized
from irtools.passmanager import PassContext, PassResult, Pipeline

RNG = np.random.default_rng(0)
CODES = RNG.integers(-100, 100, (32, 64)).astype(np.int8)


def model(*steps: tuple[str, tuple[str, ...], dict[str, object]]) -> ir.Model:
    """Two products, W1 and W2 made by nodes of weights."""
    arrays = {
        "codes": CODES,
        "turned": CODES.T.copy(),
        "step": np.float32(0.01),
        "zero": np.float32(1),
        "book": RNG.normal(size=256).astype(np.float32),
        "places": RNG.integers(0, 255, (32, 64)).astype(np.uint8),
        "weight": RNG.normal(size=(32, 64)).astype(np.float32),
        "second": RNG.normal(size=(64, 8)).astype(np.float32),
        "none": np.int8(0),
    }
    values = {n: ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in arrays.items()}
    values["x"] = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n", 32]))
    nodes = []
    for index, (op, inputs, attributes) in enumerate(steps):
        node = ir.node(op, [values[name] for name in inputs], attributes)  # type: ignore[arg-type]
        node.outputs[0].name = f"t{index}"
        values[f"t{index}"] = node.outputs[0]
        nodes.append(node)
    out = nodes[-1].outputs[0]
    out.type = ir.TensorType(ir.DataType.FLOAT)
    used = {name for _, inputs, _ in steps for name in inputs}
    weights = [values[name] for name in arrays if name in used]
    graph = ir.Graph(
        [values["x"]], [out], nodes=nodes, initializers=weights, opset_imports={"": 20}
    )
    return ir.Model(graph, ir_version=10)


FORMS = {
    "DequantizeLinear": [("DequantizeLinear", ("codes", "step"), {})],
    "Cast": [("Cast", ("codes",), {"to": 1})],
    "Cast and Mul": [("Cast", ("codes",), {"to": 1}), ("Mul", ("t0", "step"), {})],
    "Cast, Sub and Mul": [
        ("Cast", ("codes",), {"to": 1}),
        ("Sub", ("t0", "zero"), {}),
        ("Mul", ("t1", "step"), {}),
    ],
    "a Transpose": [
        ("DequantizeLinear", ("turned", "step"), {}),
        ("Transpose", ("t0",), {"perm": [1, 0]}),
    ],
    "a codebook": [("Cast", ("places",), {"to": 7}), ("Gather", ("book", "t0"), {})],
    "its own QuantizeLinear": [
        ("QuantizeLinear", ("weight", "step", "none"), {}),
        ("DequantizeLinear", ("t0", "step", "none"), {}),
    ],
}


def product(form: str) -> ir.Model:
    steps = FORMS[form]
    weight = f"t{len(steps) - 1}"
    return model(*steps, ("MatMul", ("x", weight), {}), ("Relu", (f"t{len(steps)}",), {}))


@pytest.fixture
def run(make_context: Callable[..., PassContext]) -> Callable[[ir.Model, str], PassResult]:
    def run_pass(source: ir.Model, text: str) -> PassResult:
        (pass_,) = Pipeline(text)
        return pass_.run(source, make_context())

    return run_pass


@pytest.mark.parametrize("form", FORMS)
def test_quantized_products_are_counted_and_named(form: str, run) -> None:
    result = run(product(form), "prune")
    assert not result.modified
    assert result.counters["num-skipped-quantized"] == 1
    assert result.notes[0] == (
        "nothing pruned: 1 product is quantized already, and only weights in floating point are "
        "pruned: prune before quantizing"
    )
    assert not any("no calibration data" in note for note in result.notes)


@pytest.mark.parametrize("form", FORMS)
def test_a_speedup_that_cannot_be_reached_is_refused(form: str, run) -> None:
    with pytest.raises(UnsupportedError, match=r"speedup=1\.5 cannot be reached: 1 product is"):
        run(product(form), "prune:speedup=1.5")


def test_a_plain_product_is_not_quantized() -> None:
    plain = model(("MatMul", ("x", "weight"), {}), ("MatMul", ("t0", "second"), {}))
    assert count_quantized(plain) == 0


def test_options_that_leave_everything_out(run) -> None:
    def plain() -> ir.Model:
        return model(
            ("MatMul", ("x", "weight"), {}),
            ("Relu", ("t0",), {}),
            ("MatMul", ("t1", "second"), {}),
        )

    assert run(plain(), "prune:ratio=0.25").modified
    result = run(plain(), "prune:ffn=false")
    assert result.notes[0] == "nothing pruned: options leave out the only group"
    with pytest.raises(UnsupportedError, match="options leave out the only group"):
        run(plain(), "prune:ffn=false:speedup=1.2")


def test_settings_that_keep_every_unit(run) -> None:
    plain = model(
        ("MatMul", ("x", "weight"), {}), ("Relu", ("t0",), {}), ("MatMul", ("t1", "second"), {})
    )
    result = run(plain, "prune:ratio=0.25:min-width=64")
    assert not result.modified
    assert result.notes[0].startswith("nothing pruned: none of 1 group gets smaller with these")


def test_without_weights(run) -> None:
    result = run(model(("Relu", ("x",), {})), "prune")
    assert result.notes[0].startswith("nothing pruned: no MatMul, Gemm or Conv")


def test_products_in_branches_and_bodies_are_counted(run) -> None:
    nested = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,4] x, bool flag) => (float[n,4] y) '
        "<float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, int64 two = {2}, bool yes = {1}> { "
        "a = If (flag) <then_branch = t () => (float[n,4] c) { c = MatMul (x, w) }, "
        "else_branch = e () => (float[n,4] d) { d = Gemm (x, w) }> "
        "y = Loop (two, yes, a) <body = b (int64 i, bool go, float[n,4] in) => "
        "(bool on, float[n,4] out) { on = Identity (go) out = MatMul (in, w) }> }"
    )
    result = run(nested, "prune:ratio=0.5")
    assert not result.modified
    assert result.counters["num-skipped-subgraph"] == 3
    assert "3 products in subgraphs or functions not pruned" in result.notes


def test_zeros_of_quantized_weights(run) -> None:
    result = run(product("DequantizeLinear"), "sparsify")
    assert not result.modified
    assert result.counters["num-skipped-quantized"] == 1
    assert result.notes == (
        "nothing set to zero: 1 product is quantized already, and only weights in floating point "
        "become zero: sparsify before quantizing",
    )


def test_sizes_without_a_name_are_not_spelt_out(
    run: Callable[[ir.Model, str], PassResult], build: Callable[..., ir.Model]
) -> None:
    """The length of a sum of two inputs of any length has no name."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[n,32] a, float[m,32] b, float[32,32] w_1, float[48,64] w_2) => (float[k,64] y) {
        x = Add (a, b)
        h = MatMul (x, w_1)
        shape = Constant <value_ints = [-1, 48]> ()
        wide = Reshape (h, shape)
        y = MatMul (wide, w_2)
    }
    """
    notes = run(build(text), "prune").notes
    assert any("mixes the channels with other axes ([?, 32] -> [?, 48])" in n for n in notes)
