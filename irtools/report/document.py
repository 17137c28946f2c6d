"""The report: everything that is known about one run, as one JSON document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from irtools.errors import DataError
from irtools.report.entries import ReportData, Row
from irtools.report.kinds import figure_kinds
from irtools.report.plain import plain_data

__all__ = ["Report", "schema"]


class Report(ReportData):
    """One run of a pipeline. `Report.from_json(r.to_json()) == r`; `str(r)` is its table."""

    FORMAT: ClassVar[str] = "irtools-report"
    VERSION: ClassVar[int] = 3

    def to_dict(self) -> dict[str, Any]:
        """Return the document. Numbers that JSON does not know are the texts inf, -inf, nan."""
        return {"format": self.FORMAT, "version": self.VERSION, **plain_data(self)}

    def to_json(self) -> str:
        """Return the document as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a document that `to_json` wrote.

        A figure of a kind that is not installed here is kept as plain data.

        Raises:
            DataError: It is not a report, or one of another version.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the report is not JSON: {error}") from error
        return cls.from_dict(document)

    @classmethod
    def from_dict(cls, document: Any) -> Report:
        """Read a document as `to_dict` has it. Raises as `from_json`."""
        import msgspec

        if not isinstance(document, dict) or document.get("format") != cls.FORMAT:
            raise DataError(f"not a report: expected a JSON object with format {cls.FORMAT!r}")
        if document.get("version") != cls.VERSION:
            raise DataError(
                f"the report has version {document.get('version')!r}, expected {cls.VERSION}: run "
                "irc optimize again, or read it with the irtools that wrote it"
            )
        try:
            data = msgspec.convert(document, ReportData, strict=False, dec_hook=_as_is)
            rows = tuple(_with_figures(row) for row in data.rows)
        except msgspec.ValidationError as error:
            raise DataError(f"the report does not follow its schema: {error}") from error
        fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
        return cls(**{**fields, "rows": rows})

    def __str__(self) -> str:
        from irtools.report.table import render

        return render(self)


def _with_figures(row: Row) -> Row:
    """Return a row whose figures are of their kinds, and not plain data."""
    import msgspec

    kinds = {kind.key: kind for kind in figure_kinds()}
    figures: Mapping[str, Any] = {
        key: msgspec.convert(value, kinds[key], strict=False) if key in kinds else value
        for key, value in row.figures.items()
    }
    return dataclasses.replace(row, figures=figures)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the document, made from the types of its parts."""
    import msgspec

    kinds = figure_kinds()
    (_, *others), parts = msgspec.json.schema_components((ReportData, *kinds), schema_hook=_any)
    report = parts.pop("ReportData")
    properties = {
        "format": {"const": Report.FORMAT},
        "version": {"const": Report.VERSION},
        **report["properties"],
    }
    parts["Row"]["properties"]["figures"] = {
        "type": "object",
        "properties": {kind.key: ref for kind, ref in zip(kinds, others, strict=True)},
    }
    # A property of the class, which `plain_data` adds for readers in other languages.
    parts["Ratio"]["properties"]["is_significant"] = {"type": "boolean"}
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": Report.FORMAT,
        "description": report["description"],
        "type": "object",
        "properties": properties,
        "required": ["format", "version", *report["required"]],
        "$defs": {**parts, "number": _NUMBER},
    }
    closed: dict[str, Any] = _closed(found)
    return closed


def _as_is(kind: type, value: Any) -> Any:
    """Leave the figures of a row as plain data, until it is known of which kinds they are."""
    return value


def _any(kind: type) -> dict[str, Any]:
    """Stand for the figures of a row, of which each has a schema of its own."""
    return {"type": "object"}


_NUMBER: Mapping[str, Any] = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}


def _closed(part: Any) -> Any:
    """Return a schema whose objects take no other properties, and whose numbers may be infinite."""
    if isinstance(part, list):
        return [_closed(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    if part == {"type": "number"}:
        return {"$ref": "#/$defs/number"}
    if part is _NUMBER:
        return dict(part)
    made = {key: _closed(value) for key, value in part.items()}
    if made.get("type") == "object" and "title" in made and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
