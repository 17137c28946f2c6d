"""The accuracy guard: rolls a pass back, decision by decision, until the goals hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.goals import Answer, Goals, Observed
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
    """A model made with the first `kept` decisions of a plan, and what was seen of it."""

    kept: int
    model: Model
    result: PassResult
    seen: Observed


class AccuracyGuard(Instrument):
    """Keeps every model within goals on its metrics, such as `max-drop=1%`.

    A pass with a plan is replaced by the longest prefix of its plan that keeps them, found by
    bisection from the model before the pass: at most log2(n) + 1 evaluations of n decisions, and
    no more than `trials`. That takes it for granted that a longer prefix loses at least as much,
    which plans aim at by putting the safest decision first; what is kept was measured in any case.
    Any other pass is dropped whole. Where the samples cannot decide, the goal is not kept.

    Args:
        judge: Measures metrics and losses.
        goals: Those that need data.
        budget: Whether a model that keeps the function is taken to lose nothing; by default not.
        trials: Most models to evaluate for one pass.
    """

    name: ClassVar[str] = "guard"
    stage: ClassVar[Stage] = Stage.GUARD

    def __init__(
        self, judge: Judge, goals: Goals, budget: Budget | None = None, trials: int = 12
    ) -> None:
        self._judge = judge
        self._budget = budget or Budget()
        self._goals = goals
        self._most = trials

    def after(self, step: Step) -> Replace | None:
        if not step.modified or (self._budget.plan.inherits and keeps_function(step)):
            return None
        full = self._observe(step.model)
        if self._holds(full):
            return None
        plan = step.result.plan
        planned = len(plan) if plan is not None and isinstance(step.pass_, PlanningPass) else 0
        nothing = _Trial(0, step.before, PassResult(modified=False), Observed())
        kept, trials = nothing, 0
        if planned > 1:
            assert plan is not None
            kept, trials = self._longest(step, plan, nothing)
        if kept is nothing:
            nothing.seen = self._judge.observe(step.before)
        return self._accept(step, kept, planned, full, trials)

    def _observe(self, model: Model) -> Observed:
        early = self._goals if self._budget.plan.inherits else None
        return self._judge.observe(model, early)

    def _holds(self, seen: Observed) -> bool:
        return self._goals.holds(seen) is Answer.YES

    def _longest(self, step: Step, plan: Plan, best: _Trial) -> tuple[_Trial, int]:
        """Bisect: the prefix of `best` holds, the one of length `broken` does not."""
        broken, trials = len(plan), 0
        while broken - best.kept > 1 and trials + 1 < self._most:
            length = (best.kept + broken) // 2
            label = f"guard: {length} of {counted(len(plan), 'decision')} of {step.pass_.name}"
            step.ctx.progress.step(label, 0, 1)
            trial = self._try(step, plan.prefix(length))
            trials += 1
            if self._holds(trial.seen):
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
        return _Trial(len(prefix), candidate, result, self._observe(candidate))

    def _accept(
        self, step: Step, kept: _Trial, planned: int, full: Observed, trials: int
    ) -> Replace:
        what = self._judge.what
        drop, full_drop = (_loss(seen, what) for seen in (kept.seen, full))
        goals = str(self._goals)
        drawn = Rollback(kept.kept, planned, drop, full_drop, goals, what, trials + 1)
        broken = next(g for g, a in self._goals.answers(full).items() if a is not Answer.YES)
        step.figures.put(drawn)
        step.figures.notes[:] = [
            *kept.result.notes,
            f"{drawn}: with all of it the {broken.kind.figure} of {broken.metric or what} is "
            f"{broken.shown(full)}, the goal {broken}",
        ]
        return Replace(kept.model if kept.result.modified else step.before, kept.result)


def _loss(seen: Observed, what: str) -> float:
    found, _ = seen.find("loss", what)
    assert found is not None
    return found.value
