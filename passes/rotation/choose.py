"""Which of several rotations rounding likes best, by the error that is predicted for it.

For products y = norm(x) diag(gain) W and rounding errors that are independent, relative to the
signal sum_k P_k gain_k^2 ||W_k||^2 with P = E[norm(x)^2]:

    weights of readers   sum_k P'_k ||E_k||^2          P' = (Q * Q)^T P
    activations          d^2 / 12 ||diag(gain) W||^2   d = (max - min) / 255 of norm(x) Q
    weights of writers   sum_k c'_k E[u^2] E_k^2       c' = (Q * Q)^T c, c_k = mean gain_k^2 W_k^2

with E the error of the rotated weight: samples are rounded in fact. The gain is why a rotation may
also lose: where it keeps large channels down, their share of the error goes into all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.orthogonal import Rotation
from irtools.passes.rotation.evidence import NormEvidence, StreamEvidence, WriterEvidence, spans
from irtools.scaling import Rounding
from irtools.statistics import StatisticsService

__all__ = ["Choice", "candidates", "choose"]

_BLOCKS = (256, 128, 64, 32)


@dataclass(frozen=True)
class Choice:
    """A rotation and what it is predicted to do.

    Attributes:
        rotation: It.
        before: Relative squared error of the products as they are.
        after: With the rotation.
    """

    rotation: Rotation
    before: float
    after: float

    @property
    def gain_db(self) -> float:
        """Signal to rounding noise that is gained, in decibels."""
        return float(10 * np.log10(max(self.before, 1e-30) / max(self.after, 1e-30)))


def candidates(evidence: StreamEvidence, width: int, tries: int, seed: int) -> list[Rotation]:
    """Return rotations to choose from: of all channels, and of blocks of those alike in power."""
    blocks = [size for size in _BLOCKS if width % size == 0 and size < width]
    order = tuple(int(channel) for channel in np.argsort(-evidence.power, kind="stable"))
    sizes = [0, *blocks]
    chosen = [(sizes[i % len(sizes)], seed + i // len(sizes)) for i in range(tries)]
    return [Rotation(width, s, block, order if block else ()) for block, s in chosen]


def choose(
    evidence: StreamEvidence,
    model: ir.Model,
    rotations: Sequence[Rotation],
    rounding: Rounding,
    statistics: Callable[[ir.Model], StatisticsService],
) -> Choice:
    """Return the rotation with the least predicted error.

    Args:
        evidence: Of a stream.
        model: That has it; stays as it is.
        rotations: Candidates; the first one wins a tie.
        rounding: How products will be rounded.
        statistics: Makes the statistics of a model.
    """
    before = list(_plain_errors(evidence, rounding))
    levels = rounding.activation_levels
    seen = spans(evidence, model, rotations, statistics) if levels else None
    errors = []
    for index, rotation in enumerate(rotations):
        ranges = None if seen is None else seen[:, index]
        errors.append(float(np.mean(list(_turned_errors(evidence, rotation, rounding, ranges)))))
    best = int(np.argmin(errors))
    return Choice(rotations[best], float(np.mean(before)), errors[best])


def _plain_errors(evidence: StreamEvidence, rounding: Rounding) -> Iterator[float]:
    for known in evidence.norms:
        gain = np.square(known.norm.gain)
        for rows in known.rows:
            noise = np.square(_rounding_error(rows, rounding)) @ (known.power * gain)
            step = _step(known.span, rounding)
            yield (noise.sum() + step * np.square(rows).sum()) / _signal(known, rows)
    importance = evidence.importance
    for writer in evidence.writers:
        noise = np.square(_rounding_error(writer.rows.T, rounding)) @ writer.power
        yield float(importance @ noise) / _written_signal(evidence, writer)


def _turned_errors(
    evidence: StreamEvidence, rotation: Rotation, rounding: Rounding, ranges: np.ndarray | None
) -> Iterator[float]:
    shares = np.square(rotation.matrix)
    for index, known in enumerate(evidence.norms):
        step = 0.0 if ranges is None else _step(float(ranges[index]), rounding)
        for rows in known.rows:
            turned = rotation.turn(rows * known.norm.gain)
            noise = np.square(_rounding_error(turned, rounding)) @ (known.power @ shares)
            yield (noise.sum() + step * np.square(turned).sum()) / _signal(known, rows)
    importance = evidence.importance @ shares
    for writer in evidence.writers:
        turned = rotation.turn(_centred(evidence, writer)).T
        noise = np.square(_rounding_error(turned, rounding)) @ writer.power
        yield float(importance @ noise) / _written_signal(evidence, writer)


def _signal(known: NormEvidence, rows: np.ndarray) -> float:
    return max(float((np.square(rows * known.norm.gain) @ known.power).sum()), 1e-30)


def _written_signal(evidence: StreamEvidence, writer: WriterEvidence) -> float:
    energy = writer.power @ np.square(_centred(evidence, writer))
    return max(float(energy @ evidence.importance), 1e-30)


def _centred(evidence: StreamEvidence, writer: WriterEvidence) -> np.ndarray:
    rows = writer.rows
    return rows - rows.mean(axis=1, keepdims=True) if evidence.centred else rows


def _step(span: float, rounding: Rounding) -> float:
    """Return the mean squared error of an activation that is rounded to levels."""
    levels = rounding.activation_levels
    return span**2 / (12 * levels**2) if levels else 0.0


def _rounding_error(channels: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Return the error of output channels [n, K] that are rounded evenly about 0."""
    count, inner = channels.shape
    block = rounding.block if rounding.block and inner % rounding.block == 0 else inner
    blocks = channels.reshape(count, inner // block, block)
    step = np.abs(blocks).max(axis=2, keepdims=True) / rounding.weight_levels
    step = np.maximum(step, np.finfo(np.float32).tiny)
    return np.asarray(np.rint(blocks / step) * step - blocks).reshape(channels.shape)
