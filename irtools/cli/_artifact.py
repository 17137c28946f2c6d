"""Writes what `irc optimize` and `irc compile` made."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.errors import CheckError, FileError
from irtools.frontend import find_frontend
from irtools.model import Model
from irtools.report import ArtifactEntry, Report
from irtools.target import Artifact, KernelReport, Target

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
        artifact, beside = compile_to(result.model, result.target, destination, source)
        entry = _entry(artifact.files, artifact.kernels, artifact.notes)
        report = dataclasses.replace(result.report, artifact=entry)
        document = destination.path / "report.json"
        document.write_text(report.to_json(), encoding="utf-8")
        return report, (*artifact.files, *beside, document)
    files = save_checked(result.written, destination.path, external_data)
    entry = _entry(files, result.report.kernels or KernelReport(), ())
    return dataclasses.replace(result.report, artifact=entry), files


def compile_to(
    model: Model, target: Target, destination: Destination, source: str
) -> tuple[Artifact, tuple[Path, ...]]:
    """Lower a model, write what the target loads, and put tokenizer and such beside it.

    Returns:
        The artifact and the companion files.
    """
    try:
        destination.path.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make folder {destination.path}: {error.strerror}") from error
    artifact = target.compile(model, destination.path, destination.stem)
    return artifact, copy_companions(source, destination.path)


def copy_companions(source: str, folder: Path) -> tuple[Path, ...]:
    """Put the tokenizer and such beside a model; what is there already stays as it is."""
    beside = []
    for companion in find_frontend(source).companions(source):
        copy = folder / companion.name
        if not copy.exists():
            shutil.copyfile(companion, copy)
            beside.append(copy)
    return tuple(beside)


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
