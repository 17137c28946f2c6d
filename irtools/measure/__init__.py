"""Measuring: latency in processes that take turns, and a child process for risky work."""

from __future__ import annotations

from irtools.measure.base import BenchSettings, LatencyResult, Ratio

__all__ = ["BenchSettings", "LatencyResult", "Ratio"]
