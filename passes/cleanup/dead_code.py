"""Removing what nothing reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from irtools.analysis.shapes import SymbolicShapes
from irtools.model import nested_graphs
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["RemoveDeadCode"]


@dataclass(frozen=True)
class RemoveDeadCode(Pass):
    """Remove nodes, weights and functions that no output depends on.

    Works in the main graph and in nested subgraphs. Graph inputs stay, used or not, and so do
    weights that are graph inputs too: they belong to the interface. onnx-ir's pass of that kind
    also drops optional outputs and `training_mode` without saying so.
    """

    name: ClassVar[str] = "remove-dead-code"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {
        "num-dead-nodes": "nodes removed that nothing read",
        "num-dead-initializers": "weights removed that nothing read",
        "num-dead-functions": "functions removed that nothing called",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        # Inner graphs come last in `nested_graphs`: emptied first, they free the outer values.
        graphs = list(nested_graphs(model.graph))
        nodes = sum(_remove_nodes(graph) for graph in reversed(graphs))
        weights = sum(_remove_initializers(graph) for graph in graphs)
        before = len(model.functions)
        if before:
            RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        counts = {
            "num-dead-nodes": nodes,
            "num-dead-initializers": weights,
            "num-dead-functions": before - len(model.functions),
        }
        return PassResult(any(counts.values()), counts, preserved=frozenset({SymbolicShapes}))


def _remove_nodes(graph: ir.Graph) -> int:
    dead = 0
    for node in reversed(graph):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
            dead += 1
    return dead


def _remove_initializers(graph: ir.Graph) -> int:
    dead = [
        name
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_output() or value.is_graph_input())
    ]
    for name in dead:
        del graph.initializers[name]
    return len(dead)
