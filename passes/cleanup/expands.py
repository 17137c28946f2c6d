"""Expand after what works element by element, where it copies less or is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shape_rules import broadcast
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import Editor, Rule, Veto, only_user, rewrite
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["DelayExpand"]

_UNARY = ("Abs", "Cast", "Neg", "Not")
_BROADCASTING = (
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"),
    *("Min", "Mul", "Or", "Sub", "Sum", "Where", "Xor"),
)


@dataclass(frozen=True)
class DelayExpand(Pass):
    """Work on a tensor before it is expanded rather than after.

        Add(Expand(x), y)         ->  Add(x, y), where y has all sizes of the result
        Where(Expand(c), 0, low)  ->  Expand(Where(c, 0, low)), where nothing else reads Expand(c)

    What broadcasts by itself needs no copy; what must be expanded in the end is computed once for
    each element before. For Cast, Not, Neg and Abs as well. Shapes must prove it. Works in the main
    graph and in nested subgraphs.
    """

    name: ClassVar[str] = "delay-expand"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {
        "num-removed-expands": "Expands that what reads them does by itself",
        "num-delayed-expands": "Expands that went after what is computed element by element",
    }

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        done = rewrite(
            Editor(model, self.name, adopt=facts.adopt), [_Unneeded(facts), _Early(facts)]
        )
        counts = {
            "num-removed-expands": done.counts[_Unneeded.name],
            "num-delayed-expands": done.counts[_Early.name],
        }
        return PassResult(done.total > 0, counts, preserved=frozenset({SymbolicShapes}))


@dataclass(frozen=True)
class _Operand:
    """An operand that is expanded.

    Attributes:
        index: Which one.
        source: It before.
        sizes: What it is expanded to, a tensor.
    """

    index: int
    source: ir.Value
    sizes: ir.Value


class _Expanded(Rule[_Operand]):
    """What both rules look at."""

    def __init__(self, facts: SymbolicShapes) -> None:
        self.facts = facts

    def build(self, editor: Editor, anchor: ir.Node, found: _Operand) -> None:
        raise NotImplementedError

    def operands(self, anchor: ir.Node) -> Iterator[tuple[_Operand, Shape | None]]:
        """Yield operands that are expanded, with the shape of the result without that."""
        shapes = [self.facts.shape(value) for value in anchor.inputs]
        for index, value in enumerate(anchor.inputs):
            node = None if value is None else value.producer()
            if node is None or node.op_type != "Expand" or node.domain != "":
                continue
            source, sizes = node.inputs
            if source is not None and sizes is not None:
                own = [*shapes[:index], self.facts.shape(source), *shapes[index + 1 :]]
                known = [shape for shape in own if shape is not None]
                whole = broadcast(known) if len(known) == len(own) else None
                yield _Operand(index, source, sizes), whole


class _Unneeded(_Expanded):
    """Add(Expand(x), y)  ->  Add(x, y)"""

    name = "removed"
    anchors = _BROADCASTING

    def find(self, anchor: ir.Node) -> _Operand:
        result = self.facts.shape(anchor.outputs[0])
        for operand, shape in self.operands(anchor):
            if shape is not None and shape == result:
                return operand
        raise Veto("no operand that is expanded in vain", named=False)

    def build(self, editor: Editor, anchor: ir.Node, found: _Operand) -> None:
        expanded = anchor.inputs[found.index]
        anchor.replace_input_with(found.index, found.source)
        editor.drop_unread(expanded)


class _Early(_Expanded):
    """Where(Expand(c), 0, low)  ->  Expand(Where(c, 0, low))"""

    name = "delayed"
    anchors = (*_UNARY, *_BROADCASTING)

    def find(self, anchor: ir.Node) -> _Operand:
        result = self.facts.shape(anchor.outputs[0])
        for operand, shape in self.operands(anchor):
            expanded = anchor.inputs[operand.index]
            if expanded is None or shape is None or result is None:
                continue
            if shape != result and only_user(expanded):
                return operand
        raise Veto("no operand that is expanded before", named=False)

    def build(self, editor: Editor, anchor: ir.Node, found: _Operand) -> None:
        output, expanded = anchor.outputs[0], anchor.inputs[found.index]
        inputs = list(anchor.inputs)
        inputs[found.index] = found.source
        small = editor.before(
            anchor,
            anchor.op_type,
            inputs,
            dict(anchor.attributes),
            outputs={f"{output.name}_small": output.dtype},
        )
        editor.replace(anchor, "Expand", [small, found.sizes])
        editor.drop_unread(expanded)
