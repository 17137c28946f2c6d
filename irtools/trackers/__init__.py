"""Trackers of experiments: one run for each report, with a step for each pass."""

from irtools.trackers.base import TrackedRow, TrackedRun, Tracker
from irtools.trackers.find import find_trackers, log_run
from irtools.trackers.rows import metrics_of, tracked_run

__all__ = [
    "TrackedRow",
    "TrackedRun",
    "Tracker",
    "find_trackers",
    "log_run",
    "metrics_of",
    "tracked_run",
]
