"""Pipelines that are found: what is tried, what ends the climb, and what is quoted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as Xml

import jsonschema
import numpy as np
import pytest

import irtools
from irtools.data import Dataset, DataSettings, halves
from irtools.driver.settings import Settings
from irtools.errors import DataError, UsageError
from irtools.goals import Interval
from irtools.model import Model
from irtools.report.document import Report, schema
from irtools.report.entries import TriedEntry
from irtools.report.junit import junit
from irtools.report.markdown import markdown
from irtools.report.page import report_page
from irtools.report.tried import tried_cells, tried_line
from irtools.search import SearchError, job

_FASTER = {"int8": 2.0, "cleanup": 1.1, "fuse": 1.1, "sink": 1.1, "prune": 1.5}
Timed = Callable[[dict[str, float]], list[str]]


def _outcomes(result: Any) -> list[tuple[str, str]]:
    return [(entry.name, entry.outcome) for entry in result.report.tried]


def test_without_goals_what_is_safe_and_faster_is_taken(model: Model, timed: Timed) -> None:
    timed(_FASTER)
    result = irtools.optimize(model)
    assert _outcomes(result) == [("exact passes", "taken"), ("int8", "taken")]
    assert result.report.pipeline == "cleanup,int8", "passes that changed nothing are left out"
    assert [row.text for row in result.rows] == ["original", "cleanup", "int8"]
    assert result.rows[-1].latency[0].speedup.value == 2.0
    assert result.report.command == "irc optimize MODEL --passes cleanup,int8"
    assert len(model.ir.graph) == 4, "the caller's model stays as it was"


def test_what_is_slower_or_no_faster_is_left(model: Model, timed: Timed) -> None:
    timed({**_FASTER, "int8": 1.12})
    result = irtools.optimize(model)
    assert result.report.pipeline == "cleanup"
    assert result.report.tried[1].why == "not faster, beyond noise"
    timed({**_FASTER, "sink": 0.5, "int8": 0.4})
    result = irtools.optimize(model)
    assert [entry.outcome for entry in result.report.tried] == ["left", "left"]
    assert result.report.pipeline == "" and result.report.command == ""
    assert result.model.fingerprint() == model.fingerprint()


def test_what_is_too_far_from_the_original_is_left(
    model: Model, timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.search import state

    timed(_FASTER)
    monkeypatch.setattr(state, "_LOW_AGREEMENT", 1.01)
    result = irtools.optimize(model)
    assert result.report.pipeline == "cleanup"
    assert "too far from the original" in result.report.tried[-1].why


def test_the_first_state_that_keeps_the_goals_ends_the_climb(
    model: Model, timed: Timed, calibration: Dataset, evaluation: Dataset
) -> None:
    names = timed(_FASTER)
    result = irtools.optimize(
        model, goals="speedup=1.8,max-drop=5%", calibration=calibration, evaluation=evaluation
    )
    assert _outcomes(result) == [("exact passes", "taken"), ("int8", "taken")]
    assert [goal.kept for goal in result.report.goals] == [True, True]
    assert names == ["sink", "int8", "int8"], "the result is timed once more"
    assert result.report.tried[1].goals == {"speedup=1.8": "yes", "max-drop=5%": "yes"}
    assert "loss:accuracy" in result.report.tried[1].figures


def test_the_command_makes_the_result_again(
    model: Model, timed: Timed, calibration: Dataset, evaluation: Dataset
) -> None:
    timed(_FASTER)
    data: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
    found = irtools.optimize(model, goals="speedup=1.8,max-drop=5%", **data)
    assert found.report.command == (
        "irc optimize MODEL --passes cleanup,int8 --calibrate DATA --evaluate DATA --max-drop 5%"
    )
    again = irtools.optimize(model, found.report.pipeline, goals="max-drop=5%", **data)
    assert again.model.fingerprint() == found.model.fingerprint()
    assert again.rows[-1].metric.value == found.rows[-1].metric.value


def test_pruning_makes_up_for_what_int8_lacks(
    model: Model, timed: Timed, calibration: Dataset, evaluation: Dataset
) -> None:
    timed(_FASTER)
    with pytest.raises(
        SearchError, match=r"no pipeline keeps speedup=3; .*, with speedup 2.00x"
    ) as caught:
        irtools.optimize(
            model, goals="speedup=3,max-drop=5%", calibration=calibration, evaluation=evaluation
        )
    tried = {entry.name: entry for entry in caught.value.tried}
    assert tried["pruning"].pipeline.startswith("cleanup,prune:speedup=1.59,int8")
    assert caught.value.exit_code == 5
    assert any("irc distill" in text for text in caught.value.next)


def test_sizes_are_fixed_where_nothing_else_keeps_the_goals(model: Model, timed: Timed) -> None:
    """The batch stands for the length of a text; int8 gains more once it is known."""
    timed(_FASTER)
    may_fix = {"batch": 4}
    found = irtools.optimize(model, goals="speedup=1.8", may_fix=may_fix)
    assert _outcomes(found) == [("exact passes", "taken"), ("int8", "taken")]

    def gain(entry: TriedEntry) -> None:
        if entry.name == "int8":
            timed({**_FASTER, "int8": 4.0})

    found = irtools.optimize(model, goals="speedup=3", may_fix=may_fix, on_tried=gain)
    assert [entry.name for entry in found.report.tried] == [
        *("exact passes", "int8", "exact passes, batch=4", "int8, batch=4"),
    ]
    assert found.model.interface.inputs[0].shape == (4, 64)
    assert found.report.command == ("irc optimize MODEL --passes cleanup,int8 --fix batch=4"), (
        "goals on times need no data"
    )
    assert found.report.settings.fixed_sizes == may_fix
    # Without goals both are tried, and the faster one is taken.
    timed(_FASTER)
    assert len(irtools.optimize(model, may_fix=may_fix).report.tried) == 4


def test_sizes_that_may_be_fixed_are_of_the_model(model: Model) -> None:
    with pytest.raises(UsageError, match="size words=4: no input has such an axis"):
        irtools.optimize(model, may_fix={"words": 4})
    with pytest.raises(UsageError, match="a pipeline has --fix"):
        irtools.optimize(model, "cleanup", may_fix={"batch": 4})


def test_a_size_needs_no_times(model: Model) -> None:
    half = irtools.optimize(model, goals="max-size=55%", bench=None)
    assert half.report.pipeline == "cleanup,fp16"
    quarter = irtools.optimize(model, goals="max-size=30%", bench=None)
    assert quarter.report.pipeline == "cleanup,int8"
    assert quarter.report.tried[-1].figures["size"].value <= 0.3 * half.rows[0].size.file_bytes
    nothing = irtools.optimize(model, goals="max-size=1GB", bench=None)
    assert nothing.report.pipeline == "" and not nothing.report.tried


def test_choice_and_quoted_figures_share_no_sample(evaluation: Dataset) -> None:
    chosen, quoted = halves(evaluation, 7)
    rows = [{sample.tobytes() for sample in half.feeds["x"]} for half in (chosen, quoted)]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == len(evaluation)
    again, other = halves(evaluation, 7)[0], halves(evaluation, 8)[0]
    assert again.digest == chosen.digest != other.digest


def test_a_holdout_is_quoted(model: Model, calibration: Dataset, evaluation: Dataset) -> None:
    holdout = evaluation.select(np.arange(500))
    result = irtools.optimize(
        model,
        "int8",
        goals="max-drop=5%",
        bench=None,
        calibration=calibration,
        evaluation=evaluation.select(np.arange(500, 1200)),
        holdout=holdout,
    )
    assert result.rows[-1].metric.samples == 500
    texts = [verdict.text for verdict in result.report.verdicts]
    assert "chosen by 700 samples of 3.npz, quoted on 500 samples of 3.npz" in texts


def test_several_metrics_each_within_its_own_budget(
    model: Model, calibration: Dataset, evaluation: Dataset
) -> None:
    result = irtools.optimize(
        model,
        "int8",
        metric=("accuracy", "f1-micro"),
        goals="max-drop=5%,max-drop=f1-macro=5%",
        bench=None,
        calibration=calibration,
        evaluation=evaluation,
    )
    row = result.rows[-1]
    assert row.metric.name == "accuracy"
    assert [one.name for one in row.further_metrics.metrics] == ["f1-micro", "f1-macro"]
    assert row.further_metrics.metrics[0].value == pytest.approx(row.metric.value)
    assert result.report.settings.further_metrics == ("f1-micro", "f1-macro")
    assert irtools.Goals.parse("max-drop=f1-macro=5%").goals[0].metric == "f1-macro"


@pytest.mark.parametrize(
    ("goals", "error", "said"),
    [
        ("max-drop=0.1%", DataError, r"give at least 4,?\d+ samples|at least .* samples with"),
        ("max-drop=0%", DataError, "allow a larger loss"),
        ("min-metric=1.01", UsageError, "the original's accuracy is 1.0000"),
        ("speedup=2", UsageError, "speedup needs the benchmark, which is switched off"),
    ],
)
def test_goals_that_cannot_be_decided(
    model: Model, evaluation: Dataset, goals: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        irtools.optimize(model, goals=goals, bench=None, evaluation=evaluation)


def test_times_of_another_machine_are_no_goal(model: Model, timed: Timed) -> None:
    timed(_FASTER)
    with pytest.raises(UsageError, match="speedup needs times, and ort-cpu:isa=arm is not this"):
        irtools.optimize(model, goals="speedup=2", target="ort-cpu:isa=arm")


def test_drawn_samples_decide_no_budget(model: Model) -> None:
    with pytest.raises(DataError, match="cannot be decided on 32 drawn samples"):
        irtools.optimize(model, goals="max-drop=1%", bench=None)


def test_a_metric_without_data_is_refused_as_that(model: Model) -> None:
    with pytest.raises(UsageError, match=r"labels .--evaluate., and there is no evaluation data"):
        irtools.optimize(model, goals="min-metric=0.9", bench=None)


def test_advice_keeps_the_budget_that_was_given(model: Model, timed: Timed) -> None:
    timed(_FASTER)
    steps = irtools.optimize(model, goals="max-drop=100%").report.next
    assert any("--evaluate DATA --max-drop 100%" in step for step in steps)
    assert all(step.count("--max-drop") == 1 for step in steps)


def test_advice_for_a_quantized_model_begins_with_the_one_before(model: Model) -> None:
    def steps(source: Model) -> tuple[str, ...]:
        return irtools.optimize(source, goals="max-size=100%", bench=None).report.next

    small = irtools.optimize(model, "int8", bench=None, check=False).model
    assert any("pruning" in step for step in steps(model))
    given = steps(small)
    assert given[0] == (
        "the model that this one, which is quantized already, was made from: "
        "irc optimize ORIGINAL --calibrate DATA --max-size 1x"
    )
    assert not any("pruning" in step or "optimize MODEL --calibrate" in step for step in given)


def test_what_is_taken_has_its_reason(model: Model, timed: Timed) -> None:
    timed(_FASTER)
    report = irtools.optimize(model).report
    assert [entry.why for entry in report.tried] == [
        "keeps the function, not slower",
        "faster than the best so far (1.10x), beyond noise",
    ]
    assert "32 samples of synthetic data, quoted on the other 32" in str(report)
    assert irtools.optimize(model, goals="speedup=1.8").report.tried[-1].why == "keeps the goals"


def test_what_loses_must_be_faster_than_the_original_too(model: Model, timed: Timed) -> None:
    exact = dict.fromkeys(("cleanup", "fuse", "sink"), 0.99)
    timed({**exact, "int8": 1.015})
    result = irtools.optimize(model)
    assert [entry.outcome for entry in result.report.tried] == ["taken", "left"]
    assert result.report.tried[1].why == "not faster, beyond noise"
    timed({**exact, "int8": 1.05})
    assert irtools.optimize(model).report.tried[1].why == "faster than the original, beyond noise"


def test_a_loss_is_called_one() -> None:
    figures = {"loss:top-1 agreement": Interval(0.0, -0.07, 0.07)}
    entry = TriedEntry("int8", "int8", "left", "", figures)
    assert tried_line(entry) == "int8 (int8): left; loss 0.00 % [-7.00, 7.00] (top-1 agreement)"


def test_a_point_of_a_front_has_no_interval_and_no_time() -> None:
    entry = TriedEntry("trial 1", "int8", "taken", "", {"speedup": Interval.exact(1.5)})
    cells = tried_cells([entry])
    assert cells.headings == ("tried", "outcome", "faster", "pipeline")
    assert cells.rows == (("trial 1", "taken", "1.50x", "int8"),)


def test_what_a_pipeline_alone_has_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="a search takes nothing that is slower"):
        irtools.optimize(model, drop_slower=True)
    with pytest.raises(UsageError, match="a search compares models with the original"):
        irtools.optimize(model, check=False)
    with pytest.raises(UsageError, match="target auto is for a search"):
        irtools.optimize(model, "cleanup", target="auto", bench=None)


def test_a_goal_that_a_pipeline_misses_writes_nothing(model: Model, timed: Timed) -> None:
    timed(_FASTER)
    with pytest.raises(irtools.IrtoolsError, match=r"does not keep speedup=3: 2.00x \[1.96"):
        irtools.optimize(model, "cleanup,int8", goals="speedup=3")
    assert irtools.optimize(model, "cleanup,int8", goals="speedup=1.9").report.goals[0].kept


def test_the_report_shows_goals_and_what_was_tried(model: Model, timed: Timed) -> None:
    timed({**_FASTER, "int8": 2.0})
    report = irtools.optimize(model, goals="speedup=1.8").report
    document = report.to_dict()
    jsonschema.validate(document, schema())
    assert Report.from_dict(document) == report
    assert document["tried"][1]["figures"]["speedup"] == {"value": 2.0, "low": 1.96, "high": 2.04}
    assert document["tried"][1]["target"] == "ort-cpu:isa=vnni"
    table, page, text = str(report), report_page(report), markdown(report)
    assert "goal speedup=1.8: kept, 2.00x [1.96, 2.04]" in table
    for view in (table, page, text):
        assert "cleanup,int8" in view and "exact passes" in view and "irc optimize MODEL" in view
    cases = Xml.fromstring(junit(report)).findall("testcase")
    assert [case.get("name") for case in cases] == ["cleanup", "int8", "goal speedup=1.8"]


def test_the_next_target_is_tried_where_the_first_will_not_do(
    model: Model, timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_targets", lambda: ["ort-cpu", "ort-cpu:isa=native"])
    with pytest.raises(SearchError, match="speedup=3") as caught:
        timed(_FASTER)
        irtools.optimize(model, goals="speedup=3", target="auto")
    names = [entry.name for entry in caught.value.tried]
    assert names == ["exact passes", "int8", "exact passes", "int8"]
    result = irtools.optimize(model, goals="speedup=1.9", target="auto")
    assert len(result.report.tried) == 2, "the first target will do"
    result = irtools.optimize(model, target="auto")
    assert len(result.report.tried) == 4, "without goals all are tried"
    assert not any("--target auto" in step for step in result.report.next)


def test_commands_read_the_same_data(model: Model) -> None:
    settings = Settings(
        data=DataSettings(text_columns=("a b", "c"), label_column="y", max_length=64),
        seed=3,
        portable=True,
        bench=None,
    )
    report = irtools.optimize(model, settings=settings, goals="max-size=30%").report
    assert report.command == (
        "irc optimize MODEL --passes cleanup,int8 --text 'a b' --text c --label y --max-length 64 "
        "--seed 3 --portable"
    )
