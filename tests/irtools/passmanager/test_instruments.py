"""What is seen and enforced around every pass."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, fit_dataset
from irtools.errors import PassError, UsageError, VerificationError
from irtools.goals import Answer, Goals
from irtools.instruments import (
    AccuracyGuard,
    BisectLimit,
    FidelityAndMetric,
    IrDump,
    Judge,
    Numerics,
    Recipe,
    Reproducer,
    Sizes,
    Verification,
)
from irtools.instruments.promises import check_outputs
from irtools.instruments.rollback import Rollback
from irtools.instruments.scores import FidelityFigure, MetricFigure
from irtools.instruments.sizes import Size
from irtools.measure.drawable import DrawnInputs, Trial
from irtools.metrics import load_metric
from irtools.model import Model
from irtools.passmanager import Exactness, Pass, PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Instrument, Step
from irtools.plugins import NullProgress
from irtools.targets import Feeds, Runner, RunnerOptions


def _run(
    model: Model, ctx: PassContext, instruments: tuple[Instrument, ...], *passes: Pass
) -> tuple[Step, ...]:
    return PassManager(Pipeline(*passes), instruments).run(model, ctx)


def _judge(model: Model, ctx: PassContext, data: Dataset, metric: str | None) -> Judge:
    found = None if metric is None else load_metric(metric)
    return Judge(model, data, found, _maker(ctx), NullProgress())


def _loss(judge: Judge, model: Model) -> float:
    found, _ = judge.observe(model).find("loss", None)
    assert found is not None
    return found.value


def _maker(ctx: PassContext) -> Callable[[Model, RunnerOptions], Runner]:
    return lambda model, options: ctx.runner(model.ir, options)


def test_verifier_refuses_a_renamed_output(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    with pytest.raises(VerificationError, match=r"drop-output.*verifier"):
        _run(classifier, ctx, (Verification(),), passes.DropOutput())


def test_numerics_refuse_a_pass_that_changes_numbers(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    with pytest.raises(VerificationError, match=r"scale.*numerics.*'logits' changed.*0.00"):
        _run(classifier, ctx, (Numerics(ctx.target, 1),), passes.Scale())


def test_numerics_accept_a_pass_that_keeps_every_bit(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    steps = _run(classifier, ctx, (Numerics(ctx.target, 1),), passes.Rename())
    assert steps[1].figures.checks == ["numerics"]


@pytest.mark.parametrize(
    ("exactness", "change", "holds"),
    [
        (Exactness.EXACT, 0.0, True),
        (Exactness.EXACT, 1e-6, False),
        (Exactness.REASSOCIATED, 1e-6, True),
        (Exactness.REASSOCIATED, 1e-4, False),
        (Exactness.LOSSY, 0.5, True),
        (Exactness.LOSSY, np.nan, False),
    ],
)
def test_tolerance_follows_the_promise(exactness: Exactness, change: float, holds: bool) -> None:
    before = {"y": np.ones((2, 3), np.float32)}
    after = {"y": (before["y"] * (1 + np.float32(change))).astype(np.float32)}
    if holds:
        check_outputs(before, after, exactness)
    else:
        with pytest.raises(VerificationError, match="output 'y'"):
            check_outputs(before, after, exactness)


def test_what_other_rounding_makes_in_this_model_is_forgiven() -> None:
    before = {"y": np.ones((2, 3), np.float32)}
    after = {"y": (before["y"] * np.float32(1 + 3e-5)).astype(np.float32)}
    with pytest.raises(VerificationError):
        check_outputs(before, after, Exactness.REASSOCIATED, {"y": 2e-5})
    check_outputs(before, after, Exactness.REASSOCIATED, {"y": 4e-5})
    with pytest.raises(VerificationError):
        check_outputs(before, after, Exactness.EXACT, {"y": 4e-5})


@pytest.mark.parametrize(("noise", "holds"), [(1e-5, True), (5e-6, False)])
def test_rounding_is_measured_where_a_reassociating_pass_breaks_its_promise(
    noise: float,
    holds: bool,
    classifier: Model,
    ctx: PassContext,
    passes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.ones((2, 3), np.float32)

    def run(
        self: Numerics,
        step: Step,
        model: Model,
        options: RunnerOptions | None = None,
        feeds: Any = None,
    ) -> list[dict[str, np.ndarray]]:
        if options is not None:
            assert not options.exact
            return [{"y": y * np.float32(1 + noise)}] * 2
        changed = step.index and model is step.model
        runs = 2 if feeds is None else len(feeds)
        return [{"y": y * np.float32(1 + 3e-5) if changed else y}] * runs

    monkeypatch.setattr(Numerics, "_run", run)
    monkeypatch.setattr(DrawnInputs, "trial", lambda self: Trial([{}] * 2, *[[{"y": y}] * 2] * 2))
    monkeypatch.setattr(passes.Rename, "exactness", Exactness.REASSOCIATED)
    if holds:
        steps = _run(classifier, ctx, (Numerics(ctx.target, 1),), passes.Rename())
        assert steps[1].figures.checks == ["numerics"]
    else:
        with pytest.raises(VerificationError, match="changed"):
            _run(classifier, ctx, (Numerics(ctx.target, 1),), passes.Rename())


def test_a_nan_that_was_there_before_is_no_fault() -> None:
    y = np.array([1.0, np.nan, np.inf], np.float32)
    check_outputs({"y": y}, {"y": y.copy()}, Exactness.EXACT)


def test_guard_keeps_the_longest_prefix_within_the_budget(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    judge = _judge(classifier, ctx, labelled, "accuracy")
    goals = Goals.parse("max-drop=10%")
    steps = _run(classifier, ctx, (AccuracyGuard(judge, goals),), passes.Zero())
    drawn = steps[1].figures.get(Rollback)
    assert drawn is not None and drawn.planned == 16
    assert 0 < drawn.kept < 16
    assert drawn.drop <= 0.1 < drawn.full_drop and drawn.goals == "max-drop=10%"
    assert goals.holds(judge.observe(steps[1].model)) is Answer.YES
    assert steps[1].result.counters == {"num-rows": drawn.kept}
    assert f"rolled back to {drawn.kept} of 16 decisions" in steps[1].figures.notes[0]

    zero = passes.Zero()
    one_more = classifier.clone()
    zero.apply(one_more.ir, zero.plan(one_more.ir, ctx).prefix(drawn.kept + 1), ctx)
    assert goals.holds(judge.observe(one_more)) is not Answer.YES


def test_guard_leaves_a_pass_alone_that_keeps_the_budget(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    judge = _judge(classifier, ctx, labelled, "accuracy")
    steps = _run(
        classifier, ctx, (AccuracyGuard(judge, Goals.parse("max-drop=100%")),), passes.Zero()
    )
    assert steps[1].figures.get(Rollback) is None


def test_guard_drops_a_pass_without_a_plan(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    judge = _judge(classifier, ctx, labelled, "accuracy")
    steps = _run(
        classifier,
        ctx,
        (AccuracyGuard(judge, Goals.parse("max-drop=1%")),),
        passes.Scale(factor=-1.0),
    )
    assert steps[1].model is steps[0].model
    assert str(steps[1].figures.get(Rollback)) == "dropped"


def test_without_labels_the_budget_is_agreement(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    judge = _judge(classifier, ctx, Dataset(labelled.feeds), None)
    flipped = classifier.clone()
    passes.Scale(factor=-1.0).run(flipped.ir, ctx)
    assert judge.what == "top-1 agreement"
    assert _loss(judge, classifier) == 0
    assert _loss(judge, flipped) > 0.9


def test_several_labels_agree_where_all_do(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    classifier.ir.metadata_props["problem_type"] = "multi_label_classification"
    judge = _judge(classifier, ctx, Dataset(labelled.feeds), None)
    flipped = classifier.clone()
    passes.Scale(factor=-1.0).run(flipped.ir, ctx)
    assert judge.what == "agreement on all labels"
    assert _loss(judge, classifier) == 0
    assert _loss(judge, flipped) == 1


def test_a_budget_needs_something_to_lose(classifier: Model, ctx: PassContext) -> None:
    classifier.ir.graph.outputs[0].name = "pooled_embedding"
    data = Dataset({"x": np.ones((2, 16), np.float32)})
    with pytest.raises(UsageError, match="max-drop needs a metric"):
        _judge(classifier, ctx, data, None).observe(classifier)


def test_metric_has_an_interval_and_the_original_a_row(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    judge = _judge(classifier, ctx, labelled, "accuracy")
    steps = _run(classifier, ctx, (FidelityAndMetric(judge), Sizes()), passes.Zero(ratio=0.3))
    first, last = (step.figures.get(MetricFigure) for step in steps)
    assert first is not None and first.value == 1.0
    assert last is not None and last.low <= last.value <= last.high
    assert last.low < last.high and last.samples == 200
    fidelity, size = steps[1].figures.get(FidelityFigure), steps[1].figures.get(Size)
    assert fidelity is not None and fidelity.agreement == last.value
    assert size is not None and size.file_bytes > size.weight_bytes == 4 * (16 * 4 + 4)


def test_bisect_runs_the_first_passes_and_numbers_all(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    lines = io.StringIO()
    steps = _run(classifier, ctx, (BisectLimit(1, lines),), passes.Rename(), passes.Crash())
    assert lines.getvalue() == (
        "BISECT: running pass (1) rename\nBISECT: NOT running pass (2) crash\n"
    )
    assert [step.skipped for step in steps] == [False, False, True]


def test_ir_is_printed_after_changes_only(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, tmp_path: Path
) -> None:
    dump = IrDump("change", tmp_path / "ir")
    _run(classifier, ctx, (dump,), passes.Idle(), passes.Rename())
    assert [path.name for path in (tmp_path / "ir").iterdir()] == ["02-rename.after.txt"]
    assert "fc_renamed" in (tmp_path / "ir/02-rename.after.txt").read_text(encoding="utf-8")


def test_ir_goes_to_a_stream_for_named_passes(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    out = io.StringIO()
    instruments = (IrDump("before", out, ["rename"]), IrDump("after", out, ["idle"]))
    _run(classifier, ctx, instruments, passes.Idle(), passes.Rename())
    heads = [line for line in out.getvalue().splitlines() if line.startswith("//")]
    assert heads == [
        "// IR after pass 1 of 2 (idle)",
        "// IR before pass 2 of 2 (rename)",
    ]


def test_reproducer_holds_all_that_it_takes(
    classifier: Model,
    ctx: PassContext,
    passes: SimpleNamespace,
    labelled: Dataset,
    tmp_path: Path,
) -> None:
    ctx.calibration = labelled
    with pytest.raises(PassError) as caught:
        _run(classifier, ctx, (Reproducer(tmp_path),), passes.Rename(), passes.Crash())
    [folder] = tmp_path.iterdir()
    assert caught.value.__notes__ == [f"to see it again: irc reproduce {folder}"]
    recipe = Recipe.read(folder)
    assert recipe.pipeline == "crash" and recipe.seed == 0 and recipe.threads == 1
    assert recipe.target.startswith("ort-cpu:isa=")
    assert "fc_renamed" in Model.load(recipe.model).text()
    assert recipe.calibration is not None
    assert len(np.load(recipe.calibration)["labels"]) == 64
    traceback = (folder / "traceback.txt").read_text(encoding="utf-8")
    assert 'raise ZeroDivisionError("foreign")' in traceback
    assert json.loads((folder / "reproducer.json").read_text())["position"] == 2


_TOKENS = """<ir_version: 10, opset_import: ["" : 20]>
g (int64[{batch}, {length}] input_ids, int64[{batch}, {length}] attention_mask)
    => (float[{batch}, {length}, 3] logits)
    <float[4, 3] table = {{9, 0, 0,  0, 9, 0,  0, 0, 9,  9, 0, 0}}> {{
  logits = Gather (table, input_ids)
}}"""


def _tokens(count: int) -> Dataset:
    """Samples of 1 to 8 tokens; each token's class is what the table says."""
    rng = np.random.default_rng(0)
    mask = (np.arange(8) < rng.integers(1, 9, count)[:, None]).astype(np.int64)
    mask[1] = 0  # A sample without any token.
    ids = rng.integers(0, 4, (count, 8)) * mask
    return Dataset(
        {"input_ids": ids, "attention_mask": mask},
        np.where(mask > 0, ids % 3, -100),
    )


@pytest.mark.parametrize(("batch", "length"), [("b", "s"), ("b", 8), (2, 8), (1, "s")])
def test_every_row_is_judged_once_whatever_is_fixed(
    ctx: PassContext, batch: str | int, length: str | int
) -> None:
    model = Model(ir.from_onnx_text(_TOKENS.format(batch=batch, length=length)))
    data = fit_dataset(_tokens(300), model)
    score = _judge(model, ctx, data, "accuracy").score(model)
    assert score.metric is not None
    assert score.metric.value == 1.0 and score.metric.samples == 300
    assert score.fidelity.samples == 300 and score.fidelity.max_abs == 0


def test_samples_of_one_length_run_together(ctx: PassContext) -> None:
    model = Model(ir.from_onnx_text(_TOKENS.format(batch="b", length="s")))
    seen: list[tuple[int, ...]] = []

    def make_runner(model: Model, options: RunnerOptions) -> Runner:
        runner = ctx.runner(model.ir, options)
        run = runner.run

        def watched(feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            seen.append(feeds["input_ids"].shape)
            return run(feeds, outputs)

        runner.run = watched  # type: ignore[method-assign]
        return runner

    Judge(model, _tokens(128), None, make_runner, NullProgress()).score(model)
    assert len(seen) <= 2 * 16 and max(rows for rows, _ in seen) == 16
    assert {columns for _, columns in seen} == set(range(1, 9))


def test_fidelity_alone_takes_a_part_and_says_so(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    plain = Dataset(labelled.feeds)
    judge = _judge(classifier, ctx, plain, None)
    first, _ = _run(classifier, ctx, (FidelityAndMetric(judge),), passes.Rename())
    fidelity = first.figures.get(FidelityFigure)
    assert fidelity is not None and fidelity.samples == 128
    assert first.figures.notes == [
        "fidelity is measured on 128 of the 200 samples of memory, evenly spread"
    ]
    whole = Judge(classifier, plain, None, _maker(ctx), NullProgress(), whole=True)
    assert whole.score(classifier).fidelity.samples == 200 and whole.notes == ()


def test_a_detector_is_judged_by_rows_in_any_order_and_the_report_says_so(
    ctx: PassContext, passes: SimpleNamespace
) -> None:
    rows = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,9] scores) => (float[n,3,2] y) '
        "<int64[1] k = {3}, int64[1] ax = {2}, float[1] one = {1.0}> { s, i = TopK (scores, k) "
        "f = Cast <to = 1> (i) a = Unsqueeze (s, ax) b = Unsqueeze (f, ax) "
        "y = Concat <axis = 2> (a, b) }"
    )
    model = Model(rows)
    feeds = {"scores": np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)}
    judge = _judge(model, ctx, Dataset(feeds), None)
    (first,) = _run(model, ctx, (FidelityAndMetric(judge),))
    fidelity = first.figures.get(FidelityFigure)
    assert fidelity is not None and fidelity.agreement is None
    [note] = first.figures.notes
    assert note.startswith("y lists what is largest first (TopK)")
