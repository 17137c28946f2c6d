"""Refitting layer after layer, each to the inputs that the pruned layers before it produce.

The dense model says what every layer's output should be, the pruned model what its inputs are by
now. With inputs X' [n, K'], a constant 1 among them for the bias, outputs T [n, N] and the weights
W' that it has, the layer's weights change by the solution D of H D = X'^T (T - X' W') / n, H the
shrunk X'^T X' / n. So a layer makes up for what those before it lost, which a refit on dense inputs
cannot see (as ThiNet does, Luo et al. 2017, section 3.2).

Measured on MiniLM-L6 fine-tuned for R8, half of the prunable parameters removed, 128 calibration
samples, 548 test samples: 22.8 dB refitted at once, 23.3 dB in sequence, both with 98.2 % accuracy
and 99.6 % agreement with the dense model; 0.3 dB and 94.7 % without any refit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.pruning.cut import CutLayer
from irtools.passes.pruning.linear import LinearLayer, write_layers
from irtools.passes.pruning.obs import shrunk_moments
from irtools.passmanager import PassContext
from irtools.statistics import Gram, GramResult, Want

__all__ = ["refit_in_sequence", "side_by_side"]

_MAX_WAVES = 12
"""Each wave runs the calibration data through both models up to its last layer."""


def refit_in_sequence(
    model: ir.Model, dense: ir.Model, layers: Sequence[CutLayer], ctx: PassContext
) -> int:
    """Refit linear layers in the order of the graph; return how many.

    Args:
        model: The pruned model, changed in place.
        dense: The model before pruning.
        layers: What `cut_units` returned. Layers that share a weight are left as they are.
        ctx: Gives the statistics.
    """
    editor = Editor(model, "prune")
    waves = _waves(model, [c for c in layers if not c.shared])
    for number, wave in enumerate(waves):
        ctx.progress.step("refitting", number, len(waves))
        _refit_wave(editor, model, dense, wave, ctx)
    return sum(map(len, waves))


def _waves(model: ir.Model, layers: Sequence[CutLayer]) -> list[list[CutLayer]]:
    place = {node: i for i, node in enumerate(model.graph)}
    ordered = sorted(layers, key=lambda c: place[c.layer.node])
    size = max(1, -(-len(ordered) // _MAX_WAVES))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def _refit_wave(
    editor: Editor, model: ir.Model, dense: ir.Model, wave: Sequence[CutLayer], ctx: PassContext
) -> None:
    outputs = [_name(c.layer.output) for c in wave]
    twin, renamed = side_by_side(model, dense, [_name(c.layer.data) for c in wave], outputs)
    wants = [
        Want(_name(c.layer.data), Gram(c.layer.data_axis, renamed[output]))
        for c, output in zip(wave, outputs, strict=True)
    ]
    answers = ctx.statistics(twin).collect(wants)
    for cut, want in zip(wave, wants, strict=True):
        moments = answers[want]
        assert isinstance(moments, GramResult)
        weight, bias = _solve(cut, moments)
        write_layers(editor, [cut.layer], weight, bias)


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name


def _solve(cut: CutLayer, moments: GramResult) -> tuple[np.ndarray, np.ndarray | None]:
    """Return W' [K', N'] and the change of the bias [N'], or None where there is no bias."""
    assert moments.xy is not None
    layer, count = cut.layer, max(moments.count, 1)
    old = _weights(layer)
    hessian = moments.xx / count
    target = np.delete(moments.xy, cut.removed_outputs, axis=1) / count
    size = len(old) if layer.bias_node is not None else len(old) - 1
    left = (target - hessian @ old)[:size]
    change = np.linalg.solve(shrunk_moments(hessian, count)[:size, :size], left)
    rows = layer.weight_shape[0]
    return old[:rows] + change[:rows], change[rows] if size > rows else None


def _weights(layer: LinearLayer) -> np.ndarray:
    """Return the weight with the bias below it: float64 [K + 1, N]."""
    weight, bias = layer.weight(), layer.bias()
    below = np.zeros((1, weight.shape[1]))
    if bias is not None:
        below = np.broadcast_to(bias.astype(np.float64).reshape(1, -1), below.shape)
    return np.vstack([weight, below])


def side_by_side(
    left: ir.Model, right: ir.Model, left_names: Sequence[str], right_names: Sequence[str]
) -> tuple[ir.Model, dict[str, str]]:
    """Return a model that computes tensors of two others in one run.

    What the wanted tensors do not need is left out. Weights that both have are there once.

    Args:
        left: A model; its tensors keep their names.
        right: A model with the same inputs, functions and opsets.
        left_names: Inner tensors wanted of `left`.
        right_names: Inner tensors wanted of `right`.

    Returns:
        The model, and for each of `right_names` its name in there.
    """
    graph = ir.convenience.extract(left.graph, list(left.graph.inputs), left_names)
    other = ir.convenience.extract(right.graph, list(right.graph.inputs), right_names)
    inputs = {value.name: value for value in graph.inputs}
    for value in other.inputs:
        value.replace_all_uses_with(inputs[value.name])
    _share_weights(graph, other)
    functions = list(left.clone().functions.values())
    model = ir.Model(graph, ir_version=left.ir_version, functions=functions)
    renamed = _move(other, Editor(model, "prune"))
    return model, {name: renamed[name] for name in right_names}


def _share_weights(graph: ir.Graph, other: ir.Graph) -> None:
    own = {id(v.const_value): v for v in graph.initializers.values() if v.const_value is not None}
    for name, value in list(other.initializers.items()):
        same = own.get(id(value.const_value))
        if same is not None:
            value.replace_all_uses_with(same)
            del other.initializers[name]


def _move(other: ir.Graph, editor: Editor) -> dict[str, str]:
    """Move all of a graph to the end of another one; return old names to new ones."""
    weights = dict(other.initializers)
    outputs, nodes = list(other.outputs), list(other)
    other.outputs.clear()
    other.remove(nodes)
    renamed: dict[str, str] = {}
    for name, value in weights.items():
        copy = editor.constant(f"{name}_right", _tensor(value))
        value.replace_all_uses_with(copy)
        renamed[name] = copy.name or ""
    for node in nodes:
        node.name = None
        for value in node.outputs:
            if value.name:
                old = value.name
                renamed[old] = value.name = editor.fresh(f"{old}_right")
    editor.graph.extend(nodes)
    editor.graph.outputs.extend(outputs)
    return renamed


def _tensor(weight: ir.Value) -> ir.TensorProtocol:
    if weight.const_value is None:
        raise ValueError(f"the weight {weight.name!r} has no contents")
    return weight.const_value
