"""The graph with low-rank branches: what is shared, what it computes, what it is without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.adapters import adapter_inputs, fix_adapter, switches_adapters
from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.low_rank import LowRank, attach_inputs, packed, settle
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

RNG = np.random.default_rng(0)
WEIGHTS = {
    name: RNG.normal(size=shape).astype(np.float32)
    for name, shape in {"m.q": (6, 4), "m.k": (6, 3), "m.o": (4, 5)}.items()
}
X = RNG.normal(size=(2, 3, 6)).astype(np.float32)


def plain() -> Model:
    """q = x Wq, k = x Wk, o = relu(q) Wo; outputs k and o."""
    value = ir.Value
    x = value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["b", "s", 6]))
    weights = {}
    for name, array in WEIGHTS.items():
        tensor = ir.tensor(array, name=f"{name}.weight")
        weights[name] = value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape
        )
        weights[name].const_value = tensor
    nodes = [
        ir.node("MatMul", [x, weights["m.q"]], name="m.q/MatMul"),
        ir.node("MatMul", [x, weights["m.k"]], name="m.k/MatMul"),
    ]
    nodes.append(ir.node("Relu", [nodes[0].outputs[0]], name="m/Relu"))
    nodes.append(ir.node("MatMul", [nodes[2].outputs[0], weights["m.o"]], name="m.o/MatMul"))
    nodes[0].outputs[0].name, nodes[2].outputs[0].name = "q", "h"
    outputs = (("k", nodes[1], 3), ("o", nodes[3], 5))
    for name, node, width in outputs:
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape(["b", "s", width])
    graph = ir.Graph(
        [x],
        [node.outputs[0] for _, node, _ in outputs],
        nodes=nodes,
        initializers=list(weights.values()),
        opset_imports={"": 20},
        name="g",
    )
    return Model.from_ir(ir.Model(graph, ir_version=10))


def factors(rank: int, *names: str) -> dict[str, LowRank]:
    return {
        name: LowRank(
            RNG.normal(size=(WEIGHTS[name].shape[0], rank)).astype(np.float32),
            RNG.normal(size=(rank, WEIGHTS[name].shape[1])).astype(np.float32),
        )
        for name in names
    }


def by_hand(given: Mapping[str, LowRank]) -> dict[str, np.ndarray]:
    full = {
        name: weight + (given[name].down @ given[name].up if name in given else 0)
        for name, weight in WEIGHTS.items()
    }
    return {"k": X @ full["m.k"], "o": np.maximum(X @ full["m.q"], 0) @ full["m.o"]}


def run(model: Model, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        return runner.run({"x": X, **arrays})


@pytest.mark.parametrize("names", [("m.q", "m.k", "m.o"), ("m.q", "m.o"), ("m.k",)])
@pytest.mark.parametrize("rank", [1, 3])
def test_branches_compute_what_merged_weights_do(names: tuple[str, ...], rank: int) -> None:
    model, given = plain(), factors(rank, *names)
    branches = attach_inputs(model.ir, list(WEIGHTS), "the model")
    assert [branch.down for branch in branches] == ["m.q.k.lora_A", "m.o.lora_A"]
    model.verify()
    arrays = packed(branches, given)
    found = run(model, arrays)
    for name, wanted in by_hand(given).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5)
    base = run(model, {})
    for name, wanted in by_hand({}).items():
        np.testing.assert_allclose(base[name], wanted, rtol=1e-6, atol=1e-6)


def test_outputs_keep_their_names_and_inputs_have_an_open_rank() -> None:
    model = plain()
    attach_inputs(model.ir, list(WEIGHTS), "the model")
    assert [value.name for value in model.ir.graph.outputs] == ["k", "o"]
    shapes = {value.name: str(value.shape) for value in adapter_inputs(model.ir)}
    assert shapes == {
        "m.q.k.lora_A": "[6,2*adapter_rank]",
        "m.q.lora_B": "[adapter_rank,4]",
        "m.k.lora_B": "[adapter_rank,3]",
        "m.o.lora_A": "[4,adapter_rank]",
        "m.o.lora_B": "[adapter_rank,5]",
    }
    assert switches_adapters(model.ir)
    assert model.interface.overridable == tuple(shapes)


def test_layers_of_different_rank_share_an_input() -> None:
    model = plain()
    branches = attach_inputs(model.ir, list(WEIGHTS), "the model")
    given = factors(3, "m.q") | factors(1, "m.k")
    arrays = packed(branches, given)
    assert arrays["m.q.k.lora_A"].shape == (6, 6)
    assert "m.o.lora_A" not in arrays
    found = run(model, arrays)
    np.testing.assert_allclose(found["k"], by_hand(given)["k"], rtol=1e-5, atol=1e-5)


def test_one_adapter_becomes_constants() -> None:
    model, given = plain(), factors(2, *WEIGHTS)
    branches = attach_inputs(model.ir, list(WEIGHTS), "the model")
    settle(model.ir, packed(branches, given))
    assert not switches_adapters(model.ir)
    assert fix_adapter(model.ir) == 5
    assert [value.name for value in model.ir.graph.inputs] == ["x"]
    np.testing.assert_allclose(run(model, {})["o"], by_hand(given)["o"], rtol=1e-5, atol=1e-5)
    assert fix_adapter(plain().ir) == 0


def test_a_layer_that_is_not_one_product_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"1 layer of the adapter .* 'm.v' first: merge"):
        attach_inputs(plain().ir, ["m.q", "m.v"], "the model")
