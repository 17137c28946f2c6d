"""Models against each other: speed, size, outputs and task metric, on the same samples."""

from __future__ import annotations

from irtools.measure.contest.paired import paired_difference

__all__ = ["paired_difference"]
