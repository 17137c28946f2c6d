"""The weights that may get zeros, and setting them, by name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.editing import Editor, require_weight, set_contents, weight_of
from irtools.operators import weight_port
from irtools.passes.pruning.edit import SUFFIX
from irtools.passes.pruning.evidence import MAX_INPUTS, Evidence, collect_evidence
from irtools.passes.pruning.linear import LinearLayer, linear_layer, write_layers
from irtools.passes.pruning.obs import LayerProblem
from irtools.passes.pruning.zeros import (
    Method,
    Pattern,
    choose_zeros,
    refit_sparse,
    scores_of,
    solve_zeros,
)
from irtools.passmanager import PassContext

__all__ = [
    "SparseWeight",
    "Zeros",
    "cost_of",
    "find_weights",
    "in_waves",
    "scores_along",
    "set_zeros",
]

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_MAX_BYTES = 512 << 20
"""Of the moments of a wave: as much as statistics are kept."""


@dataclass(frozen=True)
class SparseWeight:
    """A weight of one or more MatMul, Gemm or Conv nodes, and of no other node.

    Attributes:
        name: Its own.
        module: That of its first use.
        nodes: Its uses; it is the second input of each.
        axis: Axis of the inputs that are summed up.
        layers: The uses as linear layers; empty where one of them is none.
    """

    name: str
    module: str
    nodes: tuple[ir.Node, ...]
    axis: int
    layers: tuple[LinearLayer, ...]

    @property
    def is_observable(self) -> bool:
        """Whether the moments of what it is multiplied by can be collected."""
        return bool(self.layers) and self.inputs <= MAX_INPUTS

    @property
    def inputs(self) -> int:
        """How many numbers are summed up for one output of one position."""
        return int(self.array().shape[self.axis])

    def array(self) -> np.ndarray:
        """Return its numbers as they are stored."""
        return require_weight(self.nodes[0].inputs[1]).numpy()


@dataclass(frozen=True)
class Zeros:
    """What happens to one weight.

    Attributes:
        count: How many of its numbers become zero.
        pattern: Where they may be.
        method: How they are chosen.
        refit: Whether what stays is moved to the least-squares optimum.
    """

    count: int
    pattern: Pattern
    method: Method
    refit: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether the inputs of its layers must be known."""
        return self.refit or self.method != "magnitude"


def find_weights(
    model: ir.Model, only: Container[str] | None = None
) -> tuple[tuple[SparseWeight, ...], int]:
    """List the finite float weights of products in the main graph, each once, in their order.

    Args:
        model: The model.
        only: Names to look for; None: all.

    Returns:
        The weights, and how many are left out because other nodes read them as well.
    """
    uses: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        value = node.inputs[1] if node.op_type in _PRODUCTS and len(node.inputs) > 1 else None
        if node.domain == "" and value is not None and (only is None or value.name in only):
            uses.setdefault(value, []).append(node)
    found = [_weight(value, nodes) for value, nodes in uses.items() if _is_fit(weight_of(value))]
    weights = tuple(weight for weight in found if weight is not None)
    return weights, len(found) - len(weights)


def _is_fit(tensor: ir.TensorProtocol | None) -> bool:
    if tensor is None or len(tensor.shape) < 2 or not tensor.dtype.is_floating_point():
        return False
    return bool(np.isfinite(tensor.numpy().astype(np.float32)).all())


def _weight(value: ir.Value, nodes: list[ir.Node]) -> SparseWeight | None:
    axes = {_input_axis(node) for node in nodes}
    foreign = {(node, place) for node, place in value.uses()} - {(node, 1) for node in nodes}
    if len(axes) > 1 or foreign or value.is_graph_output():
        return None
    layers = tuple(layer for layer in map(linear_layer, nodes) if layer is not None)
    return SparseWeight(
        value.name or "",
        module_name(nodes[0]),
        tuple(nodes),
        axes.pop(),
        layers if len(layers) == len(nodes) else (),
    )


def _input_axis(node: ir.Node) -> int:
    port = weight_port(node)
    assert port is not None and port.in_axis is not None
    return port.in_axis % len(require_weight(node.inputs[1]).shape)


def in_waves(
    model: ir.Model,
    weights: Sequence[SparseWeight],
    zeros: Mapping[str, Zeros],
    ctx: PassContext,
) -> Iterator[tuple[list[SparseWeight], Evidence]]:
    """Yield weights with what is known of them, a part at a time where it takes much memory.

    Args:
        model: The model, which must stay as it is until all have been taken.
        weights: Its weights.
        zeros: By name, how each becomes zero.
        ctx: Gives the statistics.
    """
    wave: list[SparseWeight] = []
    held = 0
    for weight in weights:
        needed = 8 * (weight.inputs + 1) ** 2 if zeros[weight.name].needs_data else 0
        if wave and held + needed > _MAX_BYTES:
            yield wave, _evidence(model, wave, zeros, ctx)
            wave, held = [], 0
        wave.append(weight)
        held += needed
    if wave:
        yield wave, _evidence(model, wave, zeros, ctx)


def _evidence(
    model: ir.Model, wave: Sequence[SparseWeight], zeros: Mapping[str, Zeros], ctx: PassContext
) -> Evidence:
    seen = [weight for weight in wave if zeros[weight.name].needs_data]
    return collect_evidence(model, [layer for weight in seen for layer in weight.layers], ctx)


def set_zeros(model: ir.Model, wanted: Mapping[str, Zeros], evidence: Evidence) -> int:
    """Set numbers of weights to zero; return how many were not zero before.

    Args:
        model: Changed in place.
        wanted: What happens, by the name of the weight.
        evidence: Of the weights for which `needs_data` holds.
    """
    editor = Editor(model, "sparsify")
    fresh = 0
    for weight in find_weights(model, wanted)[0]:
        zeros, array = wanted[weight.name], weight.array()
        problem = evidence.problems.get(weight.name)
        if problem is None:
            written = np.where(_mask(weight, zeros, evidence), array.dtype.type(0), array)
        else:
            solved = _solved(weight, zeros, problem, evidence)
            written = solved[:-1]
        more = int(np.count_nonzero(array) - np.count_nonzero(written))
        fresh += more
        if not more:
            continue
        if problem is None:
            set_contents(editor, [(node, 1) for node in weight.nodes], written, SUFFIX)
        else:
            write_layers(editor, weight.layers, written, solved[-1] if problem.has_bias else None)
    return fresh


def _solved(
    weight: SparseWeight, zeros: Zeros, problem: LayerProblem, evidence: Evidence
) -> np.ndarray:
    """Return the weight with its zeros, and the change of the bias below it: [K+1, N]."""
    if zeros.method == "sparsegpt":
        found = solve_zeros(problem, zeros.count, zeros.pattern)
    else:
        found = problem.weight.copy()
        found[:-1][_mask(weight, zeros, evidence)] = 0.0
    return refit_sparse(problem, found) if zeros.refit else found


def cost_of(weight: SparseWeight, zeros: Zeros, evidence: Evidence) -> float:
    """Return what the zeros cost, in the unit of `scores_along`."""
    scores, _ = scores_along(weight, zeros.method, evidence)
    return float(scores[_mask(weight, zeros, evidence)].sum())


def scores_along(
    weight: SparseWeight, method: Method, evidence: Evidence
) -> tuple[np.ndarray, int]:
    """Return what each number is missed for, and the axis of the inputs.

    By magnitude it is its share of the squared norm, otherwise that of the output's energy. Of
    weights with evidence the shape is [K, N], of others as they are stored.
    """
    problem = evidence.problems.get(weight.name)
    if problem is not None and method != "magnitude":
        return scores_of(problem, method), 0
    array = weight.array().astype(np.float64) if problem is None else problem.weight[:-1]
    squares = np.square(array)
    share: np.ndarray = squares / max(float(squares.sum()), np.finfo(float).tiny)
    return share, weight.axis if problem is None else 0


def _mask(weight: SparseWeight, zeros: Zeros, evidence: Evidence) -> np.ndarray:
    scores, axis = scores_along(weight, zeros.method, evidence)
    by_output = zeros.method == "wanda"
    return choose_zeros(scores, axis, zeros.count, zeros.pattern, by_output=by_output)
