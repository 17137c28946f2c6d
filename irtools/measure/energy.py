"""Energy that the CPU package takes, by the counters of RAPL (Intel, and AMD by the same files).

Linux: `/sys/class/powercap/intel-rapl:N`, Documentation/power/powercap/powercap.rst. The counters
are of whole packages, so other work on the machine is counted as well; only root may read them
since Linux 5.10.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.targets import Feeds, RunnerOptions, find_target

__all__ = ["POWERCAP", "Zone", "find_zones", "run_counted", "why_no_zones"]

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Zone:
    """The counter of one package.

    Attributes:
        folder: Where its files are.
        span: Microjoules at which it starts again from 0.
    """

    folder: str
    span: int

    def read(self) -> int:
        """Return the counter, microjoules."""
        return int((Path(self.folder) / "energy_uj").read_text(encoding="ascii"))

    def joules(self, before: int, after: int) -> float:
        """Return the energy between two readings, of which the second may have started again."""
        return (after - before if after >= before else after + self.span - before) / 1e6


def find_zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """Return the counters of the packages that this process may read."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        # `intel-rapl:0:1` is a part of `intel-rapl:0`.
        if folder.name.count(":") != 1:
            continue
        try:
            zone = Zone(str(folder), int((folder / "max_energy_range_uj").read_text("ascii")))
            zone.read()
        except (OSError, ValueError):
            continue
        found.append(zone)
    return tuple(found)


def why_no_zones(root: Path = POWERCAP) -> str:
    """Return why `find_zones` finds none."""
    if any(root.glob("intel-rapl:*")):
        return f"the counters under {root} may not be read by this user (sudo, or chmod a+r)"
    return f"this machine has no RAPL counters under {root}"


def run_counted(
    path: Path,
    target: str,
    options: RunnerOptions,
    feeds: Feeds,
    seconds: float,
    zones: Sequence[tuple[str, int]],
) -> dict[str, Any]:
    """Run a model for some time, in a child process; returns `joules` and `runs`."""
    counters = [Zone(*zone) for zone in zones]
    with find_target(target).runner(path, options) as runner:
        end = time.perf_counter() + seconds / 4
        while time.perf_counter() < end:
            runner.run(feeds)
        before, runs = [zone.read() for zone in counters], 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            runner.run(feeds)
            runs += 1
        pairs = zip(counters, before, strict=True)
        joules = sum(zone.joules(start, zone.read()) for zone, start in pairs)
        return {"joules": joules, "runs": max(runs, 1)}
