"""Many runs on one page: every model, pipeline and target, with a link to the page of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from irtools.instruments import Latency
from irtools.pages.blocks import (
    Block,
    Drawing,
    Facts,
    Head,
    HeadLine,
    Hint,
    Lead,
    Paragraph,
    Section,
    Table,
)
from irtools.pages.charts import Dot, Estimate, intervals, scatter
from irtools.pages.engine import section_page
from irtools.report.cells import Cells
from irtools.report.comparison import Compared, Kind, compared_figures
from irtools.report.entries import ReportData
from irtools.report.impossible import refuse_impossible
from irtools.words import counted

__all__ = ["Listed", "many_cells", "many_page"]

_MOST_DRAWN = 40
_MOST_MODELS = 30


@dataclass(frozen=True)
class Listed:
    """A run among others.

    Attributes:
        name: What to call it: its folder, `model/pipeline/target` of a release.
        report: What came out.
        link: Where its page is, relative to this one; empty: it has none.
    """

    name: str
    report: ReportData
    link: str = ""


_Found = Sequence[tuple[Listed, Mapping[str, Compared]]]


@refuse_impossible()
def many_page(name: str, found: Sequence[Listed], files: Sequence[tuple[str, str]] = ()) -> str:
    """Return a page on many runs.

    Args:
        name: What they are together, such as the name of a release.
        found: The runs; one at least.
        files: Further files that belong to them, each with what it is.

    Raises:
        DataError: A report holds numbers that no run has.
    """
    when = sorted(one.report.created for one in found)
    head = Head(
        title=name,
        heading=name,
        lines=(HeadLine(_counts(found)),),
        footer=f"Made by irtools from reports of {when[0]} to {when[-1]}.",
    )
    return section_page(head, _sections(found, files))


def many_cells(found: Sequence[Listed]) -> Cells:
    """Return a table with a row for each run, without columns in which nothing was measured."""
    figures = [_figures(one.report) for one in found]
    names = list(dict.fromkeys(name for one in figures for name in one))
    fixed = [("run", [one.name for one in found])]
    fixed += [
        ("model", [one.report.model.source for one in found]),
        ("passes", [one.report.pipeline or "no passes" for one in found]),
        ("target", [_target(one.report) for one in found]),
        ("goals", [_goals(one.report) for one in found]),
        ("latency", [_latency(one.report) for one in found]),
    ]
    columns = fixed + [(name, [_text(one, name) for one in figures]) for name in names]
    shown = [(heading, texts) for heading, texts in columns if any(texts)]
    rows = zip(*(texts for _, texts in shown), strict=True)
    return Cells(tuple(heading for heading, _ in shown), tuple(rows))


def _sections(found: Sequence[Listed], files: Sequence[tuple[str, str]]) -> Iterator[Section]:
    yield Section("runs", "All runs", tuple(_overview(found)))
    models: dict[str, list[Listed]] = {}
    for one in found:
        models.setdefault(one.report.model.sha256, []).append(one)
    drawn = [(group, tuple(_charts(group))) for group in models.values()]
    drawn = [(group, charts) for group, charts in drawn if charts]
    for number, (group, charts) in enumerate(drawn[:_MOST_MODELS]):
        yield Section(f"model-{number}", group[0].report.model.source, charts)
    if files:
        yield Section("files", "Files", (Facts("", tuple(files)),))


def _counts(found: Sequence[Listed]) -> str:
    models = len({one.report.model.sha256 for one in found})
    pipelines = len({one.report.pipeline for one in found})
    targets = len({_target(one.report) for one in found})
    return (
        f"{counted(len(found), 'run')}: {counted(models, 'model')}, "
        f"{counted(pipelines, 'pipeline')}, {counted(targets, 'target')}"
    )


def _overview(found: Sequence[Listed]) -> Iterator[Block]:
    yield Lead(_sentence(found))
    cells = many_cells(found)
    yield Table(
        "The result of each run",
        cells.headings,
        cells.rows,
        texts=("model", "passes"),
        links=[one.link for one in found],
    )
    machines = {(one.report.machine.cpu, one.report.machine.isa) for one in found}
    if len(machines) > 1:
        listed = "; ".join(f"{cpu}, {isa}" for cpu, isa in sorted(machines))
        yield Paragraph(f"Speeds of different machines do not compare with each other: {listed}.")
    missing = sum(not one.link for one in found)
    if missing:
        yield Hint(
            f"{counted(missing, 'run')} without a page next to the report: "
            "irc report REPORT.json -o REPORT.html makes one."
        )


def _sentence(found: Sequence[Listed]) -> str:
    broken = [one.name for one in found if any(not goal.kept for goal in one.report.goals)]
    if broken:
        return f"{len(broken)} of {len(found)} do not keep their goals: {', '.join(broken[:5])}."
    if any(one.report.goals for one in found):
        return "All goals kept."
    return f"{counted(len(found), 'result')}, without goals to judge them by."


def _charts(group: Sequence[Listed]) -> Iterator[Drawing]:
    """Yield the runs of one model against each other: how much faster, how good, and both.

    Of a decoder each phase has charts of its own.
    """
    figures = [(one, _figures(one.report)) for one in group[:_MOST_DRAWN]]
    speeds = _names(figures, "speed")
    for speed in speeds:
        faster = [_estimate(one, own[speed]) for one, own in figures if speed in own]
        if len(faster) > 1:
            yield Drawing(intervals(_capital(speed), faster, base=1.0, unit="x"))
    for metric in _names(figures, "metric")[:1]:
        scored = [_estimate(one, own[metric]) for one, own in figures if metric in own]
        if len(scored) > 1:
            yield Drawing(intervals(metric, scored))
        for speed in speeds:
            yield from _quality(figures, speed, metric)


def _quality(figures: _Found, speed: str, metric: str) -> Iterator[Drawing]:
    both = [(one, own[speed], own[metric]) for one, own in figures if {speed, metric} <= {*own}]
    if len(both) > 1:
        dots = [Dot(one.name, _title(one, x, y), _ends(x), _ends(y)) for one, x, y in both]
        lower = not both[0][2].larger
        heading = "Quality against speed"
        yield Drawing(scatter(heading, dots, (speed, metric), log=True, lower_is_better=lower))


def _names(figures: _Found, kind: Kind) -> list[str]:
    """Return the figures of a kind that any of the runs has."""
    found = (name for _, own in figures for name in own if own[name].kind == kind)
    return list(dict.fromkeys(found))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _title(one: Listed, x: Compared, y: Compared) -> str:
    return f"{one.name}: {x.text(0)} across, {y.text(0)} upwards"


def _estimate(one: Listed, own: Compared) -> Estimate:
    return Estimate(one.name, own.text(0), *_ends(own))


def _ends(own: Compared) -> tuple[float, float, float]:
    ends = own.found[0]
    assert ends is not None
    return ends.value, ends.low, ends.high


def _figures(report: ReportData) -> Mapping[str, Compared]:
    """Return the figures of a result by name, those that were measured."""
    return {one.name: one for one in compared_figures((report, report)) if one.found[0] is not None}


def _text(figures: Mapping[str, Compared], name: str) -> str:
    return figures[name].text(0) if name in figures else ""


def _target(report: ReportData) -> str:
    return f"{report.target.name}, isa {report.target.isa}"


def _goals(report: ReportData) -> str:
    broken = [goal.goal for goal in report.goals if not goal.kept]
    return f"not kept: {', '.join(broken)}" if broken else "kept" if report.goals else ""


def _latency(report: ReportData) -> str:
    """Return the median at the first shape; of a decoder that of each phase."""
    figure = Latency.of(report.rows[-1])
    first: dict[str | None, float] = {}
    for one in () if figure is None else figure.results:
        first.setdefault(one.phase, one.median_ms)
    return ", ".join(
        f"{median:.2f} ms{f' ({phase})' if phase else ''}" for phase, median in first.items()
    )
