"""What msgspec says of a value that does not fit, in the words of TOML."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin

import msgspec

__all__ = ["in_toml_words"]

_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
    "date": "a date",
    "time": "a time",
    "datetime": "a time",
}
_TYPES = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_CHOICE = re.compile(r"Invalid enum value (.*)")


def in_toml_words(message: str, table: type, key: str) -> str:
    """Return a message of msgspec as people who write TOML know these things.

    Args:
        message: Without the place at its end.
        table: The table that was to be read.
        key: That it is about.
    """
    if missing := _MISSING.fullmatch(message):
        return f"it has no {missing[1]}"
    if choice := _CHOICE.fullmatch(message):
        return f"it is {choice[1]}, expected {' or '.join(_choices(table, key))}"
    text = _TYPES.sub(_named, message)
    return text[:1].lower() + text[1:]


def _named(types: re.Match[str]) -> str:
    names = [name for name in types[1].split(" | ") if name != "null"]
    words = [_WORDS.get(name, name) for name in names]
    *first, last = words or ["nothing"]
    return f"{', '.join(first)} or {last}" if first else last


def _choices(table: type, key: str) -> list[str]:
    fields = msgspec.structs.fields(table) if issubclass(table, msgspec.Struct) else ()
    found = (field.type for field in fields if field.encode_name == key)
    return [text for kind in found for text in _literals(kind)]


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [text for inner in get_args(kind) for text in _literals(inner)]
