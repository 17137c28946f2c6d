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
    from irtools.report.environment import Machine, machine, versions
    from irtools.report.escape import printable
    from irtools.report.table import render, report_view, size_text

_HOMES = {
    **dict.fromkeys(("Machine", "machine", "versions"), "environment"),
    **dict.fromkeys(("render", "report_view", "size_text"), "table"),
    "printable": "escape",
}

__all__ = [
    "ArtifactEntry",
    "DataEntry",
    "Level",
    "Machine",
    "ModelEntry",
    "PassEntry",
    "Report",
    "Row",
    "TargetEntry",
    "Verdict",
    "machine",
    "printable",
    "render",
    "report_view",
    "schema",
    "size_text",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'irtools.report' has no attribute {name!r}")
    home = importlib.import_module(f"irtools.report.{_HOMES.get(name, 'document')}")
    return getattr(home, name)
