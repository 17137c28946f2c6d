"""What came out, in one sentence; whether goals are kept; what to try next."""

from __future__ import annotations

import re
from collections.abc import Iterator

from irtools.measure.figures import Level
from irtools.pages.blocks import Block, Commands, Hint, Lead, Light, Lights, Section
from irtools.report.document import Report
from irtools.report.entries import ReportData

__all__ = ["goal_lights", "verdict"]

_RESULT = "the result: "
_COMMAND = re.compile(r"^(?P<what>.*?): (?P<line>irc .*)$", re.DOTALL)


def verdict(report: Report) -> Section:
    """Return the first section."""
    lights = tuple(_lights(report))
    blocks: list[Block] = [Lead(_sentence(report))]
    blocks += [Lights(lights)] if lights else []
    if not report.goals:
        blocks.append(Hint("No goals were set: --speedup 2 or --max-drop 1% would be judged here."))
    blocks += _commands(report)
    return Section("verdict", "Verdict", tuple(blocks))


def _sentence(report: ReportData) -> str:
    found = next((v.text for v in report.verdicts if v.text.startswith(_RESULT)), "")
    result = found.removeprefix(_RESULT)
    changed = any(row.modified for row in report.rows[1:])
    said = result or ("no figure of the result changed" if changed else "no pass changed the model")
    return f"{said[0].upper()}{said[1:]}. {_outcome(report)}"


def _outcome(report: ReportData) -> str:
    broken = sum(not goal.kept for goal in report.goals)
    if broken:
        return f"{broken} of {len(report.goals)} goals not kept."
    warned = sum(verdict.level is Level.WARNING for verdict in report.verdicts)
    if warned:
        return "Read the warning." if warned == 1 else f"Read the {warned} warnings."
    return "All goals kept." if report.goals else "Nothing to warn of."


def goal_lights(report: ReportData, before: str = "") -> Iterator[Light]:
    """Yield whether each goal is kept, something before its name."""
    for goal in report.goals:
        level, word = ("good", "Kept") if goal.kept else ("bad", "Not kept")
        yield Light(level, word, f"{before}{goal.goal}", goal.figure)


def _lights(report: ReportData) -> Iterator[Light]:
    yield from goal_lights(report)
    for level, word in ((Level.WARNING, "Warning"), (Level.NOTE, "Note")):
        for one in report.verdicts:
            if one.level is level:
                yield Light(level.value, word, one.text)


def _commands(report: ReportData) -> Iterator[Block]:
    tries = [*map(_split, report.next), *_remedies(report)]
    if tries:
        yield Commands("What to try next", tuple(tries))
    if report.command:
        yield Commands("The same without searching", (("", report.command),))


def _split(text: str) -> tuple[str, str]:
    """Part what a line of advice says from the command in it."""
    found = _COMMAND.match(text)
    return (found["what"], found["line"]) if found else (text, "")


def _remedies(report: ReportData) -> Iterator[tuple[str, str]]:
    """Yield what passes would try where their numbers suffer too much."""
    for row in report.rows[1:]:
        if row.remedies and row.modified:
            name = row.text.partition(":")[0]
            yield f"If {name} loses too much: {'; or '.join(row.remedies)}", ""
