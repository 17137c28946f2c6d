"""Hashes what builds read: sources, data, versions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec

from irtools.builds.inputs import Inputs
from irtools.builds.matrix import Combination, is_function
from irtools.builds.places import KeyPath
from irtools.errors import FileError, IrtoolsError
from irtools.files import file_hashes, files_below
from irtools.measure.cpu import cpu_quota
from irtools.measure.machine import code_digest, versions
from irtools.plugins import is_task, registry
from irtools.sources import companions_in
from irtools.targets import Isa, Target, find_target, target_text

__all__ = ["Fingerprints", "still_holds"]

_GROUPS = ("passes", "targets", "frontends", "metrics", "figures", "forms", "operators")
_CARD = ("base_model", "license", "language", "summary", "pipelines", "targets")
"""What of a model's table is not about the build."""


class Fingerprints:
    """Hashes what builds read; every file once, however many builds read it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}
        self._versions: dict[str, str] | None = None

    def inputs(self, one: Combination) -> Inputs:
        """Return all that decides a build.

        Raises:
            UsageError: A name or a value of `irc.toml` that does not exist; says where.
            FileError: A source or data that is not there.
        """
        target = _target(one)
        threads = one.config.measuring.threads or cpu_quota()
        return Inputs(
            model=self._source(one),
            data=dict(self._data(one)),
            pipeline=one.pipeline_table.passes,
            target=target_text(target),
            runtime=target.version(),
            host=f"{Isa.detect().value}, {threads} threads",
            settings=_settings(one),
            versions=self._all_versions(),
            code=code_digest(),
        )

    def _source(self, one: Combination) -> str:
        table = one.model_table
        with _placing(one, ("models", one.model, "source")):
            if is_function(table.source):
                found = self._function(one)
            else:
                found = self._paths(*_files_of_source(Path(one.located(table.source))))
        further = [
            self._named_paths(one, "example", table.example),
            self._named_paths(one, "weights", table.weights),
            self._named_paths(one, "adapters", *(_folder_of(text) for text in table.adapters)),
        ]
        return _joined(found, *filter(None, further)) if any(further) else found

    def _named_paths(self, one: Combination, key: str, *texts: str | None) -> str:
        """Return one hash of files that a model's table names next to its source; empty: none."""
        paths = [one.config.folder / text for text in texts if text is not None]
        if not paths:
            return ""
        with _placing(one, ("models", one.model, key)):
            return self._paths(*paths)

    def _function(self, one: Combination) -> str:
        """Return the fingerprint of a model that a function makes: only making it shows it."""
        from irtools.builds.settings import loading_of
        from irtools.sources import load_source

        key = ("function", one.model)
        if key not in self._known:
            model = load_source(one.model_table.source, loading_of(one))
            self._known[key] = model.fingerprint()
        return self._known[key]

    def _data(self, one: Combination) -> Iterator[tuple[str, str]]:
        table = one.data_table
        for name, text in (("calibrate", table.calibrate), ("evaluate", one.evaluate)):
            if text is not None:
                with _placing(one, one.place_of(name)):
                    found = self._one_data(one, text)
                yield name, found
        if table.tokenizer is not None:
            with _placing(one, one.place_of("tokenizer")):
                found = self._paths(Path(one.located(table.tokenizer)))
            yield "tokenizer", found

    def _one_data(self, one: Combination, text: str) -> str:
        if text == "synthetic":
            return text
        if is_function(text) or is_task(text):
            return self._function_data(one, text)
        path = Path(one.located(text))
        if not path.exists():
            raise FileError(f"no data at {path}: no such file or folder")
        near = () if path.is_dir() else companions_in(path.parent)
        return self._paths(path, *near)

    def _function_data(self, one: Combination, text: str) -> str:
        from irtools.builds.settings import loading_of, reading_of
        from irtools.data import load_dataset
        from irtools.sources import load_source

        key = ("data", one.model, text)
        if key not in self._known:
            model = load_source(one.located(one.model_table.source), loading_of(one))
            self._known[key] = load_dataset(one.located(text), model, reading_of(one)).digest
        return self._known[key]

    def _paths(self, *paths: Path) -> str:
        """Return one hash of files and folders: of their names and contents, not of their place."""
        key = tuple(map(str, paths))
        if key not in self._known:
            self._known[key] = _hash_of(paths)
        return self._known[key]

    def _all_versions(self) -> dict[str, str]:
        if self._versions is None:
            self._versions = {**versions(), **_plugin_versions()}
        return self._versions


def still_holds(one: Combination, inputs: Inputs) -> bool:
    """Whether what a build has read is what it was; what functions make is not asked again."""
    texts = (one.model_table.source, one.data_table.calibrate, one.evaluate)
    if any(text is not None and (is_function(text) or is_task(text)) for text in texts):
        return True
    return Fingerprints().inputs(one).key == inputs.key


def _files_of_source(path: Path) -> tuple[Path, ...]:
    """Return what is read of a source: the file, its weights, and the tokenizer and such."""
    if path.is_dir():
        return (path,)
    if not path.exists():
        from irtools.sources import find_frontend

        find_frontend(str(path))  # Raises, and says what to do.
    weights: tuple[Path, ...] = ()
    if path.suffix == ".onnx":
        from irtools.model import weight_files

        weights = weight_files(path)
    return (path, *weights, *companions_in(path.parent))


def _hash_of(paths: Iterable[Path]) -> str:
    named: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            named |= {f"{path.name}/{name}": path / name for name in files_below(path)}
        else:
            named[path.name] = path
    hashes = file_hashes(named.values())
    return _joined(*(f"{name} {hashes[path]}" for name, path in sorted(named.items())))


def _joined(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _folder_of(adapter: str) -> str:
    path, equals, _ = adapter.rpartition("=")
    return path if equals else adapter


def _target(one: Combination) -> Target:
    with _placing(one, ("targets", one.target)):
        return find_target(one.target_text, check=False)


@contextmanager
def _placing(one: Combination, at: KeyPath) -> Iterator[None]:
    """Let an error say which line of `irc.toml` it is about, unless it does."""
    try:
        yield
    except IrtoolsError as error:
        if str(error).startswith(f"{one.config.path}:"):
            raise
        placed = one.config.error(at, str(error))
        raise (FileError(str(placed)) if isinstance(error, FileError) else placed) from error


def _settings(one: Combination) -> dict[str, Any]:
    model = {
        name: value
        for name, value in msgspec.to_builtins(one.model_table).items()
        if name.replace("-", "_") not in (*_CARD, "source", "data", "example", "weights")
    }
    data = msgspec.to_builtins(one.data_table)
    for name in ("calibrate", "evaluate", "tokenizer"):
        del data[name]
    return {
        "model": model,
        "data": data,
        "goals": str(one.goals),
        "portable": one.pipeline_table.portable,
        "measuring": msgspec.to_builtins(one.config.measuring),
        "samples": one.config.release.samples,
    }


@functools.cache
def _plugin_versions() -> Mapping[str, str]:
    """Return name and version of the packages that register something, ours apart."""
    points: Iterator[EntryPoint] = (
        point for group in _GROUPS for point in registry.plugins(f"irtools.{group}").values()
    )
    # Name and version are parsed from a file each time they are asked for.
    documents = [one.metadata for one in {point.dist for point in points} if one is not None]
    found = sorted((one["Name"], one["Version"]) for one in documents)
    return {name: number for name, number in found if name != "irtools-compiler"}
