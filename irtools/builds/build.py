"""Builds a release: what did not change is taken from where it is, the rest is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irtools.builds.config import Config
from irtools.builds.filling import Filler, Origin
from irtools.builds.fingerprints import Fingerprints
from irtools.builds.inputs import Inputs
from irtools.builds.lock import (
    Lock,
    LockedBuild,
    check_lock,
    lock_path,
    read_lock,
    with_found,
    write_lock,
)
from irtools.builds.matrix import Combination, combinations
from irtools.builds.records import (
    MEASURED_FILES,
    BuildRecord,
    Manifest,
)
from irtools.builds.release import (
    check_apart,
    check_names,
    check_place,
    config_digest,
    describe_release,
    fault_of,
    publish_release,
    read_release,
    release_name,
)
from irtools.builds.tracking import BuildTracking
from irtools.errors import DataError, FileError, IrtoolsError, LimitError
from irtools.files import Store, remove_staging, restore_folder, staging_folder

if TYPE_CHECKING:
    from irtools.builds.watch import Watch
    from irtools.trackers import Tracker

__all__ = ["BuildResult", "BuildSettings", "build", "present_release", "wanted_builds"]

_STAGING = re.compile(r"/\.irtools-staging-\w+/files")


@dataclass(frozen=True)
class BuildSettings:
    """How a release is built.

    Attributes:
        folder: Where to; None: as `irc.toml` says.
        store: What is kept between builds; None: nothing.
        locked: Refuse anything that differs from `irc.lock`.
        force: Replace a folder that holds other files.
        sign: Signs a folder that is about to be published; None: it has no signature.
        gate: Judges a release before it is published, and raises where it must not be.
        trackers: Get a run for each build that is made.
    """

    folder: Path | None = None
    store: Store | None = None
    locked: bool = False
    force: bool = False
    sign: Callable[[Path], None] | None = None
    gate: Callable[[Path, Manifest], None] | None = None
    trackers: tuple[Tracker, ...] = ()


@dataclass(frozen=True)
class BuildResult:
    """A release.

    Attributes:
        folder: Where it is.
        origins: Where each build comes from.
    """

    folder: Path
    manifest: Manifest
    origins: Mapping[str, Origin]


def build(config: Config, settings: BuildSettings, watch: Watch) -> BuildResult:
    """Bring a release up to date.

    The folder is replaced at one moment, when all builds are there; what was made until then is in
    the store, so that an interrupted build goes on where it was. Builds may run at the same time.

    Raises:
        UsageError: `irc.toml` names what does not exist, or the folder holds foreign files.
        CheckError: A budget or a check does not hold, or `irc.lock` does not.
        FileError: Something cannot be read or written.
        IrtoolsError: As `optimize`; of several failing builds the first one's error, with how
            many failed.
    """
    check_names(config)
    place = settings.folder or config.folder / config.release.folder
    check_apart(place, config)
    restore_folder(place)
    remove_staging(place.absolute().parent)
    check_place(place, force=settings.force)
    builds, inputs = wanted_builds(config, settings)
    old = present_release(place, watch)
    if old is not None and _is_current(old, config, builds, inputs) and settings.sign is None:
        result = BuildResult(place, old, {one.name: "unchanged" for one in builds})
        if settings.gate is not None:
            settings.gate(place, old)
    else:
        # An unchanged build needs no passes.
        from irtools.builds.settings import check_recipes

        check_recipes(builds)
        name = release_name(config)
        with BuildTracking(settings.trackers, name, len(builds), watch) as tracking:
            result = _renewed(config, builds, inputs, place, old, settings, watch, tracking)
            tracking.finish(place)
    if not settings.locked:
        write_lock(lock_path(config.path), _lock(config, result.manifest))
    return result


def wanted_builds(
    config: Config, settings: BuildSettings
) -> tuple[tuple[Combination, ...], dict[str, Inputs]]:
    """Return the builds, with the passes that `irc.lock` has of a search, and what decides them.

    Raises:
        CheckError: They are to be as locked, and something has changed.
        IrtoolsError: As `Fingerprints.inputs`.
    """
    builds, path, fingerprints = combinations(config), lock_path(config.path), Fingerprints()
    inputs = {one.name: fingerprints.inputs(one) for one in builds}
    lock = read_lock(path) if settings.locked or any(one.is_searched for one in builds) else None
    if settings.locked:
        check_lock(lock, path, inputs)
    found = (with_found(one, inputs[one.name], lock, locked=settings.locked) for one in builds)
    return tuple(found), inputs


def present_release(place: Path, watch: Watch) -> Manifest | None:
    """Return the release that is there, if it is whole."""
    try:
        manifest = read_release(place)
    except (FileError, DataError):
        return None
    fault = fault_of(place, manifest)
    if fault is not None:
        watch.say(f"{place}/{fault}: the release is written again")
        return None
    return manifest


def _is_current(
    manifest: Manifest, config: Config, builds: Sequence[Combination], inputs: Mapping[str, Inputs]
) -> bool:
    held = {one.name: one for one in manifest.builds}
    return (
        held.keys() == inputs.keys()
        and all(held[one.name].answers(one, inputs[one.name]) for one in builds)
        and manifest.config == config_digest(config)
    )


def _renewed(
    config: Config,
    builds: Sequence[Combination],
    inputs: Mapping[str, Inputs],
    place: Path,
    old: Manifest | None,
    settings: BuildSettings,
    watch: Watch,
    tracking: BuildTracking,
) -> BuildResult:
    with staging_folder(place.absolute().parent) as staging, _writing(staging / "release", place):
        root = staging / "release"
        root.mkdir()
        filler = Filler(root, place, old, settings.store, watch, tracking)
        filled = list(_each(builds, lambda one: filler.fill(one, inputs[one.name]), watch))
        records = [record for record, _ in filled]
        manifest = describe_release(config, records, root)
        if settings.gate is not None:
            settings.gate(root, manifest)
        if settings.sign is not None:
            settings.sign(root)
        publish_release(root, place)
    origins = {record.name: origin for record, origin in filled}
    return BuildResult(place, manifest, origins)


def _each(
    builds: Sequence[Combination],
    fill: Callable[[Combination], tuple[BuildRecord, Origin]],
    watch: Watch,
) -> Iterator[tuple[BuildRecord, Origin]]:
    """Make all builds, and go on after one that fails: the others are kept for the next time."""
    errors: list[IrtoolsError] = []
    for number, one in enumerate(builds, 1):
        watch.say(f"build {number} of {len(builds)}: {one.name}")
        try:
            yield fill(one)
        except (FileError, LimitError):
            raise
        except IrtoolsError as error:
            errors.append(error.within(one.name))
            if len(builds) > 1:
                watch.say(f"failed: {error}")
    if errors:
        if len(builds) > 1:
            errors[0].add_note(
                f"{len(errors)} of {len(builds)} builds failed and the release stays as it was"
            )
        raise errors[0]


def _lock(config: Config, manifest: Manifest) -> Lock:
    builds = {}
    for one in manifest.builds:
        prefix = f"{one.name}/"
        files = {
            name.removeprefix(prefix): file.sha256
            for name, file in manifest.files.items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in MEASURED_FILES
        }
        builds[one.name] = LockedBuild(one.inputs, one.pipeline, files)
    return Lock(seed=config.measuring.seed, builds=builds)


@contextmanager
def _writing(root: Path, place: Path) -> Iterator[None]:
    """Let what cannot be written have the name that it was to get.

    Args:
        root: Where everything is written first.
        place: Where it was to go.
    """
    try:
        yield
    except FileError as error:
        if str(root) not in str(error):
            raise
        text = _STAGING.sub("", str(error).replace(str(root), str(place)))
        raise FileError(text) from error
    except IrtoolsError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {place}: {error.strerror or error}") from error
