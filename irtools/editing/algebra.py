"""Rules that are their pattern: a formula, and when it holds."""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir

from irtools.editing.editor import Editor
from irtools.editing.pattern import Bound, OpPattern
from irtools.editing.readers import can_forward
from irtools.editing.rule import Rule
from irtools.editing.veto import Veto

__all__ = ["Algebra"]


class Algebra(Rule[Bound]):
    """A rule whose result is what the pattern's `x` stands for; the anchor goes.

        class DivByOne(Algebra):
            \"\"\"x / 1  ->  x\"\"\"

            pattern = X / splat(1)

    The first solution counts for which `where` holds.
    """

    pattern: ClassVar[OpPattern]

    def __init_subclass__(cls) -> None:
        if "pattern" in cls.__dict__:
            cls.anchors = (cls.pattern.op_type,)

    def where(self, anchor: ir.Node, bound: Bound) -> bool:
        """Whether the formula holds for what was bound."""
        return True

    def find(self, anchor: ir.Node) -> Bound:
        for bound in self.pattern.solutions(anchor.outputs[0], {}):
            if self.where(anchor, bound) and self.is_free(anchor, bound):
                return bound
        raise Veto("not {}", self.__doc__, named=False)

    def is_free(self, anchor: ir.Node, bound: Bound) -> bool:
        """Whether the result can be used wherever the anchor's output is used."""
        return can_forward(anchor.outputs[0], bound["x"])

    def build(self, editor: Editor, anchor: ir.Node, found: Bound) -> None:
        editor.forward(anchor.outputs[0], found["x"])
        editor.remove(anchor)
