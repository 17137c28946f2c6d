"""Where the accuracy goes: along the graph, and decision by decision."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from irtools.instruments import Layer, LayerCost, Layers, Sensitivity
from irtools.pages.blocks import (
    Block,
    Commands,
    Drawing,
    Folded,
    Hint,
    Paragraph,
    Picker,
    Section,
    Table,
)
from irtools.pages.charts import Bar, Series, bars, lines
from irtools.report.document import Report
from irtools.report.entries import PlanEntry, ReportData
from irtools.report.page.fold import folded
from irtools.words import counted, sqnr_text

__all__ = ["accuracy"]

_DRAWN = 15
_EQUAL_DB = 150.0
_KEYS = (("after", "predicted loss"),)


def accuracy(report: Report) -> Section:
    """Return the section."""
    blocks = [block for plan in report.plans for block in _of_plan(report, plan)]
    layers = Layers.of(report.rows[-1])
    if layers is not None and layers.layers:
        blocks = [*_along(layers), *blocks]
    else:
        option = "--figures layers adds the signal-to-noise ratio along the graph."
        blocks.append(Hint(option))
    if not any(plan.decisions for plan in report.plans):
        told = "No pass decided layer by layer what to give up, so that there is nothing to rank."
        blocks.append(Hint(told))
    elif not any(Sensitivity.of(row) for row in report.rows):
        option = "--figures sensitivity measures the costliest of these decisions, each alone."
        blocks.append(Hint(option))
    return Section("accuracy", "Where the accuracy goes", tuple(blocks))


def _along(found: Layers) -> Iterator[Block]:
    """Yield how close inner tensors are, in the order in which the original computes them."""
    levels = tuple(min(layer.sqnr_db, _EQUAL_DB) for layer in found.layers)
    titles = tuple(f"{one.module or one.name}, {one.op}: {_db(one)}" for one in found.layers)
    names = [one.name for one in found.layers]
    fall = [names.index(found.largest_fall)] if found.largest_fall in names else []
    note = f"{counted(found.samples, 'sample')}; equal tensors are drawn at {_EQUAL_DB:.0f} dB."
    if fall:
        worst = found.layers[fall[0]]
        note += f" The line: the largest fall, at {worst.module or worst.name} ({worst.op})."
    yield Drawing(
        lines(
            "Signal-to-noise ratio along the graph",
            [Series("after", "result", levels, titles)],
            unit=" dB",
            across="tensors in the order in which the original computes them",
            marked=fall,
            note=note,
        )
    )
    rows = [(one.name, one.module, one.op, _db(one)) for one in found.layers]
    caption = "Tensors of both models, in that order"
    yield folded(Table(caption, ("tensor", "module", "operator", "SQNR"), rows, texts=("module",)))


def _db(layer: Layer) -> str:
    return sqnr_text(layer.sqnr_db)


def _of_plan(report: ReportData, plan: PlanEntry) -> Iterator[Block]:
    """Yield what a pass decided, the decision first that is predicted to cost most."""
    costly = [one for one in plan.decisions if one.cost > 0]
    if not costly or not 0 < plan.row < len(report.rows):
        return
    text = report.rows[plan.row].text
    name = text.partition(":")[0]
    unit = f" ({plan.cost_unit})" if plan.cost_unit else ""
    drawn = [Bar(one.subject, f"{one.cost:.3g}", (one.cost,)) for one in costly[:_DRAWN]]
    yield Drawing(bars(f"{name}: predicted loss of each decision{unit}", drawn, _KEYS))
    costs = Sensitivity.of(report.rows[plan.row])
    table = _table(name, plan, () if costs is None else costs.layers)
    before, after = _around(report, plan.row)
    if before:
        yield Picker(table, before, after)
    else:
        yield Folded(table.caption, (table,))
    if plan.others:
        yield Paragraph(f"{plan.others} decisions that are predicted to cost less are not listed.")
    passes = ",".join(row.text for row in report.rows[1 : plan.row + 1])
    measured = f"irc sensitivity {shlex.quote(report.model.source)} --passes {shlex.quote(passes)}"
    what = "What the outputs lose by each of these decisions alone, measured:"
    yield Commands("", ((what, f"{measured} --measure 10"),))


def _table(name: str, plan: PlanEntry, costs: Sequence[LayerCost]) -> Table:
    alone = {
        (one.subject, one.action): sqnr_text(one.measured_db)
        for one in costs
        if one.measured_db is not None
    }
    total = sum(one.cost for one in plan.decisions) or 1.0
    own = ("measured alone",) if alone else ()
    headings = ("what", "predicted loss", "share", *own, "gain", "how")
    rows = [
        (
            one.subject,
            f"{one.cost:.3g}",
            f"{100 * one.cost / total:.1f} %",
            *((alone.get((one.subject, one.action), ""),) if alone else ()),
            f"{one.gain:,.0f}" if one.gain else "",
            one.action,
        )
        for one in plan.decisions
    ]
    unit = f"; gain in {plan.gain_unit}" if plan.gain_unit else ""
    return Table(f"Decisions of {name}{unit}", headings, rows, texts=("how",))


def _around(report: ReportData, row: int) -> tuple[str, str]:
    """Return the command around the names that a pass leaves out; empty: it cannot."""
    entries = {entry.text: entry for entry in report.passes}
    texts = [one.text for one in report.rows[1:]]
    entry = entries.get(texts[row - 1])
    if entry is None or "exclude" not in entry.options:
        return "", ""
    options = [one for one in entry.text.split(":") if not one.startswith("exclude=")]
    own = [one for one in entry.text.split(":") if one.startswith("exclude=")]
    chosen = f"{':'.join(options)}:{own[0]}+" if own else f"{':'.join(options)}:exclude="
    before = "".join(f"{text}," for text in texts[: row - 1])
    after = "".join(f",{text}" for text in texts[row:])
    return (
        f"irc optimize {shlex.quote(report.model.source)} --passes '{before}{chosen}",
        f"{after}'",
    )
