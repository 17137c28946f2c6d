"""Facts as plain data, and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from irtools.causes.facts import (
    ChosenClasses,
    ExitUse,
    Facts,
    GridUse,
    PaddingUse,
    RecordedFacts,
    Subject,
    Threads,
    Times,
)
from irtools.measure.divergence import Comparison
from irtools.measure.profile import Profile
from irtools.targets import KernelReport, Target

__all__ = ["facts_from_plain", "plain_facts"]

_TYPES: Mapping[str, Any] = {
    "times": Times | None,
    "profiles": tuple[Profile, Profile] | None,
    "kernels": tuple[KernelReport, KernelReport] | None,
    "threads": Threads | None,
    "comparison": Comparison | None,
    "decisions": ChosenClasses | None,
    "grids": tuple[GridUse, ...],
    "padding": PaddingUse | None,
    "exits": tuple[ExitUse, ...],
    "data": str | None,
}


def plain_facts(facts: Facts) -> dict[str, Any]:
    """Return what was measured of two models; what was not yet is measured now.

    Infinite numbers stay what they are, which JSON knows only where it is allowed to.
    """
    found: dict[str, Any] = {name: _plain(getattr(facts, name)) for name in _TYPES}
    found["bytes"] = [facts.first.file_bytes, facts.second.file_bytes]
    return found


def facts_from_plain(
    plain: Mapping[str, Any], first: Subject, second: Subject, target: Target
) -> RecordedFacts:
    """Read facts back, about models that are at hand.

    Raises:
        msgspec.ValidationError: They are not what `plain_facts` returns.
    """
    read = {name: msgspec.convert(plain[name], kind) for name, kind in _TYPES.items()}
    sizes: list[int] = msgspec.convert(plain["bytes"], list[int])
    a, b = (
        dataclasses.replace(one, file_bytes=size)
        for one, size in zip((first, second), sizes, strict=True)
    )
    return RecordedFacts(a, b, target, **read)


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case tuple() | list():
            return [_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        case _:
            return value.item() if hasattr(value, "item") else value
