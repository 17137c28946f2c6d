"""The accuracy guard: draws a pass back, decision by decision, until the budget holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.instruments.budget import Budget
from irtools.instruments.fidelity import keeps_function
from irtools.instruments.judge import Judge
from irtools.instruments.rollback import Rollback
from irtools.instruments.verification import check_model
from irtools.model import Model
from irtools.passmanager import (
    Instrument,
    PassResult,
    Plan,
    PlanningPass,
    Replace,
    Stage,
    Step,
    prepare,
)
from irtools.words import counted

__all__ = ["AccuracyGuard"]


@dataclass
class _Trial:
    """A model made with the first `kept` decisions of a plan, and its loss."""

    kept: int
    model: Model
    result: PassResult
    drop: float


class AccuracyGuard(Instrument):
    """Keeps every model within `max_drop` of the original.

    A pass with a plan is replaced by the longest prefix of its plan that keeps the budget, found
    by bisection from the model before the pass: at most log2(n) + 1 evaluations of n decisions.
    That takes it for granted that a longer prefix loses at least as much, which plans aim at by
    putting the safest decision first; what is kept was measured in any case. Any other pass is
    dropped whole.

    Args:
        judge: Measures the loss against the original.
        max_drop: Largest loss, in the judge's unit.
        budget: Whether a model that keeps the function is taken to lose nothing; by default not.
    """

    name: ClassVar[str] = "guard"
    stage: ClassVar[Stage] = Stage.GUARD

    def __init__(self, judge: Judge, max_drop: float, budget: Budget | None = None) -> None:
        self._judge = judge
        self._budget = budget or Budget()
        self._max_drop = max_drop

    def after(self, step: Step) -> Replace | None:
        if not step.modified or (self._budget.plan.inherits and keeps_function(step)):
            return None
        full = self._judge.drop(step.model, self._early)
        if full <= self._max_drop:
            return None
        plan = step.result.plan
        planned = len(plan) if plan is not None and isinstance(step.pass_, PlanningPass) else 0
        nothing = _Trial(0, step.before, PassResult(modified=False), 0.0)
        kept, trials = nothing, 0
        if planned > 1:
            assert plan is not None
            kept, trials = self._longest(step, plan, nothing)
        if kept is nothing:
            nothing.drop = self._judge.drop(step.before)
        return self._accept(step, kept, planned, full, trials)

    @property
    def _early(self) -> float | None:
        """The limit above which a model need not be run to the end."""
        return self._max_drop if self._budget.plan.inherits else None

    def _longest(self, step: Step, plan: Plan, best: _Trial) -> tuple[_Trial, int]:
        """Bisect: the prefix of `best` holds, the one of length `broken` does not."""
        broken, trials = len(plan), 0
        while broken - best.kept > 1:
            length = (best.kept + broken) // 2
            label = f"guard: {length} of {counted(len(plan), 'decision')} of {step.pass_.name}"
            step.ctx.progress.step(label, 0, 1)
            trial = self._try(step, plan.prefix(length))
            trials += 1
            if trial.drop <= self._max_drop:
                best = trial
            else:
                broken = length
        return best, trials

    def _try(self, step: Step, prefix: Plan) -> _Trial:
        assert isinstance(step.pass_, PlanningPass)
        candidate = step.before.clone()
        step.ctx.drop_analyses()
        # The plan names what it found in the model as it was prepared for the pass.
        prepared = prepare(step.pass_, candidate.ir, step.ctx)
        result = prepared.joined_to(step.pass_.apply(candidate.ir, prefix, step.ctx))
        step.ctx.drop_analyses()
        check_model(candidate, step.original)
        return _Trial(len(prefix), candidate, result, self._judge.drop(candidate, self._early))

    def _accept(self, step: Step, kept: _Trial, planned: int, full: float, trials: int) -> Replace:
        drawn = Rollback(
            kept.kept, planned, kept.drop, full, self._max_drop, self._judge.what, trials + 1
        )
        step.figures.put(drawn)
        step.figures.notes[:] = [
            *kept.result.notes,
            f"{drawn}: all of it would lose {_points(full)} of {drawn.judge}, "
            f"the budget is {_points(self._max_drop)}",
        ]
        return Replace(kept.model if kept.result.modified else step.before, kept.result)


def _points(share: float) -> str:
    return f"{100 * share:.2f} %"
