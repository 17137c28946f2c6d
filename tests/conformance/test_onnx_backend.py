"""The node tests that ship in the onnx package, through our passes.

Each model that ONNX Runtime runs goes through a pipeline, must still verify and load, keep its
interface and give the outputs of the untouched model: bit by bit after clean-up, within a relative
L2 error of 1e-5 after fusion. In the second form the inputs are weights, so that everything that
can be folded is folded.

`PIPELINES` is the list to extend; `EXPLAINED` holds every known difference with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import pytest

from irtools.errors import IrtoolsError
from irtools.model import print_model
from irtools.passmanager import PassContext

from .node_tests import (
    RUNTIME_ERRORS,
    Case,
    Runtime,
    difference,
    run_in_openvino,
    run_in_ort,
    transform,
    with_constant_inputs,
)

EXACT = 0.0
FUSED = 1e-5

PIPELINES: Mapping[str, float] = {
    "cleanup:exact=true": EXACT,
    "cleanup": EXACT,
    "cleanup,fuse": FUSED,
    "fuse": FUSED,
    "int8": EXACT,
    "prune": EXACT,
}
"""Pipeline text to the relative L2 error that it may cause."""

SLOW = frozenset({"cleanup:exact=true", "fuse"})
"""Pipelines that the default suite leaves out: others contain what they test."""

EXPLAINED: Mapping[str, Mapping[str, str]] = {}
"""Pipeline text to test name to the reason for a difference."""


@dataclass(frozen=True)
class Check:
    """A pipeline, the error that it may cause, and the runtime that decides."""

    text: str
    tolerance: float
    run: Runtime

    def faults(
        self,
        cases: list[Case],
        ctx: PassContext,
        form: Callable[[Case], onnx.ModelProto | None],
    ) -> dict[str, str]:
        """Test name to what went wrong, without what is explained."""
        explained = EXPLAINED.get(self.text, {})
        found = {case.name: self._fault(case, ctx, form(case)) for case in cases}
        return {n: what for n, what in found.items() if what is not None and n not in explained}

    def _fault(self, case: Case, ctx: PassContext, model: onnx.ModelProto | None) -> str | None:
        if model is None:
            return None
        inputs = {value.name for value in model.graph.input}
        feeds = {name: value for name, value in case.feeds.items() if name in inputs}
        if self.run is not run_in_ort and not self._changes(model, ctx):
            # Compiling costs this runtime 50 ms: only where there is something to compare.
            return None
        try:
            untouched = model is case.model and self.run is run_in_ort
            reference = case.outputs if untouched else self.run(model, feeds)
        except RUNTIME_ERRORS:
            return None
        try:
            outputs = self.run(ir.to_proto(transform(model, self.text, ctx)), feeds)
        except (IrtoolsError, AssertionError, *RUNTIME_ERRORS) as error:
            return f"{type(error).__name__}: {error}"
        worst = max(map(difference, reference, outputs), default=0.0)
        return None if worst <= self.tolerance else f"outputs differ by {worst:.2g}"

    def _changes(self, model: onnx.ModelProto, ctx: PassContext) -> bool:
        return print_model(transform(model, self.text, ctx)) != print_model(ir.from_proto(model))


@pytest.mark.parametrize(
    "text", [pytest.param(t, marks=[pytest.mark.slow] * (t in SLOW)) for t in PIPELINES]
)
def test_keeps_node_tests(
    cases: list[Case], text: str, make_context: Callable[..., PassContext]
) -> None:
    check = Check(text, PIPELINES[text], run_in_ort)
    assert check.faults(cases, make_context(), lambda case: case.model) == {}


@pytest.mark.parametrize(
    ("text", "tolerance"),
    [("cleanup:exact=true", EXACT), pytest.param("cleanup", FUSED, marks=pytest.mark.slow)],
)
def test_folds_node_tests(
    cases: list[Case], text: str, tolerance: float, make_context: Callable[..., PassContext]
) -> None:
    check = Check(text, tolerance, run_in_ort)
    assert check.faults(cases, make_context(), with_constant_inputs) == {}


@pytest.mark.slow
@pytest.mark.openvino
@pytest.mark.parametrize("text", ["cleanup", "cleanup,fuse"])
def test_keeps_node_tests_in_openvino(
    cases: list[Case], text: str, make_context: Callable[..., PassContext]
) -> None:
    # A graph with fewer nodes is compiled into other kernels, so not every bit stays.
    check = Check(text, FUSED, run_in_openvino)
    assert check.faults(cases, make_context("openvino-cpu"), lambda case: case.model) == {}
