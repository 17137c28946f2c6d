"""Task metrics and fidelity."""

from __future__ import annotations

from irtools.metrics.base import Fidelity, Metric
from irtools.metrics.evaluate import (
    Evaluation,
    bootstrap,
    check_labels,
    compare_runners,
    evaluate,
    evaluate_outputs,
    measure_fidelity,
    run_dataset,
)
from irtools.metrics.fidelity import FidelityMeter, fidelity
from irtools.metrics.load import list_metrics, load_metric
from irtools.metrics.per_sample import PerSampleMetric

__all__ = [
    "Evaluation",
    "Fidelity",
    "FidelityMeter",
    "Metric",
    "PerSampleMetric",
    "bootstrap",
    "check_labels",
    "compare_runners",
    "evaluate",
    "evaluate_outputs",
    "fidelity",
    "list_metrics",
    "load_metric",
    "measure_fidelity",
    "run_dataset",
]
