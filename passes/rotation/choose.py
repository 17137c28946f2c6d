"""Which of several rotations rounding likes best, by the error that is predicted for it.

    weights       mean of ||W - W'||^2 / ||W||^2 over samples of readers and writers, rounded in fact
    activations   d^2 / 12 with d = (max - min) / 255 of norm(x Q), relative to its mean square 1

The second counts where activations will be rounded and calibration data shows their ranges: those of
all candidates are seen in one sweep, at a copy of the model that multiplies by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, attribute_values, require_array
from irtools.passes.rotation.orthogonal import Rotation
from irtools.passes.rotation.stream import Stream, StreamNorm
from irtools.scaling import Rounding
from irtools.statistics import ChannelRange, ChannelSquare, StatisticsService, Want

__all__ = ["Choice", "choose"]

_MATRICES = 24
"""Weights that are looked at, evenly over the layers."""

_CHANNELS = 64
"""Output channels of each."""

_ROWS = 256
"""Input channels of a writer."""

_NORMS = 8
"""Normalizations whose ranges are looked at."""


@dataclass(frozen=True)
class Choice:
    """A rotation and what it is predicted to do.

    Attributes:
        rotation: It.
        before: Relative squared error of products as they are.
        after: With the rotation.
    """

    rotation: Rotation
    before: float
    after: float

    @property
    def gain_db(self) -> float:
        """Signal to rounding noise that is gained, in decibels."""
        return float(10 * np.log10(max(self.before, 1e-30) / max(self.after, 1e-30)))


def choose(
    stream: Stream,
    model: ir.Model,
    rotations: Sequence[Rotation],
    rounding: Rounding,
    statistics: Callable[[ir.Model], StatisticsService] | None = None,
) -> Choice:
    """Return the rotation with the least predicted error.

    Args:
        stream: Of the model.
        model: Stays as it is.
        rotations: Candidates; the first one wins a tie.
        rounding: How products will be rounded.
        statistics: Of calibration data; None: weights alone decide.
    """
    readers, writers = _readers(stream), _writers(stream)
    ranges = np.zeros(1 + len(rotations))
    if rounding.activation_levels and statistics is not None:
        levels = rounding.activation_levels
        ranges = _range_errors(stream, model, rotations, statistics) / (12 * levels**2)
    plain = [_error(rows, rounding) for rows, _ in readers]
    plain += [_error(rows.T[:_CHANNELS], rounding) for rows in writers]
    errors = [
        float(np.mean(_turned_errors(readers, writers, rotation, rounding))) + float(noise)
        for rotation, noise in zip(rotations, ranges[1:], strict=True)
    ]
    best = int(np.argmin(errors))
    return Choice(rotations[best], float(np.mean(plain)) + float(ranges[0]), errors[best])


def _turned_errors(
    readers: Sequence[tuple[np.ndarray, np.ndarray]],
    writers: Sequence[np.ndarray],
    rotation: Rotation,
    rounding: Rounding,
) -> list[float]:
    found = [_error(rotation.turn(rows * gain), rounding) for rows, gain in readers]
    return found + [_error(rotation.turn(rows).T[:_CHANNELS], rounding) for rows in writers]


def _readers(stream: Stream) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return some output channels of readers, [n, D], and the gain before them."""
    pairs = [(reader, norm) for norm in stream.norms for reader in norm.readers]
    found = []
    for reader, norm in _some(pairs, _MATRICES):
        rows = np.moveaxis(require_array(reader.value), reader.axis, -1)
        found.append((_some_rows(rows).astype(np.float64), norm.gain))
    return found


def _writers(stream: Stream) -> list[np.ndarray]:
    """Return some rows of the products that write, [n, D]."""
    products = [w for w in stream.writers if w.node.op_type in ("MatMul", "Gemm") and w.input == 1]
    found = []
    for writer in _some(products, _MATRICES):
        rows = np.moveaxis(require_array(writer.value), writer.axis, -1)[:_ROWS].astype(np.float64)
        if writer.scale is not None:
            rows = rows * writer.scale
        found.append(rows - rows.mean(axis=1, keepdims=True) if stream.centred else rows)
    return found


def _error(channels: np.ndarray, rounding: Rounding) -> float:
    """Return the relative squared error of output channels [n, K], rounded evenly about 0."""
    block = rounding.block if rounding.block and channels.shape[1] % rounding.block == 0 else None
    blocks = channels.reshape(len(channels), -1, block or channels.shape[1])
    step = np.abs(blocks).max(axis=2, keepdims=True) / rounding.weight_levels
    step = np.maximum(step, np.finfo(np.float32).tiny)
    error = np.square(np.rint(blocks / step) * step - blocks).sum()
    return float(error / max(np.square(blocks).sum(), np.finfo(np.float64).tiny))


def _range_errors(
    stream: Stream,
    model: ir.Model,
    rotations: Sequence[Rotation],
    statistics: Callable[[ir.Model], StatisticsService],
) -> np.ndarray:
    """Return (max - min)^2 relative to the mean square, mean over normalizations.

    Returns:
        [1 + rotations]: as they are, and with each rotation.
    """
    copy = model.clone()
    values = {v.name: v for node in copy.graph for v in (*node.inputs, *node.outputs) if v}
    editor = Editor(copy, "rotate")
    stacked = np.concatenate([rotation.matrix for rotation in rotations], axis=1)
    matrix = editor.constant("rotations", stacked.astype(np.float32))
    gain = editor.constant("rotated_gain", np.ones(stream.width, np.float32))
    norms = [norm for norm in _some(stream.norms, _NORMS) if norm.readers]
    probes = [_probe(editor, values, norm, gain, matrix) for norm in norms]
    plain = [norm.node.outputs[0].name or "" for norm in norms]
    wants = [Want(name, ChannelRange()) for name in (*plain, *probes)]
    squares = [Want(name, ChannelSquare()) for name in plain]
    answers = statistics(copy).collect([*wants, *squares])
    found = np.zeros((len(norms), 1 + len(rotations)))
    for index, norm in enumerate(norms):
        ends, turned = (
            np.asarray(answers[want], np.float64) for want in (wants[index], wants[index + len(norms)])
        )
        square = np.asarray(answers[squares[index]], np.float64)
        found[index, 0] = _span(ends) ** 2 * _relative(norm, square)
        parts = turned.reshape(2, len(rotations), stream.width)
        found[index, 1:] = [_span(parts[:, i]) ** 2 for i in range(len(rotations))]
    return np.asarray(found.mean(axis=0))


def _probe(
    editor: Editor,
    values: dict[str | None, ir.Value],
    norm: StreamNorm,
    gain: ir.Value,
    matrix: ir.Value,
) -> str:
    """Add what a normalization would give with each of the rotations; returns its name."""
    value = values[(norm.node.inputs[0] or gain).name]
    attributes = attribute_values(norm.node)
    normal = editor.after(value, norm.node.op_type, [value, gain], attributes)
    return editor.after(normal, "MatMul", [normal, matrix]).name or ""


def _span(ends: np.ndarray) -> float:
    return float(max(ends[1].max(), 0) - min(ends[0].min(), 0))


def _relative(norm: StreamNorm, square: np.ndarray) -> float:
    """Return ||W||^2 / sum_k E[x_k^2] ||W_k||^2 of what reads a normalization."""
    energy = np.zeros(len(square))
    for reader in norm.readers:
        rows = _some_rows(np.moveaxis(require_array(reader.value), reader.axis, -1))
        energy += np.square(rows, dtype=np.float64).sum(axis=0)
    signal = float(square @ energy)
    return float(energy.sum()) / signal if signal > 0 else 0.0


def _some_rows(rows: np.ndarray) -> np.ndarray:
    return rows[:: max(len(rows) // _CHANNELS, 1)][:_CHANNELS]


def _some(items: Sequence, count: int) -> list:  # type: ignore[type-arg]
    step = max(len(items) / count, 1.0)
    return [items[int(i * step)] for i in range(min(count, len(items)))]
