"""The whole clean-up: exported models, subgraphs, numbers, time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model import Interface, Model, iter_nodes, print_model, verify
from irtools.passes.cleanup import Cleanup
from irtools.passmanager import PassContext
from irtools.targets import RunnerOptions, find_target

GRAPHS = sorted((Path(__file__).parents[2] / "data" / "graphs").glob("*.onnx"))
MakeContext = Callable[..., PassContext]


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    target = find_target("ort-cpu")
    with target.runner(Model(model), RunnerOptions(threads=1, exact=True)) as runner:
        return list(runner.run(feeds).values())


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_exports_keep_every_bit(
    path: Path, make_context: MakeContext, encoder_feeds: Callable[..., dict[str, np.ndarray]]
) -> None:
    original, model = ir.load(path), ir.load(path)
    interface = Interface.of(model)
    result = Cleanup().run(model, make_context())
    verify(model, interface=interface)
    assert not result.notes
    assert result.modified == (len(model.graph) < len(original.graph))
    for batch, length in ((1, 8), (3, 5), (2, 1)):
        feeds = encoder_feeds(original, batch, length)
        for before, after in zip(run(original, feeds), run(model, feeds), strict=True):
            np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_second_run_changes_nothing(path: Path, make_context: MakeContext) -> None:
    model = ir.load(path)
    Cleanup().run(model, make_context())
    text = print_model(model)
    assert not Cleanup().run(model, make_context()).modified
    assert print_model(model) == text


BRANCHES = """<ir_version: 10, opset_import: ["" : 20]>
g (bool c, float[2] x) => (float[2] y) {
    outer = Relu(x)
    y = If (c) <
        then_branch = t () => (float[2] p) { p = Identity(outer) },
        else_branch = e () => (float[2] r) {
            two = Constant <value_float = 2.0> ()  four = Mul(two, two)
            a = Exp(outer)  b = Exp(outer)  s = Add(a, b)  r = Mul(s, four) }
    >
}"""


def test_subgraphs_are_cleaned(make_context: MakeContext) -> None:
    original, model = ir.from_onnx_text(BRANCHES), ir.from_onnx_text(BRANCHES)
    Cleanup().run(model, make_context())
    verify(model)
    kinds = [node.op_type for node in iter_nodes(model)]
    # What a branch returns but did not make keeps its Identity; the constant was folded.
    assert sorted(kinds) == ["Add", "Constant", "Exp", "Identity", "If", "Mul", "Relu"]
    for condition in (True, False):
        feeds = {"c": np.asarray(condition), "x": np.asarray([1, -2], np.float32)}
        for before, after in zip(run(original, feeds), run(model, feeds), strict=True):
            np.testing.assert_array_equal(before, after)


def model_of(x: ir.Value, y: ir.Value, nodes: list[ir.Node], weights: list[ir.Value]) -> ir.Model:
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def conv_bn(kind: str, groups: int) -> ir.Model:
    rng = np.random.default_rng(groups)
    channels = (6, 4 // groups) if kind == "Conv" else (4, 6 // groups)
    arrays = {
        "w": rng.standard_normal((*channels, 3, 3)),
        **{name: rng.standard_normal(6) for name in ("b", "scale", "shift", "mean")},
        "var": rng.random(6) + 0.1,
    }
    weights = [
        ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(a.shape),
            const_value=ir.tensor(a.astype(np.float32)),
        )
        for name, a in arrays.items()
    ]
    w, b, *norm = weights
    x = ir.val("x", ir.DataType.FLOAT, ["N", 4, 8, 8])
    linear = ir.node(kind, [x, w, b], {"group": groups}, name="linear")
    linear.outputs[0].name = "inner"
    last = ir.node("BatchNormalization", [linear.outputs[0], *norm], {"epsilon": 1e-3}, name="bn")
    size = 6 if kind == "Conv" else 10
    (y,) = last.outputs
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["N", 6, size, size])
    graph = ir.Graph(
        [x], [y], nodes=[linear, last], initializers=weights, opset_imports={"": 20}, name="g"
    )
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("kind", "groups"), [("Conv", 1), ("Conv", 2), ("ConvTranspose", 1), ("ConvTranspose", 2)]
)
def test_batch_normalization_is_folded(kind: str, groups: int, make_context: MakeContext) -> None:
    original, model = conv_bn(kind, groups), conv_bn(kind, groups)
    result = Cleanup().run(model, make_context())
    verify(model)
    assert result.counters["num-fused-batchnorm"] == 1
    assert [node.op_type for node in model.graph] == [kind]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    (before,), (after,) = run(original, feeds), run(model, feeds)
    assert np.linalg.norm(before - after) <= 1e-6 * np.linalg.norm(before)


def gemm_bn(turned: int, dtype: str, bias: tuple[int, ...] | None) -> ir.Model:
    """A square weight: turned or not it has the same shape."""
    rng = np.random.default_rng(turned)
    arrays = {"w": rng.standard_normal((6, 6))}
    arrays |= {name: rng.standard_normal(6) for name in ("scale", "shift", "mean")}
    arrays["var"] = rng.random(6) + 0.1
    if bias is not None:
        arrays["b"] = rng.standard_normal(bias)
    kind = ir.DataType.from_numpy(np.dtype(dtype))
    weights = {
        name: ir.val(name, kind, a.shape, const_value=ir.tensor(a.astype(dtype), name=name))
        for name, a in arrays.items()
    }
    x = ir.val("x", kind, ["N", 6])
    inputs = [x, weights["w"], *([weights["b"]] if bias is not None else [])]
    attributes = {"transB": turned, "alpha": 0.5, "beta": 2.0}
    linear = ir.node("Gemm", inputs, attributes, name="linear")
    linear.outputs[0].name = "inner"
    norm = [weights[name] for name in ("scale", "shift", "mean", "var")]
    last = ir.node("BatchNormalization", [linear.outputs[0], *norm], name="bn")
    (y,) = last.outputs
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["N", 6])
    return model_of(x, y, [linear, last], [*weights.values()])


@pytest.mark.parametrize("bias", [None, (), (1,), (6,), (1, 6), (1, 1)])
@pytest.mark.parametrize(("turned", "dtype"), [(0, "float32"), (1, "float32"), (1, "float64")])
def test_batch_normalization_is_folded_into_a_gemm(
    turned: int, dtype: str, bias: tuple[int, ...] | None, make_context: MakeContext
) -> None:
    original, model = gemm_bn(turned, dtype, bias), gemm_bn(turned, dtype, bias)
    assert Cleanup().run(model, make_context()).counters["num-fused-batchnorm"] == 1
    verify(model)
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(dtype)}
    (before,), (after,) = run(original, feeds), run(model, feeds)
    assert before.dtype == after.dtype
    # The attribute epsilon is a float32, whatever the type.
    limit = 1e-6 if dtype == "float32" else 1e-11
    assert np.linalg.norm(before - after) <= limit * np.linalg.norm(before)


def test_exact_leaves_batch_normalization(make_context: MakeContext) -> None:
    model = conv_bn("Conv", 1)
    assert not Cleanup(exact=True).run(model, make_context()).modified


@pytest.mark.parametrize("exact", [False, True])
def test_exact_does_all_that_keeps_every_bit(exact: bool, make_context: MakeContext) -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 20]>
    g (float[N] x) => (float[N] y) <float a = {2.0}>
    { b = Neg(a)  c = Exp(a)  d = Identity(x)  e = Add(d, b)  y = Add(e, c) }""")
    counters = Cleanup(exact=exact).run(model, make_context()).counters
    assert counters["num-removed-identities"] == 1
    assert counters["num-folded-nodes"] == (1 if exact else 2)
    # One round changes the model, the next one sees that nothing is left to do.
    assert counters["num-rounds"] == 2


def test_functions_that_nothing_calls_are_removed(make_context: MakeContext) -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 20, "local" : 1]>
    g (float[N] x) => (float[N] y) { y = local.Used(x) }
    <domain: "local", opset_import: ["" : 20]> Used (a) => (b) { b = Neg(a) }
    <domain: "local", opset_import: ["" : 20]> Unused (a) => (b) { b = Abs(a) }""")
    counters = Cleanup().run(model, make_context()).counters
    verify(model)
    assert counters["num-dead-functions"] == 1
    assert [name for _, name, _ in model.functions] == ["Used"]


def test_weights_of_the_caller_are_not_written(make_context: MakeContext) -> None:
    original = conv_bn("Conv", 1)
    text = print_model(original, digest_length=64)
    Cleanup().run(original.clone(), make_context())
    assert print_model(original, digest_length=64) == text


def chain(length: int) -> ir.Model:
    """Alternating work and no-ops, with weights to join and constants to fold."""
    x = ir.val("x", ir.DataType.FLOAT, ["N", 4])
    value, nodes, weights = x, [], []
    for index in range(length):
        if index % 3 == 0:
            weight = ir.Value(
                name=f"w{index}",
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=ir.Shape([4]),
                const_value=ir.tensor(np.full(4, index % 2, np.float32)),
            )
            weights.append(weight)
            node = ir.node("Add", [value, weight], name=f"n{index}")
        else:
            node = ir.node("Identity" if index % 3 == 1 else "Sigmoid", [value], name=f"n{index}")
        node.outputs[0].name = f"v{index}"
        nodes.append(node)
        value = node.outputs[0]
    value.type, value.shape = x.type, x.shape
    graph = ir.Graph(
        [x], [value], nodes=nodes, initializers=weights, opset_imports={"": 20}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def test_work_is_near_linear(make_context: MakeContext) -> None:
    """Function calls are counted, not seconds: they are the same on a busy machine."""

    def calls(length: int) -> int:
        model, ctx = chain(length), make_context()
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            Cleanup().run(model, ctx)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(2000) <= 2.2 * calls(1000)


def test_what_is_left_alone_is_no_change(make_context: MakeContext) -> None:
    """A product with another reader keeps its BatchNormalization."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2,3] x) '
        "=> (float[1,2,3] y, float[1,2,3] z) <float[2,2,1] w = {1, 2, 3, 4}, float[2] s = {1, 2}, "
        "float[2] b = {0, 1}, float[2] m = {1, 1}, float[2] v = {1, 4}> "
        "{ c = Conv(x, w) y = BatchNormalization(c, s, b, m, v) z = Neg(c) }"
    )
    before = print_model(model)
    result = Cleanup().run(model, make_context())
    assert result.counters["num-unfused-batchnorm"] == 1
    assert print_model(model) == before
    assert not result.modified


def test_what_is_left_alone_counts_once_over_all_rounds(make_context: MakeContext) -> None:
    """The Identity in front takes a second round, which sees the same BatchNormalization."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2,3] x) '
        "=> (float[1,2,3] y, float[1,2,3] z) <float[2,2,1] w = {1, 2, 3, 4}, float[2] s = {1, 2}, "
        "float[2] b = {0, 1}, float[2] m = {1, 1}, float[2] v = {1, 4}> "
        "{ i = Identity(x) c = Conv(i, w) y = BatchNormalization(c, s, b, m, v) z = Neg(c) }"
    )
    result = Cleanup().run(model, make_context())
    assert result.counters["num-rounds"] == 2
    assert result.counters["num-removed-identities"] == 1
    assert result.counters["num-unfused-batchnorm"] == 1
