"""A small classifier, and passes that behave and misbehave."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Model
from irtools.passmanager import (
    Decision,
    Exactness,
    Pass,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)

_WIDTH = 16
_CLASSES = 4


@pytest.fixture
def classifier() -> Model:
    """x [batch, 16] -> logits [batch, 4] by one MatMul and a bias."""
    rng = np.random.default_rng(0)
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", _WIDTH]))
    weight = rng.standard_normal((_WIDTH, _CLASSES)).astype(np.float32)
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    b = ir.val("b", const_value=ir.tensor(np.zeros(_CLASSES, np.float32), name="b"))
    h = ir.node("MatMul", [x, w], name="fc")
    h.outputs[0].name, h.outputs[0].type = "h", ir.TensorType(ir.DataType.FLOAT)
    y = ir.node("Add", [h.outputs[0], b], name="bias")
    out = y.outputs[0]
    out.name, out.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape(["batch", _CLASSES])
    graph = ir.Graph([x], [out], nodes=[h, y], initializers=[w, b], opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


@pytest.fixture
def labelled(classifier: Model) -> Dataset:
    """Samples whose label is what the classifier says: its accuracy is 1."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, _WIDTH)).astype(np.float32)
    weight = classifier.ir.graph.initializers["w"].const_value
    assert weight is not None
    return Dataset({"x": x}, (x @ weight.numpy()).argmax(axis=-1).astype(np.int64))


@pytest.fixture
def ctx(classifier: Model) -> PassContext:
    """A context on ort-cpu without data."""
    return PassContext.for_model(classifier, threads=1)


@dataclass(frozen=True)
class Idle(Pass):
    """Do nothing."""

    name: ClassVar[str] = "idle"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        return PassResult(modified=False)


@dataclass(frozen=True)
class Rename(Pass):
    """Rename the inner nodes, which changes the text and no number."""

    name: ClassVar[str] = "rename"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    honest: bool = option(True, "Say that the model was modified.")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        for node in model.graph:
            node.name = f"{node.name}_renamed"
        return PassResult(modified=self.honest, counters={"num-renamed": len(model.graph)})


@dataclass(frozen=True)
class DropOutput(Pass):
    """Rename the output, which breaks callers."""

    name: ClassVar[str] = "drop-output"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        model.graph.outputs[0].name = "other"
        return PassResult(modified=True)


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the weight: wrong for a pass that promises exactness."""

    name: ClassVar[str] = "scale"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    factor: float = option(1.001, "Factor.")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        scaled = value.const_value.numpy() * np.float32(self.factor)
        value.const_value = ir.tensor(scaled, name="w")
        return PassResult(modified=True)


@dataclass(frozen=True)
class Crash(Pass):
    """Fail in a way nobody foresaw."""

    name: ClassVar[str] = "crash"

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        raise ZeroDivisionError("foreign")


@dataclass(frozen=True)
class Zero(PlanningPass):
    """Set rows of the weight to zero, the least important first."""

    name: ClassVar[str] = "zero"
    ratio: float = option(1.0, "Part of the rows.")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        weight = model.graph.initializers["w"].const_value
        assert weight is not None
        norms = np.linalg.norm(weight.numpy(), axis=1)
        order = np.argsort(norms)[: int(self.ratio * len(norms))]
        decisions = tuple(
            Decision(f"row {i}", "zero", cost=float(norms[i]), data={"row": int(i)}) for i in order
        )
        return Plan(pass_text(self), decisions)

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        value = model.graph.initializers["w"]
        assert value.const_value is not None
        weight = value.const_value.numpy().copy()
        for decision in plan.decisions:
            row = decision.data["row"]
            assert isinstance(row, int)
            weight[row] = 0
        value.const_value = ir.tensor(weight, name="w")
        counters = {"num-rows": len(plan)}
        return PassResult(modified=len(plan) > 0, counters=counters, plan=plan)


@pytest.fixture
def passes() -> SimpleNamespace:
    """The passes above, by class name."""
    kinds = (Idle, Rename, DropOutput, Scale, Crash, Zero)
    return SimpleNamespace(**{kind.__name__: kind for kind in kinds})
