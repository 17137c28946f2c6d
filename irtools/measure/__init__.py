"""Measuring: latency in alternating processes, figures, and a child process for risky work.

A child process imports this package too, so what compares models over data is imported when it is
used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.cpu import cpu_quota
from irtools.measure.own_machine import refuse_foreign, why_not_timed
from irtools.measure.probe import probe, target_text
from irtools.measure.sandbox import Limits, run_isolated
from irtools.measure.timing import Contender, measure

if TYPE_CHECKING:
    from irtools.measure.contest import Contest, ContestResult, ContestSettings, Standing

__all__ = [
    "BenchSettings",
    "Contender",
    "Contest",
    "ContestResult",
    "ContestSettings",
    "LatencyResult",
    "Limits",
    "Ratio",
    "Standing",
    "cpu_quota",
    "measure",
    "probe",
    "run_isolated",
    "refuse_foreign",
    "target_text",
    "why_not_timed",
]


def __getattr__(name: str) -> Any:
    if name not in ("Contest", "ContestResult", "ContestSettings", "Standing"):
        raise AttributeError(f"module 'irtools.measure' has no attribute {name!r}")
    return getattr(importlib.import_module("irtools.measure.contest"), name)
