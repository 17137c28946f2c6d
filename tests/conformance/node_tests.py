"""The node tests that ship in the onnx package, and how answers are compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from irtools.data import Dataset
from irtools.model import Interface, Model, iter_nodes, print_model, verify
from irtools.passmanager import PassContext, Pipeline
from irtools.statistics.service import StreamingStatistics
from irtools.targets import Runner, RunnerOptions

RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
NEWEST_IR = 13
OLDEST_OPSET = 7
MIN_CASES = 1370

Arrays = Mapping[str, np.ndarray]
Runtime = Callable[[onnx.ModelProto, Arrays], tuple[object, ...]]


@dataclass(frozen=True)
class Case:
    """A node test that ONNX Runtime runs, and what it answers."""

    name: str
    model: onnx.ModelProto
    feeds: Arrays
    outputs: tuple[object, ...]


def run_in_ort(model: onnx.ModelProto, feeds: Arrays) -> tuple[object, ...]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    # A product adds up in another order where its weight is packed, and folding makes weights.
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return tuple(session.run(None, dict(feeds)))


RUNTIME_ERRORS = (
    *(v for v in vars(ort_state).values() if isinstance(v, type) and issubclass(v, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    NotImplementedError,
)


def run_in_openvino(model: onnx.ModelProto, feeds: Arrays) -> tuple[object, ...]:
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)
    answers = compiled(dict(feeds))
    return tuple(np.array(answers[output]) for output in compiled.outputs)


def is_deterministic(model: onnx.ModelProto) -> bool:
    nodes = iter_nodes(ir.from_proto(model))
    return not any(
        node.op_type in RANDOM_OPS
        or (node.op_type == "Dropout" and len(node.inputs) > 2)
        or (node.op_type == "BatchNormalization" and len(node.outputs) > 1)
        for node in nodes
    )


def load_cases() -> Iterator[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = collect_testcases(None)
    for test in tests:
        model = test.model
        # New IR versions only add new element types, which numpy feeds do not have.
        model.ir_version = min(model.ir_version, NEWEST_IR)
        if any(o.domain == "" and o.version < OLDEST_OPSET for o in model.opset_import):
            continue
        values = test.data_sets[0][0]
        names = [value.name for value in model.graph.input]
        if len(names) != len(values) or any(isinstance(v, list | tuple) for v in values):
            continue
        feeds = {n: np.asarray(v) for n, v in zip(names, values, strict=True) if v is not None}
        try:
            if not is_deterministic(model):
                continue
            outputs = run_in_ort(model, feeds)
        except RUNTIME_ERRORS:
            continue
        yield Case(test.name, model, feeds, outputs)


def with_constant_inputs(case: Case) -> onnx.ModelProto | None:
    """The same model with its inputs as weights, and outputs made by Identity so that what
    comes before can be folded."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    if any(v.dtype == object for v in case.feeds.values()):
        return None
    for name, value in case.feeds.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    del graph.input[:]
    renamed = {output.name: f"{output.name}__inner" for output in graph.output}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    for output, inner in renamed.items():
        graph.node.append(onnx.helper.make_node("Identity", [inner], [output]))
    return model


def difference(expected: object, found: object) -> float:
    """Relative L2 error; infinity where type, shape, NaN or infinities differ."""
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return np.inf
        return max((difference(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)
    if expected is None or found is None:
        return 0.0 if expected is found else np.inf
    a, b = np.asarray(expected), np.asarray(found)
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.inf
    if a.dtype.kind in "OUSb":
        return 0.0 if np.array_equal(a, b) else np.inf
    if a.tobytes() == b.tobytes():
        return 0.0
    finite = np.isfinite(a.astype(np.complex128))
    if not np.array_equal(a[~finite], b[~finite], equal_nan=a.dtype.kind in "fc"):
        return np.inf
    x, y = a[finite].astype(np.complex128), b[finite].astype(np.complex128)
    norm = float(np.linalg.norm(x - y))
    return norm / max(float(np.linalg.norm(x)), 1e-30) if norm else 0.0


def transform(model: onnx.ModelProto, text: str, ctx: PassContext) -> ir.Model:
    """Run a pipeline; checks the verifier, the interface and that `modified` is honest."""
    found = ir.from_proto(model)
    interface = Interface.of(found)
    for step in Pipeline.parse(text):
        before = print_model(found)
        ctx.drop_analyses()
        result = step.run(found, ctx)
        assert result.modified == (print_model(found) != before), f"modified of {step.name}"
        verify(found, interface=interface)
    return found


def calibrated(ctx: PassContext, feeds: Arrays) -> PassContext:
    """The context with the feeds as calibration data."""

    def make_runner(model: ir.Model, options: RunnerOptions) -> Runner:
        return ctx.target.runner(Model(model), replace(options, threads=1))

    def statistics(model: ir.Model, _: np.ndarray | None = None) -> StreamingStatistics:
        return StreamingStatistics(model, Dataset(dict(feeds)), make_runner)

    return replace(ctx, statistics=statistics)
