"""What data puts on the grids of a quantized model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.pairing import Pairing, node_ids
from irtools.causes.facts import GridUse
from irtools.causes.worse.stored import matrix_of
from irtools.data import Dataset
from irtools.editing import array_of, constant_of
from irtools.model import Model, infer_shapes
from irtools.statistics import (
    ChannelRange,
    ChannelSquare,
    Histogram,
    HistogramResult,
    MinMax,
    MinMaxResult,
    StreamingStatistics,
    Want,
)
from irtools.targets import Runner, RunnerOptions, Target

__all__ = ["grid_uses"]

_USUAL = 0.999
_CONVOLUTIONS = ("Conv", "ConvInteger", "ConvTranspose")


@dataclass(frozen=True, eq=False)
class _Grid:
    """Where activations are quantized.

    Attributes:
        step: Of the grid; 0: it is made of the data at run time.
        axis: Of the channels.
        matrices: Weights of the products that read it, input channels along axis 0.
    """

    tensor: str
    module: str
    low: float
    high: float
    step: float
    axis: int
    matrices: tuple[np.ndarray, ...]


def grid_uses(
    model: Model,
    pairing: Pairing,
    data: Dataset,
    calibration: Dataset | None,
    target: Target,
    threads: int | None,
) -> tuple[GridUse, ...]:
    """Run a quantized model and return how data fills each of its fixed grids for activations.

    Args:
        model: The quantized model, observed at the inputs of its QuantizeLinear nodes.
        pairing: With the model that it was made from, for modules.
        data: Evaluation data.
        calibration: What ranges were taken from; None: not known.
        target: What runs it.
        threads: Threads; None: the CPU quota.
    """
    typed = model.clone()
    infer_shapes(typed.ir)
    grids = {grid.tensor: grid for grid in _grids(typed, pairing)}
    if not grids:
        return ()

    def make(observed: ir.Model, options: RunnerOptions) -> Runner:
        return target.runner(Model(observed), replace(options, threads=threads))

    asked = {name: _wants(grid) for name, grid in grids.items()}
    seen = StreamingStatistics(typed.ir, data, make).collect(w for ws in asked.values() for w in ws)
    uses = [_use(grid, seen, asked[name]) for name, grid in grids.items()]
    if calibration is None:
        return tuple(uses)
    wants = {name: Want(name, MinMax()) for name in grids}
    known = StreamingStatistics(typed.ir, calibration, make).collect(wants.values())
    return tuple(replace(use, calibrated=_range(known[wants[use.tensor]])) for use in uses)


def _grids(model: Model, pairing: Pairing) -> Iterator[_Grid]:
    ids, modules = node_ids(model.ir), pairing.modules[1]
    for node in model.ir.graph:
        value = node.inputs[0] if node.inputs else None
        limits = _limits(node)
        if limits is None or value is None or not value.name or constant_of(value) is not None:
            continue
        readers = _readers(node)
        axis = 1 if any(reader.op_type in _CONVOLUTIONS for reader in readers) else -1
        places = (modules.get(ids.get(one, ""), "") for one in (*readers, node))
        matrices = tuple(m for m in map(matrix_of, readers) if m is not None)
        module = next(filter(None, places), "")
        yield _Grid(value.name, module, *limits, axis, matrices)


def _limits(node: ir.Node) -> tuple[float, float, float] | None:
    """Return least value, largest value and step of the grid that a node rounds to."""
    if node.op_type in ("DynamicQuantizeLinear", "DynamicQuantizeMatMul"):
        return 0.0, 0.0, 0.0
    if node.op_type != "QuantizeLinear":
        return None
    scale = array_of(node.inputs[1])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.dtype.itemsize != 1:
        return None
    if zero.dtype.kind not in "iu":
        return None
    ends, step, middle = np.iinfo(zero.dtype), float(scale.item()), float(zero.item())
    return (ends.min - middle) * step, (ends.max - middle) * step, step


def _readers(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that read what a QuantizeLinear's DequantizeLinear gives."""
    found = [node] if node.op_type == "DynamicQuantizeMatMul" else []
    for use in node.outputs[0].uses():
        if use.node.op_type == "DequantizeLinear":
            found += [one.node for one in use.node.outputs[0].uses()]
        else:
            found.append(use.node)
    return found


def _wants(grid: _Grid) -> tuple[Want, Want, Want]:
    return (
        Want(grid.tensor, Histogram()),
        Want(grid.tensor, ChannelRange(grid.axis)),
        Want(grid.tensor, ChannelSquare(grid.axis)),
    )


def _use(grid: _Grid, seen: Mapping[Want, object], wants: tuple[Want, Want, Want]) -> GridUse:
    counts, ranges, squares = (seen[want] for want in wants)
    assert isinstance(counts, HistogramResult)
    assert isinstance(ranges, np.ndarray) and isinstance(squares, np.ndarray)
    low, high, step = _ends(grid, counts)
    gains = _gains(grid, len(squares))
    # What the next product multiplies by nothing may be clipped: it is added in float32.
    seen_low, seen_high = float(ranges[0][gains > 0].min()), float(ranges[1][gains > 0].max())
    clipped, clip_noise = _clipped(counts, (low - step / 2, high + step / 2), (seen_low, seen_high))
    peaks = np.where(gains > 0, np.abs(ranges).max(axis=0), 0.0)
    read = peaks[peaks > 0]
    middle = float(np.median(read)) if len(read) else 1.0
    signal = max(float((squares * gains).sum()) * _usual_share(counts), 1e-30)
    rounding = step**2 / 12 * float(gains.sum()) / signal
    usual = float(np.quantile(read, 0.9)) if len(read) else 1.0
    return GridUse(
        tensor=grid.tensor,
        module=grid.module,
        low=low,
        high=high,
        data_low=seen_low,
        data_high=seen_high,
        clipped=clipped,
        clip_noise=clip_noise,
        round_noise=rounding,
        channel_peak=float(peaks.max()) / middle,
        channel=int(peaks.argmax()),
        channel_noise=rounding * max(0.0, 1 - (usual / max(float(peaks.max()), 1e-30)) ** 2),
    )


def _ends(grid: _Grid, counts: HistogramResult) -> tuple[float, float, float]:
    """Return least and largest value of a grid and its step; of one made at run time the data's."""
    if grid.step > 0:
        return grid.low, grid.high, grid.step
    low, high = min(counts.low, 0.0), max(counts.high, 0.0)
    return low, high, (high - low) / 255


def _gains(grid: _Grid, channels: int) -> np.ndarray:
    """Return the power by which the next products multiply each channel; 1 where not known."""
    found = np.zeros(channels)
    for matrix in grid.matrices:
        rows = np.square(matrix, dtype=np.float64).reshape(len(matrix), -1).sum(axis=1)
        if len(rows) == channels:
            found += rows
    return found if found.any() else np.ones(channels)


def _usual_share(counts: HistogramResult) -> float:
    """Return the share of the power that all but the largest thousandth of the values have.

    A few tokens of a transformer hold values so large that they are most of the power, and say
    nothing of what rounding does to the others.
    """
    order = np.argsort(np.abs(counts.centers))
    squares = np.square(counts.centers[order], dtype=np.float64) * counts.counts[order]
    usual = np.cumsum(counts.counts[order]) <= _USUAL * counts.counts.sum()
    return float(squares[usual].sum()) / max(float(squares.sum()), 1e-30) or 1.0


def _clipped(
    counts: HistogramResult, grid: tuple[float, float], seen: tuple[float, float]
) -> tuple[float, float]:
    """Return the share of values outside a grid, and the noise of moving them to its ends.

    Args:
        counts: All values.
        grid: Its ends.
        seen: Ends of the values that count.
    """
    # The ends of the outermost bins may lie beyond what was seen.
    x = np.clip(counts.centers.astype(np.float64), counts.low, counts.high)
    weight = counts.counts.astype(np.float64) / max(int(counts.counts.sum()), 1)
    power = max(float((weight * x * x).sum()), 1e-30)
    beyond = np.where((x >= seen[0]) & (x <= seen[1]), x - np.clip(x, *grid), 0.0)
    return float(weight[beyond != 0].sum()), float((weight * beyond * beyond).sum()) / power


def _range(found: object) -> tuple[float, float]:
    assert isinstance(found, MinMaxResult)
    return found.low, found.high
