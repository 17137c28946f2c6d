"""The pass `rotate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import raise_opset
from irtools.passes.rotation.find import StreamSettings, find_streams
from irtools.passes.rotation.fold import rotate_stream
from irtools.passes.rotation.orthogonal import Rotation
from irtools.passmanager import (
    FOLLOWED_GRAPH,
    Exactness,
    Pass,
    PassContext,
    PassResult,
    option,
)

__all__ = ["Rotate"]


@dataclass(frozen=True)
class Rotate(Pass):
    """Rotate."""

    name: ClassVar[str] = "rotate"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    idempotent: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar = {
        "num-rotated-writers": "w",
        "num-rotated-readers": "r",
        "num-rms-norms": "n",
        "num-rotation-products": "p",
    }
    seed: int = option(0, "seed")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        raise_opset(model, 23)
        counts = {}
        for s in find_streams(model, SymbolicShapes.of(model), StreamSettings()).found:
            counts = rotate_stream(Editor(model, self.name), s, Rotation(s.width, self.seed))
        return PassResult(True, counts)
