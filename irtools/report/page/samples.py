"""Which decisions changed: class by class, and sample by sample."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from irtools.data import PNG_HEAD
from irtools.instruments import ClassChange, Decisions, Flip
from irtools.pages.blocks import Block, Drawing, Gallery, Hint, Paragraph, Picture, Section, Table
from irtools.pages.charts import Bar, bars
from irtools.report.document import Report
from irtools.report.entries import ReportData
from irtools.report.page.fold import folded
from irtools.words import counted

__all__ = ["samples"]

_DRAWN = 20
_KEYS = (("before", "original"), ("after", "result"))


def samples(report: Report) -> Section:
    """Return the section."""
    found = next((one for row in report.rows[::-1] if (one := Decisions.of(row))), None)
    blocks = (Hint(_missing(report)),) if found is None else tuple(_blocks(report, found))
    return Section("samples", "Samples", blocks)


def _missing(report: ReportData) -> str:
    if report.evaluation is not None and report.evaluation.labelled:
        return (
            "Answers are compared sample by sample where each has one class and the result was "
            "run on all of them; here they were not."
        )
    return "--evaluate DATA with a class for each sample shows which answers changed."


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
        yield from _changed(report, found.flips, names)


def _changed(
    report: ReportData, flips: Sequence[Flip], names: Mapping[str, str]
) -> Iterator[Block]:
    """Yield the samples with another answer, with what there is to see of them."""
    texts = {one.sample: one.text for one in report.samples if one.text}
    pngs = {one.sample: one.thumbnail for one in report.samples if _is_png(one.thumbnail)}
    pictures = tuple(_picture(one, pngs[one.sample], names) for one in flips if one.sample in pngs)
    if pictures:
        yield Gallery("Samples with another answer, as the model is fed them", pictures)
    rows = [
        (
            str(one.sample),
            *(_named(label, names) for label in (one.label, one.before, one.after)),
            _harm(one.label, one.before, one.after),
            *((texts.get(one.sample, ""),) if texts else ()),
        )
        for one in flips
    ]
    caption = "Samples with another answer, by their position among those that are quoted"
    headings = ("sample", "label", "before", "after", "change", *(("text",) if texts else ()))
    yield folded(Table(caption, headings, rows, texts=("text",)))
    if not report.samples and not report.settings.show_samples:
        yield Hint("--hide-samples kept texts and pictures of these samples out of the report.")


def _picture(one: Flip, png: str, names: Mapping[str, str]) -> Picture:
    label, before, after = (_named(n, names) for n in (one.label, one.before, one.after))
    harm = _harm(one.label, one.before, one.after)
    told = f"{one.sample}, {label}: {before} → {after}, {harm}"
    return Picture(png, f"Sample {one.sample}", told)


def _is_png(text: str) -> bool:
    """Whether a document, which anybody may have written, has a PNG file in base64 there."""
    try:
        return base64.b64decode(text, validate=True).startswith(PNG_HEAD)
    except ValueError:
        return False


def _bar(one: ClassChange, names: Mapping[str, str]) -> Bar:
    shown = f"{one.f1_before:.3f} → {one.f1_after:.3f}"
    return Bar(_named(one.label, names), shown, (one.f1_before, one.f1_after))


def _named(label: int, names: Mapping[str, str]) -> str:
    name = names.get(str(label))
    return f"{label} {name}" if name else str(label)


def _harm(label: int, before: int, after: int) -> str:
    return "spoilt" if before == label else "mended" if after == label else "swapped"
