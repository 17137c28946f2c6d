"""Results of convolutions for which one range is too coarse.

A head of a detector gives boxes of some hundreds and class scores of some units as channels of one
tensor. One scale for all of it leaves the scores a few steps, and a signal-to-noise ratio over the
whole tensor hides it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.calibration import ActivationFacts

__all__ = ["ends_in_outputs", "lost_channels"]

_LOST_DB = 12.0
"""Signal to rounding noise of a channel below which fewer than some five steps are in use."""

_KEPT_DB = 24.0
"""What the best channel has where the range suits it: else the tensor as a whole is coarse."""

_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "GRU", "LSTM", "MatMul", "RNN"}
)


def lost_channels(facts: ActivationFacts) -> int:
    """Return how many channels vary, and by too little for the steps of the common range.

    The signal is what varies around a channel's mean: a constant offset says nothing. Channels
    that never change have nothing to lose.
    """
    if facts.qparams is None or facts.square is None or facts.mean is None:
        return 0
    variance = np.maximum(facts.square - facts.mean**2, 0.0)
    noise = float(facts.qparams.scale) ** 2 / 12
    live = variance > 1e-10 * np.maximum(facts.square, noise)
    kept = 10 * np.log10(np.maximum(variance, 1e-300) / noise)
    if not live.any() or kept.max() < _KEPT_DB:
        return 0
    return int(np.count_nonzero(live & (kept < _LOST_DB)))


def ends_in_outputs(value: ir.Value) -> bool:
    """Whether no other weight is multiplied with what is computed from a value.

    In the middle of a network small channels are common and harmless: the weights after them were
    trained with them. What a caller reads is another matter.
    """
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for node in current.consumers():
            if node.op_type in _WEIGHTED:
                return False
            waiting.extend(node.outputs)
    return True
