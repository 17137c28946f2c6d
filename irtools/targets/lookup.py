"""From a target's text to the target, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

from irtools.errors import OptionError, UsageError
from irtools.plugins import registry, suggest
from irtools.targets.base import Target
from irtools.targets.isa import Isa

__all__ = ["find_target", "option_words", "target_text"]


def find_target(text: str, *, check: bool = True) -> Target:
    """Return the target that a text such as `ort-cpu` or `ort-cpu:isa=avx2` names.

    The options of a target are the fields of its class, with hyphens for underscores: `isa` of
    every target, and what its own device needs (`my-npu:cores=2`).

    Args:
        text: Name, then options as in pipeline text.
        check: Also make sure that this machine can run it.

    Raises:
        UnknownNameError: No such target.
        OptionError: No such option, or a value it does not take.
        TargetUnavailableError: The runtime or the device is absent here.
    """
    name, *items = text.split(":")
    kind = registry.load("irtools.targets", name)
    target: Target = kind(**_read_options(name, kind, items))
    if check:
        target.check_available()
    return target


def target_text(target: Target) -> str:
    """Return the text by which `find_target` makes the same target again.

    Raises:
        UsageError: An option has a value that no text can give.
    """
    items = [f"isa={target.isa.value}"]
    for option in fields(target):
        value = getattr(target, option.name)
        if option.name != "isa" and value != option.default:
            items.append(f"{_written_name(option)}={_written(target.name, option, value)}")
    return ":".join((target.name, *items))


def option_words(name: str) -> tuple[str, ...]:
    """Return what may follow a target's name and colon, for completion: `isa=avx2`, `cores=`.

    Raises:
        UnknownNameError: No such target.
    """
    kind = registry.load("irtools.targets", name)
    choices = {"Isa": [isa.value for isa in Isa], "bool": ["true", "false"]}
    return tuple(
        f"{_written_name(option)}={value}"
        for option in fields(kind)
        for value in choices.get(_type_name(option), [""])
    )


def _read_options(name: str, kind: type[Target], items: Iterable[str]) -> dict[str, object]:
    options = {_written_name(option): option for option in fields(kind)}
    found: dict[str, object] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if key not in options:
            raise OptionError(f"target {name!r} has no option {key!r}{suggest(key, options)}")
        if not equals:
            raise OptionError(f"target {name!r}: {item!r} is not an option, expected {key}=VALUE")
        option = options[key]
        if option.name in found:
            raise OptionError(f"target {name!r}: option {key!r} is given twice")
        nothing = value == "none" and _type_text(option).endswith("| None")
        found[option.name] = None if nothing else _read(name, key, _type_name(option), value)
    return found


def _written_name(option: Field[Any]) -> str:
    return option.name.replace("_", "-")


def _type_name(option: Field[Any]) -> str:
    """Return the name of a field's type, without the None that it may have instead."""
    return _type_text(option).removesuffix("| None").strip()


def _type_text(option: Field[Any]) -> str:
    return option.type if isinstance(option.type, str) else option.type.__name__


def _read(name: str, key: str, kind: str, value: str) -> object:
    if kind not in _READERS:
        raise UsageError(f"target {name!r}: option {key!r} is a {kind}, which no text can give")
    reader, expected = _READERS[kind]
    try:
        return reader(value)
    except OptionError:
        raise
    except (ValueError, KeyError):
        raise OptionError(f"target {name!r}: {key} is {value!r}, expected {expected}") from None


def _written(name: str, option: Field[Any], value: object) -> str:
    text = str(value).lower() if isinstance(value, bool | None) else str(value)
    if ":" in text:
        raise UsageError(
            f"target {name!r}: option {_written_name(option)!r} is {text!r}, which no text can "
            "give: a colon begins the next option"
        )
    return text


_READERS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "Isa": (Isa.parse, "an instruction set"),
    "bool": ({"true": True, "false": False}.__getitem__, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "a text"),
}
"""Name of a type to what reads it, and to what a message says of it."""
