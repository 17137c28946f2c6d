"""The pass `store`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.errors import OptionError
from irtools.passes.quantization.forms.apply import apply_plan, within_opset
from irtools.passes.quantization.forms.half import Half
from irtools.passes.quantization.forms.registry import (
    FORM_GROUP,
    counters_of,
    explained,
    forms_of,
    read_decision,
)
from irtools.passes.quantization.forms.storage import REASONS, StoragePlanner
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.reasons import ALREADY, OPSET, Skips
from irtools.passes.quantization.spared import FinerForms, spare
from irtools.passes.quantization.trial_run import TrialRun
from irtools.passes.quantization.write.desk import Desk
from irtools.passmanager import (
    FOUND_WEIGHTS,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)

__all__ = ["Store"]

_FORMS = forms_of(StoredForm)  # type: ignore[type-abstract]


@dataclass(frozen=True)
class Store(PlanningPass):
    """Store weights in fewer bits, and multiply by them in floating point as before.

    The file shrinks; the runtime expands the weights when it loads the model (Cast, and Mul by a
    scale per channel), so that kernels, speed and memory are those of the original. Weights of all
    operators, in branches of If, bodies of Loop and Scan, and functions too. `int8` and `int4` also
    multiply in few bits, which is faster where the target has kernels for it.

    What comes of it is run on some of the calibration data, or on drawn inputs where none was given
    (not with `--no-check`). Where less than `least-sqnr` of the outputs is kept, the weights that
    lose most are stored in 16 bits, or left alone, until enough is kept.

    Left alone and counted: weights that hold NaN or infinity, or of which the form keeps less than
    30 dB, weights that another node reads in another way, weights that are inputs of the model
    too, types other than float32 and float16, what the target is not known to read.
    """

    name: ClassVar[str] = "store"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOUND_WEIGHTS
    stores: ClassVar[bool] = True
    counters: ClassVar[dict[str, str]] = counters_of(_FORMS.values(), (ALREADY, *REASONS, OPSET))

    form: str = option("s8", explained(_FORMS), tuple(_FORMS), FORM_GROUP)
    exclude: tuple[str, ...] = option(
        (), "module, node or weight name patterns that stay as they are, such as `classifier`"
    )
    embeddings: bool = option(True, "also tables that are looked up in")
    least_sqnr: float | None = option(
        20.0,
        "decibels, signal to rounding noise of the outputs, that must be kept; none: nothing is "
        "tried",
    )
    min_size: int = option(
        16384,
        "weights below so many elements stay; in small models below their 2000th part, at least a "
        "16th of this",
    )

    def __post_init__(self) -> None:
        if self.form not in _FORMS:
            raise OptionError(f"form is {self.form!r}, expected {'|'.join(_FORMS)}")
        if self.least_sqnr is not None and not math.isfinite(self.least_sqnr):
            raise OptionError(f"least-sqnr is {self.least_sqnr}, expected a number of decibels")
        if self.min_size < 0:
            raise OptionError(f"min-size is {self.min_size}, expected 0 or more")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        skipped = Skips()
        skipped.add(ALREADY, find_sites(model).skipped.counts[ALREADY.counter])
        found = self._planner(ctx, skipped).decide(model, ())
        kept, note = within_opset(found, lambda d: read_decision(d).form, model)
        skipped.add(OPSET, len(found) - len(kept))
        skipped.note(note)
        skipped.tell(found=bool(kept))
        plan = Plan(
            pass_text=pass_text(self),
            decisions=tuple(sorted(kept, key=lambda d: (d.cost, d.subject))),
            cost_unit="relative squared error of the weight",
            gain_unit="bytes",
            notes=tuple(skipped.notes),
            counters=dict(skipped.counts),
        )
        if self.least_sqnr is None or not plan.decisions:
            return plan

        def applied(plan: Plan) -> ir.Model:
            copy = model.clone()
            self.apply(copy, plan, ctx)
            return copy

        finer = FinerForms(model, self._planner(ctx, Skips()), Half())
        trial = TrialRun.of(model, ctx)
        return spare(
            plan, finer.next, applied, trial, self.least_sqnr, ctx.progress, _FORMS[self.form].label
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        return apply_plan(Desk(model, self.name, ctx.target.capabilities), plan)

    def _planner(self, ctx: PassContext, skipped: Skips) -> StoragePlanner:
        evidence = Evidence(ctx.target.capabilities)
        form = _FORMS[self.form]()
        return StoragePlanner(
            form, evidence, self.exclude, self.min_size, self.embeddings, skipped=skipped
        )
