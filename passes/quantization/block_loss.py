"""What a decoder's outputs lose by rounding the caches of some of its blocks.

    k  ->  k + s (r(k) - k)  ->  Attention        s of each block an input, 0 or 1

All combinations of blocks are runs of one session. Losses of blocks nearly add up, but what is
promised is measured with all of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import CacheBlock, cache_blocks
from irtools.analysis.decoder import find_decoder
from irtools.editing import Editor
from irtools.passes.quantization.ranges.cache_roundings import CacheRounding
from irtools.passes.quantization.trial_run import TrialRun
from irtools.passes.quantization.write.cache import round_block
from irtools.passmanager import PassContext

__all__ = ["Costliest", "costliest_blocks"]


@dataclass(frozen=True)
class Costliest:
    """The blocks that must stay as they are for a loss.

    Attributes:
        blocks: By their places, the costliest first.
        loss: What all others cost: nats a token where outputs are scores over a vocabulary, else
            their relative squared error.
        samples: How many it was measured on.
    """

    blocks: tuple[int, ...]
    loss: float
    samples: int


def costliest_blocks(
    model: ir.Model, roundings: Mapping[int, CacheRounding], most: float, ctx: PassContext
) -> Costliest | None:
    """Return as few blocks as must not be rounded so that outputs lose no more than `most`.

    None where nothing can be measured: see `TrialRun.of`.

    Args:
        model: The original; it stays as it is.
        roundings: How blocks are rounded, by their places in `cache_blocks`.
        most: As `Costliest.loss`.
        ctx: For data and runners.
    """
    trial = TrialRun.of(model, ctx)
    if trial is None:
        return None
    decoder = find_decoder(model)
    caches = set() if decoder is None else {cache.present for cache in decoder.past}
    # A cache is off by what it is rounded by, whatever that does to scores.
    scores = [{n: a for n, a in one.items() if n not in caches} for one in trial.expected]
    trial = replace(trial, expected=scores)
    copy = model.clone()
    switches = _with_switches(copy, roundings)
    with trial.session(copy) as session:

        def loss(rounded: Collection[int], *, first: bool = False) -> float:
            given = {
                name: np.array([place in rounded], np.float32) for place, name in switches.items()
            }
            found = session.divergence(given, first=first)
            return math.inf if found is None else found

        order = sorted(roundings, key=lambda place: -loss([place], first=True))
        losses = {len(order): 0.0}

        def holds(count: int) -> bool:
            losses[count] = loss(order[count:])
            return losses[count] <= most

        count = bisect_left(range(len(order)), True, key=holds)
    return Costliest(tuple(order[:count]), losses[count], trial.samples)


def _with_switches(model: ir.Model, roundings: Mapping[int, CacheRounding]) -> dict[int, str]:
    """Round blocks where inputs of the model say so; returns their names."""
    editor = Editor(model, "trial")
    blocks, names = cache_blocks(model), {}
    for place, rounding in roundings.items():
        block = blocks[place]
        exact = block.new
        round_block(editor, block, rounding)
        names[place] = _switch(editor, block, exact)
    return names


def _switch(editor: Editor, block: CacheBlock, exact: Sequence[ir.Value]) -> str:
    node, kind = block.attention, ir.DataType.FLOAT
    name = editor.fresh("rounded")
    switch = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape([1]))
    editor.graph.inputs.append(switch)
    for position, value in enumerate(exact, start=1):
        found = node.inputs[position]
        off = editor.before(node, "Sub", [found, value], outputs={"rounding": kind})
        part = editor.before(node, "Mul", [off, switch], outputs={"part": kind})
        made = editor.before(node, "Add", [value, part], outputs={"switched": kind})
        node.replace_input_with(position, made)
    return name
