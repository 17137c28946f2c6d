"""What was measured of prepared pairs of models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.why_cases import CASES, Pair
from irtools.causes import RecordedFacts, Subject, facts_from_plain
from irtools.model import planned_size
from irtools.targets import find_target

WIDTH = 64
RECORDED = Path(__file__).with_name("recorded.json")

FactsOf = Callable[[str], tuple[Pair, RecordedFacts]]


@pytest.fixture(scope="session")
def facts_of() -> FactsOf:
    """A pair by its name, narrower than it was measured, and its facts.

    They are what `python -m benchmarks run why --record` wrote; the instruction set is fixed.
    """
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))

    def make(name: str) -> tuple[Pair, RecordedFacts]:
        pair = CASES[name](WIDTH)
        target = find_target(pair.target.replace("isa=native", "isa=vnni"), check=False)
        first = Subject("a.onnx", pair.first, planned_size(pair.first.ir))
        second = Subject("b.onnx", pair.second, planned_size(pair.second.ir))
        facts = facts_from_plain(recorded[name], first, second, target)
        return pair, dataclasses.replace(facts, first=first, second=second)

    return make
