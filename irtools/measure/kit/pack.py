"""Packs models, inputs and what times them into one zip."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irtools.errors import FileError, UnsupportedError
from irtools.files import file_hash, staging_folder
from irtools.measure.base import BenchSettings
from irtools.measure.kit.base import KIT
from irtools.measure.timing import Contender
from irtools.model import Model, weight_files
from irtools.targets import Feeds, find_target
from irtools.version import __version__

__all__ = ["pack_kit"]

_RUNNER = Path(__file__).with_name("runner.py")
_PROVIDERS = {
    "ort-cpu": ["CPUExecutionProvider"],
    "ort-cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
_DATE = (2000, 1, 1, 0, 0, 0)
"""Of every file in the zip, so that the same kit has the same bytes."""


def pack_kit(
    place: Path,
    contenders: Mapping[str, Contender],
    feeds: Mapping[str, Feeds | Sequence[Feeds]],
    settings: BenchSettings,
    sources: Mapping[str, Path] | None = None,
) -> str:
    """Write a kit; it appears whole or not at all.

    Args:
        place: The file, which is replaced.
        contenders: Name to a file and what runs it; the first is the baseline.
        feeds: As `measure` takes them.
        settings: How to time. The rounds are all run: nothing there knows an interval.
        sources: Name to the file that a contender was read from, where it was one.

    Returns:
        What identifies the kit.

    Raises:
        UnsupportedError: A target that onnxruntime alone does not run, or an input that numpy
            alone does not know.
        FileError: It cannot be written.
    """
    with staging_folder(place.absolute().parent) as staging:
        made = staging / "kit.zip"
        try:
            with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                kit = _Packer(archive, staging).pack(contenders, feeds, settings, sources or {})
            made.replace(place)
        except OSError as error:
            raise FileError(f"cannot write {place}: {error.strerror or error}") from error
    return kit


class _Packer:
    """Fills a zip, and keeps the hash of everything in it."""

    def __init__(self, archive: zipfile.ZipFile, scratch: Path) -> None:
        self._archive = archive
        self._scratch = scratch
        self._files: dict[str, str] = {}

    def pack(
        self,
        contenders: Mapping[str, Contender],
        feeds: Mapping[str, Feeds | Sequence[Feeds]],
        settings: BenchSettings,
        sources: Mapping[str, Path],
    ) -> str:
        document: dict[str, Any] = {
            "format": KIT,
            "version": 1,
            "irtools": __version__,
            "settings": {
                "threads": settings.threads,
                "rounds": settings.rounds,
                "block_seconds": settings.block_seconds,
                "max_seconds": settings.max_seconds,
            },
            "models": [
                self._model(number, name, one, sources.get(name))
                for number, (name, one) in enumerate(contenders.items())
            ],
            "shapes": [
                {"label": label, "feeds": list(self._feeds(number, _turns(one)))}
                for number, (label, one) in enumerate(feeds.items())
            ],
            "files": self._files,
        }
        text = json.dumps(document, sort_keys=True)
        kit = hashlib.sha256(text.encode()).hexdigest()
        self._write("kit.json", json.dumps({**document, "kit": kit}, indent=1).encode())
        self._write("__main__.py", _RUNNER.read_bytes())
        return kit

    def _model(self, number: int, name: str, one: Contender, source: Path | None) -> dict[str, Any]:
        target = find_target(one.target, check=False)
        if target.name not in _PROVIDERS:
            raise UnsupportedError(
                f"a kit needs onnxruntime alone, which does not run {target.name}: leave out "
                f"{name}, or time it where irtools is installed"
            )
        path = one.model if isinstance(one.model, Path) else None
        model = one.model if isinstance(one.model, Model) else None
        if path is not None and path.suffix == ".onnx":
            model = Model.load(path)
        if model is not None:
            path = self._scratch / f"{number}" / "model.onnx"
            path.parent.mkdir()
            model.save(path)
        assert path is not None
        for file in (path, *weight_files(path)) if path.suffix == ".onnx" else (path,):
            self._copy(f"models/{number}/{file.name}", file)
        return {
            "name": name,
            "path": f"models/{number}/{path.name}",
            "target": one.target,
            "providers": _PROVIDERS[target.name],
            "sha256": file_hash(path) if model is None else model.fingerprint(),
            "files": [] if source is None else [file_hash(source)],
        }

    def _feeds(self, number: int, turns: Sequence[Feeds]) -> Iterator[str]:
        for turn, feeds in enumerate(turns):
            for name, array in feeds.items():
                if array.dtype.kind == "O" or array.dtype.isbuiltin != 1:
                    raise UnsupportedError(
                        f"input {name} is of type {array.dtype}, which numpy alone does not know: "
                        "a kit cannot hold it"
                    )
            stream = io.BytesIO()
            np.savez(stream, allow_pickle=False, **feeds)
            place = f"feeds/{number}-{turn}.npz"
            self._write(place, stream.getvalue())
            self._files[place] = hashlib.sha256(stream.getvalue()).hexdigest()
            yield place

    def _write(self, name: str, content: bytes) -> None:
        self._archive.writestr(_entry(name), content, compresslevel=1)

    def _copy(self, name: str, file: Path) -> None:
        # Of large files the size must be known before they are written.
        entry = _entry(name, file.stat().st_size)
        with file.open("rb") as stream, self._archive.open(entry, "w") as to:
            shutil.copyfileobj(stream, to, 1 << 20)
        self._files[name] = file_hash(file)


def _entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = size
    return entry


def _turns(feeds: Feeds | Sequence[Feeds]) -> Sequence[Feeds]:
    return [feeds] if isinstance(feeds, Mapping) else feeds
