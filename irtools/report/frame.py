"""A report as a data frame."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from irtools.errors import UnsupportedError
from irtools.report.entries import ReportData
from irtools.report.kinds import figure_kinds
from irtools.report.plain import plain_data

__all__ = ["frame", "records"]


def records(report: ReportData) -> list[dict[str, Any]]:
    """Return one flat mapping per row: `pass`, then figures as `size.file_bytes`.

    Of figures with several results, such as latency at several shapes, the names have the position:
    `latency.results.0.median_ms`. What was not measured is None.
    """
    lists = {kind.key for kind in figure_kinds() if not kind.is_flat}
    rows = [
        {
            "pass": row.text,
            **dict(_flat(plain_data({k: f for k, f in row.figures.items() if k not in lists}))),
        }
        for row in report.rows
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def frame(report: ReportData) -> Any:
    """Return a pandas data frame of the records, or one of polars where pandas is not installed.

    Raises:
        UnsupportedError: Neither is installed.
    """
    for library in ("pandas", "polars"):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        return module.DataFrame(records(report))
    raise UnsupportedError("a data frame needs pandas or polars: pip install pandas")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    items: Sequence[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        yield name, value
        return
    for key, item in items:
        yield from _flat(item, f"{name}.{key}" if name else str(key))
