"""Reports: one JSON document, and views of it.

Parts are loaded when they are used: `irc` starts without them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irtools.report.document import Report, schema
    from irtools.report.entries import (
        ArtifactEntry,
        DataEntry,
        ModelEntry,
        PassEntry,
        Row,
        TargetEntry,
    )
    from irtools.report.table import render, report_view

_HOMES = {
    **dict.fromkeys(("render", "report_view"), "table"),
    **dict.fromkeys(("Report", "schema"), "document"),
}

__all__ = [
    "ArtifactEntry",
    "DataEntry",
    "ModelEntry",
    "PassEntry",
    "Report",
    "Row",
    "TargetEntry",
    "render",
    "report_view",
    "schema",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'irtools.report' has no attribute {name!r}")
    home = importlib.import_module(f"irtools.report.{_HOMES.get(name, 'entries')}")
    return getattr(home, name)
