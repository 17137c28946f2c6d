"""In which order the units of a group go, and what each removal costs."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from irtools.analysis.channels import ChannelGroup, Member
from irtools.editing import weight_of
from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.obs import LayerProblem, RemovalPath, removal_path

__all__ = ["Importance", "removal_path_of"]

Importance: TypeAlias = Literal["magnitude", "activation", "obs"]

_CHUNK_SHARE = 48
"""Units are removed in about this many steps: 32 at a time of 1536 neurons."""


def removal_path_of(group: ChannelGroup, importance: Importance, evidence: Evidence) -> RemovalPath:
    """Return the order of removal and the relative error after each of them.

    `obs` needs a group with one sink and evidence of it; `activation` evidence of every sink.
    Where that is missing the next simpler importance takes its place: convolutions wider than
    1x1 and groups that go through a residual sum are ranked by activation or by magnitude.
    """
    known = evidence.of_sinks(group)
    if importance != "magnitude" and known is not None:
        if importance == "obs" and len(known) == 1:
            chunk = max(1, group.units // _CHUNK_SHARE)
            return removal_path(known[0][1], known[0][0].map, chunk)
        return _ranked(np.sum([_output_power(*pair) for pair in known], axis=0))
    return _ranked(_weight_power(group))


def _output_power(sink: Member, problem: LayerProblem) -> np.ndarray:
    """Share of the output's energy that each unit carries: ||W_u||^2 E[x_u^2]."""
    rows = sink.map.matrix()
    weight = problem.weight[:-1]
    power = np.einsum("kn,kn->k", weight, weight) * problem.powers
    share: np.ndarray = power[rows].sum(axis=1) / problem.energy
    return share


def _weight_power(group: ChannelGroup) -> np.ndarray:
    """Squared norm of all weights of a unit, each tensor relative to its own."""
    total = np.zeros(group.units)
    for member in group.members:
        tensor = weight_of(member.value)
        if tensor is None or member.role == "along":
            continue
        array = np.moveaxis(tensor.numpy().astype(np.float64), member.axis, 0)
        power = np.square(array).reshape(len(array), -1).sum(axis=1)
        share = power[member.map.matrix()].sum(axis=1)
        total += share / max(float(share.sum()), np.finfo(float).tiny)
    count = sum(m.role != "along" for m in group.members)
    return total / max(count, 1)


def _ranked(scores: np.ndarray) -> RemovalPath:
    order = np.argsort(scores, kind="stable")
    return RemovalPath(order, np.concatenate([[0.0], np.cumsum(scores[order])]))
