"""Task metrics and fidelity."""

from __future__ import annotations

from irtools.metrics.base import Fidelity, Metric
from irtools.metrics.fidelity import FidelityMeter, fidelity
from irtools.metrics.per_sample import PerSampleMetric

__all__ = ["Fidelity", "FidelityMeter", "Metric", "PerSampleMetric", "fidelity"]
