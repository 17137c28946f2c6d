"""Writes what `irc optimize` and `irc compile` made."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from irtools.driver.companions import companions_next_to, write_companions
from irtools.driver.destination import Destination
from irtools.errors import (
    CheckError,
    DataError,
    FileError,
    UnsupportedError,
    VerificationError,
)
from irtools.files import file_hash, publish, publish_folder, scratch_folder, staging_folder
from irtools.model import Model
from irtools.report.document import Report
from irtools.report.entries import ArtifactEntry
from irtools.report.page import report_page
from irtools.sources import find_frontend
from irtools.targets import Artifact, Companions, Feeds, KernelReport, Target, find_target
from irtools.words import printable

if TYPE_CHECKING:
    import numpy as np

    from irtools.driver.result import OptimizeResult

__all__ = ["WrittenExport", "compile_to", "copy_companions", "write_artifact", "write_export"]


@dataclasses.dataclass(frozen=True)
class WrittenExport:
    """What `write_export` wrote.

    Attributes:
        files: Of the models.
        companions: Tokenizer and such.
        others: Files that stayed although the source has other ones of these names.
        lacks_tokenizer: A model takes tokens, and nothing next to it makes them of texts.
        notes: What a runtime's own generation lacks.
    """

    files: tuple[Path, ...]
    companions: tuple[Path, ...]
    others: tuple[Path, ...]
    lacks_tokenizer: bool
    notes: tuple[str, ...] = ()


def write_artifact(
    result: OptimizeResult,
    out: str | os.PathLike[str] | None,
    *,
    source: str | None = None,
    force: bool = False,
    external_data: bool | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Report, tuple[Path, ...]]:
    """Write the model, or what the target makes of it, checked, and complete the report.

    A file is read back and compared; what a target loads is run once in a child process. Either
    appears whole or not at all, and an existing file is replaced only with `force`.

    Args:
        result: What `optimize` returned.
        out: `file.onnx`, or a folder for what the target loads, with the tokenizer and
            `report.json` and `report.html`; None: `<stem>.opt.onnx` in the current folder.
        source: What was optimized, as it was given; None: the file that the model was read from.
        force: Existing files may be replaced.
        external_data: Weights in a file of their own; None: where they are large.
        sizes: As `compile_to` takes them.

    Returns:
        The report with the artifact's files in it, and the files.

    Raises:
        CheckError: What was written does not read back equal, or does not run.
        UsageError: The output is the input, or exists and `force` is not given.
        FileError: It cannot be written.
    """
    if source is None:
        source = "" if result.original.source is None else str(result.original.source)
    destination = Destination.of(None if out is None else os.fspath(out), source, force=force)
    if destination.is_folder:
        reports = []

        def describe(artifact: Artifact) -> Mapping[str, str]:
            entry = _entry(artifact.files, artifact.kernels, artifact.notes)
            reports.append(dataclasses.replace(result.report, artifact=entry))
            return {"report.json": reports[0].to_json(), "report.html": report_page(reports[0])}

        model, target = result.model, result.target
        artifact, companions = compile_to(model, target, destination, source, describe, sizes=sizes)
        return reports[0], (*artifact.files, *companions)
    folder = destination.path.parent
    made = result.deployed.companions
    with companions_next_to(made, folder, source, force=force) as companions:
        saved = result.deployed.save(destination.path, external_data=external_data, compared=True)
    entry = _entry(saved.files, result.report.kernels or KernelReport(), ())
    return dataclasses.replace(result.report, artifact=entry), (*saved.files, *companions)


def compile_to(
    model: Model,
    target: Target,
    destination: Destination,
    source: str,
    describe: Callable[[Artifact], Mapping[str, str]] | None = None,
    format: str | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Artifact, tuple[Path, ...]]:
    """Lower a model, write what the target loads, and put tokenizer and such next to it.

    What was written is run once in a child process before anybody sees it. A new folder appears
    whole or not at all. In one that exists, files are replaced one by one when all of them are
    written, tokenizer and such included, what the target opens last.

    Args:
        destination: A folder, or the main file; next to a file nothing else is put.
        describe: Makes the texts of further files, by name, when the artifact is there.
        format: One of the target's formats; None: its usual one.
        sizes: Sizes of open axes for that run, as `DrawnInputs` takes them.

    Returns:
        The artifact, and the other files.

    Raises:
        OptionError: The target has no such format.
        CheckError: What was written does not run.
        FileError: The folder or a file cannot be written.
    """
    place = destination.path if destination.is_folder else destination.path.parent
    with (
        staging_folder(place if place.is_dir() else place.parent) as staging,
        _named_as_asked(staging / "out", place),
    ):
        folder = staging / "out"
        options = {} if format is None else {"format": format}
        stem = destination.stem
        if destination.is_folder:
            stem = target.folder_stem(model, stem)
        artifact = target.compile(model, folder, stem, **options)
        notes = (*artifact.notes, *_try(artifact, model, target, sizes))
        artifact = dataclasses.replace(artifact, notes=notes)
        companions: list[str] = []
        if destination.is_folder:
            # A folder that holds files is only written with --force: what was there is of another
            # model.
            copied = copy_companions(source, folder)
            made = write_companions(model.companions, folder)
            further = target.complete_folder(model, artifact.files[0])
            names = [path.name for path in (*copied, *made)]
            companions = list(dict.fromkeys((*names, *further.names)))
            notes = (*artifact.notes, *further.notes)
            artifact = dataclasses.replace(artifact, notes=notes)
        if describe is not None:
            for name, text in describe(artifact).items():
                (folder / name).write_text(text, encoding="utf-8")
                companions.append(name)
        publish_folder(folder, place, artifact.files[0].name)
    files = tuple(place / path.name for path in artifact.files)
    return dataclasses.replace(artifact, files=files), tuple(place / name for name in companions)


def write_export(
    models: Iterable[tuple[str, Model]],
    source: str,
    destination: Destination,
    *,
    external_data: bool | None,
    force: bool,
) -> WrittenExport:
    """Write models of a source, and its tokenizer and such next to them.

    A new folder appears whole or not at all. Elsewhere everything is written under other names
    first, and then renamed.

    Args:
        models: Name of the file, without suffix, and the model; a file as destination takes one.
        force: Replace companions that are there and differ.

    Raises:
        FileError: Something cannot be written; nothing was changed.
    """
    place = destination.path if destination.is_folder else destination.path.parent
    with (
        staging_folder(place if place.is_dir() else place.parent) as staging,
        _named_as_asked(staging / "out", place),
    ):
        folder = staging / "out"
        folder.mkdir()
        kept = None if force else place
        others = [] if kept is None else _others(find_frontend(source).companions(source), kept)
        companions = list(copy_companions(source, folder, unless_in=kept))
        notes: tuple[str, ...] = ()
        if not destination.is_folder:
            ((_, model),) = models
            takes_tokens = _takes_tokens(model)
            companions += _write_missing(model, folder, kept)
            saved = model.save(destination.path, external_data=external_data, compared=True)
            files = saved.files
            publish(folder, place)
        else:
            made, takes_tokens = [], False
            for name, model in models:
                takes_tokens |= _takes_tokens(model)
                companions += _write_missing(model, folder, kept)
                path = folder / f"{name}.onnx"
                made.append(model.save(path, external_data=external_data, compared=True).files)
                further = _further(model, path, kept)
                companions += [folder / name for name in further.names]
                notes += further.notes
            files = tuple(place / path.name for group in made for path in group)
            publish_folder(folder, place, files[0].name)
    lacks_tokenizer = takes_tokens and not (place / "tokenizer.json").exists()
    there = tuple(place / path.name for path in companions)
    return WrittenExport(files, there, tuple(others), lacks_tokenizer, notes)


def _further(model: Model, main: Path, kept: Path | None) -> Companions:
    """Write what ONNX Runtime's own generation needs next to a decoder; nothing for others."""
    made = find_target("ort-cpu", check=False).complete_folder(model, main)
    if kept is None or not any((kept / name).exists() for name in made.names):
        return made
    for name in made.names:
        (main.parent / name).unlink()
    return Companions(notes=(f"{', '.join(made.names)} was there already and stays",))


@contextlib.contextmanager
def _named_as_asked(folder: Path, place: Path) -> Iterator[None]:
    """Let what cannot be written have the name that it was to get.

    Args:
        folder: Where everything is written first.
        place: Where it was to go.

    Raises:
        FileError: Something cannot be written.
    """
    try:
        yield
    except OSError as error:
        if str(folder) in str(error):
            text = str(error) if isinstance(error, FileError) else _unwritten(error, folder)
            raise FileError(text.replace(str(folder), str(place))) from error
        raise


def _unwritten(error: OSError, folder: Path) -> str:
    return f"cannot write {error.filename or folder}: {error.strerror or error}"


def _takes_tokens(model: Model) -> bool:
    return any(value.name == "input_ids" for value in model.interface.inputs)


def _others(companions: Iterable[Path], place: Path) -> list[Path]:
    """Files of the names of companions that are in a folder and say something else."""
    there = ((path, place / path.name) for path in companions)
    return [old for new, old in there if old.is_file() and old.read_bytes() != new.read_bytes()]


def _write_missing(model: Model, folder: Path, kept: Path | None) -> tuple[Path, ...]:
    """Write a model's companion files that neither `folder` nor `kept` has."""
    there = [folder, *([kept] if kept is not None else [])]
    missing = {
        name: content
        for name, content in model.companions.items()
        if not any((place / name).exists() for place in there)
    }
    return write_companions(missing, folder)


def _try(
    artifact: Artifact, model: Model, target: Target, sizes: Mapping[str, int]
) -> Iterator[str]:
    """Run an artifact once in a child process, on feeds drawn from the model's signature.

    Raises:
        CheckError: It does not run, or gives other outputs than the model has.
    """
    from irtools.data import SyntheticSettings, draw_feeds
    from irtools.measure.drawable import drawn_for, run_with

    usual = SyntheticSettings(samples=1, sequence=16, image=64)
    try:
        with drawn_for(model, target, sizes) as drawn:
            found = run_with(
                drawn,
                lambda adapt: _outputs(artifact, model, target, draw_feeds(model, adapt(usual))),
            )
            if drawn.note:
                yield drawn.note
    except (DataError, UnsupportedError) as error:
        try:
            with drawn_for(model, target, sizes) as drawn:
                drawn.usable(usual)
        except (DataError, UnsupportedError):
            # No inputs suit the model itself, and some outputs are not arrays.
            yield f"loaded, but not run, like the model itself: {error}"
            return
        raise CheckError(f"{artifact.files[0].name} does not run: {error}") from error
    missing = [info.name for info in model.interface.outputs if info.name not in found]
    if missing:
        raise CheckError(f"{artifact.files[0].name} has no output {', '.join(missing)}")


def _outputs(
    artifact: Artifact, model: Model, target: Target, feeds: Feeds
) -> Mapping[str, np.ndarray]:
    """Run an artifact in a child process.

    Raises:
        CheckError: Its format is one that the runtime may compute wrongly, and it does.
        DataError: The feeds do not fit.
        UnsupportedError: It does not run.
    """
    from irtools.instruments import check_outputs
    from irtools.measure.probe import probe
    from irtools.passmanager import Exactness

    main = artifact.files[0]
    found = probe(target, main, feeds)
    if main.suffix.removeprefix(".") in target.unproven_formats:
        with scratch_folder("proof") as folder:
            proven = target.compile(model, folder, "model").files[0]
            wanted = probe(target, proven, feeds)
        for name, array in wanted.items():
            try:
                check_outputs({name: array}, found, Exactness.REASSOCIATED)
            except VerificationError as error:
                raise CheckError(
                    f"{main.name} computes other numbers than the model at the output "
                    f"{printable(name)!r}: {target.version()} reads it back wrongly; write "
                    f".{target.formats[0]}"
                ) from error
    return found


def copy_companions(
    source: str, folder: Path, *, unless_in: Path | None = None
) -> tuple[Path, ...]:
    """Put the tokenizer and such next to a model; what is there already stays as it is.

    Args:
        unless_in: Where they may be already; None: in `folder`.

    Raises:
        FileError: One cannot be copied.
    """
    companions = []
    for companion in find_frontend(source).companions(source) if source else ():
        if not ((unless_in or folder) / companion.name).exists():
            companions.append(folder / companion.name)
            try:
                shutil.copyfile(companion, companions[-1])
            except OSError as error:
                raise FileError(
                    f"cannot copy {companion} to {companions[-1]}: {error.strerror}"
                ) from error
    return tuple(companions)


def _entry(files: Iterable[Path], kernels: KernelReport, notes: tuple[str, ...]) -> ArtifactEntry:
    hashes: Mapping[str, str] = {path.name: file_hash(path) for path in files}
    size = sum(path.stat().st_size for path in files)
    return ArtifactEntry(hashes, size, kernels, notes)
