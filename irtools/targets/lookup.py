"""From a target's text to the target, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

from irtools.errors import OptionError, UsageError
from irtools.plugins import registry, suggest
from irtools.targets.base import Target
from irtools.targets.isa import Isa

__all__ = ["find_target", "target_text"]


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
    """Return the text by which `find_target` makes the same target again."""
    items = [f"isa={target.isa.value}"]
    for option in fields(target):
        value = getattr(target, option.name)
        if option.name != "isa" and value != option.default:
            items.append(f"{option.name.replace('_', '-')}={_written(value)}")
    return ":".join((target.name, *items))


def _read_options(name: str, kind: type[Target], items: Iterable[str]) -> dict[str, object]:
    types = {option.name.replace("_", "-"): _type_name(option) for option in fields(kind)}
    found: dict[str, object] = {}
    for item in items:
        key, _, value = item.partition("=")
        if key not in types:
            raise OptionError(f"target {name!r} has no option {key!r}{suggest(key, types)}")
        found[key.replace("-", "_")] = _read(name, key, types[key], value)
    return found


def _type_name(option: Field[Any]) -> str:
    """Return the name of a field's type, without the None that it may have instead."""
    written = option.type if isinstance(option.type, str) else option.type.__name__
    return written.removesuffix("| None").strip()


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


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_READERS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "Isa": (Isa.parse, "an instruction set"),
    "bool": ({"true": True, "false": False}.__getitem__, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "a text"),
}
"""Name of a type to what reads it, and to what a message says of it."""
