"""Names that no value or node of a model has yet."""

from __future__ import annotations

import onnx_ir as ir

from irtools.model.walk import iter_graphs

__all__ = ["FreshNames"]


class FreshNames:
    """Makes names that are free in every graph of a model.

    What is taken is read once, when the first name is wanted.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._taken: set[str] | None = None

    def make(self, stem: str) -> str:
        """Return `stem`, or `stem_1`, `stem_2` ... where that is taken, and take it."""
        if self._taken is None:
            self._taken = _names_of(self._model)
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name


def _names_of(model: ir.Model) -> set[str]:
    taken: set[str] = set()
    for graph in iter_graphs(model):
        taken.update(value.name or "" for value in graph.inputs)
        taken.update(graph.initializers)
        for node in graph:
            taken.add(node.name or "")
            taken.update(value.name or "" for value in node.outputs)
    return taken
