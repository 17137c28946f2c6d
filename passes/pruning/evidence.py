"""What calibration data says about linear layers, by the names of their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, Member
from irtools.passes.pruning.linear import LinearLayer, by_weight
from irtools.passes.pruning.obs import LayerProblem, refit
from irtools.passmanager import PassContext
from irtools.statistics import Gram, GramResult, Want
from irtools.words import counted

__all__ = ["MAX_INPUTS", "Evidence", "collect_evidence"]

MAX_INPUTS = 8192
"""The moments of a layer with more inputs would take over half a gigabyte."""


@dataclass(frozen=True)
class Evidence:
    """Weight and input moments of linear layers: it holds for every copy of the model.

    Attributes:
        problems: By the name of the weight; layers that share it are one problem.
        shortages: For layers with more inputs than the data has positions: inputs, positions.
        solved: Weights that were solved for, by name of the weight and inputs that stay.
    """

    problems: Mapping[str, LayerProblem] = field(default_factory=dict)
    shortages: Sequence[tuple[int, int]] = ()
    solved: dict[tuple[str, bytes], np.ndarray] = field(default_factory=dict)

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
        sinks = {sink.value.name or "": sink for sink in group.sinks}
        if not all(name in self.problems for name in sinks):
            return None
        return [(sink, self.problems[name]) for name, sink in sinks.items()]

    def refitted(self, weight: str, inputs: np.ndarray) -> np.ndarray | None:
        """Return the refitted [K' + 1, N] of a weight, or None where there is no evidence.

        Args:
            weight: Its name.
            inputs: int64 [K'], the inputs that stay.
        """
        problem = self.problems.get(weight)
        if problem is None:
            return None
        key = (weight, inputs.tobytes())
        if key not in self.solved:
            self.solved[key] = refit(problem, inputs)
        return self.solved[key]


def collect_evidence(model: ir.Model, layers: Iterable[LinearLayer], ctx: PassContext) -> Evidence:
    """Collect the moments of the inputs of linear layers, in one request.

    Layers that share a weight are one problem over the inputs of all of them.
    """
    sharing = by_weight(layer for layer in layers if layer.weight_shape[0] <= MAX_INPUTS)
    wants = {name: list(map(_want, same)) for name, same in sharing.items()}
    if not wants:
        return Evidence()
    answers = ctx.statistics(model).collect(
        dict.fromkeys(want for several in wants.values() for want in several)
    )
    problems, shortages = {}, []
    for name, same in sharing.items():
        moments = [m for m in map(answers.get, wants[name]) if isinstance(m, GramResult)]
        problem = _problem(same[0], moments)
        problems[name] = problem
        inputs = len(problem.gram) - 1
        if problem.count < inputs:
            shortages.append((inputs, problem.count))
    return Evidence(problems, shortages)


def _problem(layer: LinearLayer, moments: Sequence[GramResult]) -> LayerProblem:
    gram = np.sum([m.xx for m in moments], axis=0) if len(moments) > 1 else moments[0].xx
    count = sum(m.count for m in moments)
    return LayerProblem.of(gram, count, layer.weight(), has_bias=layer.bias_node is not None)


def _want(layer: LinearLayer) -> Want:
    assert layer.data.name is not None
    return Want(layer.data.name, Gram(axis=layer.data_axis))
