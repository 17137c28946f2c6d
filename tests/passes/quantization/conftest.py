"""Small models by hand, the passes' context, and how the results are run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.data import Dataset
from irtools.model import Model, verify
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.statistics.service import StreamingStatistics
from irtools.targets import RunnerOptions, find_target

Arrays = Mapping[str, np.ndarray]


def build(text: str, /, seed: int = 0, **given: np.ndarray) -> ir.Model:
    """Read ONNX text. Inputs named `w...` become initializers, `given` or random ones."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(seed)
    for value in [v for v in model.graph.inputs if v.name and v.name.startswith("w")]:
        assert value.name is not None and value.dtype is not None
        array = given.get(value.name)
        if array is None:
            assert value.shape is not None
            array = rng.normal(0, 0.5, tuple(int(d) for d in value.shape))
        array = np.asarray(array).astype(value.dtype.numpy())
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.register_initializer(value)
    return model


@dataclass(frozen=True)
class Quantized:
    """A model before and after a pass."""

    before: ir.Model
    after: ir.Model
    result: PassResult

    @property
    def operators(self) -> Counter[str]:
        return Counter(node.op_type for node in self.after.graph)


def context(target: str, data: Dataset | None) -> PassContext:
    """A context with `data` as calibration; statistics run on ONNX Runtime."""
    runtime = find_target("ort-cpu")

    def runner(model: ir.Model, options: RunnerOptions) -> object:
        return runtime.runner(Model(model), options)

    def statistics(model: ir.Model, rows: np.ndarray | None = None) -> StreamingStatistics:
        assert data is not None, "the pass asked for statistics although there is no data"
        return StreamingStatistics(model, data if rows is None else data.select(rows), runner)

    def absent(*_: object) -> object:
        raise AssertionError("int8 times nothing")

    return PassContext(find_target(target, check=False), statistics, runner, absent, data)


@pytest.fixture
def quantize() -> Callable[..., Quantized]:
    """Run a pass on a copy, verified before and after: `quantize(model, "int8", x=array)`."""

    def run(model: ir.Model, text: str, target: str = "ort-cpu", **feeds: np.ndarray) -> Quantized:
        after = model.clone()
        verify(after)
        data = Dataset(feeds) if feeds else None
        (pass_,) = Pipeline(text)
        result = pass_.run(after, context(target, data))
        verify(after)
        return Quantized(model, after, result)

    return run


def session(
    model: ir.Model, *, exact: bool, path: str | None = None, **config: str
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if exact else level.ORT_ENABLE_EXTENDED
    for key, value in config.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    if path is not None:
        options.optimized_model_filepath = path
    data = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.fixture
def outputs() -> Callable[..., np.ndarray]:
    """First output on ONNX Runtime: `outputs(model, x=array)`; `exact=False` for all levels."""

    def run(model: ir.Model, *, exact: bool = True, **feeds: np.ndarray) -> np.ndarray:
        return np.asarray(session(model, exact=exact).run(None, feeds)[0])

    return run


@pytest.fixture
def kernels(tmp_path) -> Callable[[ir.Model], Counter[str]]:
    """Operators of the graph that ONNX Runtime makes of a model."""

    def count(model: ir.Model) -> Counter[str]:
        path = str(tmp_path / "optimized.onnx")
        session(model, exact=False, path=path)
        return Counter(node.op_type for node in ir.load(path).graph)

    return count


@pytest.fixture
def openvino_layers() -> Callable[..., tuple[np.ndarray, Counter[str]]]:
    """First output on OpenVINO in float32, and `layer[precision]` of what it compiled."""

    def run(model: ir.Model, **feeds: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
        import openvino as ov

        core = ov.Core()
        read = core.read_model(ir.to_proto(model).SerializeToString())
        compiled = core.compile_model(
            read,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
                "INFERENCE_NUM_THREADS": "1",
            },
        )
        infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        layers = Counter(
            f"{info['layerType'].astype(str)}[{info['runtimePrecision'].astype(str)}]"
            for info in infos
        )
        return np.asarray(next(iter(compiled(feeds).values()))), layers

    return run


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    wide, right = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.linalg.norm(wide - right) / np.linalg.norm(right))
