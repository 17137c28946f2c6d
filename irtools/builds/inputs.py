"""All that decides a build, by its content: the key of the cache, and what `irc.lock` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from irtools.files import Store

__all__ = ["Inputs"]


class Inputs(msgspec.Struct, frozen=True):
    """What decides the bytes of a build.

    Attributes:
        model: SHA-256 of the source: its files, or the model itself where a function makes it.
        data: SHA-256 of what is read, by what it is for.
        pipeline: Text of the passes; "auto" where they are to be found.
        target: With all its options.
        runtime: Its name and version.
        host: Instruction set and threads of the machine that calibrates and checks.
        settings: Everything else of `irc.toml` that can change a result.
        versions: Of irtools, Python, libraries and plug-ins.
        code: SHA-256 of irtools' own files.
    """

    model: str
    data: Mapping[str, str]
    pipeline: str
    target: str
    runtime: str
    host: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    code: str

    @property
    def key(self) -> str:
        """Name of the build in the store."""
        return Store.key(build=_text(self))

    def differences(self, other: Inputs) -> tuple[str, ...]:
        """Return the names of what differs, of tables with the names in them."""
        pairs = ((f, getattr(self, f), getattr(other, f)) for f in self.__struct_fields__)
        return tuple(
            f"{field}{_parts(mine, theirs)}"
            for field, mine, theirs in pairs
            if _text(mine) != _text(theirs)
        )


def _parts(mine: object, theirs: object) -> str:
    if not isinstance(mine, Mapping) or not isinstance(theirs, Mapping):
        return ""
    names = [n for n in {**mine, **theirs} if _text(mine.get(n)) != _text(theirs.get(n))]
    return f" ({', '.join(names)})"


def _text(value: object) -> str:
    """Return a value as JSON has it, which knows no tuples."""
    return msgspec.json.encode(value, order="sorted").decode()
