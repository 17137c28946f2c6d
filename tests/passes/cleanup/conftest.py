"""Running a pass on a model written as text."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from irtools.model import Interface, print_model, verify
from irtools.passmanager import Pass, PassContext, PassResult, Pipeline

Run = Callable[[str, str], tuple[str, PassResult]]


@pytest.fixture
def run(make_context: Callable[..., PassContext]) -> Run:
    """Run one pass, given as pipeline text, over a model in ONNX text.

    Returns the lines of the graph as the canonical printer gives them, and the result. Verifies
    before and after, and that `modified` is honest and a second run changes nothing.
    """

    def run_pass(text: str, source: str) -> tuple[str, PassResult]:
        (step,) = Pipeline.parse(text)
        model = parse(source)
        interface = Interface.of(model)
        verify(model)
        result = apply(step, model, make_context())
        verify(model, interface=interface)
        assert not apply(step, model, make_context()).modified
        lines = print_model(model).splitlines()
        return "\n".join(line.strip() for line in lines if " = " in line), result

    return run_pass


def parse(source: str) -> ir.Model:
    return ir.from_onnx_text(source)


def apply(step: Pass, model: ir.Model, ctx: PassContext) -> PassResult:
    before = print_model(model)
    result = step.run(model, ctx)
    assert result.modified == (print_model(model) != before)
    return result
