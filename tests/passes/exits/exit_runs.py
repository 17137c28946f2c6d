"""What the tests of exits share: a run of a model, and a context for the pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from irtools.data import Dataset
from irtools.model import Model
from irtools.passmanager import PassContext
from irtools.targets import RunnerOptions, find_target

Feeds = Mapping[str, np.ndarray]


def run(model: ir.Model, feeds: Feeds, target: str = "ort-cpu") -> dict[str, np.ndarray]:
    """Run a model once, the runtime's own optimizations off."""
    with find_target(target).runner(Model(model), RunnerOptions(exact=True)) as runner:
        return runner.run(feeds)


def context(model: ir.Model, data: Dataset | None, test: Dataset | None = None) -> PassContext:
    """A context for running the pass by itself on one thread."""
    return PassContext.for_model(Model(model), calibration=data, evaluation=test, threads=1)
