"""Timing on another machine: by a kit that is carried there, or over ssh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest import Contender
from irtools.measure.contest import Timed as Feeds
from irtools.measure.jobs import run_once
from irtools.measure.kit import Host, KitTimes, pack_kit, run_on
from irtools.measure.sandbox import run_isolated

__all__ = ["KitTimer", "RemoteTimer"]

_PATIENCE = 900.0
"""Seconds for copying and loading, beyond those of the timing."""


class KitTimer:
    """Packs contenders in place of timing them: there are no results yet.

    Args:
        place: The kit.
        sources: Name to the file that a contender was read from, where it was one.
    """

    def __init__(self, place: Path, sources: Mapping[str, Path]) -> None:
        self._place = place
        self._sources = sources

    def __call__(
        self, contenders: Mapping[str, Contender], feeds: Feeds, bench: BenchSettings
    ) -> list[LatencyResult]:
        _try(contenders, feeds)
        pack_kit(self._place, contenders, feeds, bench, self._sources)
        return []


class RemoteTimer:
    """Times contenders on another machine.

    Attributes:
        timed: What came back; None: nothing yet.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.timed: KitTimes | None = None

    def __call__(
        self, contenders: Mapping[str, Contender], feeds: Feeds, bench: BenchSettings
    ) -> list[LatencyResult]:
        _try(contenders, feeds)
        with scratch_folder("kit") as folder:
            kit = folder / "kit.zip"
            identity = pack_kit(kit, contenders, feeds, bench)
            self.timed = run_on(self._host, kit, identity, bench.max_seconds + _PATIENCE)
        return list(self.timed.results)


def _try(contenders: Mapping[str, Contender], feeds: Feeds) -> None:
    """Run each model once at each shape, so that a kit that cannot run is not carried anywhere.

    Raises:
        IrtoolsError: As the runtime refuses it.
    """
    for name, one in contenders.items():
        for turns in feeds.values():
            first = dict(turns if isinstance(turns, Mapping) else turns[0])
            run_isolated(
                run_once, one.model, one.target, one.options, first, label=f"{one.target} on {name}"
            )
