"""Cutting units out and moving the weights that stay to the least-squares optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroups
from irtools.editing import Editor
from irtools.passes.pruning.edit import Cut, remove_channels
from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.linear import LinearLayer, linear_layer, write_layers

__all__ = ["CutLayer", "cut_and_refit"]


@dataclass(frozen=True)
class CutLayer:
    """A linear layer that some inputs were taken from.

    Attributes:
        layer: The layer in the pruned model.
        shared: Whether other layers have the same weight.
        removed_outputs: int64 [.], outputs that it lost, as units of other groups.
    """

    layer: LinearLayer
    shared: bool
    removed_outputs: np.ndarray


def cut_and_refit(
    model: ir.Model, kept: Mapping[str, Sequence[int]], evidence: Evidence
) -> tuple[CutLayer, ...]:
    """Remove units and refit what sums them up, each layer by its own evidence.

    Args:
        model: Changed in place.
        kept: Group name to the units that stay.
        evidence: Input moments of the sinks; sinks without any are cut and not refitted.

    Returns:
        The linear layers that lost inputs, in the order of the groups.
    """
    groups = ChannelGroups.of(model)
    cuts = []
    for name, units in kept.items():
        group = groups.find(name)
        assert group is not None
        cuts.append(Cut(group, tuple(units)))
    layers = [(cut, layer) for cut in cuts for layer in map(linear_layer, cut.group.sinks) if layer]
    solved = [evidence.refitted(layer.sink, cut.kept) for cut, layer in layers]
    remove_channels(model, cuts)
    sharing: dict[ir.Value, list[int]] = {}
    for place, (_, layer) in enumerate(layers):
        sharing.setdefault(layer.sink.value, []).append(place)
    editor = Editor(model, "prune")
    done: dict[int, CutLayer] = {}
    for places in sharing.values():
        same = [layers[place][1] for place in places]
        weight = solved[places[0]]
        removed = _removed_outputs(same[0].sink.node, cuts)
        if weight is not None:
            # The layer that sums one group up may compute the units of another, or of the same.
            left = np.delete(weight, removed, axis=1)
            write_layers(editor, same, left[:-1], left[-1])
        for place, layer in zip(places, same, strict=True):
            done[place] = CutLayer(layer, len(same) > 1, removed)
    return tuple(done[place] for place in sorted(done))


def _removed_outputs(node: ir.Node, cuts: Sequence[Cut]) -> np.ndarray:
    indices = [
        member.map.indices(cut.removed)
        for cut in cuts
        for member in cut.group.roots
        if member.node is node
    ]
    return np.concatenate(indices) if indices else np.zeros(0, dtype=np.int64)
