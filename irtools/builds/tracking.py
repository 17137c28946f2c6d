"""Writes what was built to trackers: one run for each build that was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from irtools.builds.filling import Origin
from irtools.builds.watch import Watch
from irtools.report.document import Report
from irtools.trackers import Tracker, log_run, tracked_run

__all__ = ["track_builds"]


def track_builds(
    folder: Path, origins: Mapping[str, Origin], trackers: Sequence[Tracker], watch: Watch
) -> None:
    """Write the builds that were made to trackers; what was there before has its run already.

    Args:
        folder: The release.
        origins: Where each build comes from.
    """
    for name, origin in origins.items():
        if origin == "built":
            text = (folder / name / "report.json").read_text(encoding="utf-8")
            log_run(trackers, tracked_run(Report.from_json(text), name), watch.say)
