"""Which decisions changed: class by class, and sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from irtools.instruments import ClassChange, Decisions
from irtools.pages.blocks import Block, Drawing, Paragraph, Section, Table
from irtools.pages.charts import Bar, bars
from irtools.report.document import Report
from irtools.report.entries import ReportData
from irtools.report.page.fold import folded
from irtools.words import counted

__all__ = ["samples"]

_DRAWN = 20
_KEYS = (("before", "original"), ("after", "result"))


def samples(report: Report) -> Section | None:
    """Return the section; None where no answers were compared with labels."""
    found = next((one for row in report.rows[::-1] if (one := Decisions.of(row))), None)
    return None if found is None else Section("samples", "Samples", tuple(_blocks(report, found)))


def _blocks(report: ReportData, found: Decisions) -> Iterator[Block]:
    names = report.model.classes or {}
    same = found.samples - found.spoilt - found.mended - found.swapped
    yield Paragraph(
        f"Of {counted(found.samples, 'sample')} {same} are answered as before. Right before and "
        f"wrong now: {found.spoilt}; wrong before and right now: {found.mended}; wrong in another "
        f"way: {found.swapped}."
    )
    changed = [one for one in found.classes if one.f1_before != one.f1_after]
    if changed:
        worst = sorted(changed, key=lambda one: one.f1_after - one.f1_before)[:_DRAWN]
        drawn = [_bar(one, names) for one in worst]
        yield Drawing(bars("F1 of the classes that changed, the largest loss first", drawn, _KEYS))
    rows = [
        (
            _named(one.label, names),
            str(one.support),
            f"{one.f1_before:.4f}",
            f"{one.f1_after:.4f}",
            f"{one.f1_after - one.f1_before:+.4f}",
            str(one.right_before),
            str(one.right_after),
        )
        for one in found.classes
    ]
    headings = ("class", "samples", "F1 before", "after", "change", "right before", "right after")
    yield folded(Table("Class by class", headings, rows))
    if found.flips:
        flips = [
            (
                str(one.sample),
                *(_named(label, names) for label in (one.label, one.before, one.after)),
                _harm(one.label, one.before, one.after),
            )
            for one in found.flips
        ]
        caption = "Samples with another answer, by their position among those that are quoted"
        yield folded(Table(caption, ("sample", "label", "before", "after", "change"), flips))


def _bar(one: ClassChange, names: Mapping[str, str]) -> Bar:
    shown = f"{one.f1_before:.3f} → {one.f1_after:.3f}"
    return Bar(_named(one.label, names), shown, (one.f1_before, one.f1_after))


def _named(label: int, names: Mapping[str, str]) -> str:
    name = names.get(str(label))
    return f"{label} {name}" if name else str(label)


def _harm(label: int, before: int, after: int) -> str:
    return "spoilt" if before == label else "mended" if after == label else "swapped"
