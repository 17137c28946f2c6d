"""No pass may be without effect because another one was not named.

Every registered pass runs on an encoder as exporters of other makers write it: weights in Constant
nodes, sizes computed from Shape by Gather, Unsqueeze and Concat, Transposes of weights, an Identity
here and there. What it does there is what it does with `cleanup` before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError
from irtools.instruments.verification import Verification
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Step
from irtools.plugins import registry

HIDDEN, HEADS = 64, 4

CLEANUPS = frozenset(
    {"cleanup", "deduplicate-initializers", "eliminate-common-subexpressions", "fold-constants"}
    | {
        "delay-expand",
        "fold-gemm-factors",
        "fold-index-grids",
        "fuse-conv-bn",
        "fuse-pad",
        "lift-constants",
        "merge-layout-chains",
        "remove-dead-code",
    }
    | {"remove-identity", "remove-no-ops"}
)
"""Parts of the clean-up itself: each does its own share, and counts less after the whole."""

EXPLAINED: Mapping[str, str] = {
    "ort-static": "quantizes whatever it finds, so a node that cleanup merged is not counted twice",
    "hoist-shapes": "moves each Shape that it finds; cleanup has merged equal ones before it",
}


class _Writer:
    """Writes nodes as exporters do: every constant is a node of its own."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        name = f"{kind}_{len(self.nodes)}"
        node = ir.node(kind, inputs, attributes, name=name)  # type: ignore[arg-type]
        node.outputs[0].name = f"{name}_out"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray) -> ir.Value:
        return self.op("Constant", value=ir.tensor(array))

    def weight(self, *shape: int) -> ir.Value:
        return self.constant((self.rng.standard_normal(shape) / 8).astype(np.float32))

    def linear(self, x: ir.Value, inner: int, outer: int) -> ir.Value:
        turned = self.op("Transpose", self.weight(outer, inner), perm=[1, 0])
        return self.op("Add", self.op("MatMul", x, turned), self.weight(outer))

    def dim(self, x: ir.Value, axis: int) -> ir.Value:
        size = self.op("Gather", self.op("Shape", x), self.constant(np.array(axis)), axis=0)
        return self.op("Unsqueeze", size, self.constant(np.array([0])))

    def reshaped(self, x: ir.Value, *rest: int) -> ir.Value:
        parts = [self.constant(np.array([size])) for size in rest]
        return self.op(
            "Reshape", x, self.op("Concat", self.dim(x, 0), self.dim(x, 1), *parts, axis=0)
        )

    def norm(self, x: ir.Value) -> ir.Value:
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        squares = self.op("Pow", centred, self.constant(np.float32(2)))
        spread = self.op("ReduceMean", squares, axes=[-1])
        root = self.op("Sqrt", self.op("Add", spread, self.constant(np.float32(1e-5))))
        scaled = self.op("Mul", self.op("Div", centred, root), self.weight(HIDDEN))
        return self.op("Add", scaled, self.weight(HIDDEN))

    def heads(self, x: ir.Value) -> ir.Value:
        split = self.reshaped(self.linear(x, HIDDEN, HIDDEN), HEADS, HIDDEN // HEADS)
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, x: ir.Value) -> ir.Value:
        q, k, v = (self.heads(x) for _ in range(3))
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        size = self.op("Cast", self.constant(np.array(HIDDEN // HEADS)), to=ir.DataType.FLOAT)
        shares = self.op("Softmax", self.op("Div", scores, self.op("Sqrt", size)), axis=-1)
        joined = self.op("Transpose", self.op("MatMul", shares, v), perm=[0, 2, 1, 3])
        return self.linear(self.reshaped(joined, HIDDEN), HIDDEN, HIDDEN)

    def gelu(self, x: ir.Value) -> ir.Value:
        erf = self.op("Erf", self.op("Div", x, self.constant(np.float32(2**0.5))))
        gate = self.op("Add", erf, self.constant(np.float32(1)))
        return self.op("Mul", self.op("Mul", x, gate), self.constant(np.float32(0.5)))


def encoder() -> Model:
    w = _Writer()
    ids = ir.val("input_ids", ir.DataType.INT64, ir.Shape(["batch", "sequence"]))
    x = w.norm(w.op("Gather", w.op("Identity", w.weight(512, HIDDEN)), ids, axis=0))
    x = w.norm(w.op("Add", x, w.attention(x)))
    inner = w.gelu(w.linear(x, HIDDEN, 4 * HIDDEN))
    y = w.op("Identity", w.norm(w.op("Add", x, w.linear(inner, 4 * HIDDEN, HIDDEN))))
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    y.shape = ir.Shape(["batch", "sequence", HIDDEN])
    graph = ir.Graph([ids], [y], nodes=w.nodes, opset_imports={"": 17}, name="encoder")
    return Model(ir.Model(graph, ir_version=8))


@pytest.fixture(scope="module")
def model() -> Model:
    return encoder()


def _last(model: Model, pipeline: str) -> Step:
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", threads=1)
    return PassManager(Pipeline(pipeline), (Verification(),)).run(model, ctx)[-1]


def _counts(step: Step) -> dict[str, int]:
    found = step.result.counters.items()
    return {name: n for name, n in found if n and not name.startswith("num-prepared-")}


@pytest.mark.parametrize("name", [n for n in registry.names("irtools.passes") if n not in CLEANUPS])
def test_a_pass_alone_does_what_it_does_after_cleanup(name: str, model: Model) -> None:
    try:
        clean = _last(model, f"cleanup,{name}")
    except UnsupportedError:
        with pytest.raises(UnsupportedError):
            _last(model, name)
        return
    alone = _last(model, name)
    assert alone.modified == clean.modified
    if name not in EXPLAINED:
        assert _counts(alone) == _counts(clean)


@pytest.mark.parametrize(
    ("name", "counter", "count"),
    [
        ("int8:min-size=1024", "num-quantized-matmul", 6),
        ("int8:min-size=1024", "num-quantized-embedding", 1),
        ("int4:min-size=1024", "num-quantized-matmul", 6),
        ("fp16", "num-stored", 7),
        ("prune:ratio=0.25", "num-neurons-removed", 112),
        ("fuse", "num-fused-attention", 1),
        ("fuse", "num-fused-layer-norm", 3),
        ("fuse-gelu", "num-fused-gelu", 1),
    ],
)
def test_effects(name: str, counter: str, count: int, model: Model) -> None:
    step = _last(model, name)
    assert step.result.counters[counter] == count
    assert step.result.notes[0].startswith("first lift-constants: ")
    before, after = (m.to_proto().ByteSize() for m in (model, step.model))
    assert after < before or name.startswith("fuse")


def test_a_pruned_model_is_smaller_though_constants_are_shared() -> None:
    """Biases of zeros that all layers share: each layer keeps other units of the same tensor."""
    w = _Writer()
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 64]))
    zeros, y = w.constant(np.zeros(256, np.float32)), x
    for _ in range(6):
        wide = w.op("Add", w.op("MatMul", y, w.weight(64, 256)), zeros)
        y = w.op("MatMul", w.op("Relu", wide), w.weight(256, 64))
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 64])
    graph = ir.Graph([x], [y], nodes=w.nodes, opset_imports={"": 17}, name="shared")
    model = Model(ir.Model(graph, ir_version=8))
    step = _last(model, "prune:ratio=0.25:scope=local")
    assert step.result.counters["num-neurons-removed"] > 0
    shared = [v for n, v in step.model.ir.graph.initializers.items() if len(v.shape or ()) == 1]
    assert len(shared) == 1
    assert step.model.to_proto().ByteSize() < 0.85 * model.to_proto().ByteSize()
