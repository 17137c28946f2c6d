"""Reports: one JSON document, and views of it.

Parts are loaded when they are used: `irc` needs `printable` before it needs anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irtools.report.document import (
        ArtifactEntry,
        DataEntry,
        Level,
        ModelEntry,
        PassEntry,
        Report,
        Row,
        TargetEntry,
        Verdict,
        schema,
    )
    from irtools.report.table import render, report_view, size_text

_HOMES = {
    **dict.fromkeys(("render", "report_view", "size_text"), "table"),
}

__all__ = [
    "ArtifactEntry",
    "DataEntry",
    "Level",
    "ModelEntry",
    "PassEntry",
    "Report",
    "Row",
    "TargetEntry",
    "Verdict",
    "render",
    "report_view",
    "schema",
    "size_text",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'irtools.report' has no attribute {name!r}")
    home = importlib.import_module(f"irtools.report.{_HOMES.get(name, 'document')}")
    return getattr(home, name)
