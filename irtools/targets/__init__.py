"""Targets: what a runtime on a device runs, and how a model gets there."""

from __future__ import annotations

from irtools.targets.base import (
    Artifact,
    Capabilities,
    KernelReport,
    NodeTimes,
    Runner,
    RunnerOptions,
    Target,
)
from irtools.targets.isa import Isa
from irtools.targets.lookup import find_target
from irtools.targets.lowered import lowered
from irtools.targets.signature import Feeds

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
