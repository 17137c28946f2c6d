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

        Gather(LayerNorm(x + f(x)), 0)  ->  LayerNorm(x0 + f(x0)),  x0 = Gather(x, 0)
        Attention(x Wq, x Wk, x Wv)[0]  ->  Attention(x0 Wq, x Wk, x Wv)

    A classifier reads one position of the last hidden state, a decoder that gives scores of the
    last token (`irc export --logits last`) the last one. The constant Gather or Slice that takes it
    moves up through elementwise operators, reductions and norms along other axes, products,
    reshaped and transposed heads, and the rows of attention, and stops where other positions are
    needed: at keys and values. Under a causal mask that is an attribute only the last row is taken,
    of as many queries as keys. Positions that are written into one axis with the batch, as Gemm
    takes them, are followed through it.

    Of L equal blocks over S tokens the last does without (S-1)/S of all but K and V: with hidden
    size H and inner size F, 2 H^2 + 2 H F of 4 H^2 + 2 H F multiplications a token (F = 4 H: 10 of
    12). Costs one Gather where the row is taken, at most four in a block, and nothing else.

    Keeps a model whose positions are read by several (mean pooling, token classification), with
    the reason in a note. Any order with other passes is right; DeBERTa's scores by position are
    only recognised by `fuse` before `sink`. Works in the main graph and in nested subgraphs.
    """

    name: ClassVar[str] = "sink"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = (*FOLLOWED_GRAPH, "hoist-shapes", "remove-dead-code")
    counters: ClassVar = {
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
            return PassResult(False, counts, (why_not(model.graph, facts),))
        what = counted(work, "product or attention block", "products and attention blocks")
        note = f"{what} of {which_rows(demands)} alone, in place of all positions"
        editor = Editor(model, self.name)
        for demand in demands:
            sink(editor, demand, facts)
        return PassResult(True, counts, (note,))
