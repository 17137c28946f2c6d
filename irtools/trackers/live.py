"""A run that trackers follow while it goes on: a row as soon as its pass is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from irtools.trackers.base import OpenRun, RunEnd, RunStart, TrackedRow, Tracker
from irtools.trackers.rows import metrics_of, parameters_of, tags_of
from irtools.words import one_line

if TYPE_CHECKING:
    from irtools.report.document import Report
    from irtools.report.entries import Row, TriedEntry

__all__ = ["RunLog"]


class RunLog:
    """Writes one run to several trackers; a tracker that fails costs a line, and not the run.

    As a context manager it ends as failed where it was not finished: an error, or a signal that
    Python turns into one.

    Args:
        trackers: Which; those of the parent, in their order, where there is one.
        name: Of the run.
        say: Told where the run is, and what failed, in a line each.
        parameters: What decides the result, as far as it is known.
        tags: What the run is about.
        parent: The run that this one is a part of; None: none.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        name: str,
        say: Callable[[str], None] = lambda line: None,
        *,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: RunLog | None = None,
    ) -> None:
        self._name = name
        self._say = say
        self._parameters = dict(parameters or {})
        self._trackers = tuple(trackers)
        self._open: dict[int, OpenRun] = {}
        self._told: dict[int, Mapping[str, float]] = {}
        self._tried = 0
        self._is_over = False
        try:
            self._begin_all(dict(tags or {}), parent)
        except BaseException as error:
            # A signal: runs that have begun end as failed.
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def _begin_all(self, tags: Mapping[str, str], parent: RunLog | None) -> None:
        for number in range(len(self._trackers)):
            outer = None if parent is None else parent._open.get(number)
            start = RunStart(self._name, self._parameters, tags, outer)
            self._try(number, partial(self._begin, number, start))

    def _begin(self, number: int, start: RunStart) -> None:
        self._open[number] = self._trackers[number].start(start)

    def row(self, row: Row) -> None:
        """Add what was measured of a pass that is done; what is known already is left out."""
        if not self._open:
            return
        metrics, told = metrics_of(row), self._told.get(row.index, {})
        new = {name: value for name, value in metrics.items() if told.get(name) != value}
        if new:
            self._told[row.index] = metrics
            tracked = TrackedRow(row.index, row.text, new)
            self._each(lambda run: run.row(tracked))

    def tried(self, entry: TriedEntry) -> None:
        """Add a pipeline that a search tried."""
        self._tried += 1
        name, text = f"tried.{self._tried}", f"{entry.pipeline}: {entry.outcome}: {entry.why}"
        self._each(lambda run: run.tag(name, text))

    def finish(self, report: Report) -> None:
        """End the run with its report: figures that were measured since its rows were added."""
        if not self._open:
            return
        from irtools.report.markdown import markdown

        for row in report.rows:
            self.row(row)
        known = parameters_of(report)
        more = {name: value for name, value in known.items() if name not in self._parameters}
        files = {"report.json": report.to_json(), "report.md": markdown(report)}
        self.end(RunEnd(parameters=more, tags=tags_of(report), files=files))

    def end(self, end: RunEnd) -> None:
        """End the run."""
        if self._is_over:
            return
        self._is_over = True
        self._each(lambda run: run.end(end))
        failed = " as failed" if end.failure else ""
        for number, run in self._open.items():
            self._say(
                f"{self._name}: tracked{failed} by {self._trackers[number].name}, {run.place}"
            )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        why = "it was not finished"
        if error is not None:
            why = one_line(str(error)) or type(error).__name__
        self.end(RunEnd(failure=why))

    def _each(self, do: Callable[[OpenRun], None]) -> None:
        for number, run in list(self._open.items()):
            self._try(number, partial(do, run))

    def _try(self, number: int, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # Packages of others, which write over networks.
            # It would fail again with every row.
            self._open.pop(number, None)
            reason = one_line(f"{type(error).__name__}: {error}")
            name = self._trackers[number].name
            self._say(f"note: {name} did not take the run {self._name}: {reason}")
