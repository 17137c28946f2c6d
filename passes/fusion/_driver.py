"""What all fusion passes do: find anchors, match, raise the opset, rewrite, say what stayed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.model import FreshNames, nested_graphs, opset_of, raise_opset
from irtools.passes.fusion._pattern import Veto, replace
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult
from irtools.words import counted

__all__ = ["Fusion", "FusionPass", "Rewriter"]


@dataclass(frozen=True)
class Fusion:
    """What a fusion pass makes.

    Attributes:
        what: The thing that is fused, as statistics and notes call it.
        operator: The standard operator that is made; empty where there is no single one.
        opset: The opset that brought it.
        anchors: Operators from which a match is tried.
    """

    what: str
    operator: str
    opset: int
    anchors: tuple[str, ...]


class Rewriter(ABC):
    """Matches from an anchor node and rewrites what it matched."""

    def __init__(self, facts: SymbolicShapes, names: FreshNames) -> None:
        self.facts = facts
        self.names = names

    @abstractmethod
    def match(self, anchor: ir.Node) -> object:
        """Return what was found around an anchor. Changes nothing.

        Raises:
            Veto: With the reason why not.
        """

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Put a new node's output in the place of an old value."""
        self.facts.adopt(new, old)
        replace(old, new)

    @abstractmethod
    def rewrite(self, anchor: ir.Node, found: object) -> None:
        """Replace what was found."""


@dataclass(frozen=True)
class FusionPass(Pass):
    """A pass that turns one kind of subgraph into one operator of the target."""

    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    fusion: ClassVar[Fusion]

    @abstractmethod
    def rewriter(self, facts: SymbolicShapes, names: FreshNames) -> Rewriter:
        """Make the rewriter for a model."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        fusion, notes = self.fusion, []
        rewriter = self.rewriter(ctx.analysis(SymbolicShapes, model), FreshNames(model))
        found, vetoes = _survey(model, rewriter, fusion)
        reason = _obstacle(model, ctx, fusion) if found else ""
        modified = False
        if found and not reason:
            change = raise_opset(model, fusion.opset)
            reason = change.reason
            if change.after != change.before:
                modified = True
                notes.append(
                    f"{self.name}: opset raised from {change.before} to {change.after} for "
                    f"{fusion.operator}"
                )
            if change.rewritten:
                # Constants may have become inputs: look again.
                ctx.drop_analyses()
                rewriter = self.rewriter(ctx.analysis(SymbolicShapes, model), FreshNames(model))
        if reason:
            vetoes += [(anchor, reason) for anchor in found]
            found = []
        fused = 0
        touched: dict[object, None] = {}
        for anchor in found:
            # A rewrite may take the ground from under the next match, so match again.
            try:
                match = rewriter.match(anchor)
            except Veto as veto:
                vetoes.append((anchor, veto.reason))
                continue
            graph = anchor.graph
            rewriter.rewrite(anchor, match)
            fused += 1
            touched[graph] = None
        for changed in touched:
            # What blocks share stands before the first of them, by anchor; others may end earlier.
            if isinstance(changed, ir.Graph):
                changed.sort()
        notes += _told(fusion.what, vetoes)
        counts = {f"num-fused-{fusion.what}": fused, f"num-unfused-{fusion.what}": len(vetoes)}
        return PassResult(modified or fused > 0, counts, tuple(notes))


def _survey(
    model: ir.Model, rewriter: Rewriter, fusion: Fusion
) -> tuple[list[ir.Node], list[tuple[ir.Node, str]]]:
    """Anchors that match, and those that nearly do with the reason why not."""
    found, vetoes = [], []
    for graph in nested_graphs(model.graph):
        for node in graph:
            if node.op_type not in fusion.anchors or node.domain != "":
                continue
            try:
                rewriter.match(node)
            except Veto as veto:
                if veto.named:
                    vetoes.append((node, veto.reason))
            else:
                found.append(node)
    return found, vetoes


def _told(what: str, vetoes: Sequence[tuple[ir.Node, str]]) -> Iterator[str]:
    """Yield a sentence for each reason, with the first place that it holds for."""
    places: dict[str, list[str]] = {}
    for anchor, reason in vetoes:
        places.setdefault(reason, []).append(module_name(anchor))
    for reason, (first, *others) in places.items():
        more = f" and {counted(len(others), 'more place')}" if others else ""
        yield f"did not fuse {what} at {first}{more}: {reason}"


def _obstacle(model: ir.Model, ctx: PassContext, fusion: Fusion) -> str:
    capabilities = ctx.target.capabilities
    if fusion.operator and not capabilities.runs_fused(fusion.operator):
        return f"{ctx.target.name} does not run {fusion.operator} faster than its parts"
    if max(fusion.opset, opset_of(model)) > capabilities.max_opset:
        return f"{ctx.target.name} reads opset {capabilities.max_opset}, not {fusion.opset}"
    return ""
