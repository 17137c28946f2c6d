"""What calibration data says about the linear layers that sum units up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, Member
from irtools.passes.pruning.linear import LinearLayer, linear_layer
from irtools.passes.pruning.obs import LayerProblem, refit
from irtools.passmanager import PassContext
from irtools.statistics import Gram, GramResult, Want
from irtools.words import counted

__all__ = ["Evidence", "collect_evidence"]

_MAX_INPUTS = 8192


@dataclass
class Evidence:
    """Weight and input moments of linear layers.

    Attributes:
        problems: By the node of the sink; nodes that share a weight have the same problem.
        refits: Weights that were solved for, by problem and kept units.
        shortages: For layers with more inputs than the data has positions: inputs, positions.
    """

    problems: Mapping[ir.Node, LayerProblem] = field(default_factory=dict)
    refits: dict[tuple[int, tuple[int, ...]], np.ndarray] = field(default_factory=dict)
    shortages: Sequence[tuple[int, int]] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report must say of the data used for a refit."""
        if not self.shortages:
            return ()
        inputs, positions = max(self.shortages)
        return (
            f"{counted(len(self.shortages), 'layer')} saw fewer positions than inputs (the widest "
            f"{positions:,} for {inputs:,}), so what is refitted fits these samples only: give "
            "more or longer calibration samples",
        )

    def of_sinks(self, group: ChannelGroup) -> list[tuple[Member, LayerProblem]] | None:
        """Return one sink for each problem of a group, or None where a sink has no evidence."""
        found: dict[int, tuple[Member, LayerProblem]] = {}
        for sink in group.sinks:
            problem = self.problems.get(sink.node)
            if problem is None:
                return None
            found.setdefault(id(problem), (sink, problem))
        return list(found.values())

    def refitted(self, sink: Member, kept: tuple[int, ...]) -> np.ndarray | None:
        """Return the refitted [K' + 1, N] of a sink, or None where there is no evidence."""
        problem = self.problems.get(sink.node)
        if problem is None:
            return None
        key = (id(problem), kept)
        if key not in self.refits:
            self.refits[key] = refit(problem, sink.map.indices(kept))
        return self.refits[key]


def collect_evidence(model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext) -> Evidence:
    """Collect the moments of the inputs of every linear sink, in one request.

    Layers that share a weight are one problem over the inputs of all of them.
    """
    layers = [layer for g in groups for layer in map(linear_layer, g.sinks) if layer is not None]
    layers = [layer for layer in layers if layer.weight_shape[0] <= _MAX_INPUTS]
    wants = {layer.sink.node: _want(layer) for layer in layers}
    answers = ctx.statistics(model).collect(dict.fromkeys(wants.values()))
    sharing: dict[ir.Value, list[LinearLayer]] = {}
    for layer in layers:
        sharing.setdefault(layer.sink.value, []).append(layer)
    problems: dict[ir.Node, LayerProblem] = {}
    shortages = []
    for same in sharing.values():
        answered = [answers[wants[layer.sink.node]] for layer in same]
        moments = [m for m in answered if isinstance(m, GramResult)]
        count, inputs = sum(m.count for m in moments), len(moments[0].xx) - 1
        if count < inputs:
            shortages.append((inputs, count))
        problem = _problem(same[0], moments, count)
        problems.update({layer.sink.node: problem for layer in same})
    return Evidence(problems, shortages=shortages)


def _problem(layer: LinearLayer, moments: Sequence[GramResult], count: int) -> LayerProblem:
    gram = np.sum([m.xx for m in moments], axis=0) if len(moments) > 1 else moments[0].xx
    return LayerProblem.of(gram, count, layer.weight(), has_bias=layer.bias_node is not None)


def _want(layer: LinearLayer) -> Want:
    assert layer.data.name is not None
    return Want(layer.data.name, Gram(axis=layer.data_axis))
