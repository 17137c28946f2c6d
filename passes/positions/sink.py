"""The pass `sink`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import nested_graphs
from irtools.passes.positions.demand import find_demand
from irtools.passes.positions.reasons import which_rows, why_not
from irtools.passes.positions.rewrite import sink
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult
from irtools.words import counted

__all__ = ["Sink"]


@dataclass(frozen=True)
class Sink(Pass):
    """Compute only the positions that are read.

    Gather(LayerNorm(x + W f(x)), 0, axis=1)  ->  LayerNorm(x[0] + W f(x[0]))
    Attention(x Wq, x Wk, x Wv)[0]            ->  Attention(x[0] Wq, x Wk, x Wv)
    """

    name: ClassVar[str] = "sink"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = (*FOLLOWED_GRAPH, "hoist-shapes", "remove-dead-code")
    statistics: ClassVar = {
        "num-sunk-nodes": "operators that compute one position now",
        "num-sunk-products": "of them products and attention blocks",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        graphs = list(nested_graphs(model.graph))
        demands = [find_demand(graph, facts) for graph in graphs]
        nodes = sum(len(demand.nodes) for demand in demands)
        work = sum(len(demand.work) for demand in demands)
        counts = {"num-sunk-nodes": nodes, "num-sunk-products": work}
        if not nodes:
            return PassResult(False, counts, (f"{self.name}: {why_not(model.graph, facts)}",))
        what = counted(work, "product or attention block", "products and attention blocks")
        note = f"{self.name}: {what} of {which_rows(demands)} alone, in place of all positions"
        editor = Editor(model, self.name)
        for demand in demands:
            sink(editor, demand, facts)
        return PassResult(True, counts, (note,))
