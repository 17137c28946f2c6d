"""What `irc build` would do, and why (`--dry-run`)."""

from __future__ import annotations

from pathlib import Path

from irtools.builds.build import BuildSettings, present_release, wanted_builds
from irtools.builds.config import Config
from irtools.builds.filling import Filler
from irtools.builds.inputs import Inputs
from irtools.builds.lock import Lock, lock_path, read_lock
from irtools.builds.matrix import Combination
from irtools.builds.release import check_apart, check_names, check_place
from irtools.builds.settings import check_recipes
from irtools.builds.tracking import BuildTracking
from irtools.builds.watch import Watch

__all__ = ["plan_builds"]


def plan_builds(config: Config, settings: BuildSettings, watch: Watch) -> dict[str, str]:
    """Return by name what `build` would do, and why; makes and writes nothing.

    Raises:
        IrtoolsError: As `build`, as far as it would come without running a model.
    """
    check_names(config)
    place = settings.folder or config.folder / config.release.folder
    check_apart(place, config)
    check_place(place, force=settings.force)
    builds, inputs = wanted_builds(config, settings)
    check_recipes(builds)
    old = present_release(place, watch)
    untracked = BuildTracking((), "", len(builds), watch)
    filler = Filler(Path(), Path(), old, settings.store, watch, untracked)
    lock = read_lock(lock_path(config.path))
    return {one.name: _planned(filler, one, inputs[one.name], lock) for one in builds}


def _planned(filler: Filler, one: Combination, inputs: Inputs, lock: Lock | None) -> str:
    """Say where a build would come from, and why it would be made."""
    known = filler.origin(one, inputs)
    if known is not None:
        return known
    before = None if lock is None else lock.builds.get(one.name)
    differing = () if before is None else inputs.differences(before.inputs)
    why = f": another {', '.join(differing)}" if differing else ""
    if one.found is not None:
        return f"to be built with the passes of irc.lock: {one.found or 'none'}"
    return f"{'to be searched for and built' if one.is_searched else 'to be built'}{why}"
