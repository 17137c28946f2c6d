"""The words that pipeline text is made of, for completion. Imports no pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from irtools.passmanager import UNREAD, declared_options, described, type_text
from irtools.plugins import registry

__all__ = ["names", "pipeline_words"]

_GROUP = "irtools.passes"


def names() -> Iterator[tuple[str, str]]:
    """Yield passes and presets, each with what it stands for."""
    for name in registry.names(_GROUP):
        document = described(_GROUP, name)
        yield name, document["summary"] if document else ""
    yield from registry.PRESETS.items()


def pipeline_words(incomplete: str) -> Iterator[tuple[str, str, bool]]:
    """Yield whole texts that go on from an unfinished one.

    Returns:
        The text, what its last word means, and whether more must follow.
    """
    head, comma, last = incomplete.rpartition(",")
    before = head + comma
    if ":" not in last:
        for name, summary in names():
            yield before + name, summary, True
        return
    known = _options(last.partition(":")[0])
    head, _, option = last.rpartition(":")
    before += f"{head}:"
    name, equals, _ = option.partition("=")
    if not equals:
        given = {item.partition("=")[0] for item in head.split(":")[1:]}
        for key, (_, meaning) in known.items():
            if key not in given:
                yield f"{before}{key}=", meaning, True
        return
    kind, _ = known.get(name.replace("_", "-"), ("", ""))
    for value in _choices(kind):
        yield f"{before}{name}={value}", "", True


def _options(name: str) -> Mapping[str, tuple[str, str]]:
    """Return the options of a pass: type as a user reads it, and meaning."""
    document = described(_GROUP, name)
    if document is not None:
        return {o["name"]: (o["type"], o["help"]) for o in document["options"]}
    point = registry.plugins(_GROUP).get(name)
    declared: Mapping[str, Any] = declared_options(point.value) or {} if point else {}
    return {key: ("" if kind is UNREAD else type_text(kind), "") for key, kind in declared.items()}


def _choices(kind: str) -> Iterator[str]:
    for part in kind.split(" or "):
        if "|" in part:
            yield from part.split("|")
        elif part == "none":
            yield part
