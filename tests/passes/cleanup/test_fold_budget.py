"""Folding never makes a file larger, and what a file stores in few bytes stays stored so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from irtools.model import Model, verify
from irtools.passmanager import PassContext, Pipeline

Values = dict[str, ir.Value]


class Graph:
    """Builds a model whose output is x plus a constant expression."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n"]))
        self.weights = {n: ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in arrays.items()}
        self.nodes: list[ir.Node] = []

    def add(self, op: str, *inputs: ir.Value | str, **attributes: object) -> ir.Value:
        values = [self.weights[v] if isinstance(v, str) else v for v in inputs]
        node = ir.node(op, values, attributes)  # type: ignore[arg-type]
        node.outputs[0].name = f"t{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, *used: ir.Value) -> ir.Model:
        outs = [self.add("Add", self.x, value) for value in used]
        for out in outs:
            out.type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            [self.x],
            outs,
            nodes=self.nodes,
            initializers=[*self.weights.values()],
            opset_imports={"": 21},
        )
        return ir.Model(graph, ir_version=10)


def size(model: ir.Model) -> int:
    return int(Model(model).to_proto().ByteSize())


def ops(model: ir.Model) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph))


@pytest.fixture
def fold(make_context: Callable[..., PassContext]) -> Callable[..., dict[str, int]]:
    """Run a pipeline on a model in place; checks that it did not grow; returns its operators."""

    def run(model: ir.Model, text: str = "fold-constants") -> dict[str, int]:
        before = size(model)
        for pass_ in Pipeline(text):
            pass_.run(model, make_context())
        verify(model)
        assert size(model) <= before
        return ops(model)

    return run


RNG = np.random.default_rng(0)
CODES = RNG.integers(-128, 127, (64, 32)).astype(np.int8)
SCALE = RNG.uniform(0.1, 1, (64, 1)).astype(np.float32)


def _cast(g: Graph) -> ir.Value:
    return g.add("Cast", "codes", to=1)


def _cast_mul(g: Graph) -> ir.Value:
    return g.add("Mul", g.add("Cast", "codes", to=1), "scale")


def _cast_sub_mul(g: Graph) -> ir.Value:
    return g.add("Mul", g.add("Sub", g.add("Cast", "codes", to=1), "zero"), "scale")


def _transposed(g: Graph) -> ir.Value:
    return g.add("Transpose", _cast_mul(g), perm=[1, 0])


def _half(g: Graph) -> ir.Value:
    return g.add("Cast", "half", to=1)


def _codebook(g: Graph) -> ir.Value:
    return g.add("Gather", "book", g.add("Cast", "places", to=7), axis=0)


def _dequantized(g: Graph) -> ir.Value:
    return g.add("Mul", g.add("DequantizeLinear", "codes", "step"), "scale")


def _one_row(g: Graph) -> ir.Value:
    return g.add("Expand", "row", "shape")


STORED = {
    "Cast": _cast,
    "Cast and Mul": _cast_mul,
    "Cast, Sub and Mul": _cast_sub_mul,
    "Cast, Mul and Transpose": _transposed,
    "half precision": _half,
    "a codebook": _codebook,
    "DequantizeLinear": _dequantized,
    "one row for all": _one_row,
}
ARRAYS = {
    "codes": CODES,
    "scale": SCALE,
    "zero": np.float32(3),
    "step": np.float32(0.5),
    "half": RNG.normal(size=(64, 32)).astype(np.float16),
    "book": RNG.normal(size=256).astype(np.float32),
    "places": RNG.integers(0, 255, (64, 32)).astype(np.uint8),
    "row": RNG.normal(size=(1, 100)).astype(np.float32),
    "shape": np.array([50, 100]),
}
ENDS = {"first": np.array([0]), "last": np.array([1])}


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("pipeline", ["fold-constants", "cleanup", "fold-constants:exact=true"])
def test_storage_in_few_bytes_is_kept(name: str, pipeline: str, fold) -> None:
    """Whatever room there is in the file: other folds make a megabyte of it here."""
    g = Graph(**ARRAYS, big=np.zeros(500_000, np.float32), **ENDS)
    small = g.add("Slice", "big", "first", "last")
    model = g.model(STORED[name](g), small)
    spelled = {n.op_type for n in model.graph} - {"Slice"}
    found = fold(model, pipeline)
    assert set(found) >= spelled
    assert "Slice" not in found


def test_a_narrow_weight_is_moved_before_it_is_widened(fold) -> None:
    g = Graph(codes=CODES, scale=SCALE.T[:, :1])
    turned = g.add("Transpose", "codes", perm=[1, 0])
    model = g.model(g.add("Mul", g.add("Cast", turned, to=1), "scale"))
    assert fold(model) == {"Cast": 1, "Mul": 1, "Add": 1}
    assert model.graph.initializers["t0"].dtype == ir.DataType.INT8


def test_small_integers_are_widened(fold) -> None:
    """A scalar after a Cast is arithmetic, not storage."""
    g = Graph(n=np.int64(64))
    assert fold(g.model(g.add("Sqrt", g.add("Cast", "n", to=1)))) == {"Add": 1}


def test_hundred_results_of_nearly_a_megabyte_are_not_written(fold) -> None:
    g = Graph(zero=np.float32(0.5), shape=np.array([250_000]))
    shapes = [g.add("Expand", "zero", "shape") for _ in range(100)]
    assert fold(g.model(*shapes))["Expand"] == 100


def test_a_large_result_on_the_way_to_a_small_one_costs_nothing(fold) -> None:
    g = Graph(one=np.float32(1), shape=np.array([250_000]), **ENDS)
    model = g.model(g.add("Slice", g.add("Expand", "one", "shape"), "first", "last"))
    assert fold(model) == {"Add": 1}
    assert model.graph.initializers["t1"].const_value.numpy().tolist() == [1]


def test_of_a_chain_the_part_that_pays_is_folded(fold) -> None:
    """The Expand stays, what makes its shape goes."""
    g = Graph(one=np.float32(1), a=np.array([500]), b=np.array([500]))
    shape = g.add("Concat", "a", "b", axis=0)
    turned = g.add("Transpose", g.add("Expand", "one", shape), perm=[1, 0])
    model = g.model(g.add("Neg", turned))
    assert fold(model) == {"Expand": 1, "Transpose": 1, "Neg": 1, "Add": 1}
    assert model.graph.initializers["t0"].const_value.numpy().tolist() == [500, 500]


def test_room_that_one_fold_makes_is_used_by_another(fold) -> None:
    g = Graph(big=np.ones(30_000, np.float32), one=np.float32(1), shape=np.array([1000]), **ENDS)
    small = g.add("Slice", "big", "first", "last")
    assert fold(g.model(small, g.add("Expand", "one", "shape"))) == {"Add": 2}
    alone = Graph(one=np.float32(1), shape=np.array([1000]))
    assert fold(alone.model(alone.add("Expand", "one", "shape"))) == {"Expand": 1, "Add": 1}


def test_a_weight_that_is_read_elsewhere_is_not_written_twice(fold) -> None:
    """Tied embeddings: the table is looked up and, transposed, multiplied by."""
    g = Graph(table=RNG.normal(size=(64, 64)).astype(np.float32))
    turned = g.add("Transpose", "table", perm=[1, 0])
    model = g.model(g.add("Neg", g.add("Identity", g.weights["table"])), turned)
    model.graph.outputs.append(model.graph[0].outputs[0])
    model.graph.outputs[-1].type = ir.TensorType(ir.DataType.FLOAT)
    before = size(model)
    fold(model)
    assert size(model) <= before


def test_what_is_folded_in_a_branch_is_weighed_too(make_context) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (bool c, float[N] x) => (float[N] y) {
      y = If(c) <
        then_branch = t () => (float[N] z) {
          n = Constant<value = int64[1] {100000}>()
          one = Constant<value = float {1.0}>()
          two = Constant<value = float {2.0}>()
          three = Add(one, two)
          e = Expand(three, n)
          z = Add(x, e)
        },
        else_branch = e () => (float[N] z2) { z2 = Relu(x) }
      >
    }"""
    model = ir.from_onnx_text(text)
    before = size(model)
    (pass_,) = Pipeline("fold-constants")
    assert pass_.run(model, make_context()).counters == {"num-folded-nodes": 1}
    verify(model)
    inner = model.graph[0].attributes["then_branch"].as_graph()
    assert [n.op_type for n in inner] == ["Constant", "Constant", "Expand", "Add"]
    assert size(model) <= before


def test_a_list_of_small_integers_is_not_lifted(make_context) -> None:
    """Eight bytes each as a tensor, two as an attribute; all passes read both."""
    numbers = "[" + ", ".join(str(n % 100) for n in range(40)) + "]"
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]>
        g (int64[N] x) => (int64[N] y)
        {{ c = Constant<value_ints = {numbers}>()  y = Add(x, c) }}"""
    )
    (pass_,) = Pipeline("lift-constants")
    assert not pass_.run(model, make_context()).modified


def test_a_weight_of_two_convolutions_is_not_copied_for_a_normalization(fold) -> None:
    """Folding one BatchNormalization into a shared weight writes the weight twice."""
    ones = np.ones(8, np.float32)
    weight = RNG.normal(size=(8, 8, 3, 3)).astype(np.float32)
    g = Graph(weight=weight, a=ones, b=ones * 2, c=ones * 3, d=ones * 4)
    g.x.shape = ir.Shape(["n", 8, 9, 9])
    first = g.add("Conv", g.x, "weight", pads=[1, 1, 1, 1])
    normed = g.add("BatchNormalization", first, "a", "b", "c", "d")
    second = g.add("Conv", normed, "weight", pads=[1, 1, 1, 1])
    found = fold(g.model(second), "cleanup")
    assert found == {"Conv": 2, "BatchNormalization": 1, "Add": 1}


_QDQ_OPSETS = {"per tensor": 13, "per channel": 13, "in blocks": 21}


@pytest.mark.parametrize("form", _QDQ_OPSETS)
@pytest.mark.parametrize("zero", ["int8", "uint8", None])
def test_weights_before_their_own_quantization_become_integers(fold, form, zero) -> None:
    """As the runtime rounds them, ties to even and beyond the range included; DQ stays."""
    rng = np.random.default_rng(0)
    shape = {"per tensor": (), "per channel": (6,), "in blocks": (2, 6)}[form]
    scale = rng.uniform(0.5, 2, shape).astype(np.float32) if shape else np.array(0.5, np.float32)
    weight = (rng.integers(-200, 200, (8, 6)) * np.float32(0.25)).astype(np.float32)
    arrays = {"w": weight, "s": scale}
    if zero is not None:
        arrays["z"] = np.full(shape, 3, zero)
    options = {"in blocks": {"axis": 0, "block_size": 4}, "per channel": {"axis": 1}}.get(form, {})
    graph = Graph(**arrays)
    parts = ["s", *(["z"] if zero else [])]
    real = graph.add("DequantizeLinear", graph.add("QuantizeLinear", "w", *parts, **options),
                     *parts, **options)  # fmt: skip
    model = graph.model(graph.add("ReduceSum", real, keepdims=0))
    model.graph.opset_imports[""] = _QDQ_OPSETS[form]
    before = _run(model)
    assert fold(model) == {"DequantizeLinear": 1, "ReduceSum": 1, "Add": 1}
    assert model.graph.initializers["t0"].dtype.name == (zero or "uint8").upper()
    np.testing.assert_array_equal(_run(model), before)


def test_a_weight_that_is_read_in_float_as_well_stays(fold) -> None:
    graph = Graph(w=np.ones((64, 64), np.float32), s=np.array(0.1, np.float32))
    real = graph.add("DequantizeLinear", graph.add("QuantizeLinear", "w", "s"), "s")
    model = graph.model(graph.add("ReduceSum", real, keepdims=0), graph.add("ReduceMax", "w"))
    assert fold(model)["QuantizeLinear"] == 1


def _run(model: ir.Model) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = Model(model).to_proto().SerializeToString()
    session = onnxruntime.InferenceSession(proto, options)
    return np.asarray(session.run(None, {"x": np.zeros(1, np.float32)})[0])
