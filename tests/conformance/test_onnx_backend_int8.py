"""The node tests with weights to quantize: all inputs but one are constants.

Every operator that int8 knows occurs with a weight in every place, shape and attribute that the
onnx package thought of, which exporters rarely write: batched, transposed, strided, dilated,
grouped, empty, scalar. With `min-size=0` all of them are candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from irtools.errors import IrtoolsError
from irtools.model import print_model
from irtools.passmanager import PassContext

from .node_tests import (
    RUNTIME_ERRORS,
    Arrays,
    Case,
    Runtime,
    calibrated,
    difference,
    run_in_openvino,
    run_in_ort,
    transform,
)

EIGHT_BITS = 0.02
"""Relative L2 error of one product in 8 bits: 127 steps leave less than 1 % of either factor."""

STORED = 0.01
"""The same where the weight alone has 8 bits."""

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
OPERATORS = frozenset({"Conv", "Gather", "Gemm", "MatMul"})
MIN_QUANTIZED = 25


def with_one_input(case: Case) -> Iterator[tuple[Arrays, onnx.ModelProto]]:
    """One model per input: it stays an input, all others become weights."""
    arrays = {name: value for name, value in case.feeds.items() if value.dtype != object}
    if len(arrays) < max(2, len(case.feeds)):
        return
    if not any(n.op_type in OPERATORS and arrays.keys() & n.input for n in case.model.graph.node):
        return
    for name, value in arrays.items():
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        kept = [declared for declared in model.graph.input if declared.name == name]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        for other in arrays.keys() - {name}:
            tensor = onnx.numpy_helper.from_array(arrays[other], other)
            model.graph.initializer.append(tensor)
        yield {name: value}, model


def check_all(
    cases: list[Case], mode: str, tolerance: float, run: Runtime, ctx: PassContext
) -> tuple[int, dict[str, str]]:
    """Return how many models were quantized, and test name to what went wrong."""
    quantized, faults = 0, {}
    for case in cases:
        for feeds, model in with_one_input(case):
            changed, fault = check(model, feeds, mode, tolerance, run, ctx)
            quantized += changed
            if fault:
                faults[f"{case.name}({', '.join(feeds)})"] = fault
    return quantized, faults


def check(
    model: onnx.ModelProto,
    feeds: Arrays,
    mode: str,
    tolerance: float,
    run: Runtime,
    ctx: PassContext,
) -> tuple[bool, str]:
    try:
        found = transform(model, f"int8:min-size=0:mode={mode}", calibrated(ctx, feeds))
    except (AssertionError, IrtoolsError) as error:
        return False, f"{type(error).__name__}: {error}"
    if print_model(found) == print_model(ir.from_proto(model)):
        return False, ""
    try:
        reference = run(model, feeds)
    except RUNTIME_ERRORS:
        return False, ""
    try:
        outputs = run(ir.to_proto(found), feeds)
    except RUNTIME_ERRORS as error:
        return True, f"{type(error).__name__}: {error}"
    worst = max(map(difference, reference, outputs), default=0.0)
    worst *= min(1.0, 2 * share_left(model, feeds, run))
    return True, "" if worst <= tolerance else f"outputs differ by {worst:.2g}"


def share_left(model: onnx.ModelProto, feeds: Arrays, run: Runtime) -> float:
    """Return the size of a product over that of its terms, |a @ b| / | |a| @ |b| |.

    What 8 bits do to a product is a share of its terms. Where less than half of them is left,
    errors are measured against that half: of the node tests, in `matmul_1d_3d`, whose four terms
    cancel to a tenth; in all others at least 0.63 is left.
    """
    if [node.op_type in PRODUCTS for node in model.graph.node] != [True]:
        return 1.0
    terms = onnx.ModelProto()
    terms.CopyFrom(model)
    for tensor in terms.graph.initializer:
        size = np.abs(onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(size), tensor.name))
    sizes = {name: np.asarray(np.abs(value)) for name, value in feeds.items()}
    (left,), (whole,) = run(model, feeds), run(terms, sizes)
    norm = np.linalg.norm(np.asarray(whole, np.float64))
    return float(np.linalg.norm(np.asarray(left, np.float64)) / norm) if norm else 1.0


MODES = [("dynamic", EIGHT_BITS), ("static", EIGHT_BITS), ("weight-only", STORED)]


@pytest.mark.parametrize(("mode", "tolerance"), MODES)
def test_weights_of_node_tests_in_ort(
    cases: list[Case], mode: str, tolerance: float, make_context: Callable[..., PassContext]
) -> None:
    quantized, faults = check_all(cases, mode, tolerance, run_in_ort, make_context())
    assert faults == {}
    assert quantized >= MIN_QUANTIZED


@pytest.mark.openvino
@pytest.mark.parametrize(("mode", "tolerance"), MODES)
def test_weights_of_node_tests_in_openvino(
    cases: list[Case], mode: str, tolerance: float, make_context: Callable[..., PassContext]
) -> None:
    ctx = make_context("openvino-cpu")
    quantized, faults = check_all(cases, mode, tolerance, run_in_openvino, ctx)
    assert faults == {}
    assert quantized >= MIN_QUANTIZED


def test_one_input_stays() -> None:
    """The form itself, on a case of known content."""
    case = Case("add", _add(), {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, ())
    assert list(with_one_input(case)) == []
    case.model.graph.node[0].op_type = "MatMul"
    kept = [(list(feeds), len(model.graph.initializer)) for feeds, model in with_one_input(case)]
    assert kept == [(["a"], 1), (["b"], 1)]


def test_errors_of_products_that_cancel_are_measured_against_their_terms() -> None:
    weight = onnx.numpy_helper.from_array(np.array([1, -3], np.float32), "b")
    model = _add()
    del model.graph.input[1:]
    model.graph.initializer.append(weight)
    ones = {"a": np.ones(2, np.float32)}
    assert share_left(model, ones, run_in_ort) == 1
    model.graph.node[0].op_type = "MatMul"
    assert share_left(model, ones, run_in_ort) == 0.5
    assert share_left(model, {"a": np.array([2, 0], np.float32)}, run_in_ort) == 1
    assert share_left(model, {"a": np.zeros(2, np.float32)}, run_in_ort) == 1


def _add() -> onnx.ModelProto:
    declared = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "ab"]
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("Add", ["a", "b"], ["y"])
    graph = onnx.helper.make_graph([node], "g", declared, [result])
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
