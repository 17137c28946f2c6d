"""How many numbers of each weight become zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.sensitivity import Trial, sensitivities
from irtools.passes.pruning.sparse_weights import (
    SparseWeight,
    Zeros,
    cost_of,
    in_waves,
    scores_along,
    set_zeros,
)
from irtools.passmanager import Choice, PassContext, choose_levels

__all__ = ["pooled_shares", "weighed_shares"]

_LEVELS = 33
"""Zeros are tried in steps of a thirty-second of a weight."""


def pooled_shares(weights: Sequence[SparseWeight], ratio: float) -> list[int]:
    """Take the smallest of all: every number is compared with every other one, ties in order."""
    sizes = [np.abs(w.array().astype(np.float32)).reshape(-1) for w in weights]
    everything = np.concatenate(sizes) if sizes else np.zeros(0, np.float32)
    wanted = int(everything.size * ratio)
    if not wanted:
        return [0] * len(sizes)
    limit = np.partition(everything, wanted - 1)[wanted - 1]
    counts = [int(np.count_nonzero(size < limit)) for size in sizes]
    for place, size in enumerate(sizes):
        counts[place] += min(wanted - sum(counts), int(np.count_nonzero(size == limit)))
    return counts


def weighed_shares(
    model: ir.Model,
    weights: Sequence[SparseWeight],
    zeros: Mapping[str, Zeros],
    ratio: float,
    ctx: PassContext,
) -> tuple[list[int], list[float]]:
    """Take most from the weights for which the outputs move least.

    Args:
        model: Stays as it is.
        weights: The weights.
        zeros: By name, how they become zero, with as many as `ratio` of each.
        ratio: Share of all numbers that become zero at least.
        ctx: Has calibration data.

    Returns:
        Zeros of each, and the output divergence that they are expected to cause.
    """
    curves: list[Choice] = []

    def trials() -> Iterator[Trial]:
        for wave, evidence in in_waves(model, weights, zeros, ctx):
            for weight in wave:
                wanted = {weight.name: zeros[weight.name]}
                curves.append(_curve(weight, zeros[weight.name], evidence))
                error = cost_of(weight, zeros[weight.name], evidence)
                yield Trial(partial(set_zeros, wanted=wanted, evidence=evidence), error)

    factors = sensitivities(model, trials(), len(weights), ctx)
    pairs = zip(curves, factors, strict=True)
    choices = [replace(curve, costs=factor * curve.costs) for curve, factor in pairs]
    wanted = int(sum(choice.gains[-1] for choice in choices) * ratio)
    levels = choose_levels(choices, wanted)
    assert levels is not None
    found = list(zip(choices, levels, strict=True))
    return [int(c.gains[level]) for c, level in found], [
        float(c.costs[level]) for c, level in found
    ]


def _curve(weight: SparseWeight, zeros: Zeros, evidence: Evidence) -> Choice:
    """Return numbers of zeros, from none to all, and what each costs."""
    scores, axis = scores_along(weight, zeros.method, evidence)
    if zeros.method == "wanda":
        inputs = scores.shape[axis]
        ordered = np.sort(np.moveaxis(scores, axis, 0).reshape(inputs, -1), axis=0)
        steps, each = ordered.sum(axis=1), scores.size // inputs
    else:
        steps, each = np.sort(scores, axis=None), 1
    places = np.unique(np.linspace(0, len(steps), _LEVELS).round().astype(int))
    counts = places * each
    costs = np.concatenate([[0.0], np.cumsum(steps)])[places]
    return Choice(costs, counts.astype(np.float64))
