"""The page of two runs against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from irtools.pages.blocks import (
    Block,
    Drawing,
    Head,
    HeadLine,
    Lead,
    Light,
    Lights,
    Paragraph,
    Section,
    Table,
)
from irtools.pages.charts import Estimate, intervals
from irtools.pages.engine import section_page
from irtools.report.comparison import (
    Both,
    Compared,
    Ends,
    cautions,
    compared_figures,
    figure_cells,
    outcome_of,
)
from irtools.report.document import Report
from irtools.report.entries import ReportData
from irtools.report.impossible import refuse_impossible
from irtools.report.page.machine import facts_of
from irtools.report.page.verdict import goal_lights
from irtools.report.table import cells_of

__all__ = ["comparison_page", "comparison_sections"]


@refuse_impossible()
def comparison_page(first: Report, second: Report, names: tuple[str, str] = ("A", "B")) -> str:
    """Return a page on two runs.

    Args:
        first: The run that is called A.
        second: The run that is called B.
        names: What to call them besides that, such as their files.

    Raises:
        DataError: A report holds numbers that no run has.
    """
    both = first, second
    head = Head(
        title=f"A and B: {names[0]}, {names[1]}",
        heading="Two runs against each other",
        lines=tuple(map(_line, "AB", names, both)),
        footer=f"Made by irtools from reports of {first.created} and {second.created}.",
    )
    return section_page(head, comparison_sections(first, second))


def _line(name: str, file: str, report: ReportData) -> HeadLine:
    where = f"on {report.model.source}, {report.target.name} ({report.created}), {file}"
    return HeadLine(where, report.pipeline or "no passes", name)


def comparison_sections(first: Report, second: Report) -> Iterator[Section]:
    """Yield the sections: what came out, pass by pass, and what the runs differ in."""
    both = (first, second)
    compared = compared_figures(both)
    yield Section("verdict", "Verdict", tuple(_verdict(both, compared)))
    if charts := tuple(_charts(compared)):
        yield Section("figures", "Figures", charts)
    tables = tuple(_passes(name, one) for name, one in zip("AB", both, strict=True))
    yield Section("passes", "Passes", tables)
    rows = list(_differences(both))
    differing: Block = Paragraph("Nothing: the same models, data, settings, machine and versions.")
    if rows:
        texts = ("A", "B")
        differing = Table("What the runs differ in", ("what", "A", "B"), rows, texts=texts)
    yield Section("inputs", "What went in", (differing,))


def _verdict(both: Both, found: Sequence[Compared]) -> Iterator[Block]:
    yield Lead(outcome_of(found))
    lights = [Light("warning", "Warning", text) for text in cautions(both)]
    for name, one in zip("AB", both, strict=True):
        lights += goal_lights(one, f"{name}: ")
    if lights:
        yield Lights(tuple(lights))
    cells = figure_cells(found)
    yield Table("The results of both runs", cells.headings, cells.rows)


def _charts(compared: Sequence[Compared]) -> Iterator[Drawing]:
    for one in compared:
        ends = [(which, e) for which, e in enumerate(one.found) if e is not None]
        if len(ends) < 2 or any(abs(e.value) == float("inf") for _, e in ends):
            continue
        found = [_estimate(one, which, e) for which, e in ends]
        unit = {"size": " MB", "agreement": " %", "SQNR": " dB"}.get(one.name, "")
        yield Drawing(intervals(one.name[0].upper() + one.name[1:], found, unit=unit))


def _estimate(one: Compared, which: int, ends: Ends) -> Estimate:
    value, low, high = (number / one.scaled for number in (ends.value, ends.low, ends.high))
    return Estimate("AB"[which], one.text(which), value, low, high, ("before", "after")[which])


def _passes(name: str, report: ReportData) -> Table:
    cells = cells_of(report)
    return Table(f"Passes of {name}", cells.headings, cells.rows, texts=("further metrics",))


def _differences(both: Both) -> Iterator[tuple[str, str, str]]:
    """Yield what went into the runs where it is not the same."""
    first, second = map(_inputs, both)
    for name in dict.fromkeys((*first, *second)):
        a, b = first.get(name, ""), second.get(name, "")
        if a != b:
            yield name, a, b


def _inputs(report: ReportData) -> Mapping[str, str]:
    return {"pipeline": report.pipeline, **dict(facts_of(report))}
