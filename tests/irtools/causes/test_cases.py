"""Prepared pairs with what was measured of them once: the true cause is among the first two."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

import click
import pytest

from benchmarks.why import place_of
from benchmarks.why_cases import CASES, Pair
from irtools.causes import (
    Diagnosis,
    Finding,
    RecordedFacts,
    all_causes,
    diagnose,
    facts_from_plain,
    plain_facts,
)
from irtools.cli.main import cli

FactsOf = Callable[[str], tuple[Pair, RecordedFacts]]


@pytest.fixture(scope="module")
def found(facts_of: FactsOf) -> Mapping[str, tuple[Pair, Diagnosis]]:
    """Every pair and what is found of it."""
    pairs = {name: facts_of(name) for name in CASES}
    return {name: (pair, diagnose(facts)) for name, (pair, facts) in pairs.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_true_cause_is_among_the_first_two(
    name: str, found: Mapping[str, tuple[Pair, Diagnosis]]
) -> None:
    pair, diagnosis = found[name]
    place = place_of(pair, diagnosis)
    assert place is not None and place <= 2, [f"{f.cause}: {f.text}" for f in diagnosis.findings]
    cause = diagnosis.findings[place - 1]
    assert cause.evidence and cause.command.startswith("irc ")
    assert cause.share is None or 0 < cause.share <= 1


def test_commands_are_commands(found: Mapping[str, tuple[Pair, Diagnosis]]) -> None:
    texts = {f.command for _, diagnosis in found.values() for f in diagnosis.findings}
    for text in texts:
        verb, *words = shlex.split(text)[1:]
        with click.Context(cli) as outer:
            command = cli.get_command(outer, verb)
            assert command is not None, text
            command.make_context(verb, words, parent=outer)


def test_every_detector_has_a_case(found: Mapping[str, tuple[Pair, Diagnosis]]) -> None:
    seen = {finding.cause for _, diagnosis in found.values() for finding in diagnosis.findings}
    unseen = {cause.name for cause in all_causes()} - seen
    assert unseen <= {"float-weights", "losing-class", "lost-fusion", "not-finite", "open-sizes",
                      "wider-weights"}  # fmt: skip


def test_facts_survive_being_recorded(
    facts_of: FactsOf, found: Mapping[str, tuple[Pair, Diagnosis]]
) -> None:
    for name in ("dynamic int8 on OpenVINO", "wrong calibration data", "classes in another order"):
        _, facts = facts_of(name)
        again = facts_from_plain(plain_facts(facts), facts.first, facts.second, facts.target)
        assert causes(diagnose(again).findings) == causes(found[name][1].findings)


def test_a_model_does_not_lag_itself(facts_of: FactsOf) -> None:
    _, facts = facts_of("float fall-back")
    assert facts.profiles is not None and facts.kernels is not None
    same = RecordedFacts(
        facts.first,
        facts.first,
        facts.target,
        profiles=(facts.profiles[0], facts.profiles[0]),
        kernels=(facts.kernels[0], facts.kernels[0]),
    )
    found = diagnose(same)
    assert found.is_equal and not found.lags and not found.findings


def causes(findings: tuple[Finding, ...]) -> list[str]:
    """Return names of causes in their order."""
    return [finding.cause for finding in findings]
