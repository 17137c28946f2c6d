"""The benchmark of the search: what it says of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tune
from irtools.data import Dataset
from irtools.errors import BudgetError


def _row(name: str, milliseconds: float, drop: float | None = 0.0) -> dict[str, Any]:
    blocks = [milliseconds * factor for factor in (0.99, 1.0, 1.01)]
    return {
        "name": name,
        "pipeline": "",
        "seconds": 1.0,
        "median_ms": milliseconds,
        "blocks_ms": blocks,
        "speedup": None,
        "accuracy": 0.9,
        "drop": drop,
    }


def test_the_search_is_compared_with_the_best_preset_that_keeps_the_budget() -> None:
    rows = [_row("original", 20), _row("O2", 18), _row("O3", 5, None), _row("irc tune", 9)]
    document = {"targets": [{"target": "ort-cpu", "rows": rows}]}
    [line] = tune.gains(document)
    assert line.startswith("- ort-cpu: 2.00 [") and line.endswith("as fast as the best preset, O2")
    lines = [*tune.table(document)]
    assert lines[2].startswith("| ort-cpu | original | | 20.00 | 1 | 90.00% | 0.00%")
    assert lines[4] == "| ort-cpu | O3 | | | | | breaks the budget |"
    document["targets"][0]["rows"] = rows[:2]
    assert [*tune.gains(document)] == ["- ort-cpu: what the search found breaks the budget"]


def test_halves_share_no_sample() -> None:
    labels = np.arange(101)
    data = Dataset({"x": np.arange(101.0)[:, None]}, labels, "x.npz")
    found = tune.Data.halved(data, data, 3)
    assert {*found.chosen.labels} | {*found.quoted.labels} == {*labels}
    assert len(found.chosen) + len(found.quoted) == 101


def test_what_breaks_the_budget_is_kept_as_that(tmp_path: Path) -> None:
    asked: list[str] = []

    def make() -> Any:
        asked.append("")
        raise BudgetError("max-drop=1%: 2 %")

    for _ in range(2):
        made = tune._kept("O3", "cleanup,int8", tmp_path, make)
        assert (made.file, made.pipeline) == (None, "cleanup,int8") and len(asked) == 1
