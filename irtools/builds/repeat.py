"""Builds everything twice, without anything that was kept, and compares the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from irtools.builds.config import Config, read_config
from irtools.builds.fingerprints import Fingerprints
from irtools.builds.inputs import Inputs
from irtools.builds.lock import Lock, lock_path, read_lock, with_found
from irtools.builds.matrix import Combination, combinations
from irtools.builds.records import BUILD_FILE, MEASURED_FILES, BuildRecord, read_record
from irtools.builds.watch import Watch
from irtools.files import file_hashes, files_below, scratch_folder
from irtools.measure.sandbox import ChildLimits, run_isolated

__all__ = ["Repetition", "repeat_builds"]


@dataclass(frozen=True)
class Repetition:
    """What came of building something twice.

    Attributes:
        name: Of the build.
        files: How many were compared.
        differences: What differs, a line each.
        locked: Whether `irc.lock` is about the same inputs, and was compared as well.
    """

    name: str
    files: int
    differences: tuple[str, ...]
    locked: bool


def repeat_builds(config: Config, watch: Watch) -> Iterator[Repetition]:
    """Make every build twice, in processes and folders of their own, and compare the bytes.

    Reports, which hold times, are left out. Where `irc.lock` is about the same inputs, what it
    says came out is compared as well. A search decides by times, so that two of them may choose
    differently: what was found, by the lock or else for the first build, is built again as it is.

    Raises:
        IrtoolsError: As `build`.
    """
    fingerprints = Fingerprints()
    lock = read_lock(lock_path(config.path))
    for one in combinations(config):
        inputs = fingerprints.inputs(one)
        one = with_found(one, inputs, lock)
        with scratch_folder("check") as scratch:
            found: list[dict[str, str]] = []
            for number in (1, 2):
                watch.say(f"{one.name}, build {number} of 2{_passes(one)}")
                # Folders of different names: no path may get into a file.
                folder = scratch / ("a" if number == 1 else "a-second-place")
                folder.mkdir()
                run_isolated(
                    _make,
                    str(config.path.absolute()),
                    one.name,
                    str(folder),
                    one.found,
                    limits=ChildLimits(seconds=None),
                    label=f"building {one.name}",
                )
                found.append(_hashes(folder))
                one = _as_found(one, folder)
        kept, (first, second) = _locked(lock, one, inputs), found
        yield Repetition(
            one.name, len(first), tuple(_differences(first, second, kept)), kept is not None
        )


def _passes(one: Combination) -> str:
    return "" if one.found is None else f", with the passes that a search found: {one.found}"


def _as_found(one: Combination, folder: Path) -> Combination:
    """Return a build that was searched for with the passes that were found."""
    if not one.is_searched:
        return one
    return replace(one, found=read_record(BuildRecord, folder / BUILD_FILE).pipeline)


def _make(config: str, name: str, folder: str, found: str | None) -> None:
    """Make one build in this process; what is kept of other builds is not used."""
    from irtools.builds.make import make_build

    (one,) = (c for c in combinations(read_config(Path(config))) if c.name == name)
    one = replace(one, found=found)
    make_build(one, Fingerprints().inputs(one), Path(folder), None)


def _hashes(folder: Path) -> dict[str, str]:
    names = [name for name in files_below(folder) if name not in MEASURED_FILES]
    found = file_hashes(folder / name for name in names)
    return {name: found[folder / name] for name in names}


def _locked(lock: Lock | None, one: Combination, inputs: Inputs) -> dict[str, str] | None:
    held = None if lock is None else lock.builds.get(one.name)
    if held is None or held.inputs.differences(inputs):
        return None
    return dict(msgspec.to_builtins(held.files))


def _differences(
    first: dict[str, str], second: dict[str, str], kept: dict[str, str] | None
) -> Iterator[str]:
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            yield f"{name} differs between two builds"
        elif kept is not None and kept.get(name) != first.get(name):
            yield f"{name} differs from irc.lock"
