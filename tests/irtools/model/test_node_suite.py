"""The node tests that ship with onnx: read, inferred, raised, written; bit-equal on a runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from irtools.errors import IrtoolsError
from irtools.model import Model, infer_shapes, raise_opset

CHANGES: dict[str, Callable[[Model], object]] = {
    "nothing": lambda model: None,
    "infer": lambda model: infer_shapes(model.ir),
    "refresh": lambda model: infer_shapes(model.ir, refresh=True),
    "opset": lambda model: raise_opset(model.ir, 23),
}
RANDOM = ("random", "bernoulli", "dropout", "multinomial")


def run(proto: onnx.ModelProto, feeds: dict[str, object]) -> list[object]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = proto.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def same(one: object, other: object) -> bool:
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    first, second = np.asarray(one), np.asarray(other)
    return first.dtype == second.dtype and np.array_equal(
        first, second, equal_nan=first.dtype.kind in "fc"
    )


@pytest.mark.slow
def test_every_node_test_is_kept() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = [case for case in collect_testcases(None) if case.model and case.data_sets]
    compared, faults = 0, []
    for case in cases:
        try:
            model = Model.from_proto(case.model)
        except IrtoolsError as error:
            if "IR version" not in str(error) and "has opset" not in str(error):
                faults.append(f"{case.name}: {error}")
            continue
        feeds = {
            info.name: value if isinstance(value, list) else np.asarray(value)
            for info, value in zip(model.interface.inputs, case.data_sets[0][0], strict=False)
        }
        try:
            expected = run(case.model, feeds)
        except Exception:
            # The runtime lacks the kernel, the type or the feed; nothing to compare with.
            continue
        compared += 1
        for name, change in CHANGES.items():
            copy = model.clone()
            change(copy)
            copy.verify(interface=model.interface)
            found = run(copy.to_proto(), feeds)
            if not same(expected, found) and not any(word in case.name for word in RANDOM):
                faults.append(f"{case.name}: other numbers after {name}")
    assert not faults
    assert compared > 1300
