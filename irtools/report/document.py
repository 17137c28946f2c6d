"""The report: everything that is known about one run, as one JSON document."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from irtools.errors import DataError
from irtools.files import fault_of_document, json_text
from irtools.report.entries import ReportData
from irtools.report.kinds import figure_kinds
from irtools.report.plain import plain_data

__all__ = ["Report", "schema"]

_REMEDY = "run irc optimize again, or read it with the irtools that wrote it"


class Report(ReportData):
    """One run of a pipeline. `Report.from_json(r.to_json()) == r`; `str(r)` is its table."""

    FORMAT: ClassVar[str] = "irtools-report"
    VERSION: ClassVar[int] = 4

    def to_dict(self) -> dict[str, Any]:
        """Return the document. Numbers that JSON does not know are the texts inf, -inf, nan."""
        return {"format": self.FORMAT, "version": self.VERSION, **plain_data(self)}

    def to_json(self) -> str:
        """Return the document as text."""
        return json_text(self.to_dict())

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

        if fault := fault_of_document(document, cls.FORMAT, cls.VERSION, _REMEDY):
            raise DataError(f"the report {fault}")
        try:
            plain = [{**row, "figures": {}} for row in document["rows"]]
            data = msgspec.convert({**document, "rows": plain}, ReportData, strict=False)
            figures = [_read_figures(row.get("figures", {})) for row in document["rows"]]
        except (msgspec.ValidationError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"the report does not follow its schema: {error}") from error
        fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
        pairs = zip(data.rows, figures, strict=True)
        rows = tuple(dataclasses.replace(row, figures=found) for row, found in pairs)
        return cls(**{**fields, "rows": rows})

    def __str__(self) -> str:
        from irtools.report.table import render

        return render(self)


def _read_figures(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return figures as their kinds have them; those of unknown kinds as plain data."""
    import msgspec

    kinds = {kind.key: kind for kind in figure_kinds()}
    return {
        key: msgspec.convert(value, kinds[key], strict=False) if key in kinds else value
        for key, value in figures.items()
    }


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
