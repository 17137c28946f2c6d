"""Trackers of experiments: one run for each report, with a step for each pass."""

from irtools.trackers.base import OpenRun, RunEnd, RunStart, TrackedRow, Tracker
from irtools.trackers.find import find_trackers
from irtools.trackers.live import RunLog
from irtools.trackers.rows import metrics_of, parameters_of, tags_of

__all__ = [
    "OpenRun",
    "RunEnd",
    "RunLog",
    "RunStart",
    "TrackedRow",
    "Tracker",
    "find_trackers",
    "metrics_of",
    "parameters_of",
    "tags_of",
]
