"""Pipeline text and pipeline files: how passes and their options are written.

The forms are described with `Pipeline`, which holds what is read here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from irtools.errors import OptionError, PipelineSyntaxError, UnknownNameError
from irtools.passmanager.base import Pass
from irtools.passmanager.declared import declared_options
from irtools.passmanager.options import check_options, format_options, parse_options
from irtools.plugins import registry, suggest

__all__ = ["parse_passes", "parse_toml", "pass_text"]


def parse_passes(text: str) -> tuple[Pass, ...]:
    """Make the passes that a pipeline text names, in order.

    Raises:
        PipelineSyntaxError: As `Pipeline.parse`.
    """
    if not text.strip():
        raise PipelineSyntaxError("the pipeline is empty, expected pass names")
    written: list[_Written] = []
    column = 0
    for part in text.split(","):
        written.extend(_split_part(part, text, column))
        column += len(part) + 1
    return _make_all(written)


def parse_toml(text: str) -> tuple[Pass, ...]:
    """Make the passes of a pipeline file, in order.

    Raises:
        PipelineSyntaxError: As `Pipeline.from_toml`.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PipelineSyntaxError(f"pipeline file is not TOML: {error}") from error
    tables = document.get("pass")
    if set(document) != {"pass"} or not isinstance(tables, list):
        raise PipelineSyntaxError("a pipeline file holds [[pass]] tables and nothing else")
    return _make_all([_read_table(table) for table in tables])


def pass_text(p: Pass) -> str:
    """Print one pass as pipeline text, with every option that is not at its default."""
    return p.name + format_options(p)


@dataclass(frozen=True)
class _Written:
    """A pass as a user wrote it.

    Attributes:
        name: Its name.
        texts: Option to text.
        source: The pipeline text that it is in; empty where there is none.
        columns: Where name (under "") and options are in it.
    """

    name: str
    texts: Mapping[str, str]
    source: str = ""
    columns: Mapping[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what can be seen to be wrong before the pass is imported."""
        with self._placed():
            if self.name not in registry.names("irtools.passes"):
                known = [*registry.names("irtools.passes"), *registry.PRESETS]
                raise UnknownNameError(f"there is no pass {self.name!r}{suggest(self.name, known)}")
            declared = declared_options(registry.plugins("irtools.passes")[self.name].value)
            if declared is not None:
                check_options(self.name, declared, self.texts)

    def make(self) -> Pass:
        with self._placed():
            return parse_options(_pass_type(self.name), self.texts)

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Say in which column the refused text is."""
        try:
            yield
        except (UnknownNameError, OptionError) as error:
            places = {k: _mention(k, str(error)) for k in self.texts}
            mentioned = [key for key, place in places.items() if place is not None]
            first = min(mentioned, key=lambda key: places[key] or 0, default="")
            raise PipelineSyntaxError(
                str(error), self.source, self.columns.get(first, 0)
            ) from error


def _mention(key: str, message: str) -> int | None:
    """Return where a message speaks of an option."""
    found = re.search(rf"(?<![\w-]){re.escape(key.replace('_', '-'))}(?![\w-])", message)
    return found.start() if found else None


def _make_all(written: Sequence[_Written]) -> tuple[Pass, ...]:
    """Make the passes; all are checked before the first is imported, which takes a second."""
    for item in written:
        item.check()
    return tuple(item.make() for item in written)


def _split_part(part: str, text: str, column: int) -> Iterator[_Written]:
    indent = len(part) - len(part.lstrip())
    name, *items = part.strip().split(":")
    start = column + indent
    if not name:
        raise PipelineSyntaxError("a pass name is missing", text, start)
    if name in registry.PRESETS:
        if items:
            raise PipelineSyntaxError(f"preset {name!r} takes no options", text, start)
        for preset in registry.PRESETS[name].split(","):
            yield from _split_part(preset, registry.PRESETS[name], 0)
        return
    offset = start + len(name) + 1
    texts: dict[str, str] = {}
    columns = {"": start}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals and texts and _is_text(name, last := next(reversed(texts))):
            texts[last] += f":{item}"  # `rules=package.module:RULES`
            offset += len(item) + 1
            continue
        if not equals or not key:
            raise PipelineSyntaxError(
                f"{item!r} is not an option, expected key=value", text, offset
            )
        if key in texts:
            raise PipelineSyntaxError(f"option {key!r} is given twice", text, offset)
        texts[key] = value
        columns[key] = offset
        offset += len(item) + 1
    yield _Written(name, texts, text, columns)


def _is_text(name: str, key: str) -> bool:
    """Whether an option of a pass takes any text, as far as its source says."""
    point = registry.plugins("irtools.passes").get(name)
    declared = None if point is None else declared_options(point.value)
    return (declared or {}).get(key.replace("_", "-")) is str


def _read_table(table: Mapping[str, object]) -> _Written:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise PipelineSyntaxError("a [[pass]] table needs a name")
    texts = {key: _toml_text(value) for key, value in table.items() if key != "name"}
    return _Written(str(table["name"]), texts)


def _toml_text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return "+".join(str(v) for v in value)
        case _:
            return str(value)


def _pass_type(name: str) -> type[Pass]:
    found = registry.load("irtools.passes", name)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise UnknownNameError(f"the plug-in {name!r} is {found!r}, expected a Pass class")
    return found
