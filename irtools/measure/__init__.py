"""Measuring: latency in alternating processes, figures, and a child process for risky work."""

from __future__ import annotations

from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.cpu import cpu_quota
from irtools.measure.own_machine import refuse_foreign, why_not_timed
from irtools.measure.probe import probe, target_text
from irtools.measure.sandbox import Limits, run_isolated
from irtools.measure.timing import Contender, measure

__all__ = [
    "BenchSettings",
    "Contender",
    "LatencyResult",
    "Limits",
    "Ratio",
    "cpu_quota",
    "measure",
    "probe",
    "run_isolated",
    "refuse_foreign",
    "target_text",
    "why_not_timed",
]
