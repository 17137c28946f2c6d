"""The pass manager: runs a pipeline on its own copy of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from irtools.errors import IrtoolsError, LimitError, PassError, UsageError, VerificationError
from irtools.model import Model
from irtools.passmanager.base import PassResult, PlanningPass
from irtools.passmanager.context import PassContext
from irtools.passmanager.digest import structure_digest
from irtools.passmanager.pipeline import Pipeline
from irtools.passmanager.plan import Plan
from irtools.passmanager.requirements import prepare
from irtools.passmanager.results import KeptResults
from irtools.passmanager.step import Instrument, Original, Replace, Step
from irtools.passmanager.syntax import pass_text
from irtools.passmanager.workspace import Workspace

__all__ = ["PassManager"]


@dataclass(frozen=True)
class PassManager:
    """Runs passes one after the other; instruments attach to it.

    Attributes:
        pipeline: The passes.
        instruments: Hooks around every pass; within a stage the one nearest to the pass first.
        plans: Plans to replay instead of planning again, by the pass text that made them.
        kept: Results of passes from earlier runs; None: all of them run.
    """

    pipeline: Pipeline
    instruments: Sequence[Instrument] = ()
    plans: Mapping[str, Plan] = field(default_factory=dict)
    kept: KeptResults | None = None

    def __post_init__(self) -> None:
        texts = {pass_text(p) for p in self.pipeline if isinstance(p, PlanningPass)}
        for text in self.plans:
            if text not in texts:
                raise UsageError(
                    f"the plan was made by {text!r}, which is not in the pipeline "
                    f"{str(self.pipeline)!r}; name the pass with the same options"
                )

    def run(
        self,
        model: Model,
        ctx: PassContext,
        workspace: Workspace | None = None,
        done: Sequence[Step] = (),
    ) -> tuple[Step, ...]:
        """Run the pipeline on a copy; the caller's model never changes.

        Args:
            model: The model.
            ctx: What the passes may ask for.
            workspace: Where instruments find the models on disk; a temporary one by default.
            done: Steps of an earlier run on the same model, in the same workspace, after which the
                pipeline goes on; step 0 among them.

        Returns:
            Step 0, the original, and one step per pass, those that were done among them. The last
            one holds the result.

        Raises:
            IrtoolsError: A pass or an instrument refused, with the pass's position and text.
            VerificationError: A pass modified the model and said that it did not.
            PassError: A pass or an instrument failed unexpectedly (a bug in the pass).
            LimitError: A pass ran out of memory.
        """
        if workspace is None:
            with Workspace() as own:
                return self.run(model, ctx, own)
        steps, passes = list(done), list(self.pipeline)
        if not steps:
            steps = [Step(0, len(passes), Original(), model, model, model, ctx, workspace)]
        before = len(steps) - 1
        total = before + len(passes)
        for step in steps:
            self._hooks(step, "resumed" if done else "begin")
        for index, pass_ in enumerate(passes, before + 1):
            last = steps[-1].model
            if steps[-1].modified:
                workspace.spill_weights(last)
                ctx.forget_statistics()
            step = Step(index, total, pass_, model, last, last, ctx, workspace)
            step.following = None if index == total else passes[index - before].promise
            ctx.progress.step(f"pass {step.text}", index - 1, step.total)
            self._run_step(step)
            steps.append(step)
        self._hooks(next(step for step in reversed(steps) if not step.skipped), "end")
        ctx.progress.step("passes", total, total)
        return tuple(steps)

    def _run_step(self, step: Step) -> None:
        if not all(i.should_run(step) for i in self.instruments):
            step.skipped = True
            return
        try:
            self._hooks(step, "before")
            step.stage = "pass"
            self._make(step)
            self._hooks(step, "after")
        except Exception as error:
            raised = _with_context(step, error)
            if raised is not error:
                raised.__cause__ = error  # Hooks already need it.
            for instrument in self.instruments:
                instrument.failed(step, raised)
            if raised is error:
                raise
            raise raised from error

    def _make(self, step: Step) -> None:
        """Take over what an earlier run has made of the same model, else run the pass."""
        step.ctx.drop_analyses()
        step.ctx.adopt(step.before.companions)
        if self.kept is None or step.text in self.plans:
            self._transform(step)
            return
        with step.figures.spent_on("pass"):
            key = self.kept.key(step)
            found = self.kept.get(key, step)
        if found is None:
            self._transform(step)
            self.kept.put(key, step, step.figures.seconds["pass"])
        else:
            step.model, step.result = found
            step.figures.notes.extend(step.result.notes)

    def _transform(self, step: Step) -> None:
        working = step.before.clone()
        with step.figures.spent_on("pass"):
            prepared = prepare(step.pass_, working.ir, step.ctx)
        digest = structure_digest(working.ir)
        with step.figures.spent_on("pass"):
            result = prepared.joined_to(self._result(step, working))
        if not result.modified and structure_digest(working.ir) != digest:
            _check_same_text(_prepared_again(step), working)
        if result.modified:
            step.ctx.drop_analyses(result.preserved)
            if result.companions:
                working.companions = {**working.companions, **result.companions}
            step.model = working
        step.result = result
        step.figures.notes.extend(result.notes)

    def _result(self, step: Step, working: Model) -> PassResult:
        plan = self.plans.get(step.text)
        if plan is None:
            return step.pass_.run(working.ir, step.ctx)
        assert isinstance(step.pass_, PlanningPass)
        return step.pass_.apply(working.ir, plan, step.ctx)

    def _hooks(self, step: Step, hook: str) -> None:
        order = sorted(self.instruments, key=lambda instrument: instrument.stage)
        for instrument in reversed(order) if hook == "before" else order:
            step.stage = instrument.name
            with step.figures.spent_on(instrument.name):
                answer = getattr(instrument, hook)(step)
            if isinstance(answer, Replace):
                step.model, step.result = answer.model, answer.result


def _prepared_again(step: Step) -> Model:
    """Return the model as the pass was given it; not kept, because it is rarely needed."""
    model = step.before.clone()
    step.ctx.drop_analyses()
    prepare(step.pass_, model.ir, step.ctx)
    step.ctx.drop_analyses()
    return model


def _check_same_text(before: Model, after: Model) -> None:
    if before.text() != after.text():
        raise VerificationError("the pass changed the model but reports that it did not")


def _with_context(step: Step, error: Exception) -> Exception:
    """Say in which pass an error happened; foreign errors become ours."""
    where = step.title if step.stage == "pass" else f"{step.title}, {step.stage}"
    match error:
        case IrtoolsError():
            return error.within(where)
        case MemoryError():
            return LimitError(f"{where}: out of memory")
        case _:
            return PassError(f"{where}: {type(error).__name__}: {error}")
