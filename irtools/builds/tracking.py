"""Trackers follow builds: one run for each build that is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from irtools.builds.matrix import Combination
from irtools.builds.watch import Watch
from irtools.plugins import all_of

if TYPE_CHECKING:
    from irtools.report.document import Report
    from irtools.trackers import RunLog, Tracker

__all__ = ["BuildTracking"]


class BuildTracking:
    """Runs of the builds that are made; of several builds they are parts of one run for all.

    What the release or the cache had has its run already. As a context manager it ends as failed
    whatever has begun and not ended: of a single build that is its own run, which lasts until the
    release is in its place.

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
        self._begun: list[RunLog] = []
        self._alone: Report | None = None

    def __enter__(self) -> BuildTracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for log in reversed(self._begun):
            log.__exit__(kind, error, traceback)

    def finish(self, release: Path) -> None:
        """End the run of all builds with the page of the release, that of one with its report."""
        if self._alone is not None:
            self._begun[-1].finish(self._alone)
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

        if self._several and self._whole is None:
            self._whole = self._begin(self._name)
        pipeline, watch = pipeline_of(one), self._watch
        log = self._begin(
            one.name,
            parameters={} if pipeline is None else {"pipeline": str(pipeline)},
            tags={"source": one.model_table.source},
            parent=self._whole,
        )
        with _failing(log):
            yield dataclasses.replace(
                watch,
                on_row=all_of(watch.on_row, log.row),
                on_tried=all_of(watch.on_tried, log.tried),
            )
            report = Report.from_json((folder / "report.json").read_text(encoding="utf-8"))
        if self._several:
            log.finish(report)
        else:
            self._alone = report

    def _begin(self, name: str, **what: Any) -> RunLog:
        from irtools.trackers import RunLog

        self._begun.append(RunLog(self._trackers, name, self._watch.say, **what))
        return self._begun[-1]


@contextmanager
def _failing(log: RunLog) -> Iterator[None]:
    """End a run where an error comes out, and leave it open otherwise."""
    try:
        yield
    except BaseException as error:
        log.__exit__(type(error), error, error.__traceback__)
        raise
