"""Chains of Transpose and Reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import Algebra, Bound, Editor, Var, either, op, rewrite
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["MergeLayoutChains"]

_X = Var("x")
_RESHAPED = either(
    *(op(name, _X, more=True) for name in ("Flatten", "Reshape", "Squeeze", "Unsqueeze"))
)


@dataclass(frozen=True)
class MergeLayoutChains(Pass):
    """Merge chains of Transpose and Reshape into one.

        Transpose(Transpose(x, p), q)        -> Transpose(x, p[q])
        Reshape(Reshape(x, s), t)            -> Reshape(x, t), also after Squeeze, Unsqueeze,
                                                Flatten; where t copies no size of Reshape(x, s)
        Reshape(Transpose(Reshape(x, [N,m,n]), [0,2,1]), [...,n,m])
                                             -> Transpose(x, [..., -1, -2]), for x: [...,m,n]

    The last one is how torch's exporter writes the transpose of K, and is looked for first. Shapes
    must prove it; where they do not, the chain stays. Works in the main graph and in nested
    subgraphs; inner nodes that others use stay for them.
    """

    name: ClassVar[str] = "merge-layout-chains"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-merged-layout-chains": "chains of Transpose or Reshape merged"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        editor = Editor(model, self.name, adopt=facts.adopt)
        # Merging the Reshape of a swap with one before it would hide the swap: swaps come first.
        swaps = (MergeTransposes(), SwapLastAxes(facts))
        merged = rewrite(editor, swaps).total
        merged += rewrite(editor, (*swaps, MergeReshapes(facts))).total
        preserved = frozenset({SymbolicShapes})
        return PassResult(merged > 0, {"num-merged-layout-chains": merged}, preserved=preserved)


class MergeTransposes(Algebra):
    """Transpose(Transpose(x, p), q)  ->  Transpose(x, p[q])"""

    pattern = op("Transpose", op("Transpose", _X, name="inner"))

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        return "perm" in anchor.attributes and "perm" in _node(bound["inner"]).attributes

    def is_free(self, anchor: ir.Node, bound: Bound) -> bool:
        return True

    def build(self, editor: Editor, anchor: ir.Node, found: Bound) -> None:
        inner = _node(found["inner"])
        outer_perm, inner_perm = (n.attributes["perm"].as_ints() for n in (anchor, inner))
        merged = [inner_perm[axis] for axis in outer_perm]
        anchor.attributes["perm"] = ir.AttrInt64s("perm", merged)
        anchor.replace_input_with(0, found["x"])


class _ProvenByShapes(Algebra):
    def __init__(self, facts: SymbolicShapes) -> None:
        self.facts = facts

    def is_free(self, anchor: ir.Node, bound: Bound) -> bool:
        return True


class SwapLastAxes(_ProvenByShapes):
    """Reshape(Transpose(Reshape(x, [N,m,n]), [0,2,1]), [...,n,m])  ->  Transpose(x, [..., -1, -2])

    for x of [...,m,n].
    """

    pattern = op(
        "Reshape",
        op("Transpose", op("Reshape", _X, name="joined", more=True), name="swapped"),
        more=True,
    )

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        perm = _node(bound["swapped"]).attributes.get_ints("perm")
        shapes = [self.facts.shape(v) for v in (bound["x"], bound["joined"], anchor.outputs[0])]
        return perm is not None and list(perm) == [0, 2, 1] and _is_swap(*shapes)

    def build(self, editor: Editor, anchor: ir.Node, found: Bound) -> None:
        rank = self.facts.rank(found["x"])
        assert rank is not None
        perm = [*range(rank - 2), rank - 1, rank - 2]
        editor.replace(anchor, "Transpose", [found["x"]], {"perm": perm})


class MergeReshapes(_ProvenByShapes):
    """Reshape(Reshape(x, s), t)  ->  Reshape(x, t), also after Squeeze, Unsqueeze and Flatten."""

    pattern = op("Reshape", _RESHAPED, more=True)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        target = self.facts.integers(anchor.inputs[1])
        if target is None or target.ndim != 1:
            return False
        copies = not anchor.attributes.get_int("allowzero", 0)
        return not copies or _copies_nothing(tuple(target), self.facts.shape(bound["x"]))

    def build(self, editor: Editor, anchor: ir.Node, found: Bound) -> None:
        anchor.replace_input_with(0, found["x"])


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _copies_nothing(target: Shape, source: Shape | None) -> bool:
    """Whether a target means the same over `source`: without allowzero a 0 copies a size.

    A symbolic size may be 0 in an empty batch; copying it from its own place is right too.
    """
    for axis, dim in enumerate(target):
        if dim == 0:
            return False
        if isinstance(dim, int):
            continue
        if source is None or axis >= len(source) or source[axis] != dim:
            return False
    return True


def _is_swap(source: Shape | None, middle: Shape | None, result: Shape | None) -> bool:
    if source is None or middle is None or result is None or len(middle) != 3:
        return False
    rows, columns = source[-2:] if len(source) > 2 else (None, None)
    expected: tuple[Dim | None, ...] = (*source[:-2], columns, rows)
    return rows is not None and middle[1:] == (rows, columns) and result == expected
