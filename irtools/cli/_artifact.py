"""Writes what `irc optimize` and `irc compile` made."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.errors import CheckError, FileError
from irtools.frontend import find_frontend
from irtools.model import Model
from irtools.report import ArtifactEntry, Report
from irtools.target import Artifact, KernelReport, Target
from irtools.target.staging import publish, staging_folder

if TYPE_CHECKING:
    from irtools._optimize import OptimizeResult
    from irtools.cli._output import Destination

__all__ = ["compile_to", "copy_companions", "save_checked", "write_result"]


def write_result(
    result: OptimizeResult,
    source: str,
    destination: Destination,
    *,
    external_data: bool | None,
) -> tuple[Report, tuple[Path, ...]]:
    """Write the model, or what the target makes of it, and complete the report.

    Returns:
        The report with the artifact's files in it, and the files.

    Raises:
        CheckError: What was written does not read back equal.
        FileError: It cannot be written.
    """
    if destination.is_folder:
        reports = []

        def describe(artifact: Artifact) -> str:
            entry = _entry(artifact.files, artifact.kernels, artifact.notes)
            reports.append(dataclasses.replace(result.report, artifact=entry))
            return reports[0].to_json()

        model, target = result.model, result.target
        artifact, beside = compile_to(model, target, destination, source, describe)
        return reports[0], (*artifact.files, *beside)
    files = save_checked(result.written, destination.path, external_data)
    entry = _entry(files, result.report.kernels or KernelReport(), ())
    return dataclasses.replace(result.report, artifact=entry), files


def compile_to(
    model: Model,
    target: Target,
    destination: Destination,
    source: str,
    describe: Callable[[Artifact], str] | None = None,
) -> tuple[Artifact, tuple[Path, ...]]:
    """Lower a model, write what the target loads, and put tokenizer and such beside it.

    A new folder appears whole or not at all. In one that exists, files are replaced one by one
    when all of them are written, what the target opens last.

    Args:
        describe: Makes the text of `report.json` when the artifact is there.

    Returns:
        The artifact, and the other files.

    Raises:
        FileError: The folder or a file cannot be written.
    """
    place = destination.path
    with staging_folder(place if place.is_dir() else place.parent) as staging:
        folder = staging / "out"
        artifact = target.compile(model, folder, destination.stem)
        beside = [p.name for p in copy_companions(source, folder, unless_in=place)]
        if describe is not None:
            (folder / "report.json").write_text(describe(artifact), encoding="utf-8")
            beside.append("report.json")
        _move(folder, place, artifact.files[0].name)
    files = tuple(place / path.name for path in artifact.files)
    return dataclasses.replace(artifact, files=files), tuple(place / name for name in beside)


def copy_companions(
    source: str, folder: Path, *, unless_in: Path | None = None
) -> tuple[Path, ...]:
    """Put the tokenizer and such beside a model; what is there already stays as it is.

    Args:
        unless_in: Where they may be already; None: in `folder`.
    """
    beside = []
    for companion in find_frontend(source).companions(source):
        if not ((unless_in or folder) / companion.name).exists():
            beside.append(folder / companion.name)
            shutil.copyfile(companion, beside[-1])
    return tuple(beside)


def _move(folder: Path, place: Path, last: str) -> None:
    if place.is_dir():
        publish(folder, place, last)
        return
    try:
        folder.rename(place)
    except OSError as error:
        raise FileError(f"cannot make folder {place}: {error.strerror}") from error


def save_checked(model: Model, path: Path, external_data: bool | None) -> tuple[Path, ...]:
    """Write a model and read it back.

    Raises:
        CheckError: What was written is not the same model.
    """
    saved = model.save(path, external_data=external_data)
    if Model.load(path).fingerprint() != model.fingerprint():
        raise CheckError(f"{path} does not read back as the model that was written")
    return saved.files


def _entry(files: Iterable[Path], kernels: KernelReport, notes: tuple[str, ...]) -> ArtifactEntry:
    hashes: Mapping[str, str] = {path.name: _sha256(path) for path in files}
    size = sum(path.stat().st_size for path in files)
    return ArtifactEntry(hashes, size, kernels, notes)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
