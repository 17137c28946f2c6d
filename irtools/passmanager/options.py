"""Options of a pass: typed dataclass fields, written and read as text."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin
from urllib.parse import quote, unquote

from irtools.errors import OptionError, UnknownNameError
from irtools.passmanager.base import Pass
from irtools.passmanager.declared import UNREAD, declared_options
from irtools.plugins import registry, suggest

__all__ = ["Option", "check_options", "format_options", "option", "options_of", "parse_options"]

# Characters that pipeline text uses itself. They are percent-encoded in values, so that a value
# may be a node name, a path or a pattern and the whole still needs no quoting in a shell.
_SAFE = "/._-*@~^"
_PLACE = re.compile(r"[\w.]+:[^\W\d]\w*", re.ASCII)
"""`module:name`, which is read back as it stands."""
_MAX_OWNERS = 2


def option(default: Any, help: str, choices: tuple[str, ...] = (), group: str = "") -> Any:
    """Declare a pass option with its default and its meaning.

    Args:
        default: Value where the option is not given. Must be immutable.
        help: One sentence for `irc passes NAME`, with the unit where there is one.
        choices: Texts that the option takes, where they follow from what is registered. Where they
            are known in advance the annotation names them: `Literal[...]`.
        group: The entry points by which other packages add choices.
    """
    metadata = {"help": help, "choices": choices, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """One option of a pass, as `irc passes NAME` shows it.

    Attributes:
        group: The entry points by which other packages add choices; empty for none.
    """

    name: str
    type: Any
    default: Any
    help: str
    group: str = ""

    @property
    def type_text(self) -> str:
        """The type as a user reads it: `integer`, `static|dynamic`, `number or none`."""
        return type_text(self.type)


def options_of(pass_type: type[Pass]) -> tuple[Option, ...]:
    """List the options of a pass in the order of its fields. `_` in a name is shown as `-`."""
    hints = typing.get_type_hints(pass_type)
    return tuple(
        Option(
            f.name.replace("_", "-"),
            Literal[choices] if (choices := f.metadata.get("choices")) else hints[f.name],
            f.default,
            f.metadata.get("help", ""),
            f.metadata.get("group", ""),
        )
        for f in dataclasses.fields(pass_type)
        if f.init
    )


def parse_options(pass_type: type[Pass], texts: Mapping[str, str]) -> Pass:
    """Make a pass from option texts.

    Raises:
        UnknownNameError: An option that the pass does not have.
        OptionError: A value that the option does not take.
    """
    types_by_name = {o.name: o.type for o in options_of(pass_type)}
    values = _read(pass_type.name, types_by_name, texts)
    return pass_type(**{name.replace("-", "_"): value for name, value in values.items()})


def check_options(pass_name: str, declared: Mapping[str, Any], texts: Mapping[str, str]) -> None:
    """Refuse option texts as `parse_options` would, as far as names and types alone allow.

    Args:
        pass_name: The pass, for messages.
        declared: What `declared_options` found.
        texts: The options.

    Raises:
        UnknownNameError: An option that the pass does not have.
        OptionError: A value that the option does not take.
    """
    _read(pass_name, declared, texts)


def _read(
    pass_name: str, types_by_name: Mapping[str, Any], texts: Mapping[str, str]
) -> dict[str, Any]:
    values = {}
    for key, text in texts.items():
        name = key.replace("_", "-")
        if name not in types_by_name:
            hint = _owners(name, text) or suggest(key, types_by_name)
            raise UnknownNameError(f"pass {pass_name!r} has no option {key!r}{hint}")
        kind = types_by_name[name]
        values[name] = text if kind is UNREAD else _parse(name, kind, text, pass_name)
    return values


def _owners(name: str, text: str) -> str:
    """Say which other passes have an option, those that take the value first; empty for many."""
    kinds = {
        owner: declared[name]
        for owner, point in registry.plugins("irtools.passes").items()
        if name in (declared := declared_options(point.value) or {})
    }
    taking = [owner for owner, kind in kinds.items() if _takes(kind, text)] or list(kinds)
    if not 0 < len(taking) <= _MAX_OWNERS:
        return ""
    verb = "has" if len(taking) == 1 else "have"
    return f"; {' and '.join(taking)} {verb} one"


def _takes(kind: Any, text: str) -> bool:
    try:
        _parse_as(kind, text)
    except (ValueError, TypeError):
        return False
    return True


def format_options(pass_: Pass) -> str:
    """Print the options that differ from their defaults, as `:key=value:key=value`."""
    parts = []
    for o in options_of(type(pass_)):
        value = getattr(pass_, o.name.replace("-", "_"))
        if value != o.default:
            parts.append(f":{o.name}={_format(value)}")
    return "".join(parts)


def _format(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case tuple():
            return "+".join(quote(str(item), safe=_SAFE) for item in value)
        case float():
            return repr(value).replace("e+", "e")
        case str() if _PLACE.fullmatch(value):
            return value
        case _:
            return quote(str(value), safe=_SAFE)


def _parse(name: str, kind: Any, text: str, pass_name: str) -> Any:
    try:
        return _parse_as(kind, text)
    except ValueError as error:
        raise OptionError(
            f"option {name!r} of pass {pass_name!r} is {text!r}, expected {type_text(kind)}"
        ) from error


def _parse_as(kind: Any, text: str) -> Any:
    origin = get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if text == "none" and type(None) in get_args(kind):
            return None
        inner = [a for a in get_args(kind) if a is not type(None)]
        for candidate in inner:
            try:
                return _parse_as(candidate, text)
            except ValueError:
                continue
        raise ValueError(text)
    if origin is Literal:
        for choice in get_args(kind):
            if unquote(text) == str(choice):
                return choice
        raise ValueError(text)
    if origin is tuple:
        return tuple(unquote(part) for part in text.split("+")) if text else ()
    if kind is bool:
        truths = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in truths:
            raise ValueError(text)
        return truths[text.lower()]
    if kind is str:
        return unquote(text)
    if kind is float:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if kind is int:
        return int(text)
    raise TypeError(f"{kind!r} is not an option type")


def type_text(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_text(a) for a in get_args(kind))
    if origin is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if origin is tuple:
        return "names joined by +"
    return {bool: "true|false", int: "integer", float: "number", str: "text"}.get(kind, "none")
