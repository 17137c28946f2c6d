"""The release folder: whole at any moment, and with its own description."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from irtools.builds.bom import bill_of_materials
from irtools.builds.card import model_card
from irtools.builds.config import Config
from irtools.builds.provenance import provenance
from irtools.builds.records import (
    MANIFEST_FILE,
    BuildRecord,
    FileRecord,
    Manifest,
    read_record,
)
from irtools.builds.summary import release_report
from irtools.errors import DataError, FileError, UsageError
from irtools.files import (
    file_hashes,
    files_below,
    folder_locked,
    json_text,
    replace_folder,
)
from irtools.report.document import Report
from irtools.version import __version__

__all__ = [
    "SIGNATURE_FILE",
    "check_apart",
    "check_names",
    "check_place",
    "config_digest",
    "copy_files",
    "damage_of",
    "describe_release",
    "fault_of",
    "publish_release",
    "read_release",
    "release_name",
]

SIGNATURE_FILE = "model.sig"
_OUTSIDE = (MANIFEST_FILE, SIGNATURE_FILE)
"""Files that the manifest does not list."""


_FILES = (
    ("README.md", "the model card"),
    (MANIFEST_FILE, "every build with its inputs and figures, every file with its hash"),
    ("report.md", "all reports as Markdown"),
    ("provenance.json", "an in-toto statement with SLSA provenance"),
    ("sbom.cdx.json", "a CycloneDX bill of materials"),
)


def config_digest(config: Config) -> str:
    """Return the SHA-256 of what `irc.toml` says, whatever its layout."""
    tables = (
        config.models,
        config.data,
        config.pipelines,
        config.targets,
        config.goals,
        config.measuring,
        config.release,
        release_name(config),
    )
    return hashlib.sha256(msgspec.json.encode(tables, order="sorted")).hexdigest()


def release_name(config: Config) -> str:
    """Return the name of a release: as it is given, else that of the folder of `irc.toml`."""
    return config.release.name or config.folder.absolute().name or "release"


def read_release(folder: Path) -> Manifest:
    """Return what a release says of itself.

    Raises:
        FileError: It is not there, or not a release.
        DataError: It is one of another version, names files that are not its own, or was changed.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise FileError(f"{folder} is not a release: it has no {MANIFEST_FILE}")
    manifest = read_record(Manifest, path)
    for one in manifest.builds:
        main = f"{one.name}/{one.main}"
        if main not in manifest.files or ".." in main.split("/") or main.startswith("/"):
            raise DataError(f"{path} names {main} as a model, which is not a file of the release")
    if not manifest.is_text(path.read_bytes()):
        raise DataError(f"{path} has other bytes than were written")
    return manifest


def fault_of(folder: Path, manifest: Manifest) -> str | None:
    """Return the first file that is missing, foreign or has other bytes; None: all are right."""
    return next(iter(faults_of(folder, manifest)), None)


def faults_of(folder: Path, manifest: Manifest) -> list[str]:
    """Return what is wrong with the files of a release, a line each."""
    present = set(files_below(folder)) - set(_OUTSIDE)
    foreign = sorted(present - set(manifest.files))
    return [*(f"{name} is not of this release" for name in foreign), *damage_of(folder, manifest)]


def damage_of(folder: Path, manifest: Manifest) -> list[str]:
    """Return which files of a release are missing or have other bytes, a line each."""
    present = set(files_below(folder))
    faults = [f"{name} is missing" for name in manifest.files if name not in present]
    hashes = file_hashes(folder / name for name in manifest.files if name in present)
    for name, file in manifest.files.items():
        if name in present and hashes[folder / name] != file.sha256:
            faults.append(f"{name} has other bytes than were written")
    return faults


def check_names(config: Config) -> None:
    """Refuse models with the name of a file that every release has.

    Raises:
        UsageError: There is one; says at which line.
    """
    taken = ("report.json", "report.html", SIGNATURE_FILE, *(name for name, _ in _FILES))
    for name in config.models:
        if name in taken:
            raise config.error(("models", name), "a file of the release has this name")


def check_apart(place: Path, config: Config) -> None:
    """Refuse to replace a folder that holds what the release is made from.

    Raises:
        UsageError: It holds `irc.toml`, a source, data, or the current folder.
    """
    whole = Path(os.path.realpath(place))
    for path in (config.path, *_read_by(config), Path.cwd()):
        if Path(os.path.realpath(path)).is_relative_to(whole):
            what = "the current folder" if path == Path.cwd() else str(path)
            raise UsageError(
                f"the release would replace the folder {place}, which holds {what}: give another "
                "one"
            )


def check_place(place: Path, *, force: bool) -> None:
    """Refuse to replace a folder that holds what no build has written.

    Raises:
        UsageError: It does, and `force` is not given.
    """
    if force or not place.exists():
        return
    if not place.is_dir():
        raise UsageError(f"{place} is a file, expected a folder for the release")
    present = files_below(place)
    if not present:
        return
    try:
        known = set(read_release(place).files)
    except (FileError, DataError):
        raise UsageError(
            f"{place} holds files and is not a release of this irc: give another folder, or --force"
        ) from None
    foreign = [name for name in present if name not in known and name not in _OUTSIDE]
    if foreign:
        raise UsageError(
            f"{place / foreign[0]} is not of the release that is there: move it, or --force"
        )


def _read_by(config: Config) -> Iterator[Path]:
    """Yield the files and folders that builds read."""
    for model in config.models.values():
        yield config.folder / model.source
    for data in config.data.values():
        for text in (data.calibrate, data.evaluate, data.tokenizer):
            if text is not None:
                yield config.folder / text


def describe_release(config: Config, builds: Sequence[BuildRecord], folder: Path) -> Manifest:
    """Write everything that describes the builds in a folder.

    Raises:
        OSError: Something cannot be written.
    """
    # Pages need every room that a report may speak of: a build where nothing changed needs none.
    from irtools.builds.page import release_page

    name = release_name(config)
    documents = {
        one.name: json.loads((folder / one.name / "report.json").read_text(encoding="utf-8"))
        for one in builds
    }
    head = {"format": "irtools-reports", "version": 1}
    _write(folder / "report.json", json_text({**head, "reports": documents}))
    reports = {build: Report.from_dict(document) for build, document in documents.items()}
    _write(folder / "report.md", release_report(name, builds, reports))
    _write(folder / "report.html", release_page(name, reports, _FILES))
    _write(folder / "README.md", model_card(config, name, builds))
    mains = file_hashes(folder / one.name / one.main for one in builds)
    bom = bill_of_materials(config, name, builds, list(mains.values()))
    _write(folder / "sbom.cdx.json", json_text(bom))
    digest = config_digest(config)
    statement = provenance(builds, _records(folder), digest)
    _write(folder / "provenance.json", json_text(statement))
    manifest, text = Manifest(
        name=name,
        release=config.release.version,
        irtools=__version__,
        config=digest,
        builds=tuple(builds),
        files=_records(folder),
    ).sealed()
    _write(folder / MANIFEST_FILE, text)
    return manifest


def publish_release(folder: Path, place: Path) -> None:
    """Put a release in its place: a reader finds the old one or the new one, whole.

    Raises:
        FileError: It cannot be moved.
    """
    for name in files_below(folder):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    with folder_locked(place.absolute().parent):
        replace_folder(folder, place)


def copy_files(names: Iterable[str], source: Path, folder: Path) -> None:
    """Copy files and their folders.

    Raises:
        OSError: One cannot be read or written.
    """
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, place)


def _records(folder: Path) -> dict[str, FileRecord]:
    names = files_below(folder)
    hashes = file_hashes(folder / name for name in names)
    return {
        name: FileRecord((folder / name).stat().st_size, hashes[folder / name]) for name in names
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
