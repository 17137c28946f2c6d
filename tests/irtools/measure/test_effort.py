"""How much is measured, planned from the cost of one run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from irtools.errors import UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.effort import Effort, Workload, plan_measuring

_WORK = Workload(samples=2000, evaluated=2, timed=2, scored=True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("quick", None), ("Normal", None), ("90", 90), ("45s", 45), ("2m", 120)]
)
def test_effort_is_a_word_or_a_time(text: str, seconds: float | None) -> None:
    assert Effort.parse(text).seconds == seconds


@pytest.mark.parametrize("text", ["much", "0", "-5", "1h", ""])
def test_another_word_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected quick, normal, thorough or seconds"):
        Effort.parse(text)


def test_a_cheap_model_is_scored_on_all_of_the_data() -> None:
    plan = plan_measuring(Effort("normal"), _WORK, 0.007)
    assert (plan.metric_samples, plan.fidelity_samples) == (2000, 128)
    assert plan.inherits and plan.timed == "end"


def test_what_costs_more_is_measured_on_less() -> None:
    plans = {
        (name, cost): plan_measuring(Effort(name), _WORK, cost)
        for name in ("quick", "normal", "thorough")
        for cost in (0.001, 0.1, 10.0)
    }
    for name in ("quick", "normal"):
        counts = [plans[name, cost].metric_samples for cost in (0.001, 0.1, 10.0)]
        assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0]
    assert plans["quick", 0.1].metric_samples < plans["normal", 0.1].metric_samples
    assert all(plans["thorough", cost].metric_samples == 2000 for cost in (0.001, 0.1, 10.0))
    assert plans["quick", 10.0].fidelity_samples == 8


def test_thorough_compares_on_all_that_is_scored_and_inherits_nothing() -> None:
    plan = plan_measuring(Effort("thorough"), _WORK, 1.0)
    assert (plan.fidelity_samples, plan.inner_samples) == (2000, 2000)
    assert plan.timed == "each" and not plan.inherits
    assert plan.bench(BenchSettings()) == BenchSettings()


def test_seconds_are_shared_out() -> None:
    plan = plan_measuring(Effort.parse("60"), _WORK, 0.01)
    spent = plan.metric_samples * 0.01 * _WORK.evaluated + plan.bench_seconds * _WORK.timed
    assert 20 < spent <= 60
    assert plan_measuring(Effort.parse("10"), _WORK, 0.01).timed == "last"


def test_without_a_cost_nothing_is_cut() -> None:
    assert plan_measuring(Effort("quick"), _WORK).metric_samples == 2000


def test_a_slow_model_is_timed_at_the_end_alone() -> None:
    assert plan_measuring(Effort("normal"), _WORK, 1.9).timed == "end"
    assert plan_measuring(Effort("normal"), _WORK, 2.1).timed == "last"
    assert plan_measuring(Effort("normal"), _WORK, 2.1, timed="each").timed == "each"
    assert plan_measuring(Effort("thorough"), _WORK, 2.1).timed == "each"


def test_what_a_caller_set_is_kept() -> None:
    plan = plan_measuring(Effort("normal"), _WORK, timed="each")
    found = plan.bench(BenchSettings(rounds=9, batch=(4,)))
    assert (found.rounds, found.batch) == (9, (4,))
    assert found.block_seconds == plan.block_seconds < BenchSettings().block_seconds
    assert plan.timed == "each"


def test_the_plan_prints() -> None:
    text = str(plan_measuring(Effort("normal"), _WORK, 0.0072))
    assert text == (
        "effort normal, a sample takes 7.2 ms, fidelity on 128 samples, metric on 2000 samples, "
        "exact passes in a row timed at their end"
    )


def test_of_drawn_samples_fewer_are_run_where_they_cost_much() -> None:
    drawn = replace(_WORK, samples=32, scored=False, drawn=True)
    found = [
        plan_measuring(Effort(name), drawn, cost).fidelity_samples
        for name in ("normal", "thorough")
        for cost in (0.01, 0.25, 5.0)
    ]
    assert found == [32, 8, 2, 32, 32, 32]
    real = replace(drawn, drawn=False)
    assert plan_measuring(Effort("normal"), real, 5.0).fidelity_samples == 8


def test_drawn_prompts_are_continued_for_less_time() -> None:
    plans = [plan_measuring(Effort("normal"), replace(_WORK, drawn=d)) for d in (False, True)]
    assert [plan.text_seconds for plan in plans] == [30.0, 3.0]
