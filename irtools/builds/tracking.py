"""Trackers follow builds: one run for each build that is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from irtools.builds.matrix import Combination
from irtools.builds.watch import Watch
from irtools.plugins import all_of

if TYPE_CHECKING:
    from irtools.trackers import RunLog, Tracker

__all__ = ["BuildTracking"]


class BuildTracking:
    """Runs of the builds that are made; of several builds they are parts of one run for all.

    What the release or the cache had has its run already.

    Args:
        trackers: Which; none: nothing is written.
        name: Of the release.
        builds: How many it has.
        watch: Told where the runs are.
    """

    def __init__(self, trackers: Sequence[Tracker], name: str, builds: int, watch: Watch) -> None:
        self._trackers = trackers
        self._name = name
        self._several = builds > 1
        self._watch = watch
        self._whole: RunLog | None = None

    def __enter__(self) -> BuildTracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._whole is not None:
            self._whole.__exit__(kind, error, traceback)

    def finish(self, release: Path) -> None:
        """End the run of all builds with the page of the release."""
        if self._whole is not None:
            from irtools.trackers import RunEnd

            text = (release / "report.md").read_text(encoding="utf-8")
            self._whole.end(RunEnd(files={"report.md": text}))

    @contextmanager
    def following(self, one: Combination, folder: Path) -> Iterator[Watch]:
        """Yield who watches a build; where it ends well its report is in the folder."""
        if not self._trackers:
            yield self._watch
            return
        from irtools.builds.settings import pipeline_of
        from irtools.report.document import Report
        from irtools.trackers import RunLog

        if self._several and self._whole is None:
            self._whole = RunLog(self._trackers, self._name, self._watch.say)
        pipeline, watch = pipeline_of(one), self._watch
        with RunLog(
            self._trackers,
            one.name,
            watch.say,
            parameters={} if pipeline is None else {"pipeline": str(pipeline)},
            tags={"source": one.model_table.source},
            parent=self._whole,
        ) as log:
            yield dataclasses.replace(
                watch,
                on_row=all_of(watch.on_row, log.row),
                on_tried=all_of(watch.on_tried, log.tried),
            )
            log.finish(Report.from_json((folder / "report.json").read_text(encoding="utf-8")))
