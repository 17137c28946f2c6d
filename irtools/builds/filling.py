"""Where each build of a release comes from: the release that is there, the store, or a run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from irtools.builds.fingerprints import still_holds
from irtools.builds.inputs import Inputs
from irtools.builds.matrix import Combination
from irtools.builds.records import BUILD_FILE, BuildRecord, Manifest, read_record, record_text
from irtools.builds.release import copy_files
from irtools.errors import DataError
from irtools.files import Entry, Store, file_hashes, files_below

if TYPE_CHECKING:
    from irtools.builds.tracking import BuildTracking
    from irtools.builds.watch import Watch

__all__ = ["KIND", "Filler", "Origin"]

Origin = Literal["unchanged", "from the cache", "built"]

KIND = "build"
"""Of entries in the store."""


@dataclass(frozen=True)
class Filler:
    """Puts builds into the folder that becomes the release."""

    root: Path
    place: Path
    old: Manifest | None
    store: Store | None
    watch: Watch
    tracking: BuildTracking

    def fill(self, one: Combination, inputs: Inputs) -> tuple[BuildRecord, Origin]:
        """Take a build from the release that is there, from the store, or make it."""
        folder = self.root / one.name
        folder.mkdir(parents=True)
        if self._take_old(one, inputs, folder):
            return _renamed(one, folder), "unchanged"
        if self.store is None:
            return self._make(one, inputs, folder, None), "built"
        with self.store.making(
            inputs.key, lambda: self.watch.say("another irc builds it: waiting")
        ):
            with self.store.open(KIND, inputs.key) as entry:
                if entry is not None and _answers(entry, one, inputs):
                    copy_files(entry.files, entry.folder, folder)
                    return _renamed(one, folder), "from the cache"
            record = self._make(one, inputs, folder, self.store.folder)
            names = files_below(folder)
            if sum((folder / name).stat().st_size for name in names) <= self.store.largest:
                self.store.put(KIND, inputs.key, lambda to: copy_files(names, folder, to), one.name)
        return record, "built"

    def _make(
        self, one: Combination, inputs: Inputs, folder: Path, cache: Path | None
    ) -> BuildRecord:
        from irtools.builds.make import make_build

        with self.tracking.following(one, folder) as watch:
            record = make_build(one, inputs, folder, cache, watch)
            if not still_holds(one, inputs):
                raise DataError("its source or data changed while it was built: build again")
        return record

    def origin(self, one: Combination, inputs: Inputs) -> Origin | None:
        """Return where a build would come from; None: from a run."""
        if self._old_build(one, inputs) is not None:
            return "unchanged"
        if self.store is not None:
            with self.store.open(KIND, inputs.key) as entry:
                if entry is not None and _answers(entry, one, inputs):
                    return "from the cache"
        return None

    def _old_build(self, one: Combination, inputs: Inputs) -> BuildRecord | None:
        builds = () if self.old is None else self.old.builds
        return next((build for build in builds if build.answers(one, inputs)), None)

    def _take_old(self, one: Combination, inputs: Inputs, folder: Path) -> bool:
        build = self._old_build(one, inputs)
        if build is None:
            return False
        assert self.old is not None
        below = (n for n in self.old.files if n.startswith(f"{build.name}/"))
        names = [name.removeprefix(f"{build.name}/") for name in below]
        return self._copy_old(build.name, names, folder)

    def _copy_old(self, name: str, files: list[str], folder: Path) -> bool:
        """Copy a build; False where another process has put another release there meanwhile."""
        assert self.old is not None
        try:
            copy_files(files, self.place / name, folder)
        except FileNotFoundError:
            found = {}
        else:
            found = file_hashes(folder / file for file in files)
        if all(found.get(folder / f) == self.old.files[f"{name}/{f}"].sha256 for f in files):
            return True
        shutil.rmtree(folder)
        folder.mkdir()
        return False


def _answers(entry: Entry, one: Combination, inputs: Inputs) -> bool:
    """Whether an entry of the store is what a build would make."""
    return read_record(BuildRecord, entry.folder / BUILD_FILE).answers(one, inputs)


def _renamed(one: Combination, folder: Path) -> BuildRecord:
    """Give a build that was made under other names those of this `irc.toml`."""
    path = folder / BUILD_FILE
    found = read_record(BuildRecord, path)
    wanted = msgspec.structs.replace(found, name=one.name, source=one.model_table.source)
    if wanted != found:
        path.write_text(record_text(wanted), encoding="utf-8")
    return wanted
