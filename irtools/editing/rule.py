"""What a rule is, and what it promises.

A rule finds one form of a graph and puts a better one in its place. The contract:

- **Directional.** A rule goes one way, and no other rule of its set goes back. Where two forms are
  equally good, one of them is the canonical one and rules lead to it.
- **Never worse.** On no target that the set is for does the new form take more time, memory or
  bytes of the file than the old one. What depends on the target is asked of its capabilities
  before the set runs, not in the rule.
- **Subsuming where it is always better.** What was replaced goes when nothing else reads it
  (`Editor.drop_unread`); a form that is better only when all of it goes asks so (`only_user`).
- **Certain.** Shapes, types and constants must prove the match: what is not known is a veto. The
  limits (dtypes, NaN, rounding, shared weights, outputs of the graph) go in the docstring, under
  the formula.
- **Stateless.** What `find` saw and `build` needs travels in the match. `find` changes nothing, and
  may be called twice: once to survey the model, again right before `build`.
- **With a reason.** A candidate that is what the rule looks for, and fails a condition, raises a
  named `Veto`; everything else an unnamed one, which is not reported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

import onnx_ir as ir

from irtools.editing.editor import Editor
from irtools.editing.veto import Veto

__all__ = ["Rule"]

M = TypeVar("M")


class Rule(ABC, Generic[M]):
    """One rewrite; its docstring starts with the formula `what was -> what is`."""

    name: ClassVar[str] = ""
    """What counts and provenance call it; the name of the editor's pass where it is empty."""

    anchors: ClassVar[tuple[str, ...]]
    """Operators from which a match is tried: `Softmax`, or `com.microsoft::QGemm`."""

    @abstractmethod
    def find(self, anchor: ir.Node) -> M:
        """Return what was found around an anchor. Changes nothing.

        Raises:
            Veto: With the reason why not.
        """

    @abstractmethod
    def build(self, editor: Editor, anchor: ir.Node, found: M) -> None:
        """Replace what was found."""

    def match(self, anchor: ir.Node) -> M | Veto:
        """Return what `find` returns or raises."""
        try:
            return self.find(anchor)
        except Veto as veto:
            # Kept for the report; the frames would keep the graph alive.
            return veto.with_traceback(None)
