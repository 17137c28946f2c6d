"""Runs a model as the runtime reads it, without any of the compiler's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from .writer import Arrays

__all__ = ["outputs_of", "relative_error", "signal_to_noise"]

_MANY = 8


def outputs_of(model: onnx.ModelProto | Path, feeds: Arrays, *, optimized: bool = False) -> Arrays:
    """Run a model once; by default with every optimization of the runtime off."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def relative_error(reference: np.ndarray, found: np.ndarray) -> float:
    """Return the L2 norm of the difference over that of the reference."""
    reference, found = (a.astype(np.float64) for a in (reference, found))
    return float(np.linalg.norm(found - reference) / max(np.linalg.norm(reference), 1e-300))


def signal_to_noise(reference: np.ndarray, found: np.ndarray) -> float:
    """Return the noise against the variation of the reference, in dB; at most 300.

    The mean is left out, as after a Sigmoid or Softmax it hides the noise; of a few numbers it
    is all there is.
    """
    reference, found = (a.astype(np.float64) for a in (reference, found))
    mean = reference.mean() if reference.size >= _MANY else 0.0
    return -20 * float(np.log10(max(relative_error(reference - mean, found - mean), 1e-15)))
