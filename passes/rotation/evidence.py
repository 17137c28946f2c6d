"""What is known of what reads and writes a stream: samples of weights, and moments of calibration.

Per sampled normalization: P = E[norm(x)^2] per channel, without its gain, the range of its result,
and some output channels of each weight that reads it. Of each sampled writer: some rows. The
importance of a channel of the stream is the energy of what reads it, sum of gain^2 W^2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.orthogonal import Rotation
from irtools.editing import Editor, attribute_values, require_array
from irtools.passes.rotation.stream import Stream, StreamNorm, Writer
from irtools.statistics import ChannelRange, ChannelSquare, StatisticsService, Want

__all__ = ["NormEvidence", "StreamEvidence", "WriterEvidence", "collect", "spans"]

T = TypeVar("T")

_NORMS = 8
"""Normalizations that are looked at, evenly over the layers."""

_WRITERS = 16
"""Products that write, evenly over the layers."""

_CHANNELS = 64
"""Output channels of a reader."""

_RUN, _RUNS = 32, 8
"""Neighbouring input channels of a writer, and how many times so many."""


@dataclass(frozen=True, eq=False)
class NormEvidence:
    """What is known of a normalization.

    Attributes:
        norm: It.
        power: E[norm(x)^2] without gain and offset, [D].
        span: Of its result as it is: largest less smallest value, 0 included.
        rows: Some output channels of each of its readers, float64 [n, D].
    """

    norm: StreamNorm
    power: np.ndarray
    span: float
    rows: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class WriterEvidence:
    """What is known of a product that writes.

    Attributes:
        rows: Some of its rows with its layer scale, in runs of 32, float64 [n, D].
        power: E[u^2] of what they multiply, [n].
    """

    rows: np.ndarray
    power: np.ndarray


@dataclass(frozen=True, eq=False)
class StreamEvidence:
    """What is known of a stream.

    Attributes:
        norms: Some of its normalizations.
        writers: Some of the products that write it.
        centred: Whether the mean of what they write is folded away.
        shown: Gains of normalizations whose result is read as it is, [D] each.
    """

    norms: tuple[NormEvidence, ...]
    writers: tuple[WriterEvidence, ...]
    centred: bool
    shown: tuple[np.ndarray, ...] = ()

    @property
    def power(self) -> np.ndarray:
        """Mean square of the channels, over normalizations, [D]."""
        return np.asarray(np.mean([norm.power for norm in self.norms], axis=0))

    @property
    def importance(self) -> np.ndarray:
        """How much of an error in each channel is seen by readers, [D]."""
        parts = [
            np.square(rows * norm.norm.gain).mean(axis=0)
            for norm in self.norms
            for rows in norm.rows
        ]
        parts += [np.square(gain) for gain in self.shown]
        return np.asarray(np.mean([part / max(part.mean(), 1e-30) for part in parts], axis=0))


def collect(
    stream: Stream, model: ir.Model, statistics: Callable[[ir.Model], StatisticsService]
) -> StreamEvidence | None:
    """Collect what is known of a stream; None where data never reached it.

    Args:
        stream: Of the model.
        model: Stays as it is.
        statistics: Makes the statistics of a model.
    """
    norms = _some([norm for norm in stream.norms if norm.readers], _NORMS)
    if not norms:
        return None
    copy, names = _probed(model, norms, stream.width, None)
    plain = [norm.node.outputs[0].name or "" for norm in norms]
    squares = [Want(name, ChannelSquare()) for name in names]
    ranges = [Want(name, ChannelRange()) for name in plain]
    products = [w for w in stream.writers if w.node.op_type in ("MatMul", "Gemm") and w.input == 1]
    written = {w: Want(_input(w), ChannelSquare()) for w in _some(products, _WRITERS)}
    answers = statistics(copy).collect([*squares, *ranges, *written.values()])
    found = []
    for norm, square, ends in zip(norms, squares, ranges, strict=True):
        power = np.asarray(answers[square], np.float64)
        if power.size != stream.width or not power.any() or not np.isfinite(power).all():
            return None
        found.append(NormEvidence(norm, power, _span(np.asarray(answers[ends])), _rows(norm)))
    writers = tuple(_written(w, np.asarray(answers[want])) for w, want in written.items())
    shown = tuple(norm.gain for norm in stream.norms if norm.has_exit)
    return StreamEvidence(tuple(found), writers, stream.centred, shown)


def spans(
    evidence: StreamEvidence,
    model: ir.Model,
    rotations: Sequence[Rotation],
    statistics: Callable[[ir.Model], StatisticsService],
) -> np.ndarray:
    """Return the span of each normalization with each rotation, [norms, rotations].

    All are seen in one sweep, at a copy of the model that multiplies by all of them.
    """
    norms = [known.norm for known in evidence.norms]
    width = rotations[0].width
    matrices = np.concatenate([rotation.matrix for rotation in rotations], axis=1)
    copy, names = _probed(model, norms, width, matrices)
    wants = [Want(name, ChannelRange()) for name in names]
    answers = statistics(copy).collect(wants)
    found = [np.asarray(answers[want]).reshape(2, len(rotations), width) for want in wants]
    return np.array([[_span(ends[:, i]) for i in range(len(rotations))] for ends in found])


def _probed(
    model: ir.Model, norms: Sequence[StreamNorm], width: int, matrix: np.ndarray | None
) -> tuple[ir.Model, list[str]]:
    """Return a copy that computes normalizations without gain, times a matrix; and their names."""
    copy = model.clone()
    editor = Editor(copy, "rotate")
    values = {v.name: v for v in copy.graph.inputs}
    values |= {v.name: v for node in copy.graph for v in node.outputs}
    gain = editor.constant("plain_gain", np.ones(width, np.float32))
    factor = None if matrix is None else editor.constant("rotations", matrix.astype(np.float32))
    names = []
    for norm in norms:
        source = norm.node.inputs[0]
        assert source is not None
        value, form = values[source.name], {f"{source.name}_probe": ir.DataType.FLOAT}
        attributes = attribute_values(norm.node)
        probe = editor.after(value, norm.node.op_type, [value, gain], attributes, outputs=form)
        if factor is not None and matrix is not None:
            known = value.shape
            shape = None if known is None else ir.Shape([*list(known)[:-1], len(matrix[0])])
            probe = editor.after(probe, "MatMul", [probe, factor], outputs=form, shape=shape)
        names.append(probe.name or "")
    return copy, names


def _rows(norm: StreamNorm) -> tuple[np.ndarray, ...]:
    found = []
    for reader in norm.readers:
        rows = np.moveaxis(require_array(reader.value), reader.axis, -1)
        step = max(len(rows) // _CHANNELS, 1)
        found.append(rows[::step][:_CHANNELS].astype(np.float64))
    return tuple(found)


def _input(writer: Writer) -> str:
    value = writer.node.inputs[0]
    return (value.name if value is not None else None) or ""


def _written(writer: Writer, power: np.ndarray) -> WriterEvidence:
    rows = np.moveaxis(require_array(writer.value), writer.axis, -1)
    runs = np.arange(len(rows) - len(rows) % _RUN).reshape(-1, _RUN)
    chosen = np.concatenate(_some(list(runs), _RUNS)) if len(runs) else np.arange(len(rows))
    picked = rows[chosen].astype(np.float64)
    scaled = picked if writer.scale is None else picked * writer.scale
    return WriterEvidence(scaled, np.asarray(power[chosen], np.float64))


def _span(ends: np.ndarray) -> float:
    return float(max(ends[1].max(), 0) - min(ends[0].min(), 0))


def _some(items: Sequence[T], count: int) -> list[T]:
    step = max(len(items) / count, 1.0)
    return [items[int(i * step)] for i in range(min(count, len(items)))]
