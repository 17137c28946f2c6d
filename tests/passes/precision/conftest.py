"""Contexts with any table, small models, and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.model import verify
from irtools.passmanager import PassContext, PassResult, Pipeline
from irtools.targets import find_target


def build(text: str, **given: np.ndarray) -> ir.Model:
    """Read ONNX text. Inputs named `w...` become initializers, `given` or random ones."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(0)
    for value in [v for v in model.graph.inputs if v.name and v.name.startswith("w")]:
        assert value.name is not None and value.shape is not None
        shape = tuple(int(d) for d in value.shape)
        array = np.asarray(given.get(value.name, rng.normal(0, 0.5, shape)), np.float32)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array.reshape(shape), name=value.name)
        model.graph.register_initializer(value)
    return model


@pytest.fixture
def run_pass() -> Callable[..., tuple[ir.Model, PassResult]]:
    """Run a pass on a copy, verified before and after; `dtypes` are what the target computes in."""

    def run(model: ir.Model, text: str, *dtypes: str) -> tuple[ir.Model, PassResult]:
        base = find_target("ort-cpu")

        class Fake(type(base)):  # type: ignore[misc]
            @property
            def capabilities(self):
                return replace(base.capabilities, compute_dtypes=frozenset(dtypes))

        def absent(*_: object) -> object:
            raise AssertionError("no data is needed")

        after = model.clone()
        verify(after)
        (pass_,) = Pipeline(text)
        result = pass_.run(after, PassContext(Fake(), absent, absent, absent))
        verify(after)
        return after, result

    return run


@pytest.fixture
def outputs() -> Callable[..., np.ndarray]:
    """First output on ONNX Runtime without optimizations."""

    def run(model: ir.Model, **feeds: np.ndarray) -> np.ndarray:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        data = ir.to_proto(model).SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, feeds)[0])

    return run
