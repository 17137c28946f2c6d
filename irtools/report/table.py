"""The terminal's view of a report: one row per pass, the original first."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from irtools.words import counted, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


__all__ = ["render", "report_view", "row_line", "size_text"]

Document = Mapping[str, Any]

_ALONE: Document = {"file_bytes": None, "metric": None}
"""Stands for the original's row where a row is shown by itself."""


def render(report: Document, width: int = 200) -> str:
    """Return the view as plain text."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    for part in report_view(report):
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def report_view(report: Document) -> Sequence[RenderableType]:
    """Return what a console prints of a report: the table, then notes and verdicts."""
    from rich.text import Text

    parts: list[RenderableType] = [_heading(report), _table(report)]
    if legend := _legend(report):
        parts.append(Text(printable(legend, 500)))
    parts += [Text(f"  note: {printable(note, 500)}") for note in _notes(report)]
    styles = {"good": "green", "note": "", "warning": "yellow"}
    for verdict in report["verdicts"]:
        mark = "warning: " if verdict["level"] == "warning" else ""
        text = f"  {mark}{printable(verdict['text'], 500)}"
        parts.append(Text(text, style=styles[verdict["level"]]))
    return parts


def size_text(size: int | None) -> str:
    """Print a number of bytes in decimal units (`23.4 MB`), as shops and disks count."""
    if size is None:
        return ""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            break
    return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _heading(report: Document) -> RenderableType:
    from rich.text import Text

    model, target, machine = report["model"], report["target"], report["machine"]
    threads = report["threads"] or "runtime's choice"
    return Text(
        f"{printable(model['source'])}  on {target['name']} ({target['runtime']}, "
        f"isa {target['isa']}, computes in {target['precision']}, threads: {threads})\n"
        f"{machine['cpu']}, {counted(machine['cores'], 'CPU')}"
    )


def _table(report: Document) -> Table:
    from rich.table import Table
    from rich.text import Text

    rows = report["rows"]
    columns = [c for c in _COLUMNS if c.always or any(c.cell(r, rows[0]) for r in rows)]
    table = Table(pad_edge=False, show_edge=False)
    for column in columns:
        if column.heading == "pass":
            table.add_column(column.heading, overflow="fold")
        else:
            table.add_column(column.heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(column.cell(row, rows[0])) for column in columns))
    return table


def row_line(shown: Document) -> str:
    """Return one line on a row of a report as plain data: what the table will have of it."""
    cells = [
        (column.heading, column.cell(shown, _ALONE))
        for column in _COLUMNS
        if column.heading != "pass"
    ]
    named = [f"{heading} {cell}" for heading, cell in cells if cell]
    return ", ".join([_Column("", _name).cell(shown, _ALONE), *named])


class _Column:
    """A heading, and how a cell follows from a row and the original's row."""

    def __init__(self, heading: str, cell: Any, *, always: bool = False) -> None:
        self.heading = heading
        self._cell = cell
        self.always = always

    def cell(self, row: Document, original: Document) -> str:
        return printable(self._cell(row, original))


def _name(row: Document, original: Document) -> str:
    drawn = row["drawn_back"]
    if row["skipped"]:
        return f"{row['text']} (not run)"
    if drawn is None:
        return str(row["text"])
    if not drawn["planned"]:
        return f"{row['text']} (dropped)"
    return f"{row['text']} ({drawn['kept']} of {drawn['planned']} kept)"


def _changed(row: Document, original: Document) -> str:
    if not row["index"] or row["skipped"]:
        return ""
    return str(row["changed"]) if row["modified"] else "-"


def _skipped(row: Document, original: Document) -> str:
    return str(row["skipped_parts"]) if row["skipped_parts"] else ""


def _size(row: Document, original: Document) -> str:
    size, base = row["file_bytes"], original["file_bytes"]
    if size is None:
        return ""
    if not row["index"] or not base:
        return size_text(size)
    return f"{size_text(size)} ({base / size:.2f}x)"


def _timed(row: Document, phase: str | None) -> Document | None:
    """Return the figures at the first shape, of a decoder those of a phase."""
    return next((found for found in row["latency"] if found["phase"] == phase), None)


def _latency(row: Document, original: Document) -> str:
    found = _timed(row, None)
    return "" if found is None else f"{found['median_ms']:.2f} ms"


def _speed(row: Document, original: Document) -> str:
    found = _timed(row, None)
    return "" if found is None or found["speedup"] is None else _ratio(found["speedup"])


def _ratio(ratio: Document) -> str:
    shown = f"{ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return shown if ratio["is_significant"] else f"{shown} within noise"


def _tokens(phase: str, row: Document, original: Document) -> str:
    """Tell the tokens per second of a decoder, and how they compare with the original's."""
    found = _timed(row, phase)
    if found is None:
        return ""
    rate = float(found["tokens_per_second"])
    shown = f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
    return shown if found["speedup"] is None else f"{shown}  {_ratio(found['speedup'])}"


def _sqnr(row: Document, original: Document) -> str:
    fidelity = row["fidelity"]
    if fidelity is None:
        return ""
    return _inherited(row, _decibels(fidelity["sqnr_db"]))


def _decibels(value: float | str) -> str:
    if value == "inf":
        return "equal"
    return "no equal sizes" if value == "nan" else f"{float(value):.1f} dB"


def _inherited(row: Document, shown: str) -> str:
    """Mark a figure that is that of the model before."""
    return f"= {shown}" if row["inherited"] else shown


def _sizes(row: Document, original: Document) -> str:
    fidelity = row["fidelity"]
    if fidelity is None or fidelity["same_shape"] is None:
        return ""
    return f"{100 * float(fidelity['same_shape']):.1f} %"


def _agreement(row: Document, original: Document) -> str:
    fidelity = row["fidelity"]
    if fidelity is None or fidelity["agreement"] is None:
        return ""
    return _inherited(row, f"{100 * float(fidelity['agreement']):.2f} %")


def _metric(row: Document, original: Document) -> str:
    metric = row["metric"]
    if metric is None:
        return ""
    value, low, high = (float(metric[key]) for key in ("value", "low", "high"))
    shown = f"{value:.4f} [{low:.4f}, {high:.4f}]"
    if original["metric"] is not None and metric["samples"] < original["metric"]["samples"]:
        shown += f" n={metric['samples']}"
    return _inherited(row, shown)


def _greedy(row: Document, original: Document) -> str:
    found = row["greedy"]
    return "" if found is None else f"{found['equal']}/{found['prompts']}"


def _seconds(row: Document, original: Document) -> str:
    return f"{sum(row['seconds'].values()):.1f}"


def _memory(row: Document, original: Document) -> str:
    return size_text(row["peak_bytes"].get("pass"))


_COLUMNS = (
    _Column("pass", _name, always=True),
    _Column("changed", _changed, always=True),
    _Column("skipped", _skipped),
    _Column("size", _size, always=True),
    _Column("latency", _latency),
    _Column("faster", _speed),
    _Column("prefill tok/s", partial(_tokens, "prefill")),
    _Column("decode tok/s", partial(_tokens, "decode")),
    _Column("SQNR", _sqnr),
    _Column("agreement", _agreement),
    _Column("equal sizes", _sizes),
    _Column("metric", _metric),
    _Column("text", _greedy),
    _Column("memory", _memory),
    _Column("seconds", _seconds, always=True),
)


def _source(report: Document) -> str:
    data = report["evaluation"]
    if not data:
        return "data"
    return "synthetic data" if data["synthetic"] else str(data["source"])


def _legend(report: Document) -> str:
    parts = []
    row = report["rows"][-1]
    if row["latency"]:
        firsts = [_timed(row, phase) for phase in (None, "prefill", "decode")]
        shapes = " and ".join(found["shape"] for found in firsts if found is not None)
        what = "tok/s: tokens per second" if firsts[0] is None else "latency: median"
        confidence = 100 * report["bench"]["confidence"]
        parts.append(f"{what} at {shapes}, {confidence:.0f} % interval")
    if any(entry["peak_bytes"] for entry in report["rows"]):
        parts.append("memory: peak of this process during the pass, mapped weights included")
    if row["metric"]:
        samples = counted(row["metric"]["samples"], "sample")
        parts.append(f"metric: {row['metric']['name']} on {samples}, 95 % interval")
    if row["greedy"]:
        greedy = row["greedy"]
        parts.append(
            f"text: prompts of {counted(greedy['prompt_tokens'], 'token')} ({greedy['source']}) "
            f"whose next {greedy['new_tokens']} are the original's"
        )
    if row["fidelity"]:
        samples = counted(row["fidelity"]["samples"], "sample")
        parts.append(f"SQNR, agreement: {samples} of {_source(report)}")
        if any(entry["inherited"] for entry in report["rows"]):
            parts.append("=: of the model before, whose function the pass keeps")
        if row["fidelity"]["same_shape"] is not None:
            parts.append(
                "equal sizes: samples whose outputs have the original's sizes, which the data "
                "decides; SQNR is over outputs of equal size"
            )
        precision = report["target"]["precision"]
        if precision != "float32":
            parts.append(
                f"against the original in exact float32; this runtime computes in {precision} by "
                "default, so the original's own row is not equal"
            )
    return "; ".join(parts)


def _notes(report: Document) -> list[str]:
    """Notes of all rows, each with its pass, none twice."""
    notes = []
    for row in report["rows"]:
        name = row["text"].partition(":")[0]
        prefix = f"{name}: " if row["index"] else ""
        notes += [f"{prefix}{note}" for note in row["notes"]]
    return list(dict.fromkeys(notes))
