"""One pass on one model, verified before and after: text in, text out."""

from __future__ import annotations

import onnx_ir as ir

from irtools.model import Interface, print_model, verify
from irtools.passmanager import Pass, PassContext, PassResult
from irtools.testing.models import read_model

__all__ = ["apply_pass", "run_on_text"]


def apply_pass(pass_: Pass, model: ir.Model, ctx: PassContext) -> PassResult:
    """Run a pass over a model in place, and hold it to what can be seen of one run.

    Raises:
        AssertionError: `modified` is not what happened to the printed model, or a counter is
            not declared.
        VerificationError: The model is not sound before or after, or its interface changed.
    """
    interface, before = Interface.of(model), print_model(model)
    verify(model)
    result = pass_.run(model, ctx)
    verify(model, interface=interface)
    changed = print_model(model) != before
    assert result.modified == changed, (
        f"{pass_.name} returned modified={result.modified}, and the printed model "
        f"{'changed' if changed else 'is the same'}"
    )
    foreign = sorted(set(result.counters) - set(pass_.counters))
    assert not foreign, f"{pass_.name} counts {', '.join(foreign)}, which it does not declare"
    return result


def run_on_text(pass_: Pass, source: str, *, target: str = "ort-cpu") -> str:
    """Run a pass over a model in ONNX text and return the printed model that it makes.

    The print is canonical: names in order, small tensors inline, large ones as type, shape and
    digest. What a pass decides may depend on the instruction set: a target like
    `ort-cpu:isa=vnni` makes the text the same on every machine.

    Raises:
        AssertionError, VerificationError: As `apply_pass`.
        UnsupportedError: The pass refuses the model.
    """
    model = read_model(source)
    apply_pass(pass_, model.ir, PassContext.for_model(model, target, threads=1))
    return model.text()
