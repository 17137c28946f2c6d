"""Where the keys of a TOML document are: `tomllib` reads values and forgets their places."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["KeyPath", "Place", "key_places"]

KeyPath: TypeAlias = "tuple[str | int, ...]"

_TOKEN = re.compile(
    r'(?P<text>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
    r"|(?P<mark>[\[\]{},=.\n])|(?P<space>[ \t\r]+|\#[^\n]*)|(?P<bare>[^\s\[\]{},=.\"'#]+)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Place:
    """Line and column, counted from 1."""

    line: int
    column: int


def key_places(text: str) -> dict[KeyPath, Place]:
    """Return where each key is first written, by its path from the top.

    Elements of arrays have their position in the path: `("pass", 0, "name")`.

    Args:
        text: A document that `tomllib` has read.
    """
    return _Scanner(text).places


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    offset: int


class _Scanner:
    """Goes through a valid document once; what it does not understand it need not."""

    def __init__(self, text: str) -> None:
        self.places: dict[KeyPath, Place] = {}
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._counts: dict[KeyPath, int] = {}
        table: KeyPath = ()
        while (token := self._peek()) is not None:
            if token.text == "\n":
                self._next += 1
            elif token.text == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _is(self, marks: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "mark" and token.text in marks

    def _header(self) -> KeyPath:
        """Read `[a.b]` or `[[a.b]]`."""
        self._next += 1
        several = self._is("[")
        self._next += several
        path = self._key(())
        self._next += 1 + several
        if not several:
            return path
        number = self._counts[path] = self._counts.get(path, -1) + 1
        return (*path, number)

    def _key(self, table: KeyPath) -> KeyPath:
        """Read `a`, `"a b"` or `a.b`, and note where each part is."""
        path = table
        while True:
            token = self._tokens[self._next]
            self._next += 1
            path = (*self._current(path), _name(token))
            self.places.setdefault(path, self._place(token))
            if not self._is("."):
                return path
            self._next += 1

    def _current(self, path: KeyPath) -> KeyPath:
        """Let a path into an array of tables go to its last table, as TOML has it."""
        return (*path, self._counts[path]) if path in self._counts else path

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self._next += 1  # =
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._is("["):
            self._array(path)
        elif self._is("{"):
            self._inline_table(path)
        else:
            while self._peek() is not None and not self._is(",]}\n"):
                self._next += 1

    def _array(self, path: KeyPath) -> None:
        self._next += 1
        number = 0
        while not self._is("]"):
            if self._is(",\n"):
                number += self._is(",")
                self._next += 1
            else:
                self._value((*path, number))
        self._next += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._next += 1
        while not self._is("}"):
            if self._is(",\n"):
                self._next += 1
            else:
                self._pair(path)
        self._next += 1

    def _place(self, token: _Token) -> Place:
        start = self._text.rfind("\n", 0, token.offset) + 1
        return Place(self._text.count("\n", 0, token.offset) + 1, token.offset - start + 1)


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match.group(), match.start())


def _name(token: _Token) -> str:
    if token.kind != "text":
        return token.text
    name: str = tomllib.loads(f"key = {token.text}")["key"]
    return name
