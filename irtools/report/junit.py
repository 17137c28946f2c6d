"""A report as JUnit XML, which CI systems show as tests: one case per pass."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from irtools.report.entries import GoalEntry, ReportData, Row
from irtools.report.table import row_line
from irtools.words import printable

__all__ = ["junit", "xml_text"]

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: ReportData) -> str:
    """Return a test suite. A pass that was rolled back or not run is skipped, with the reason.

    A case for each goal follows. A run that breaks a check or a goal ends without a report, so none
    of them fails unless the report was made by other means.
    """
    rows = report.rows[1:]
    skipped = sum(_why_skipped(row) is not None for row in rows)
    failures = sum(not goal.kept for goal in report.goals)
    suite = Xml.Element(
        "testsuite",
        name=xml_text(f"irtools {report.model.source}"),
        tests=str(len(rows) + len(report.goals)),
        failures=str(failures),
        errors="0",
        skipped=str(skipped),
        time=f"{report.seconds:.3f}",
        timestamp=report.created.partition("+")[0],
    )
    properties = Xml.SubElement(suite, "properties")
    for name, value in (
        ("pipeline", report.pipeline),
        ("target", report.target.name),
        ("isa", report.target.isa),
        ("model.sha256", report.model.sha256),
        ("result.sha256", report.result.sha256),
    ):
        Xml.SubElement(properties, "property", name=name, value=xml_text(value))
    for row in rows:
        _add_case(suite, report, row)
    for goal in report.goals:
        _add_goal(suite, report, goal)
    Xml.SubElement(suite, "system-out").text = xml_text(
        "\n".join(f"{verdict.level.value}: {verdict.text}" for verdict in report.verdicts)
    )
    Xml.indent(suite)
    return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: Xml.Element, report: ReportData, row: Row) -> None:
    case = Xml.SubElement(
        suite,
        "testcase",
        classname=xml_text(report.model.source),
        name=xml_text(row.text),
        time=f"{sum(row.seconds.values()):.3f}",
    )
    if (reason := _why_skipped(row)) is not None:
        Xml.SubElement(case, "skipped", message=xml_text(reason))
    Xml.SubElement(case, "system-out").text = xml_text("\n".join((row_line(row), *row.notes)))


def _add_goal(suite: Xml.Element, report: ReportData, goal: GoalEntry) -> None:
    case = Xml.SubElement(
        suite,
        "testcase",
        classname=xml_text(report.model.source),
        name=xml_text(f"goal {goal.goal}"),
    )
    if not goal.kept:
        Xml.SubElement(case, "failure", message=xml_text(goal.figure))
    Xml.SubElement(case, "system-out").text = xml_text(goal.figure)


def _why_skipped(row: Row) -> str | None:
    if row.skipped:
        return "not run"
    return None if row.rollback is None else str(row.rollback)


def xml_text(text: str) -> str:
    """Return text that XML can hold."""
    lines = (printable(line, 2000) for line in text.split("\n"))
    return _FORBIDDEN.sub("?", "\n".join(lines))
