"""What the removal of units gains in time, measured on the target.

Whole models are slow to time well, and most of their time is spent in blocks that many layers
have alike. So the table is made of blocks: from what the roots of a group read to what its sinks
give, once for each class of equal groups, at a few widths, one model alive at a time in this
process. It only predicts; what is promised is measured on the whole model.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup
from irtools.analysis.dims import evaluate
from irtools.analysis.shapes import SymbolicShapes
from irtools.data import SyntheticSettings, draw_feeds
from irtools.editing import weight_of
from irtools.measure.cpu import cpu_quota
from irtools.model import Model
from irtools.passes.pruning.cut import cut_copy
from irtools.passmanager import PassContext
from irtools.targets import Feeds, RunnerOptions

__all__ = ["Block", "LatencyTable", "bench_sizes", "measure_table", "time_blocks"]

_SHARES = (0.5, 0.875)
"""Shares of the units of a class that are removed for the table. Latency is close to piecewise
linear in the width, and odd widths cost nothing."""

_LEAST_SHARE = 0.02
"""Classes with fewer of the prunable parameters are not worth a measurement."""

_ROUNDS = 3
_BLOCK_SECONDS = 0.1
_MIN_RUNS = 5


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds gained per group, as a function of the share of its units that is removed.

    Attributes:
        gains: Group name to (share, ms), piecewise linear.
    """

    gains: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]

    def gain(self, group: ChannelGroup, removed: Sequence[int]) -> np.ndarray:
        """Return the milliseconds gained by removing so many units: [len(removed)]."""
        if group.name not in self.gains:
            return np.zeros(len(removed))
        shares, gained = self.gains[group.name]
        return np.interp(np.asarray(removed) / group.units, shares, gained)


@dataclass(frozen=True)
class Block:
    """A part of a model, and what to run it on."""

    model: ir.Model
    feeds: Feeds


def bench_sizes(shape: str) -> SyntheticSettings:
    """Return the sizes of a label such as `batch=1 sequence=64`."""
    sizes = {name: int(size) for name, size in re.findall(r"(\w+)=(\d+)", shape)}
    return SyntheticSettings(
        samples=sizes.get("batch", 1), sequence=sizes.get("sequence", 128), vary_lengths=False
    )


def measure_table(
    model: ir.Model, groups: Sequence[ChannelGroup], sizes: SyntheticSettings, ctx: PassContext
) -> LatencyTable:
    """Time the block of one group of each class, whole and cut at two widths.

    Args:
        model: The model.
        groups: Groups to time.
        sizes: Batch and sequence to time at.
        ctx: Gives the runner, and the tables of earlier trials.
    """
    adapted = ctx.adapt(sizes)
    whole, gains = Model(model).fingerprint(), {}
    for members in _classes(groups):
        first = members[0]
        timed = ctx.tables.get(
            "times of a block",
            partial(_timed, model, first, adapted, ctx),
            model=whole,
            group=first.name,
            units=first.units,
            sizes=adapted,
        )
        times: list[float] = timed["ms"]
        if not times:
            continue
        # Noise must not make a narrower layer slower: gains never fall.
        gained = np.maximum.accumulate([max(times[0] - ms, 0.0) for ms in times])
        for group in members:
            gains[group.name] = (tuple(timed["shares"]), tuple(float(g) for g in gained))
    return LatencyTable(gains)


def _timed(
    model: ir.Model, group: ChannelGroup, sizes: SyntheticSettings, ctx: PassContext
) -> dict[str, list[float]]:
    """Return what a block takes at each width; nothing where sizes of its inputs are not known."""
    feeds = draw_feeds(Model(model), sizes)
    blocks = {0.0: _block(model, group, feeds)}
    for count in _counts(group.units):
        copy = cut_copy(model, {group.name: range(count, group.units)})
        blocks[count / group.units] = _block(copy, group, feeds)
    found = [block for block in blocks.values() if block is not None]
    whole = len(found) == len(blocks)
    return {"shares": list(blocks), "ms": time_blocks(found, ctx) if whole else []}


def _counts(units: int) -> list[int]:
    """Return how many units to remove; one always stays, as runtimes divide by their number."""
    return sorted({min(int(units * share), units - 1) for share in _SHARES} - {0})


def _classes(groups: Sequence[ChannelGroup]) -> list[list[ChannelGroup]]:
    by_shape: dict[tuple[str, int, int], list[ChannelGroup]] = {}
    for group in groups:
        by_shape.setdefault((group.kind, group.units, group.parameters_per_unit), []).append(group)
    total = sum(g.units * g.parameters_per_unit for g in groups)
    return [
        members
        for members in by_shape.values()
        if sum(g.units * g.parameters_per_unit for g in members) >= _LEAST_SHARE * total
    ]


def _block(model: ir.Model, group: ChannelGroup, feeds: Feeds) -> Block | None:
    """Cut out what a group's latency depends on; None where sizes of its inputs are not known.

    Args:
        model: The model, or a pruned copy of it, whose tensors have the same names.
        group: The group in the model as it was.
        feeds: Of the whole model, for masks and other inputs that the block needs.
    """
    values = ir.convenience.create_value_mapping(model.graph)
    data = [m.node.inputs[0] for m in group.roots]
    starts = dict.fromkeys(_name(v) for v in data if v is not None and weight_of(v) is None)
    ends = dict.fromkeys(_name(m.node.outputs[0]) for m in group.sinks)
    inputs = [values[name] for name in starts]
    drawn = _drawn(inputs, SymbolicShapes.of(model), _bindings(model, feeds))
    if drawn is None:
        return None
    outer = [v for v in model.graph.inputs if v not in inputs]
    graph = ir.convenience.extract(model.graph, [*inputs, *outer], [values[name] for name in ends])
    for value in list(graph.inputs):
        array = drawn.get(_name(value))
        if not value.uses():
            graph.inputs.remove(value)
        elif array is not None:
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    needed = {name: drawn.get(name, feeds.get(name)) for name in map(_name, graph.inputs)}
    found = {name: array for name, array in needed.items() if array is not None}
    functions = list(model.clone().functions.values())
    return Block(ir.Model(graph, ir_version=model.ir_version, functions=functions), found)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name


def _drawn(
    values: Sequence[ir.Value], shapes: SymbolicShapes, sizes: Mapping[str, int]
) -> dict[str, np.ndarray] | None:
    """Draw float tensors for what a block reads, or None where that cannot be."""
    rng = np.random.default_rng(0)
    drawn: dict[str, np.ndarray] = {}
    for value in values:
        dims = [evaluate(d, sizes) for d in shapes.shape(value) or (None,)]
        known = [d for d in dims if d is not None]
        if len(known) < len(dims) or value.dtype not in (None, ir.DataType.FLOAT):
            return None
        drawn[_name(value)] = rng.standard_normal(known, dtype=np.float32)
    return drawn


def _bindings(model: ir.Model, feeds: Feeds) -> dict[str, int]:
    """Return what the symbolic sizes of the inputs are in the feeds."""
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        array = feeds.get(value.name or "")
        if array is None or value.shape is None:
            continue
        for dim, size in zip(value.shape, array.shape, strict=True):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                sizes[dim.value] = size
    return sizes


def time_blocks(blocks: Sequence[Block], ctx: PassContext) -> list[float]:
    """Return the milliseconds of one run of each: the least of three turns, 20th percentiles.

    Turns are taken and every runner is closed before the next one starts, so that they meet the
    same machine and no idle threads of each other. What disturbs a run only makes it longer.
    """
    options = RunnerOptions(threads=ctx.threads or cpu_quota())
    turns: list[list[float]] = [[] for _ in blocks]
    for _ in range(_ROUNDS):
        for block, found in zip(blocks, turns, strict=True):
            with ctx.runner(block.model, options) as runner:
                runner.run(block.feeds)
                seconds: list[float] = []
                while sum(seconds) < _BLOCK_SECONDS or len(seconds) < _MIN_RUNS:
                    start = time.perf_counter()
                    runner.run(block.feeds)
                    seconds.append(time.perf_counter() - start)
                found.append(1e3 * float(np.percentile(seconds, 20)))
    return [min(found) for found in turns]
