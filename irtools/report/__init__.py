"""Reports: one JSON document, and views of it."""

from __future__ import annotations

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
