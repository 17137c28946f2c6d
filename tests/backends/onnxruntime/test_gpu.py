"""CUDA and TensorRT against the CPU. Left out where there is no GPU (see `tests/conftest.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.onnxruntime.target import OrtCpu, OrtCuda, OrtTensorRt
from irtools.errors import TargetUnavailableError
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline
from irtools.targets import Feeds, Target, find_target

pytestmark = pytest.mark.gpu

_WIDTH = 128
_TARGETS = ["ort-cuda", "ort-tensorrt"]


def _target(name: str) -> Target:
    """Return a target; TensorRT has libraries of its own that may be absent beside CUDA."""
    try:
        return find_target(name)
    except TargetUnavailableError as error:
        pytest.skip(str(error))


def _layer() -> Model:
    """x [batch, s, 128] -> y: a feed-forward block with a residual and a normalization."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> ir.Value:
        array = rng.standard_normal(shape).astype(np.float32) / np.sqrt(shape[0])
        return ir.val(name, const_value=ir.tensor(array, name=name))

    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", "s", _WIDTH]))
    weights = [
        weight("w1", _WIDTH, 4 * _WIDTH),
        weight("b1", 4 * _WIDTH),
        weight("w2", 4 * _WIDTH, _WIDTH),
        weight("gamma", _WIDTH),
        weight("beta", _WIDTH),
    ]
    w1, b1, w2, gamma, beta = weights
    first = ir.node("MatMul", [x, w1], name="fc1")
    bias = ir.node("Add", [first.outputs[0], b1])
    relu = ir.node("Relu", [bias.outputs[0]])
    second = ir.node("MatMul", [relu.outputs[0], w2], name="fc2")
    add = ir.node("Add", [second.outputs[0], x])
    norm = ir.node("LayerNormalization", [add.outputs[0], gamma, beta])
    y = norm.outputs[0]
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    y.shape = ir.Shape(["batch", "s", _WIDTH])
    nodes = [first, bias, relu, second, add, norm]
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 20})
    return Model(ir.Model(graph, ir_version=10))


def _feeds(seed: int = 1) -> Feeds:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((2, 16, _WIDTH)).astype(np.float32)}


def _run(target: Target, model: Model, feeds: Feeds) -> np.ndarray:
    with target.runner(model) as runner:
        return runner.run(feeds)["y"]


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", _TARGETS)
@pytest.mark.parametrize("seed", [1, 2])
def test_float32_is_float32(name: str, seed: int) -> None:
    """Without TF32, whose 10 bits would leave an error of 1e-4 and more."""
    target, feeds = _target(name), _feeds(seed)
    assert _relative(_run(OrtCpu(), _layer(), feeds), _run(target, _layer(), feeds)) < 2e-6


@pytest.mark.parametrize("name", _TARGETS)
@pytest.mark.parametrize(("text", "bound"), [("fp16", 4e-3), ("bf16", 3e-2)])
def test_half_precision(
    name: str, text: str, bound: float, make_context: Callable[..., PassContext]
) -> None:
    target, feeds = _target(name), _feeds()
    model = _layer()
    (pass_,) = Pipeline(text)
    result = pass_.run(model.ir, make_context(name))
    model.verify()
    assert result.counters["num-computed"] >= 2
    assert model.weight_bytes < 0.6 * _layer().weight_bytes
    error = _relative(_run(OrtCpu(), _layer(), feeds), _run(target, model, feeds))
    # Above the bound it is wrong; far below it nothing ran in 16 bits.
    assert bound / 100 < error < bound


def test_every_node_is_on_the_device() -> None:
    with _target("ort-cuda").runner(_layer()) as runner:
        kernels = runner.kernels()
    assert set(kernels.providers) == {"CUDAExecutionProvider"}
    assert sum(kernels.providers.values()) >= 4


def test_tensorrt_takes_the_graph() -> None:
    with _target("ort-tensorrt").runner(_layer()) as runner:
        kernels = runner.kernels()
    assert "CPUExecutionProvider" not in kernels.providers
    assert kernels.providers["TensorrtExecutionProvider"] >= 4


def test_what_falls_back_to_the_cpu_is_counted() -> None:
    model = Model(
        ir.from_onnx_text(
            '<ir_version: 10, opset_import: ["" : 20]>'
            "m (string[n] s, float[n] x) => (string[n] t, float[n] y)"
            "{ t = StringConcat(s, s) y = Neg(x) }"
        )
    )
    with _target("ort-cuda").runner(model) as runner:
        providers = runner.kernels().providers
        found = runner.run({"s": np.array(["a"], object), "x": np.ones(1, np.float32)})
    assert providers["CPUExecutionProvider"] >= 1 and providers["CUDAExecutionProvider"] >= 1
    assert found["t"].tolist() == ["aa"] and found["y"] == -1


@pytest.mark.parametrize("made", [OrtCuda, OrtTensorRt])
def test_the_device_takes_part(made: Callable[[], Target]) -> None:
    with _target(made().name).runner(_layer()) as runner:
        assert runner.providers[0] == made().provider_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", _TARGETS)
def test_an_artifact_runs(name: str, tmp_path: Path) -> None:
    target, feeds = _target(name), _feeds()
    artifact = target.compile(_layer(), tmp_path, "net")
    assert "CPUExecutionProvider" not in artifact.kernels.providers
    with target.runner(artifact.files[0]) as runner:
        found = runner.run(feeds)["y"]
    assert _relative(_run(OrtCpu(), _layer(), feeds), found) < 2e-6
