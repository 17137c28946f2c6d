"""Which branch of an If samples take."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.analysis.pairing import node_ids
from irtools.causes.facts import ExitUse
from irtools.data import Dataset
from irtools.editing import Editor
from irtools.model import Model, nested_graphs
from irtools.statistics import expose
from irtools.targets import RunnerOptions, Target

__all__ = ["exit_uses"]

_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class _Watched:
    """An If whose condition is an output.

    Attributes:
        node: Its id.
        value: Name of the output.
        longer: Value of the condition with which the longer branch runs.
        nodes: Ids of the nodes of that branch.
        outer: Number of the If around it; None: it is in the main graph.
    """

    node: str
    value: str
    longer: bool
    nodes: tuple[str, ...]
    outer: int | None


def exit_uses(
    model: Model, data: Dataset, target: Target, options: RunnerOptions
) -> tuple[ExitUse, ...]:
    """Run samples one by one and return how many took the shorter branch of each If."""
    copy = model.ir.clone()
    ids = node_ids(copy)
    editor = Editor(copy, "watch-exits")
    watched: list[_Watched] = []
    for node in list(copy.graph):
        if node.op_type == "If":
            _watch(node, ids, editor, watched, None)
    if not watched:
        return ()
    shown = expose(copy, [one.value for one in watched]).model
    reached = np.zeros(len(watched), np.int64)
    left = np.zeros(len(watched), np.int64)
    with target.runner(Model(shown), options) as runner:
        for feeds in data.spread(_SAMPLES).batches(1):
            outputs = runner.run(feeds)
            inside: list[bool] = []
            for number, one in enumerate(watched):
                here = one.outer is None or inside[one.outer]
                longer = bool(np.asarray(outputs[one.value]).reshape(-1)[0]) == one.longer
                inside.append(here and longer)
                reached[number] += here
                left[number] += here and not longer
    return tuple(
        ExitUse(one.node, int(left[n]), int(reached[n]), one.nodes) for n, one in enumerate(watched)
    )


def _watch(
    node: ir.Node,
    ids: dict[ir.Node, str],
    editor: Editor,
    watched: list[_Watched],
    outer: int | None,
) -> list[tuple[ir.Value, bool]]:
    """Note an If and those inside; returns their conditions, values of the graph of the node."""
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    sizes = [sum(1 for graph in nested_graphs(branch) for _ in graph) for branch in branches]
    longer = sizes[0] >= sizes[1]
    deep, shallow = branches if longer else branches[::-1]
    nodes = tuple(ids[inner] for graph in nested_graphs(deep) for inner in graph if inner in ids)
    condition = node.inputs[0]
    assert condition is not None and condition.name
    number = len(watched)
    watched.append(_Watched(ids[node], condition.name, longer, nodes, outer))
    found = [(condition, longer)]
    inner_ones = [inner for inner in deep if inner.op_type == "If"]
    for inner in inner_ones:
        first = len(watched)
        for place, (value, polarity) in enumerate(_watch(inner, ids, editor, watched, number)):
            carried = _carry(node, deep, shallow, value, polarity, editor)
            watched[first + place] = replace(watched[first + place], value=carried.name or "")
            found.append((carried, polarity))
    return found


def _carry(
    node: ir.Node,
    deep: ir.Graph,
    shallow: ir.Graph,
    value: ir.Value,
    polarity: bool,
    editor: Editor,
) -> ir.Value:
    """Add an output to an If: a value of its longer branch; of the other one, that nothing ran."""
    deep.outputs.append(_output_of(deep, value, editor))
    other = editor.node("Identity", [_false(shallow, editor, not polarity)])
    shallow.append(other)
    shallow.outputs.append(other.outputs[0])
    node.resize_outputs(len(node.outputs) + 1)
    carried = node.outputs[-1]
    carried.name = editor.fresh("carried")
    carried.type = ir.TensorType(ir.DataType.BOOL)
    return carried


def _output_of(graph: ir.Graph, value: ir.Value, editor: Editor) -> ir.Value:
    copied = editor.node("Identity", [value])
    graph.append(copied)
    copied.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
    return copied.outputs[0]


def _false(graph: ir.Graph, editor: Editor, value: bool) -> ir.Value:
    made = editor.node("Constant", [], {"value": ir.tensor(np.array(value))})
    graph.append(made)
    made.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
    return made.outputs[0]
