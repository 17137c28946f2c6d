"""Where the time goes, before and after: by kernel and by module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from irtools.instruments import TimeProfile
from irtools.pages.blocks import Block, Drawing, Hint, Paragraph, Section, Table
from irtools.pages.charts import Bar, Chart, bars, number_text
from irtools.report.document import Report
from irtools.report.page.fold import folded
from irtools.targets import KernelReport
from irtools.words import counted

__all__ = ["time"]

_DRAWN = 12
_KEYS = (("before", "original"), ("after", "result"))
_UNKNOWN = "(no module)"


def time(report: Report) -> Section:
    """Return the section."""
    before, after = TimeProfile.of(report.rows[0]), TimeProfile.of(report.rows[-1])
    blocks: list[Block] = []
    if before is not None and after is not None:
        blocks += _profiled(before, after)
    if report.kernels is not None:
        blocks += _kernels(report.kernels)
    if before is None or after is None:
        option = "--figures profile adds the time of each kernel and module, before and after."
        blocks.append(Hint(option))
    return Section("time", "Where the time goes", tuple(blocks))


def _profiled(before: TimeProfile, after: TimeProfile) -> Iterator[Block]:
    ops = _pairs({op.op: op.ms for op in before.ops}, {op.op: op.ms for op in after.ops})
    yield Drawing(_chart("By operator or kernel", ops))
    modules = _pairs(
        {one.module or _UNKNOWN: one.ms for one in before.modules},
        {one.module or _UNKNOWN: one.ms for one in after.modules},
    )
    if len(modules) > 1:
        yield Drawing(_chart("By module, without the modules in it", modules))
    kernels = {one.module or _UNKNOWN: ", ".join(one.ops) for one in after.modules}
    rows = [
        (name, _ms(old), _ms(new), _ratio(old, new), kernels.get(name, ""))
        for name, (old, new) in sorted(modules.items(), key=lambda item: item[1][0] - item[1][1])
    ]
    headings = ("module", "original, ms", "result, ms", "faster", "kernels now")
    caption = "Modules, what became slower first"
    yield folded(Table(caption, headings, rows, texts=("kernels now",)))
    yield Paragraph(
        f"With the profiler on a run took {before.run_ms:.2f} ms and takes {after.run_ms:.2f} ms; "
        "without it models are faster."
    )


def _pairs(
    before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return times before and after by name, the largest first."""
    found = {name: (before.get(name, 0.0), after.get(name, 0.0)) for name in {**before, **after}}
    return dict(sorted(found.items(), key=lambda item: -max(item[1])))


def _chart(caption: str, found: Mapping[str, tuple[float, float]]) -> Chart:
    drawn = [
        Bar(name or _UNKNOWN, f"{number_text(old, 3)} → {number_text(new, 3)} ms", (old, new))
        for name, (old, new) in list(found.items())[:_DRAWN]
    ]
    more = len(found) - len(drawn)
    return bars(caption, drawn, _KEYS, unit=" ms", note=f"{more} more take less." if more else "")


def _ms(value: float) -> str:
    return f"{value:.3f}" if value else ""


def _ratio(old: float, new: float) -> str:
    return f"{old / new:.2f}x" if old and new else ""


def _kernels(found: KernelReport) -> Iterator[Block]:
    yield Paragraph(
        f"The runtime computes the result with {counted(found.int8, 'int8 kernel')} and "
        f"{counted(found.fused_attention, 'fused attention kernel')}."
    )
    if found.float_fallbacks:
        names = [(name,) for name in found.float_fallbacks]
        yield folded(Table("In floating point although meant to be int8", ("node",), names))
    counts = sorted(found.counts.items(), key=lambda item: -item[1])
    rows = [(name, str(count)) for name, count in counts]
    yield folded(Table("Kernels of the result", ("kernel", "nodes"), rows))
