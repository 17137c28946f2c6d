"""Task metrics and fidelity."""

from __future__ import annotations

from irtools.metrics.base import Fidelity, Metric

__all__ = ["Fidelity", "Metric"]
