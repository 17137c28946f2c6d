"""Cutting units out and moving the weights that stay to the least-squares optimum.

Everything goes by names, so a plan, a copy of the model and the file loaded again are cut alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import ChannelGroups
from irtools.editing import Editor
from irtools.passes.pruning.edit import Cut, remove_channels
from irtools.passes.pruning.evidence import Evidence
from irtools.passes.pruning.linear import LinearLayer, by_weight, linear_layer, write_layers

__all__ = ["CutLayer", "cut_copy", "cut_units"]


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


def cut_units(
    model: ir.Model, kept: Mapping[str, Sequence[int]], evidence: Evidence
) -> tuple[CutLayer, ...]:
    """Remove units and refit what sums them up, each layer by its own evidence.

    Args:
        model: Changed in place.
        kept: Group name to the units that stay, ascending.
        evidence: Input moments of the sinks; sinks without any are cut and not refitted.

    Returns:
        The linear layers that lost inputs, in the order of the groups.
    """
    groups = ChannelGroups.of(model)
    cuts = []
    for name, units in kept.items():
        group = groups.find(name)
        assert group is not None, f"{name} is a group of the model"
        cuts.append(Cut(group, tuple(units)))
    found: dict[ir.Node, LinearLayer] = {}
    solved: dict[str, np.ndarray | None] = {}
    for cut in cuts:
        for sink in cut.group.sinks:
            layer = linear_layer(sink.node) if sink.input == 1 else None
            if layer is not None:
                found[sink.node] = layer
                solved[layer.name] = evidence.refitted(layer.name, sink.map.indices(cut.kept))
    sharing = by_weight(found.values())
    remove_channels(model, cuts)
    editor = Editor(model, "prune")
    done: dict[ir.Node, CutLayer] = {}
    for name, same in sharing.items():
        weight = solved[name]
        removed = _removed_outputs(same[0].node, cuts)
        if weight is not None:
            # The layer that sums one group up may compute the units of another, or of the same.
            left = np.delete(weight, removed, axis=1)
            write_layers(editor, same, left[:-1], left[-1])
        done |= {layer.node: CutLayer(layer, len(same) > 1, removed) for layer in same}
    return tuple(done[node] for node in found)


def cut_copy(model: ir.Model, kept: Mapping[str, Sequence[int]]) -> ir.Model:
    """Return a copy with only these units, not refitted: right in shape, good for timing."""
    copy = model.clone()
    cut_units(copy, kept, Evidence())
    return copy


def _removed_outputs(node: ir.Node, cuts: Sequence[Cut]) -> np.ndarray:
    indices = [
        member.map.indices(cut.removed)
        for cut in cuts
        for member in cut.group.roots
        if member.node is node
    ]
    return np.concatenate(indices) if indices else np.zeros(0, dtype=np.int64)
