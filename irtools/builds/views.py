"""What a build found, for people and for CI systems: Markdown and JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from irtools.builds.summary import markdown_table, summary_rows
from irtools.report.junit import xml_text

if TYPE_CHECKING:
    # What compares takes onnx, and an unchanged build needs none of it.
    from irtools.builds.build import BuildResult
    from irtools.builds.gate import Comparison

__all__ = ["HEADINGS", "cells_of", "gate_junit", "gate_markdown"]

HEADINGS = ("build", "figure", "baseline", "now", "change", "verdict")
_MARKS = {"ok": "", "better": "✅ ", "worse": "❌ ", "not compared": "ℹ️ "}


def cells_of(found: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return the cells of a table, a row for each comparison."""
    return [
        (one.build, one.figure, one.baseline, one.found, one.change, one.verdict) for one in found
    ]


def gate_markdown(result: BuildResult | None, found: Sequence[Comparison], failure: str) -> str:
    """Return what a job shows: the builds, the comparison with the baseline, and what failed.

    Args:
        result: None where there is no release.
        failure: Why the build fails; empty where it does not.
    """
    return "\n".join(_lines(result, found, failure)) + "\n"


def _lines(result: BuildResult | None, found: Sequence[Comparison], failure: str) -> Iterator[str]:
    yield f"### irc build: {'failed' if failure else 'passed'}"
    yield ""
    if failure:
        yield f"❌ {failure}"
        yield ""
    if result is not None:
        headings, rows = summary_rows(result.manifest.builds)
        marked = [(*row, result.origins[row[0]]) for row in rows]
        yield from markdown_table((*headings, "origin"), marked)
        yield ""
    if found:
        rows = [(*row[:-1], f"{_MARKS[row[-1]]}{row[-1]}") for row in cells_of(found)]
        yield from markdown_table(HEADINGS, rows)
        yield ""


def gate_junit(result: BuildResult | None, found: Sequence[Comparison], failure: str) -> str:
    """Return a test suite: a case for each build and for each figure that was compared."""
    cases = [] if result is None else [(name, "build", "") for name in result.origins]
    cases += [
        (one.build, one.figure or "baseline", _message(one) if one.verdict == "worse" else "")
        for one in found
    ]
    if failure and not any(message for *_, message in cases):
        cases.append(("release", "build", failure))
    failures = sum(bool(message) for *_, message in cases)
    suite = Xml.Element(
        "testsuite", name="irc build", tests=str(len(cases)), failures=str(failures), errors="0"
    )
    for build, figure, message in cases:
        case = Xml.SubElement(suite, "testcase", classname=xml_text(build), name=xml_text(figure))
        if message:
            Xml.SubElement(case, "failure", message=xml_text(message))
    Xml.indent(suite)
    return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _message(one: Comparison) -> str:
    return f"{one.baseline} -> {one.found} ({one.change})"
