"""What a head reads is all that is computed; what several heads read stays."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from irtools.model import Interface, print_model, verify
from irtools.passes.positions.sink import Sink
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.testing import check_pass

from .conftest import CAUSAL, FIRST, FUSED, JOINED, WRITTEN, block, sqnr

MakeContext = Callable[..., PassContext]
EXACT = 110.0

GOLDEN = """\
x_row = Gather<axis=1>(x, x_index)
seen = Cast<to=9>(mask)
open = Unsqueeze(seen, axes)
bias = Where(open, zero, low)
q = MatMul(x_row, wq)
k = MatMul(x, wk)
v = MatMul(x, wv)
square = Expand(bias, _shape)
attended = Attention<kv_num_heads=2, q_num_heads=2>(q, k, v, square)
o = MatMul(attended, wo)
r1 = Add(o, x_row)
n1 = LayerNormalization<axis=-1>(r1, g, b)
f1 = MatMul(n1, w1)
f2 = Gelu(f1)
f3 = MatMul(f2, w2)
r2 = Add(f3, n1)
hidden = LayerNormalization<axis=-1>(r2, g, b)
row = Gather<axis=1>(hidden, at)
y = MatMul(row, head)"""

READINGS = {
    "a scalar index": FIRST,
    "another position": "row = Gather<axis=1>(hidden, next)  y = MatMul(row, head)",
    "an index of one element": (
        "r = Gather<axis=1>(hidden, last)  row = Squeeze(r, one)  y = MatMul(row, head)"
    ),
    "the first by a Slice": (
        "r = Slice(hidden, first, one, one)  row = Squeeze(r, one)  y = MatMul(row, head)"
    ),
    "the last by a Slice": (
        "r = Slice(hidden, last, end, one)  row = Squeeze(r, one)  y = MatMul(row, head)"
    ),
    "twice the same": (
        "p = Gather<axis=1>(hidden, at)  q2 = Gather<axis=1>(hidden, at)  row = Add(p, q2)"
        "  y = MatMul(row, head)"
    ),
}


@pytest.fixture
def sunk(make_context: MakeContext) -> Callable[..., tuple[ir.Model, PassResult]]:
    """Run `sink` after what it requires, or a pipeline; verifies everything that can be seen."""

    def run(model: ir.Model, text: str = "sink") -> tuple[ir.Model, PassResult]:
        after, interface, found = model.clone(), Interface.of(model), None
        for step in Pipeline.parse(text.replace("sink", "hoist-shapes,remove-dead-code,sink")):
            ctx = make_context("ort-cpu:isa=vnni")
            printed = print_model(after)
            result = step.run(after, ctx)
            verify(after, interface=interface)
            assert result.modified == (print_model(after) != printed)
            found = result if step.name == "sink" else found
        assert found is not None
        assert not Sink().run(after, make_context("ort-cpu:isa=vnni")).modified
        return after, found

    return run


def lines(model: ir.Model) -> str:
    """The nodes, one a line, without their names."""
    found = [line.strip() for line in print_model(model).splitlines()]
    nodes = [line for line in found if " = " in line and ": " not in line]
    return "\n".join(line.partition('  "')[0] for line in nodes)


Sunk = Callable[..., tuple[ir.Model, PassResult]]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("attention", [WRITTEN, FUSED], ids=["written", "fused"])
def test_fires(attention: str, reading: str, target: str, sunk: Sunk) -> None:
    model = block(attention, READINGS[reading])
    after, result = sunk(model)
    products = 6 if attention is WRITTEN else 5
    assert result.counters["num-sunk-products"] == products
    for size in ((1, 2), (3, 5), (2, 9)):
        assert sqnr(model, after, target, *size) >= EXACT


@pytest.mark.parametrize("reading", ["a scalar index", "the last by a Slice"])
def test_batch_and_positions_in_one_axis(reading: str, target: str, sunk: Sunk) -> None:
    """Linear layers as Gemm; one of them shares what it reads with those of keys and values."""
    model = block(JOINED, READINGS[reading])
    after, result = sunk(model)
    assert result.counters["num-sunk-products"] == 6
    for size in ((1, 2), (3, 5)):
        assert sqnr(model, after, target, *size) >= EXACT


@pytest.mark.parametrize("attention", [WRITTEN, FUSED], ids=["written", "fused"])
@pytest.mark.parametrize("sizes", [("M", "S"), ("M", "T")], ids=["batch", "batch and length"])
def test_a_mask_of_sizes_of_its_own(attention: str, sizes: tuple[str, str], sunk: Sunk) -> None:
    """Exporters that follow each input by itself name the sizes of the mask otherwise."""
    model = block(attention, FIRST)
    (mask,) = (value for value in model.graph.inputs if value.name == "mask")
    mask.shape = ir.Shape(sizes)
    after, result = sunk(model)
    assert result.counters["num-sunk-products"] >= 5
    assert sqnr(model, after, "ort-cpu") >= EXACT


def test_golden(sunk: Sunk) -> None:
    after, result = sunk(block(FUSED, FIRST))
    assert lines(after) == GOLDEN
    assert result.notes == (
        "5 products and attention blocks of position 0 alone, in place of all positions",
    )


def test_sizes_that_were_computed_are_dropped(sunk: Sunk) -> None:
    """What TorchScript writes: the target of a Reshape from the sizes of the hidden state."""
    body = WRITTEN.replace(
        "attended = Reshape(back, joined)",
        "sizes = Shape<start=0, end=2>(back)  size = Concat<axis=0>(sizes, width)"
        "  attended = Reshape(back, size)",
    ).replace("sizes = Shape<start=0, end=2>(back)", "sizes = Shape<start=0, end=2>(x)")
    model = block(f"width = Constant<value_ints=[16]>()  {body}", FIRST)
    after, result = sunk(model)
    assert result.counters["num-sunk-products"] == 6
    assert "Shape" not in {node.op_type for node in after.graph}
    assert sqnr(model, after, "ort-cpu") >= EXACT


REFUSED = {
    "the mean": (
        "mean = ReduceMean<keepdims=0>(hidden, one)  row = Gather<axis=1>(hidden, at)"
        "  s = Add(mean, row)  y = MatMul(s, head)",
        "float[N,4] y",
        "several positions of hidden are read: Gather at row takes one, it is read by "
        "ReduceMean at mean",
    ),
    "two positions": (
        "p = Gather<axis=1>(hidden, at)  r = Gather<axis=1>(hidden, next)  s = Add(p, r)"
        "  y = MatMul(s, head)",
        "float[N,4] y",
        "several positions of hidden are read: Gather at r takes one, it is read by Gather at p",
    ),
    "a result": (
        FIRST,
        "float[N,4] y, float[N,S,16] hidden",
        "several positions of hidden are read: Gather at row takes one, it is a result of the "
        "model",
    ),
    "every position": (
        "y = MatMul(hidden, head)",
        "float[N,S,4] y",
        "nothing takes one position of what is computed, so all of them are read",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_stays(case: str, sunk: Sunk) -> None:
    reading, outputs, reason = REFUSED[case]
    _, result = sunk(block(FUSED, reading, outputs))
    assert not result.modified
    assert result.notes == (reason,)


def test_a_causal_mask_hides_nothing_from_the_last_row(target: str, sunk: Sunk) -> None:
    model = block(CAUSAL, READINGS["the last by a Slice"])
    after, result = sunk(model)
    (node,) = (node for node in after.graph if node.op_type == "Attention")
    assert result.counters["num-sunk-products"] == 5
    assert "is_causal" not in node.attributes
    assert sqnr(model, after, target) >= EXACT


def test_a_causal_mask_keeps_the_first_row_whole(sunk: Sunk) -> None:
    """The block after attention is sunk, attention is not."""
    model = block(CAUSAL, FIRST)
    after, result = sunk(model)
    assert result.counters["num-sunk-products"] == 3
    assert sqnr(model, after, "ort-cpu") >= EXACT


@pytest.mark.parametrize(
    "order",
    [
        "cleanup,fuse,sink",
        "sink,cleanup,fuse",
        "cleanup,sink,fuse,cleanup",
        "cleanup,fuse,sink,fp16:min-size=1",
        "sink,int8:mode=weight-only:min-size=0",
        "int8:mode=weight-only:min-size=0,sink",
        "int8:mode=dynamic:min-size=0,sink",
        "sink,int8:mode=dynamic:min-size=0",
    ],
)
def test_any_order(order: str, sunk: Sunk) -> None:
    model = block(WRITTEN, FIRST)
    after, _ = sunk(model, order)
    lossy = 15.0 if "int8" in order else 40.0 if "fp16" in order else EXACT
    assert sqnr(model, after, "ort-cpu") >= lossy


def test_contract() -> None:
    from irtools.model import Model

    models = {"written": Model(block(WRITTEN, FIRST)), "fused": Model(block(FUSED, FIRST))}
    assert set(check_pass(Sink(), models)) == set(models)
