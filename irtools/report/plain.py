"""Dataclasses as plain JSON."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

from irtools.measure.base import Ratio

__all__ = ["plain_data"]


def plain_data(value: Any) -> Any:
    """Return dataclasses, enums, mappings and numpy scalars as JSON knows them.

    Numbers that JSON does not know are the texts `inf`, `-inf` and `nan`.
    """
    match value:
        case enum.Enum():
            return value.value
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case bool() | int() | str() | None:
            return value
        case Mapping():
            return {str(key): plain_data(item) for key, item in value.items()}
        case tuple() | list() | set() | frozenset():
            return [plain_data(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return _fields(value)
        case _:
            return plain_data(value.item())  # numpy scalar


def _fields(value: Any) -> dict[str, Any]:
    found = {f.name: plain_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Ratio):
        # A property, but what a reader of the document asks first.
        found["is_significant"] = bool(value.is_significant)
    return found
