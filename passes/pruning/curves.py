"""In which order the units of a group go, and what each removal costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import constant_of
from irtools.passes.pruning.groups import ChannelGroup, Member
from irtools.passes.pruning.linear import LinearLayer, linear_layer
from irtools.passes.pruning.obs import LayerProblem, RemovalPath, refit, removal_path
from irtools.passmanager import PassContext
from irtools.statistics import Gram, GramResult, Want

__all__ = ["Evidence", "Importance", "collect_evidence", "removal_curve"]

Importance: TypeAlias = Literal["magnitude", "activation", "obs"]

_MAX_INPUTS = 8192
_CHUNK_SHARE = 48
"""Units are removed in about this many steps: 32 at a time of 1536 neurons."""


@dataclass
class Evidence:
    """What calibration data says about the linear layers that sum units up.

    Attributes:
        problems: Weight and input moments by the node of the sink.
        refits: Weights that were solved for, by node and kept units.
    """

    problems: Mapping[ir.Node, LayerProblem] = field(default_factory=dict)
    refits: dict[tuple[ir.Node, tuple[int, ...]], np.ndarray] = field(default_factory=dict)

    def refitted(self, sink: Member, kept: tuple[int, ...]) -> np.ndarray | None:
        """Return the refitted [K' + 1, N] of a sink, or None where there is no evidence."""
        problem = self.problems.get(sink.node)
        if problem is None:
            return None
        key = (sink.node, kept)
        if key not in self.refits:
            self.refits[key] = refit(problem, sink.map.indices(kept))
        return self.refits[key]


def collect_evidence(model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext) -> Evidence:
    """Collect the moments of the inputs of every linear sink, in one request."""
    layers = [layer for g in groups for layer in map(linear_layer, g.sinks) if layer is not None]
    layers = [layer for layer in layers if layer.weight().shape[0] <= _MAX_INPUTS]
    wants = {layer.sink.node: _want(layer) for layer in layers}
    answers = ctx.statistics(model).collect(dict.fromkeys(wants.values()))
    problems: dict[ir.Node, LayerProblem] = {}
    for layer in layers:
        answer = answers[wants[layer.sink.node]]
        assert isinstance(answer, GramResult)
        problems[layer.sink.node] = LayerProblem.of(
            answer.xx, answer.count, layer.weight(), has_bias=layer.bias_node is not None
        )
    return Evidence(problems)


def _want(layer: LinearLayer) -> Want:
    assert layer.data.name is not None
    return Want(layer.data.name, Gram(axis=layer.data_axis))


def removal_curve(group: ChannelGroup, importance: Importance, evidence: Evidence) -> RemovalPath:
    """Return the order of removal and the relative error after each of them.

    `obs` needs a group with one sink and evidence of it; `activation` evidence of every sink.
    Where that is missing the next simpler importance takes its place: convolutions wider than
    1x1 and groups that go through a residual sum are ranked by activation or by magnitude.
    """
    problems = [evidence.problems.get(sink.node) for sink in group.sinks]
    known = [p for p in problems if p is not None]
    if importance != "magnitude" and len(known) == len(problems):
        if importance == "obs" and len(known) == 1:
            chunk = max(1, group.units // _CHUNK_SHARE)
            return removal_path(known[0], group.sinks[0].map, chunk)
        pairs = zip(group.sinks, known, strict=True)
        return _ranked(np.sum([_output_power(sink, p) for sink, p in pairs], axis=0))
    return _ranked(_weight_power(group))


def _output_power(sink: Member, problem: LayerProblem) -> np.ndarray:
    """Share of the output's energy that each unit carries: ||W_u||^2 E[x_u^2]."""
    rows = sink.map.matrix()
    power = np.einsum("kn,kn->k", problem.weight, problem.weight) * np.diag(problem.hessian)
    share: np.ndarray = power[rows].sum(axis=1) / problem.energy
    return share


def _weight_power(group: ChannelGroup) -> np.ndarray:
    """Squared norm of all weights of a unit, each tensor relative to its own."""
    total = np.zeros(group.units)
    for member in group.members:
        tensor = constant_of(member.value)
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
