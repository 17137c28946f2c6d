"""The table of a sweep."""

from __future__ import annotations

from irtools.report.cells import Cells
from irtools.sweeps.entries import Entry, SweepDocument
from irtools.words import printable, size_text

__all__ = ["sweep_cells"]


def sweep_cells(found: SweepDocument) -> Cells:
    """Return a row for each model; columns without any text are left out."""
    models = found.models
    columns: list[tuple[str, list[str]]] = [
        ("model", [one.name for one in models]),
        ("outcome", [one.outcome for one in models]),
        ("size", [_pair(one, "original_bytes", "bytes") for one in models]),
        ("latency", [_pair(one, "original_ms", "ms") for one in models]),
        ("faster", list(map(_speed, models))),
        ("metric", list(map(_metric, models))),
        ("agreement", list(map(_agreement, models))),
        ("pipeline", [one.pipeline for one in models]),
        ("why", [one.error for one in models]),
    ]
    shown = [(heading, texts) for heading, texts in columns if any(texts)]
    rows = zip(*(map(printable, texts) for _, texts in shown), strict=True)
    return Cells(tuple(heading for heading, _ in shown), tuple(rows))


def _number(one: Entry, name: str) -> float | None:
    value = one.figures.get(name)
    return value if isinstance(value, int | float) else None


def _pair(one: Entry, before: str, after: str) -> str:
    first, last = _number(one, before), _number(one, after)
    if first is None or last is None:
        return ""
    if before.endswith("_bytes"):
        return f"{size_text(int(first))} to {size_text(int(last))}"
    return f"{first:.3g} to {last:.3g} ms"


def _speed(one: Entry) -> str:
    value, low, high = (_number(one, f"speedup{end}") for end in ("", "_low", "_high"))
    return "" if value is None else f"{value:.2f}x [{low:.2f}, {high:.2f}]"


def _metric(one: Entry) -> str:
    before, after = _number(one, "original_value"), _number(one, "value")
    if before is None or after is None:
        return ""
    return f"{one.figures['metric']} {before:.4f} to {after:.4f}"


def _agreement(one: Entry) -> str:
    value = _number(one, "agreement")
    return "" if value is None else f"{100 * value:.2f} %"
