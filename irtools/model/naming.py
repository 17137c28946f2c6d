"""Names that no value or node of a model has yet."""

from __future__ import annotations

import onnx_ir as ir

from irtools.model.walk import iter_graphs

__all__ = ["FreshNames"]


class FreshNames:
    """Makes names that are free in every graph of a model. Read once, then near-free."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in iter_graphs(model):
            self._taken.update(value.name or "" for value in graph.inputs)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.add(node.name or "")
                self._taken.update(value.name or "" for value in node.outputs)

    def make(self, stem: str) -> str:
        """Return `stem`, or `stem_1`, `stem_2` ... where that is taken, and take it."""
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name
