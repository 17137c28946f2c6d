"""Operations, counted by hand."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.costs import count_flops
from irtools.analysis.inspection import inspect_model
from irtools.model import Model


def model(inputs: str, body: str, outputs: str = "float[b,n] y", opset: int = 20) -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"g ({inputs}) => ({outputs}) {{ {body} }}"
    )


PRODUCTS = {
    "matmul": ("float[b,s,8] x, float[8,3] w", "y = MatMul (x, w)", 2 * 2 * 5 * 8 * 3),
    "batched": ("float[b,4,s,8] x, float[b,4,8,s] w", "y = MatMul (x, w)", 2 * 8 * 5 * 8 * 5),
    "vector": ("float[b,s,8] x, float[8] w", "y = MatMul (x, w)", 2 * 2 * 5 * 8),
    "gemm": ("float[8,b] x, float[3,8] w", "y = Gemm <transA = 1, transB = 1> (x, w)", 96),
    "int8": (
        "uint8[b,s,8] x, int8[8,3] w, float f",
        "y = com.microsoft.MatMulIntegerToFloat (x, w, f, f)",
        2 * 2 * 5 * 8 * 3,
    ),
    "blocks": ("float[b,s,8] x", "y = com.microsoft.MatMulNBits <K = 8, N = 3> (x)", 480),
    "conv": ("float[b,4,6,6] x, float[8,2,3,3] w", "y = Conv <group = 2> (x, w)", 9216 // 2),
    "transposed": ("float[b,4,6,6] x, float[4,8,3,3] w", "y = ConvTranspose (x, w)", 41472),
    "attention": (
        "float[b,2,s,8] q, float[b,2,7,8] k, float[b,2,7,6] v",
        "y = Attention (q, k, v)",
        2 * 2 * 2 * 5 * 7 * (8 + 6),
    ),
    "grouped": (
        "float[b,s,32] q, float[b,7,16] k, float[b,7,16] v",
        "y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)",
        2 * 2 * 5 * 7 * (32 + 32),
    ),
    "lstm": (
        "float[s,b,3] x, float[1,16,3] w, float[1,16,4] r",
        "y, h, c = LSTM <hidden_size = 4> (x, w, r)",
        2 * 2 * 5 * (48 + 64),
    ),
    "nothing": ("float[b,s] x", "y = Relu (x)", 0),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case: str) -> None:
    inputs, body, expected = PRODUCTS[case]
    found = count_flops(model(inputs, body, "float y", opset=23), {"b": 2, "s": 5})
    if case == "conv":  # 2 images, 8 filters at 4 x 4 places, each over 2 x 3 x 3.
        expected = 2 * 2 * 8 * 16 * 18
    assert (found.total, found.notes) == (expected, ())


_LAYER = "float[8,8] w, float[b,8] x"


def test_of_an_if_the_larger_branch_counts() -> None:
    found = count_flops(
        model(
            f"bool c, {_LAYER}",
            "y = If (c) <then_branch = t () => (float[b,8] o) { o = MatMul (x, w) }, "
            "else_branch = e () => (float[b,8] o2) { m = MatMul (x, w) o2 = MatMul (m, w) }>",
        ),
        {"b": 3},
    )
    assert found.total == 2 * (2 * 3 * 8 * 8)
    assert [node.op_type for node, _ in found.flops] == ["MatMul", "MatMul"]
    assert found.notes == ("of 1 If node the larger branch is counted",)


def loop(trips: str) -> ir.Model:
    return model(
        f"bool go, int64 many, {_LAYER}",
        f"trips = {trips} y = Loop (trips, go, x) <body = b (int64 i, bool c, float[?,8] h) "
        "=> (bool c2, float[?,8] h2) { c2 = Identity (c) h2 = MatMul (h, w) }>",
    )


def test_the_body_of_a_loop_counts_per_round() -> None:
    one = 2 * 3 * 8 * 8
    fixed = count_flops(loop("Constant <value_int = 5> ()"), {"b": 3})
    assert (fixed.total, fixed.notes) == (5 * one, ())
    assert fixed.flops[0][1] == 5 * one
    never = count_flops(loop("Constant <value_int = 0> ()"), {"b": 3})
    assert never.total == 0
    said = ("1 Loop body counted once: the number of rounds is not constant",)
    for trips in ("Identity (many)", "Constant <value_int = 9223372036854775807> ()"):
        found = count_flops(loop(trips), {"b": 3})
        assert (found.total, found.notes) == (one, said)


def test_the_body_of_a_scan_counts_along_its_input() -> None:
    found = count_flops(
        model(
            "float[8,8] w, float[b,8] h0, float[s,b,8] xs",
            "y, ys = Scan <num_scan_inputs = 1, body = b (float[?,8] h, float[?,8] x) "
            "=> (float[?,8] h2, float[?,8] o) { a = Add (h, x) h2 = MatMul (a, w) "
            "o = Identity (h2) }> (h0, xs)",
        ),
        {"b": 3, "s": 7},
    )
    assert (found.total, found.notes) == (7 * 2 * 3 * 8 * 8, ())


def test_what_cannot_be_counted_is_said_and_the_model_stays_as_it_is() -> None:
    unknown = model("float x, float[8,3] w", "r = Unique (x) y = MatMul (r, w)", "float y")
    before = str(ir.to_proto(unknown))
    found = count_flops(unknown, {})
    assert found.notes == ("1 product not counted: shapes are only known at run time",)
    assert str(ir.to_proto(unknown)) == before


def test_inputs_smaller_than_a_kernel_are_not_counted() -> None:
    """Sizes that were chosen for an inspection need not run; a negative number would be printed."""
    found = count_flops(
        model(
            "float[b,4,h,w] x, float[8,4,5,5] k, float[8,8,1,1] l",
            "c = Conv (x, k) r = Relu (c) y = Conv (r, l)",
            "float[b,8,p,q] y",
        ),
        {"b": 2, "h": 3, "w": 2},
    )
    assert (found.total, found.flops) == (0, ())
    assert found.notes == (
        "2 products not counted: inputs of these sizes are smaller than the kernels",
    )


def test_axes_without_a_name_have_the_sizes_of_their_places() -> None:
    found = model("float[?,?,8] x, float[8,3] w", "y = MatMul (x, w)", "float y")
    assert count_flops(found, {"x.0": 2, "x.1": 5}).total == 2 * 2 * 5 * 8 * 3
    seen = inspect_model(Model.from_ir(found), batch=2, sequence=5)
    assert seen.sizes == {"x.0": 2, "x.1": 5} and seen.flops == 480
