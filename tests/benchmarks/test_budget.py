"""The benchmark of budgets: what it counts."""

from __future__ import annotations

import argparse
import math

import pytest

from benchmarks.budget import TASKS, Run, run, summaries, table


@pytest.mark.parametrize("task", TASKS)
def test_a_run_says_whether_the_budget_holds(task: str) -> None:
    found = run(task, "int8", 0, argparse.Namespace(samples=1200, budget="2%"))
    assert (found.task, found.method, found.seed) == (task, "int8", 0)
    assert 1 <= found.evaluations <= 12 and 0 <= found.kept <= 1
    assert found.holds is (found.loss is not None and found.loss <= 0.02)


def test_what_does_not_hold_is_counted() -> None:
    runs = [
        Run("dense", "prune", 0, True, 0.004, 0.001, 3, 0.5),
        Run("dense", "prune", 1, False, None, None, 5, 1.0),
        Run("conv", "int8", 0, True, -0.001, math.nan, 1, 1.0),
    ]
    lines = [*table({"rows": [*summaries(runs)]})]
    assert lines[2] == "| dense | `prune` | 1 of 2 | 0.40 % | 0.40 % | 75 % | 5 |"
    assert lines[4].startswith("| all |  | 2 of 3 | 0.15 % |")
