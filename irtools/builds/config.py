"""`irc.toml`: what a release is made of."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from irtools.builds.places import KeyPath, Place, key_places
from irtools.builds.tables import (
    DataTable,
    GoalTable,
    MeasuringTable,
    ModelTable,
    PipelineTable,
    ReleaseTable,
    TrackingTable,
)
from irtools.builds.toml_words import in_toml_words
from irtools.errors import FileError, UsageError
from irtools.plugins import suggest
from irtools.words import printable

__all__ = ["Config", "read_config"]

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TWICE = re.compile(r"Cannot declare \((.*)\) twice")
_FAULT = re.compile(r"(.*?)(?: - at `\$\.?([^`\[]*)[^`]*`)?", re.DOTALL)
_TOP = ("models", "data", "pipelines", "targets", "goals", "measuring", "release", "tracking")


@dataclass(frozen=True)
class Config:
    """What `irc.toml` says, by name.

    Attributes:
        path: The file.
        places: Where its keys are.
    """

    path: Path
    places: Mapping[KeyPath, Place]
    models: Mapping[str, ModelTable]
    data: Mapping[str, DataTable]
    pipelines: Mapping[str, PipelineTable]
    targets: Mapping[str, str]
    goals: GoalTable
    measuring: MeasuringTable
    release: ReleaseTable
    tracking: TrackingTable

    @property
    def folder(self) -> Path:
        """What paths in the file are relative to."""
        return self.path.parent

    def error(self, at: KeyPath, message: str) -> UsageError:
        """Return an error that says where it is: `irc.toml:3:1: models.a.source: ...`."""
        return _error(self.path, self.places, at, message)


def read_config(path: Path) -> Config:
    """Read a build file.

    Raises:
        FileError: It cannot be read.
        UsageError: It is not TOML, a key is unknown or missing, or a value is of another type;
            says at which line and column.
    """
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "; `irc init MODEL` writes one" * isinstance(error, FileNotFoundError)
        raise FileError(f"cannot read {path}: {error.strerror}{hint}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not a text file in UTF-8") from error
    try:
        document, places = tomllib.loads(text), key_places(text)
    except ValueError as error:  # Of a number of many digits as well.
        raise UsageError(_syntax_line(path, str(error))) from error
    except RecursionError as error:
        raise UsageError(f"{path}: arrays or tables within each other are too many") from error
    return _Reader(path, places, document).config()


@dataclass(frozen=True)
class _Reader:
    path: Path
    places: Mapping[KeyPath, Place]
    document: dict[str, Any]

    def config(self) -> Config:
        self._check_keys((), self.document, _TOP)
        self._check_texts((), self.document)
        config = Config(
            path=self.path,
            places=self.places,
            models=self._named("models", ModelTable),
            data=self._named("data", DataTable),
            pipelines=self._named("pipelines", PipelineTable, PipelineTable.of),
            targets=self._named("targets", str) or {"ort-cpu": "ort-cpu"},
            goals=self._table(("goals",), GoalTable, self.document.get("goals", {})),
            measuring=self._table(
                ("measuring",), MeasuringTable, self.document.get("measuring", {})
            ),
            release=self._table(("release",), ReleaseTable, self.document.get("release", {})),
            tracking=self._table(("tracking",), TrackingTable, self.document.get("tracking", {})),
        )
        for what, found in (("models", config.models), ("pipelines", config.pipelines)):
            if not found:
                example = {"models": 'source = "model.onnx"', "pipelines": 'passes = "O3"'}
                raise UsageError(
                    f"{self.path} has no {what}: expected [{what}.NAME] with {example[what]}"
                )
        _check_references(config)
        _check_times(config)
        return config

    def _named(
        self, what: str, kind: type[T], of: Callable[[Any], Any] = lambda value: value
    ) -> dict[str, T]:
        """Read the tables of one kind, each under its name."""
        tables = self.document.get(what, {})
        if not isinstance(tables, dict):
            raise self._error((what,), f"expected tables [{what}.NAME]")
        for name in tables:
            if _NAME.fullmatch(name) is None:
                raise self._error(
                    (what, name),
                    f"{printable(name, 40)!r} is not a name of at most 100 letters, digits and "
                    ". _ -",
                    named=False,
                )
        return {name: self._table((what, name), kind, of(value)) for name, value in tables.items()}

    def _table(self, at: KeyPath, kind: type[T], value: Any) -> T:
        if isinstance(value, dict) and issubclass(kind, msgspec.Struct):
            self._check_struct(at, value, kind)
        try:
            return msgspec.convert(value, kind)
        except (msgspec.ValidationError, ValueError) as error:
            match = _FAULT.fullmatch(str(error))
            assert match is not None
            # What a table itself refuses begins with the key.
            for named in (*(match[2] or "").split("."), match[1].partition(" ")[0]):
                at = (*at, named) if (*at, named) in self.places else at
            raise self._error(at, in_toml_words(match[1], kind, str(at[-1]))) from error

    def _check_struct(
        self, at: KeyPath, table: Mapping[str, Any], kind: type[msgspec.Struct]
    ) -> None:
        """Refuse unknown keys of a table, and of the tables in it."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        self._check_keys(at, table, list(fields))
        for name, value in table.items():
            for inner in get_args(fields[name].type):
                is_table = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
                if is_table and isinstance(value, dict):
                    self._check_struct((*at, name), value, inner)

    def _check_texts(self, at: KeyPath, value: Any) -> None:
        """Refuse what no file and no name can have in it."""
        match value:
            case str() if "\0" in value:
                raise self._error(at, "holds a NUL character")
            case dict() | list():
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    self._check_texts((*at, key), item)

    def _check_keys(
        self, at: KeyPath, table: Mapping[str, Any], known: tuple[str, ...] | list[str]
    ) -> None:
        for key in table:
            if key not in known:
                where = f" in [{_dotted(at)}]" if at else ""
                raise self._error(
                    (*at, key), f"there is no key {key!r}{where}{suggest(key, known)}", named=False
                )

    def _error(self, at: KeyPath, message: str, *, named: bool = True) -> UsageError:
        return _error(self.path, self.places, at, message, named=named)


def _check_references(config: Config) -> None:
    """Refuse a model that names data, pipelines or targets that are not there."""
    for name, model in config.models.items():
        named = (
            ("data", () if model.data is None else (model.data,), config.data),
            ("pipelines", model.pipelines, config.pipelines),
            ("targets", model.targets, config.targets),
        )
        for key, wanted, known in named:
            if wanted is not None and key != "data" and not wanted:
                raise config.error(("models", name, key), "names none: leave it out to take all")
            for number, one in enumerate(wanted or ()):
                if one in (wanted or ())[:number]:
                    raise config.error(("models", name, key), f"names {one} twice")
                if one not in known:
                    raise config.error(
                        ("models", name, key), f"there is no [{key}.{one}]{suggest(one, known)}"
                    )
        if model.data is None and len(config.data) > 1:
            raise config.error(
                ("models", name), f"says not which data it takes: data = {' or '.join(config.data)}"
            )


def _check_times(config: Config) -> None:
    """Refuse goals on times where nothing is timed."""
    if config.measuring.bench != "none":
        return
    tables: list[tuple[KeyPath, GoalTable | None]] = [(("goals",), config.goals)]
    tables += [(("pipelines", name, "goals"), one.goals) for name, one in config.pipelines.items()]
    for at, table in tables:
        for goal in () if table is None else table.goals.needing("times"):
            raise config.error(
                (*at, goal.name),
                f'{goal.name} needs the benchmark, and [measuring] has bench = "none"',
            )


def _error(
    path: Path, places: Mapping[KeyPath, Place], at: KeyPath, message: str, *, named: bool = True
) -> UsageError:
    known = next((at[:length] for length in range(len(at), 0, -1) if at[:length] in places), None)
    where = "" if known is None else f":{places[known].line}:{places[known].column}"
    return UsageError(f"{path}{where}: {f'{_dotted(at)}: ' if named and at else ''}{message}")


def _dotted(at: KeyPath) -> str:
    return ".".join(map(str, at))


def _syntax_line(path: Path, message: str) -> str:
    match = _SYNTAX.fullmatch(message)
    if match is None:  # Of all that is read, Python itself refuses this alone.
        return f"{path}: a number has too many digits"
    where = f":{match[2]}:{match[3]}" if match[2] else ""
    twice = _TWICE.fullmatch(match[1])
    if twice is not None:
        name = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"{path}{where}: the table [{name}] is there twice: join the two"
    if match[1] == "Cannot overwrite a value":
        return f"{path}{where}: the key before this place is there twice: keep one"
    return f"{path}{where}: not TOML: {match[1][:1].lower() + match[1][1:]}"
