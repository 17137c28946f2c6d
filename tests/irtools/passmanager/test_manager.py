"""The manager runs passes on its own copy, and holds them to their word."""

from __future__ import annotations

import json
import mmap
from types import SimpleNamespace

import pytest

from irtools.errors import CheckError, PassError, UsageError, VerificationError
from irtools.measure.figures import Figures
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline, Plan
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Instrument, Step
from irtools.passmanager.workspace import Workspace


class Recorder(Instrument):
    """Writes down what is called when."""

    name = "recorder"

    def __init__(self, log: list[str], tag: str, run: bool = True) -> None:
        self._log, self._tag, self._run = log, tag, run

    def begin(self, step: Step) -> None:
        self._log.append(f"{self._tag} begin {step.index}")

    def should_run(self, step: Step) -> bool:
        return self._run

    def before(self, step: Step) -> None:
        self._log.append(f"{self._tag} before {step.index}")

    def after(self, step: Step) -> None:
        self._log.append(f"{self._tag} after {step.index} {step.modified}")

    def failed(self, step: Step, error: Exception) -> None:
        self._log.append(f"{self._tag} failed {step.index} {type(error).__name__}")


def test_a_large_model_is_settled_before_the_next_pass(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[Model] = []
    monkeypatch.setattr(Workspace, "spill_weights", lambda _, model: settled.append(model))
    pipeline = Pipeline(passes.Idle(), passes.Rename(), passes.Idle())
    steps = PassManager(pipeline).run(classifier, ctx)
    assert settled == [steps[2].model]
    # What the last pass made is written by the caller.
    PassManager(Pipeline(passes.Rename())).run(classifier, ctx)
    assert len(settled) == 1


def test_callers_model_does_not_change(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    text = classifier.text()
    steps = PassManager(Pipeline(passes.Rename(), passes.Idle())).run(classifier, ctx)
    assert classifier.text() == text
    assert "fc_renamed" in steps[-1].model.text()
    assert [step.modified for step in steps] == [False, True, False]
    assert steps[2].model is steps[1].model


def test_hooks_nest_around_the_pass(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    log: list[str] = []
    PassManager(Pipeline(passes.Rename()), (Recorder(log, "near"), Recorder(log, "far"))).run(
        classifier, ctx
    )
    assert log == [
        "near begin 0",
        "far begin 0",
        "far before 1",
        "near before 1",
        "near after 1 True",
        "far after 1 True",
    ]


def test_a_run_goes_on_from_the_steps_of_another(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    class Seen(Instrument):
        name = "seen"

        def __init__(self) -> None:
            self.calls: list[tuple[str, int]] = []

        def begin(self, step: Step) -> None:
            self.calls.append(("begin", step.index))

        def resumed(self, step: Step) -> None:
            super().resumed(step)
            self.calls.append(("resumed", step.index))

        def after(self, step: Step) -> None:
            self.calls.append(("after", step.index))

    first, second = Seen(), Seen()
    with Workspace() as workspace:
        done = PassManager(Pipeline(passes.Rename()), (first,)).run(classifier, ctx, workspace)
        steps = PassManager(Pipeline(passes.Idle(), passes.Zero(ratio=0.3)), (second,)).run(
            classifier, ctx, workspace, done
        )
    assert first.calls == [("begin", 0), ("after", 1)]
    assert second.calls == [
        *(("begin", 0), ("resumed", 0), ("resumed", 1)),
        *(("after", 2), ("after", 3)),
    ]
    assert steps[:2] == done and steps[2].before is done[1].model
    assert [(step.index, step.total) for step in steps[2:]] == [(2, 3), (3, 3)]
    assert steps[3].original is classifier and "zero" in steps[3].text


def test_one_instrument_can_keep_a_pass_from_running(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    log: list[str] = []
    steps = PassManager(Pipeline(passes.Crash()), (Recorder(log, "no", run=False),)).run(
        classifier, ctx
    )
    assert steps[1].skipped and not steps[1].modified
    assert log == ["no begin 0"]


def test_foreign_exceptions_name_pass_position_and_options(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    log: list[str] = []
    manager = PassManager(Pipeline(passes.Idle(), passes.Crash()), (Recorder(log, "r"),))
    with pytest.raises(PassError, match=r"pass 2 of 2 \(crash\): ZeroDivisionError: foreign") as e:
        manager.run(classifier, ctx)
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    assert log[-1] == "r failed 2 PassError"


def test_a_pass_that_hides_its_changes_is_caught(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    with pytest.raises(VerificationError, match=r"pass 1 of 1 \(rename:honest=false\): .*reports"):
        PassManager(Pipeline(passes.Rename(honest=False))).run(classifier, ctx)


def test_a_plan_is_replayed(classifier: Model, ctx: PassContext, passes: SimpleNamespace) -> None:
    zero = passes.Zero(ratio=0.5)
    plan = zero.plan(classifier.ir, ctx).prefix(2)
    replayed = Plan.from_json(plan.to_json())
    steps = PassManager(Pipeline(zero), plans={plan.pass_text: replayed}).run(classifier, ctx)
    assert steps[1].result.counters == {"num-rows": 2}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 1, "the plan has version 1, .*make a new one with `irc plan --json`"),
        ("version", 99, "the plan has version 99"),
        (
            "format",
            "irtools-report",
            "the plan is not a document .* 'irtools-plan', but 'irtools-r",
        ),
        ("decisions", 3, "not a plan written by irtools"),
    ],
)
def test_a_plan_of_another_version_is_refused(key: str, value: object, message: str) -> None:
    document = json.loads(Plan("zero", ()).to_json()) | {key: value}
    with pytest.raises(UsageError, match=message) as error:
        Plan.from_json(json.dumps(document))
    assert "\n" not in str(error.value)


def test_a_plan_of_another_pass_is_refused(passes: SimpleNamespace) -> None:
    plan = Plan("zero:ratio=0.25", ())
    with pytest.raises(UsageError, match=r"zero:ratio=0.25.*not in the pipeline"):
        PassManager(Pipeline(passes.Zero()), plans={plan.pass_text: plan})


def test_analyses_are_dropped_after_a_modifying_pass(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    class Count:
        made = 0

        @classmethod
        def of(cls, model: object) -> Count:
            cls.made += 1
            return cls()

    class Asks(Instrument):
        name = "asks"

        def before(self, step: Step) -> None:
            step.ctx.analysis(Count, step.before.ir)
            step.ctx.analysis(Count, step.before.ir)

    PassManager(Pipeline(passes.Rename(), passes.Rename()), (Asks(),)).run(classifier, ctx)
    assert Count.made == 2


def test_errors_of_instruments_say_which_one(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    class Strict(Instrument):
        name = "strict"

        def after(self, step: Step) -> None:
            raise CheckError("no")

    with pytest.raises(CheckError, match=r"pass 1 of 1 \(idle\), strict: no"):
        PassManager(Pipeline(passes.Idle()), (Strict(),)).run(classifier, ctx)


def test_each_activity_tells_its_peak_memory_of_its_own() -> None:
    figures = Figures()
    # Not by way of malloc, which in a long process may keep what was freed.
    with figures.spent_on("greedy"), mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * (64 << 20))
    with figures.spent_on("frugal"):
        pass
    if not figures.peak_bytes:
        pytest.skip("the system does not report it")
    assert figures.peak_bytes["greedy"] - figures.peak_bytes["frugal"] > 60 << 20
    assert set(figures.seconds) == {"greedy", "frugal"}


def test_steps_tell_the_peak_memory_of_their_pass(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    steps = PassManager(Pipeline(passes.Rename())).run(classifier, ctx)
    assert set(steps[1].figures.peak_bytes) in ({"pass"}, set())
