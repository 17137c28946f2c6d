"""`irc.lock`: versions, seeds and hashes of all that went into a release, and of what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec

from irtools.builds.inputs import Inputs
from irtools.builds.matrix import Combination
from irtools.builds.records import Record, read_record, record_text
from irtools.errors import CheckError
from irtools.files import write_text

__all__ = [
    "Lock",
    "LockedBuild",
    "check_lock",
    "lock_path",
    "read_lock",
    "with_found",
    "write_lock",
]

_OF_HOST = ("host", "code")
"""Inputs that may differ from machine to machine; what they change is the bytes, not the recipe."""


class LockedBuild(msgspec.Struct, frozen=True):
    """One build.

    Attributes:
        inputs: What went in.
        pipeline: Text of the passes that made it: those that were given, or found.
        files: SHA-256 of the files that came out.
    """

    inputs: Inputs
    pipeline: str
    files: Mapping[str, str]


class Lock(Record, frozen=True):
    """All builds by name."""

    FORMAT: ClassVar[str] = "irtools-lock"
    REMEDY: ClassVar[str] = (
        "remove it, and it is written again; passes that it has of a search are then searched for "
        "again, or kept by building with the irtools that wrote it"
    )

    seed: int
    builds: Mapping[str, LockedBuild]


def lock_path(config: Path) -> Path:
    """Return where the lock of a build file is: `irc.lock` next to `irc.toml`."""
    return config.with_suffix(".lock")


def read_lock(path: Path) -> Lock | None:
    """Return the lock; None where there is none.

    Raises:
        DataError: It is not one, or of another version.
    """
    return read_record(Lock, path) if path.exists() else None


def write_lock(path: Path, lock: Lock) -> bool:
    """Write the lock where it differs; returns whether it did.

    Raises:
        FileError: It cannot be written.
    """
    text = record_text(lock)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def with_found(
    one: Combination, inputs: Inputs, lock: Lock | None, *, locked: bool = False
) -> Combination:
    """Return a build with the passes that a search has found for it, where the lock has them.

    Args:
        inputs: They must be those of the lock.
        locked: Instruction set and threads of the machine may differ.
    """
    held = None if lock is None else lock.builds.get(one.name)
    if held is None or not one.is_searched:
        return one
    differing = held.inputs.differences(inputs)
    if any(not (locked and field in _OF_HOST) for field in differing):
        return one
    return replace(one, found=held.pipeline)


def check_lock(lock: Lock | None, path: Path, inputs: Mapping[str, Inputs]) -> None:
    """Make sure that nothing has changed since the lock was written (`--locked`).

    Instruction set and threads of the machine may differ.

    Raises:
        CheckError: Something has, or there is no lock.
    """
    if lock is None:
        raise CheckError(f"--locked needs {path}: run irc build without it once, and commit both")
    changes = list(_changes(lock, inputs))
    if changes:
        raise CheckError(
            f"{path} does not hold: {'; '.join(changes)} (irc build without --locked renews it)"
        )


def _changes(lock: Lock, inputs: Mapping[str, Inputs]) -> Iterator[str]:
    for name in sorted(lock.builds.keys() ^ inputs.keys()):
        yield f"{name} is {'new' if name in inputs else 'gone'}"
    for name in sorted(lock.builds.keys() & inputs.keys()):
        differing = lock.builds[name].inputs.differences(inputs[name])
        if found := [field for field in differing if field.split()[0] not in _OF_HOST]:
            yield f"{name} has another {', '.join(found)}"
