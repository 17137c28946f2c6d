"""What all fusion passes share: survey, raise the opset, rewrite, say what stayed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, Place, Rewritten, Rule, Veto, rewrite, survey, told
from irtools.model import opset_of, raise_opset
from irtools.passmanager import FOLLOWED_GRAPH, Exactness, Pass, PassContext, PassResult

__all__ = ["Fused", "Fusion", "FusionPass", "FusionRule", "SimpleFusion"]

M = TypeVar("M")


class FusionRule(Rule[M]):
    """A rule that knows the shapes of a model."""

    def __init__(self, facts: SymbolicShapes) -> None:
        self.facts = facts


@dataclass(frozen=True)
class Fused:
    """One operator that computes an old value.

    Attributes:
        op_type: The operator.
        inputs: Its inputs.
        output: The value that it computes.
        attributes: Its attributes.
    """

    op_type: str
    inputs: Sequence[ir.Value | None]
    output: ir.Value
    attributes: Mapping[str, Any] = field(default_factory=dict)


class SimpleFusion(FusionRule[Fused]):
    """A rule that replaces a value by one operator, and what was read for it alone by nothing."""

    @abstractmethod
    def find(self, anchor: ir.Node) -> Fused: ...

    def build(self, editor: Editor, anchor: ir.Node, found: Fused) -> None:
        last = found.output.producer()
        assert last is not None
        place = Place(editor, last, replaces=(anchor, last))
        fused = place.value(found.op_type, found.inputs, found.attributes)
        editor.substitute(found.output, fused)
        editor.drop_unread(last)


@dataclass(frozen=True)
class Fusion:
    """What a fusion pass makes.

    Attributes:
        what: The thing that is fused, as counters and notes call it.
        plural: Several of it, in words.
        operator: The standard operator that is made; empty where there is no single one.
        opset: The opset that introduced it.
        rule: How.
    """

    what: str
    plural: str
    operator: str
    opset: int
    rule: type[FusionRule[Any]]


@dataclass(frozen=True)
class FusionPass(Pass):
    """A pass that turns one kind of subgraph into one operator of the target.

    Its counters follow from `fusion` where it has none of its own.
    """

    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    fusion: ClassVar[Fusion]

    def __init_subclass__(cls) -> None:
        what, plural = cls.fusion.what, cls.fusion.plural
        if "counters" not in cls.__dict__:
            cls.counters = {
                f"num-fused-{what}": f"{plural} fused",
                f"num-unfused-{what}": f"{plural} that stayed, each named with its reason",
            }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        fusion, notes = self.fusion, []
        seen = survey(model.graph, [fusion.rule(ctx.analysis(SymbolicShapes, model))])
        reason = _obstacle(model, ctx, fusion) if seen.found else ""
        modified = False
        if seen.found and not reason:
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
        done = Rewritten()
        if not reason:
            facts = ctx.analysis(SymbolicShapes, model)
            editor = Editor(model, self.name, adopt=facts.adopt)
            done = rewrite(editor, [fusion.rule(facts)], seen.found)
        vetoes = [*seen.refused, *done.refused]
        if reason:
            vetoes += [(anchor, Veto(reason)) for anchor in seen.found]
        for changed in done.graphs:
            # What blocks share comes before the first of them, by anchor; others may end earlier.
            if isinstance(changed, ir.Graph):
                changed.sort()
        refused = ((module_name(anchor), veto) for anchor, veto in vetoes)
        notes += told(f"did not fuse {fusion.what}", refused)
        counts = {f"num-fused-{fusion.what}": done.total, f"num-unfused-{fusion.what}": len(vetoes)}
        return PassResult(modified or done.total > 0, counts, tuple(notes))


def _obstacle(model: ir.Model, ctx: PassContext, fusion: Fusion) -> str:
    capabilities = ctx.target.capabilities
    if fusion.operator and not capabilities.runs_fused(fusion.operator):
        return f"{ctx.target.name} does not run {fusion.operator} faster than its parts"
    if max(fusion.opset, opset_of(model)) > capabilities.max_opset:
        return f"{ctx.target.name} reads opset {capabilities.max_opset}, not {fusion.opset}"
    return ""
