"""What every registered pass must keep to, ours and those of other packages alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args, get_origin

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, SyntheticSettings, synthesize
from irtools.driver.context import Calibration, make_context
from irtools.errors import UnsupportedError, UsageError
from irtools.instruments.numerics import check_outputs
from irtools.model import Model
from irtools.passmanager import (
    Exactness,
    Option,
    Pass,
    PassContext,
    Pipeline,
    Plan,
    PlanningPass,
    options_of,
    pass_text,
)
from irtools.plugins import registry
from irtools.targets import RunnerOptions, find_target


def _variants() -> Iterator[str]:
    """Every registered pass at its defaults, and with each of its choices and switches."""
    for name in registry.names("irtools.passes"):
        yield name
        kind = registry.load("irtools.passes", name)
        for option in options_of(kind):
            for value in _choices(option):
                text = f"{name}:{option.name}={value}"
                try:
                    Pipeline.parse(text)
                except UsageError:
                    continue  # Not without another option.
                yield text


def _choices(option: Option) -> Iterator[str]:
    if option.type is bool:
        yield "false" if option.default else "true"
    elif get_origin(option.type) is Literal:
        yield from (str(c) for c in get_args(option.type) if c != option.default)


_PASSES = tuple(_variants())


def _weights(**arrays: np.ndarray) -> dict[str, ir.Value]:
    return {n: ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in arrays.items()}


class _Builder:
    """Builds a model node by node; every output gets a name."""

    def __init__(self, *inputs: ir.Value, **arrays: np.ndarray) -> None:
        self.inputs, self.weights = inputs, _weights(**arrays)
        self.nodes: list[ir.Node] = []

    def add(self, op: str, *inputs: ir.Value | str, **attributes: object) -> ir.Value:
        values = [self.weights[v] if isinstance(v, str) else v for v in inputs]
        node = ir.node(op, values, attributes, name=f"{op}_{len(self.nodes)}")  # type: ignore[arg-type]
        node.outputs[0].name = f"t{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def model(self, out: ir.Value, shape: list[int | str]) -> Model:
        out.name, out.type, out.shape = "logits", ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        graph = ir.Graph(
            self.inputs,
            [out],
            nodes=self.nodes,
            initializers=[*self.weights.values()],
            opset_imports={"": 20},
        )
        return Model(ir.Model(graph, ir_version=10))


def _float(name: str, *shape: int | str) -> ir.Value:
    return ir.val(name, ir.DataType.FLOAT, ir.Shape(shape))


def _normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)


def mlp() -> Model:
    """Two layers, dynamic batch, an Identity and dead weight to clean up."""
    arrays = {"w1": _normal(0, 32, 64), "b1": _normal(1, 64), "w2": _normal(2, 64, 8)}
    b = _Builder(_float("x", "batch", 32), **arrays, dead=_normal(3, 4, 4))
    h = b.add("Relu", b.add("Add", b.add("MatMul", b.inputs[0], "w1"), "b1"))
    return b.model(b.add("MatMul", b.add("Identity", h), "w2"), ["batch", 8])


def convnet() -> Model:
    """Conv, BatchNormalization, Relu, pooling and a Gemm."""
    arrays = {
        "w": _normal(0, 16, 3, 3, 3),
        "scale": np.ones(16, np.float32),
        "shift": np.zeros(16, np.float32),
        "mean": _normal(1, 16),
        "var": np.ones(16, np.float32),
        "fc": _normal(2, 16, 5),
        "bias": _normal(3, 5),
    }
    b = _Builder(_float("pixel_values", "batch", 3, 16, 16), **arrays)
    c = b.add("Conv", b.inputs[0], "w", pads=[1, 1, 1, 1])
    n = b.add("BatchNormalization", c, "scale", "shift", "mean", "var")
    p = b.add("Flatten", b.add("GlobalAveragePool", b.add("Relu", n)))
    return b.model(b.add("Gemm", p, "fc", "bias"), ["batch", 5])


def embedder() -> Model:
    """Token ids through a table, a LayerNormalization and a head; dynamic batch and length."""
    arrays = {
        "table": _normal(0, 50, 16),
        "scale": np.ones(16, np.float32),
        "shift": np.zeros(16, np.float32),
        "w": _normal(1, 16, 6),
        "axes": np.array([1], np.int64),
    }
    ids = ir.val("input_ids", ir.DataType.INT64, ir.Shape(["batch", "sequence"]))
    b = _Builder(ids, **arrays)
    e = b.add("Gather", "table", ids, axis=0)
    n = b.add("LayerNormalization", e, "scale", "shift", axis=-1)
    pooled = b.add("ReduceMean", n, "axes", keepdims=0)
    return b.model(b.add("MatMul", pooled, "w"), ["batch", 6])


def branches() -> Model:
    """An If whose branches capture an outer value and a weight."""
    b = _Builder(_float("x", "batch", 8), w=_normal(0, 8, 8), zero=np.array(0, np.float32))
    h = b.add("MatMul", b.inputs[0], "w")
    total = b.add("ReduceSum", h, keepdims=0)
    condition = b.add("Greater", total, "zero")

    def branch(op: str, name: str) -> ir.Graph:
        node = ir.node(op, [h])
        out = node.outputs[0]
        out.name, out.type = name, ir.TensorType(ir.DataType.FLOAT)
        out.shape = ir.Shape(["batch", 8])
        return ir.Graph([], [out], nodes=[node], name=name)

    chosen = b.add(
        "If", condition, then_branch=branch("Relu", "then"), else_branch=branch("Neg", "else")
    )
    return b.model(chosen, ["batch", 8])


_MODELS: dict[str, Callable[[], Model]] = {
    "mlp": mlp,
    "convnet": convnet,
    "embedder": embedder,
    "branches": branches,
}


@pytest.fixture(params=_MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return _MODELS[request.param]()


@pytest.fixture(params=_PASSES)
def pass_(request: pytest.FixtureRequest) -> Pass:
    [made] = Pipeline.parse(request.param)
    return made


def _context(model: Model) -> PassContext:
    data: Dataset = synthesize(model, SyntheticSettings(samples=8, sequence=16))
    return make_context(find_target("ort-cpu:isa=vnni"), Calibration(data, model), threads=1)


def _apply(pass_: Pass, model: Model) -> tuple[Model, bool]:
    """Run a pass on a copy; a refusal counts as leaving the model alone."""
    copy = model.clone()
    try:
        result = pass_.run(copy.ir, _context(model))
    except UnsupportedError:
        assert copy.text() == model.text(), "a pass that refuses must not have begun"
        return copy, False
    assert set(result.statistics) <= set(pass_.statistics), "a statistic is not declared"
    return copy, result.modified


def test_modified_is_honest(pass_: Pass, model: Model) -> None:
    after, modified = _apply(pass_, model)
    assert modified == (after.text() != model.text())


def test_the_callers_model_stays_as_it_was(pass_: Pass, model: Model) -> None:
    before = model.fingerprint()
    # Digests are kept with the tensors, so a fresh look takes the bytes themselves.
    arrays = {k: v.const_value.numpy().copy() for k, v in _initializers(model).items()}
    _apply(pass_, model)
    assert model.fingerprint() == before
    for name, value in _initializers(model).items():
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), arrays[name], strict=True)


def _initializers(model: Model) -> dict[str, ir.Value]:
    return dict(model.ir.graph.initializers)


def test_the_result_is_sound_and_keeps_its_interface(pass_: Pass, model: Model) -> None:
    after, _ = _apply(pass_, model)
    after.verify(interface=model.interface)


def test_a_second_run_changes_nothing(pass_: Pass, model: Model) -> None:
    once, _ = _apply(pass_, model)
    twice, modified = _apply(pass_, once)
    if pass_.idempotent:
        assert twice.text() == once.text() and not modified


def test_the_same_input_gives_the_same_output(pass_: Pass, model: Model) -> None:
    first, _ = _apply(pass_, model)
    second, _ = _apply(pass_, model)
    assert first.fingerprint() == second.fingerprint()


def test_numbers_keep_what_the_pass_promises(pass_: Pass, model: Model) -> None:
    after, _ = _apply(pass_, model)
    ctx = _context(model)
    feeds = synthesize(model, SyntheticSettings(samples=4, sequence=12, seed=7)).feeds
    with ctx.runner(model.ir, RunnerOptions(exact=True)) as runner:
        expected = runner.run(feeds)
    with ctx.runner(after.ir, RunnerOptions(exact=True)) as runner:
        found = runner.run(feeds)
    check_outputs(expected, found, pass_.exactness)
    if pass_.exactness is Exactness.LOSSY:
        error = np.linalg.norm(expected["logits"] - found["logits"])
        # Far from a promise; a pass at its defaults that loses half of the signal is broken.
        assert error <= 0.5 * np.linalg.norm(expected["logits"])


def test_options_survive_print_and_parse(pass_: Pass) -> None:
    assert Pipeline.parse(pass_text(pass_)) == Pipeline(pass_)
    assert Pipeline.from_toml(Pipeline(pass_).to_toml()) == Pipeline(pass_)


def test_every_option_and_statistic_is_explained(pass_: Pass) -> None:
    assert type(pass_).__doc__, "the docstring is the reference page"
    for option in options_of(type(pass_)):
        assert option.help, f"option {option.name} has no meaning"
        assert option.type_text
    for name, phrase in pass_.statistics.items():
        assert name.startswith("num-") and phrase


def test_a_plan_is_stored_and_any_prefix_of_it_applies(pass_: Pass, model: Model) -> None:
    if not isinstance(pass_, PlanningPass):
        return
    before = model.text()
    try:
        plan = pass_.plan(model.ir, _context(model))
    except UnsupportedError:
        return
    assert model.text() == before, "planning must not write"
    assert Plan.from_json(plan.to_json()) == plan
    for length in sorted({0, 1, len(plan) // 2, len(plan)}):
        copy = model.clone()
        result = pass_.apply(copy.ir, plan.prefix(length), _context(model))
        copy.verify(interface=model.interface)
        if length == 0:
            assert not result.modified and copy.text() == before
