"""Task metrics and fidelity."""

from __future__ import annotations

from irtools.metrics.base import Difference, Fidelity, Metric
from irtools.metrics.classification import SingleLabel
from irtools.metrics.evaluate import (
    Evaluation,
    Resampled,
    bootstrap,
    check_labels,
    compare_runners,
    evaluate,
    evaluate_outputs,
    join_outputs,
    resample_outputs,
    resample_rows,
    run_dataset,
)
from irtools.metrics.fidelity import FidelityMeter, fidelity
from irtools.metrics.language import Perplexity
from irtools.metrics.load import data_of_metrics, list_metrics, load_metric
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric

__all__ = [
    "Difference",
    "Evaluation",
    "Fidelity",
    "FidelityMeter",
    "Metric",
    "PerSampleMetric",
    "Perplexity",
    "Resampled",
    "SingleLabel",
    "bootstrap",
    "check_labels",
    "compare_runners",
    "data_of_metrics",
    "evaluate",
    "evaluate_outputs",
    "fidelity",
    "find_output",
    "join_outputs",
    "list_metrics",
    "load_metric",
    "resample_outputs",
    "resample_rows",
    "run_dataset",
]
