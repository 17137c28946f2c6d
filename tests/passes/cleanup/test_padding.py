"""The pass `fuse-pad`: what it joins, what it leaves, and the same numbers either way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.passes.cleanup.padding import FusePad
from irtools.passmanager import PassContext

W = "float[2,1,3,3] w = {0,1,2,3,4,5,6,7,8, 8,7,6,5,4,3,2,1,0}"
OLD = '<ir_version: 7, opset_import: ["" : 10]>'
NEW = '<ir_version: 10, opset_import: ["" : 20]>'


def graph(body: str, pads: str = "0,0,1,2,0,0,3,0", more: str = "") -> str:
    return f"""{NEW} g (float[N,1,H,W] x) => (float[N,2,P,Q] y)
    <{W}, int64[8] p = {{{pads}}}{more}> {{ {body} }}"""


FUSED = {
    "amounts before and after differ": graph("a = Pad(x, p)  y = Conv(a, w)"),
    "added to the convolution's own": graph("a = Pad(x, p)  y = Conv<pads=[1,0,0,1]>(a, w)"),
    "more than the kernel is wide": graph("a = Pad(x, p)  y = Conv(a, w)", "0,0,5,4,0,0,6,7"),
    "dilated, in steps": graph("a = Pad(x, p)  y = Conv<strides=[2,2],dilations=[2,1]>(a, w)"),
    "an explicit zero": graph("a = Pad(x, p, z)  y = Conv(a, w)", more=", float z = {0.0}"),
    "named axes": f"""{NEW} g (float[N,1,H,W] x) => (float[N,2,P,Q] y)
    <{W}, int64[4] p = {{1, 2, 0, 3}}, int64[2] axes = {{-1, 2}}>
    {{ a = Pad(x, p, , axes)  y = Conv(a, w) }}""",
    "attributes of old versions": f"""{OLD} g (float[N,1,H,W] x) => (float[N,2,P,Q] y)
    <{W}> {{ a = Pad<pads=[0,0,1,1,0,0,2,2]>(x)  y = Conv<auto_pad="VALID">(a, w) }}""",
    "two convolutions read it": f"""{NEW} g (float[N,1,H,W] x) => (float[N,2,P,Q] y)
    <{W}, int64[8] p = {{0,0,1,1,0,0,1,1}}>
    {{ a = Pad(x, p)  b = Conv(a, w)  c = Conv(a, w)  y = Add(b, c) }}""",
}
KEPT = {
    "another value": graph("a = Pad(x, p, z)  y = Conv(a, w)", more=", float z = {1.0}"),
    "mirrored": graph("""a = Pad<mode="reflect">(x, p)  y = Conv(a, w)"""),
    "cut away": graph("a = Pad(x, p)  y = Conv(a, w)", "0,0,-1,0,0,0,0,0"),
    "more images": graph("a = Pad(x, p)  y = Conv(a, w)", "1,0,1,1,0,0,1,1"),
    "padding derived from the size": graph(
        """a = Pad(x, p)  y = Conv<auto_pad="SAME_UPPER">(a, w)"""
    ),
    "read elsewhere": graph(
        "a = Pad(x, p)  b = Conv(a, w)  c = ReduceMax<keepdims=0>(a)  y = Add(b, c)"
    ),
    "read as a weight": graph("a = Pad(x, p)  y = Conv(x, a)"),
    "amounts of the caller": f"""{NEW} g (float[N,1,H,W] x, int64[8] p) => (float[N,2,P,Q] y)
    <{W}> {{ a = Pad(x, p)  y = Conv(a, w) }}""",
}


def padded(source: str, ctx: PassContext) -> tuple[ir.Model, ir.Model, bool]:
    before, after = ir.from_onnx_text(source), ir.from_onnx_text(source)
    done = FusePad().run(after, ctx)
    return before, after, done.modified


def outputs(model: ir.Model) -> np.ndarray:
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 7)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    return y


@pytest.mark.parametrize("case", FUSED)
def test_convolutions_add_the_zeros(case: str, make_context: Callable[..., PassContext]) -> None:
    before, after, modified = padded(FUSED[case], make_context())
    assert modified and "Pad" not in [node.op_type for node in after.graph]
    np.testing.assert_allclose(outputs(after), outputs(before), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("case", KEPT)
def test_other_padding_stays(case: str, make_context: Callable[..., PassContext]) -> None:
    before, after, modified = padded(KEPT[case], make_context())
    assert not modified
    assert [n.op_type for n in after.graph] == [n.op_type for n in before.graph]
