"""Targets: what a runtime on a device runs, and how a model gets there."""

from __future__ import annotations

from irtools.target.base import (
    Artifact,
    Capabilities,
    Feeds,
    KernelReport,
    NodeTimes,
    Runner,
    RunnerOptions,
    Target,
)
from irtools.target.isa import Isa
from irtools.target.lookup import find_target
from irtools.target.lowered import lowered

__all__ = [
    "Artifact",
    "Capabilities",
    "Feeds",
    "Isa",
    "KernelReport",
    "NodeTimes",
    "Runner",
    "RunnerOptions",
    "Target",
    "find_target",
    "lowered",
]
